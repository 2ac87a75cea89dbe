from dataclasses import astuple

import numpy as np
import polars as pl
import pytest

from delrec_jax.errors import UserError
from delrec_jax.evaluation.records import RecordKey, record_table
from delrec_jax.evaluation.significance import compare, holm
from delrec_jax.p2rec.comparison import augmentation_pairs, compare_augmentations

CONTROLS = (
    "teacher_augmented_untuned_lm",
    "teacher_augmented_shuffled_text",
    "teacher_augmented_random_vectors",
)
SYSTEMS = ("popularity", "teacher", "teacher_augmented", *CONTROLS)
USERS = 40


def table(system, teacher, seed, *, protocol="full"):
    generator = np.random.default_rng([len(system), len(teacher), seed])
    users = np.arange(USERS)
    better = 3 if system == "teacher_augmented" else 12
    return record_table(
        RecordKey("toy", "leave_one_out", protocol, system, teacher=teacher, seed=seed),
        users=users,
        targets=users,
        ranks=generator.integers(1, better, USERS),
        ties=np.zeros(USERS, int),
        candidates=20,
        cold=np.zeros(USERS, bool),
        head=users < 10,
    )


@pytest.fixture(scope="module")
def records():
    tables = [
        table(system, teacher, seed)
        for system in SYSTEMS
        for teacher in ("sasrec", "caser")
        for seed in (0, 1)
    ]
    plain = [table(system, "gru4rec", 0) for system in SYSTEMS[:2]]
    other = [table("teacher_augmented", "gru4rec", 0, protocol="sampled-20")]
    return pl.concat([*tables, *plain, *other])


def test_pairs_are_the_augmented_teacher_against_what_is_there():
    assert augmentation_pairs(SYSTEMS) == [
        ("teacher_augmented", "teacher"),
        ("teacher_augmented", "teacher_augmented_untuned_lm"),
        ("teacher_augmented", "teacher_augmented_shuffled_text"),
        ("teacher_augmented", "teacher_augmented_random_vectors"),
    ]
    assert augmentation_pairs(["teacher_augmented", CONTROLS[1]]) == [
        ("teacher_augmented", CONTROLS[1])
    ]
    assert augmentation_pairs(["teacher", *CONTROLS]) == []


def test_all_teachers_pairs_and_parts_are_one_family(records):
    parts = ("all", "head", "tail", "cold")  # there is no cold target
    family = compare_augmentations(records, "NDCG@10", parts=parts, seed=3, resamples=199)
    assert [(one.teacher, one.protocol) for one in family] == [
        (teacher, protocol)
        for teacher in ("caser", "sasrec")
        for protocol in ("full", "full@head", "full@tail")
        for _ in range(4)
    ]
    assert [one.users for one in family[::4]] == [40, 10, 30] * 2
    assert {one.seeds for one in family} == {2}
    assert [one.p_adjusted for one in family] == holm([one.p_value for one in family])
    own = records.filter(teacher="sasrec")
    alone = compare(
        own, "teacher_augmented", CONTROLS[0], "NDCG@10", part="tail", seed=3, resamples=199
    )
    assert astuple(family[21])[:-1] == astuple(alone)[:-1]
    assert family[21].p_adjusted > alone.p_value


def test_nothing_augmented_is_an_empty_family_and_unknown_parts_are_refused(records):
    assert compare_augmentations(records.filter(teacher="gru4rec"), "MRR") == []
    with pytest.raises(UserError, match="part: unknown 'torso'"):
        compare_augmentations(records, "MRR", parts=("torso",))
