"""delrec_jax.results: the aggregates in results/, and what is refused."""

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
from evidence_workdirs import (
    COMMAND,
    HALF,
    SOME,
    THIRD,
    USERS,
    collected,
    make_two_seeds,
    workdir,
)

from delrec_jax.errors import UserError
from delrec_jax.evaluation.significance import holm, sign_flip_p_value
from delrec_jax.results.summary import refuse_user_rows


@pytest.fixture
def two_seeds(tmp_path):
    return make_two_seeds(tmp_path)


def row(rows, **wanted):
    (found,) = (one for one in rows if wanted.items() <= one.items())
    return found


def test_means_and_deviations_over_users_and_over_seeds_by_hand(tmp_path, two_seeds):
    found = collected(tmp_path, two_seeds)
    one = row(found["by_seed"], system="teacher", seed=0, group="all")
    # HR@1: 3 of 12 hit: variance 12/11 * 1/4 * 3/4.
    assert one["HR@1"] == {"mean": 0.25, "sd": round(math.sqrt(12 / 11 * 3 / 16), 6)}
    assert one["NDCG@10"]["mean"] == 0.375 and one["users"] == USERS
    both = row(found["systems"], system="teacher", group="all")
    assert both["seeds"] == [0, 1] and both["teacher"] == "sasrec"
    assert both["NDCG@10"]["mean"] == 0.4375
    assert both["NDCG@10"]["sd_seeds"] == round(0.125 / math.sqrt(2), 6)
    numbers = both["NDCG@10"]
    assert numbers["low_seeds"] < numbers["low"] < 0.4375 < numbers["high"] < numbers["high_seeds"]
    # Ten users have head targets: means of their own; the two others are too few to be told.
    assert row(found["by_seed"], system="teacher", seed=1, group="head")["HR@1"]["mean"] == 0.6
    assert found["left_out"] == [{"protocol": "full", "group": "tail", "users": 2}]


def test_what_no_seed_can_change_is_one_system_without_seed_and_spread(tmp_path, two_seeds):
    found = collected(tmp_path, two_seeds)
    one = row(found["systems"], system="popularity", group="all")
    assert one["teacher"] == "" and one["seeds"] == []
    assert one["NDCG@10"] == {"mean": 0.5, "sd_seeds": None, "low": 0.5, "high": 0.5}


def test_an_untrained_system_whose_ranks_differ_keeps_its_seeds(tmp_path):
    ranks = {("popularity", "rerank-20"): SOME}, {("popularity", "rerank-20"): HALF}
    found = collected(
        tmp_path, [workdir(tmp_path, f"s{seed}", one, seed=seed) for seed, one in enumerate(ranks)]
    )
    assert row(found["systems"], system="popularity", group="all")["seeds"] == [0, 1]


def test_the_oracle_is_measured_by_its_expectation(tmp_path):
    path = workdir(tmp_path, "one", {"oracle": SOME, "teacher": SOME}, expected=0.7)
    found = collected(tmp_path, [path])
    assert row(found["systems"], system="oracle", group="all")["HR@1"]["mean"] == 0.7


def test_pairs_are_averaged_over_seeds_and_told_by_seed(tmp_path, two_seeds):
    label = "fine=" + workdir(tmp_path, "fine", {"teacher": HALF}, seed=1)
    pairs = ["*,popularity", "teacher,teacher/fine"]
    found = collected(tmp_path, [*two_seeds, label], compare=pairs)["comparisons"]
    assert [(one["system"], one["reference"]) for one in found] == [
        ("teacher", "popularity"),
        ("teacher/fine", "popularity"),
        ("teacher", "teacher/fine"),
    ]
    first, fine, same = found
    assert first["seeds"] == [0, 1] and first["by_seed"] == [-0.125, 0.0]
    assert first["difference"] == -0.0625 and first["low"] < -0.0625 < first["high"]
    # Mean over seeds per user, minus one half.
    differences = [0.5] * 3 + [0.25] * 3 + [-0.5] * 6
    assert first["p"] == round(sign_flip_p_value(differences, seed=0), 6)
    assert first["d_z"] == round(np.mean(differences) / np.std(differences, ddof=1), 6)
    assert first["percent"] == -12.5  # of popularity's 0.5
    assert first["low_seeds"] <= first["low"] and first["high_seeds"] >= first["high"]
    assert same["d_z"] == 0 and "low_seeds" not in same
    assert same["seeds"] == [1] and same["by_seed"] == [0.0] and same["p"] == 1.0
    assert [one["p_holm"] for one in found] == pytest.approx(holm([o["p"] for o in found]))
    assert fine["by_seed"] == [0.0]


def test_teachers_meet_only_where_both_patterns_name_them(tmp_path):
    workdirs = [
        workdir(tmp_path, name, {"teacher": ranks, "popularity": THIRD}, teacher=name)
        for name, ranks in (("sasrec", SOME), ("caser", HALF))
    ]
    found = collected(
        tmp_path, workdirs, compare=["teacher,popularity", "teacher@sasrec,teacher@caser"]
    )["comparisons"]
    assert [(one["teacher"], one["reference_teacher"]) for one in found] == [
        ("caser", ""),
        ("sasrec", ""),
        ("sasrec", "caser"),
    ]
    assert found[2]["difference"] == -0.125


def test_hybrids_are_compared_with_their_best_part(tmp_path, two_seeds):
    hybrids = [{"system": "teacher", "best_part": "popularity", "weights": {"ease": 1.0}}]
    (Path(two_seeds[0]) / "baseline" / "hybrids.json").write_text(json.dumps(hybrids))
    found = collected(tmp_path, two_seeds, compare=["hybrids"])
    assert [one["reference"] for one in found["comparisons"]] == ["popularity"]
    assert found["hybrids"] == [{"workdir": "s0", **hybrids[0]}]


def test_the_origin_has_the_hash_of_the_ranks_and_no_value_of_a_user(tmp_path, two_seeds):
    found = collected(tmp_path, two_seeds)
    told = found["provenance"]
    path = Path(two_seeds[0]) / "baseline" / "records.parquet"
    assert told["sources"][0]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert told["sources"][0]["workdir"] == "s0" and told["commands"] == [COMMAND]
    assert told["machine"]["cores"] > 0 and set(told["versions"]) >= {"python", "jax", "flax"}
    assert told["commit_of_collection_for"] == ["s0", "s1"]
    files = [one.name for one in (tmp_path / "results" / "toy").iterdir()]
    assert files == ["summary.json"] and str(tmp_path) not in json.dumps(found)


def test_per_user_rows_are_stored_of_the_generated_storefront_alone(tmp_path):
    ranks = {"teacher": SOME}
    shop = workdir(tmp_path, "shop", ranks, corpus="storefront", kind="storefront")
    collected(tmp_path, [shop], rows=True)
    assert (tmp_path / "results" / "toy" / "ranks.parquet").exists()
    for name, corpus in (("toy", "toy"), ("storefront", "storefront")):  # a file of that name
        other = workdir(tmp_path, name, ranks, corpus=corpus, kind="atomic")
        with pytest.raises(UserError, match=f"corpus is '{corpus}'"):
            collected(tmp_path / name, [other], rows=True)
        assert not (tmp_path / name / "results").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"more": list(range(USERS))}, "more: a list of 12 values for 12 users"),
        ({"comparisons": [{"by_seed": [0.0] * USERS}]}, "comparisons.by_seed: a list of 12"),
        ({"systems": [{"user": 3}]}, "systems: has user"),
        ({"by_seed": [{"system": "ease", "mean": one} for one in (1, 0)]}, "by_seed: two rows"),
    ],
)
def test_a_summary_with_a_value_per_user_is_refused(tmp_path, two_seeds, change, message):
    with pytest.raises(UserError, match=message):
        refuse_user_rows(collected(tmp_path, two_seeds) | change)


def others(root, **changed):
    return [
        workdir(root, "a", {"teacher": SOME}),
        workdir(root, "b", changed.pop("ranks"), **changed),
    ]


@pytest.mark.parametrize(
    ("other", "options", "message"),
    [
        ({"ranks": {"teacher": HALF}}, {}, "has other ranks than in .*LABEL="),
        ({"ranks": {"teacher": SOME}, "split": "by_user", "seed": 1}, {}, "split is 'by_user'"),
        ({"ranks": {"teacher": SOME}, "corpus": "two", "seed": 1}, {}, "corpus is 'two'"),
        ({"ranks": {"teacher": SOME[:-1]}, "seed": 1}, {}, "has other test users"),
        ({"ranks": {"teacher": SOME}, "cold": 1, "seed": 1}, {}, "other test users, targets or tr"),
        ({"ranks": {"oracle": SOME}}, {}, "expected.parquet: missing"),
        ({"ranks": {"popularity": SOME}}, {"commands": ()}, "a, b: no journal.jsonl"),
        (
            {"ranks": {"popularity": SOME}},
            {"commands": ["delrec --config.data.path=/x/y"]},
            "'/x/y'",
        ),
        (
            {"ranks": {"popularity": SOME}},
            {"compare": ["ease,teacher"]},
            "no such pair.*popularity",
        ),
        ({"ranks": {"popularity": SOME}}, {"compare": ["teacher"]}, "give two systems"),
        ({"ranks": {"popularity": SOME}}, {"compare": ["hybrids"]}, "no workdir has hybrids"),
        ({"ranks": {"delrec": SOME}, "seed": 1}, {"compare": ["delrec,teacher"]}, "none in common"),
        (
            {"ranks": {"popularity": SOME}},
            {"compare": ["teacher,popularity"], "protocols": ["full@tail"]},
            "'tail' has 2 users",
        ),
    ],
)
def test_what_cannot_be_collected_is_refused(tmp_path, other, options, message):
    with pytest.raises(UserError, match=message):
        collected(tmp_path, others(tmp_path, **other), **options)
    assert not (tmp_path / "results").exists()


def test_an_evaluation_that_has_not_finished_is_refused(tmp_path):
    path = workdir(tmp_path, "one", {"teacher": SOME})
    (Path(path) / "baseline" / "stage.json").write_text('{"finished": false}')
    with pytest.raises(UserError, match="neither records/ nor baseline/"):
        collected(tmp_path, [path])
