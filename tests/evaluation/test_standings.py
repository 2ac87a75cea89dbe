"""Where systems stand: means over users and seeds, the best baseline, and its tests."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from delrec_jax.errors import UserError
from delrec_jax.evaluation.metrics import bootstrap_interval, metrics_of_ranks
from delrec_jax.evaluation.records import RecordKey, record_table
from delrec_jax.evaluation.shown_users import FOUND, GROUPS, choose_users
from delrec_jax.evaluation.significance import compare
from delrec_jax.evaluation.standings import best_baseline, compare_with_baseline, standings

USERS = 60
SHARE = {"popularity": 0.2, "markov": 0.4, "lm_embeddings": 0.9, "teacher": 0.5, "delrec": 0.7}


def ranks(system, seed):
    generator = np.random.default_rng([len(system), seed])
    hit = generator.random(USERS) < SHARE[system]
    return np.where(hit, 1.0, generator.integers(2, 30, USERS))


def table(system, teacher="sasrec", seed=0, **more):
    return record_table(
        RecordKey("toy", "leave_one_out", "full", system, teacher, seed, **more),
        users=np.arange(USERS) + 100,
        targets=np.arange(USERS),
        ranks=ranks(system, 0 if system in ("popularity", "markov") else seed),
        ties=np.zeros(USERS, int),
        candidates=USERS,
        cold=np.zeros(USERS, bool),
        head=np.zeros(USERS, bool),
    )


@pytest.fixture(scope="module")
def records():
    """Two seeds of two systems; baselines once, under the first teacher and seed, as a run writes them."""
    trained = [table(name, seed=seed) for name in ("teacher", "delrec") for seed in (0, 1)]
    more = [table("delrec", "gru4rec", seed) for seed in (0, 1)]
    return pl.concat([*map(table, ("popularity", "markov", "lm_embeddings")), *trained, *more])


def test_a_users_seeds_are_averaged_before_users_are(records):
    found = {
        (one.system, one.teacher): one for one in standings(records, "NDCG@10", protocol="full")
    }
    both = [metrics_of_ranks(ranks("delrec", seed))["NDCG@10"] for seed in (0, 1)]
    one = found["delrec", "sasrec"]
    assert one.value == pytest.approx(np.mean(both)) and (one.users, one.seeds) == (USERS, 2)
    assert one.ci_low < one.value < one.ci_high
    assert found["markov", ""].seeds == 1 and ("markov", "sasrec") not in found


def test_intervals_are_drawn_by_the_seed_that_is_asked_for(records):
    first, other = (standings(records, "MRR", protocol="full", seed=seed) for seed in (0, 3))
    assert [one.value for one in first] == [one.value for one in other] and first != other
    pair = (records, "delrec", "markov", "NDCG@10")
    tests = [compare_with_baseline(*pair, resamples=99, seed=seed) for seed in (0, 3)]
    assert tests[0] != tests[1]


def test_a_standing_says_what_was_tuned_beside():
    (one,) = standings(table("delrec", beside="teacher"), "MRR", protocol="full")
    assert one.beside == "teacher"


def test_the_best_baseline_has_no_language_model(records):
    found = standings(records, "NDCG@10", protocol="full")
    assert best_baseline(found) == "markov"
    assert best_baseline([one for one in found if one.system == "lm_embeddings"]) is None


def test_a_step_is_told_if_all_seeds_selected_it():
    of_steps = [table("delrec", seed=seed, step=step) for seed, step in ((0, 5), (1, 5))]
    (one,) = standings(pl.concat(of_steps), "HR@1", protocol="full")
    assert one.step == 5
    (one,) = standings(
        pl.concat([of_steps[0], table("delrec", seed=1, step=6)]), "HR@1", protocol="full"
    )
    assert one.step == -1


def test_one_set_of_a_baselines_records_is_enough_for_all_seeds_and_teachers(records):
    found = compare_with_baseline(records, "delrec", "markov", "NDCG@10", resamples=999)
    assert [one.teacher for one in found] == ["gru4rec", "sasrec"]
    assert [(one.seeds, one.users) for one in found] == [(2, USERS)] * 2
    copies = pl.concat([records.filter(teacher="sasrec"), table("markov", seed=1)])
    whole = compare(copies, "delrec", "markov", "NDCG@10", resamples=999)
    p = found[1].p_adjusted
    assert replace(found[1], p_adjusted=found[1].p_value) == whole
    assert p == min(1.0, max(2 * min(one.p_value for one in found), found[1].p_value))


def test_what_is_not_there_is_named(records):
    with pytest.raises(
        UserError, match=r"no rows under protocol 'sampled-20' \(protocols found: full\)"
    ):
        standings(records, "HR@1", protocol="sampled-20")
    with pytest.raises(UserError, match="unknown 'AUC'"):
        standings(records, "AUC", protocol="full")
    with pytest.raises(UserError, match="no rows of 'lm_words' under protocol 'full'"):
        choose_users(records, "delrec", "lm_words", protocol="full")


def test_shown_users_are_drawn_from_the_group_that_they_are_in(records):
    own = records.filter(teacher="sasrec", seed=0)
    chosen = choose_users(own, "delrec", "teacher", protocol="full", most=4)
    right = [ranks(name, 0) <= FOUND for name in ("delrec", "teacher")]
    for name, wanted in zip(GROUPS, ((1, 0), (0, 1), (1, 1), (0, 0)), strict=True):
        group = np.flatnonzero((right[0] == wanted[0]) & (right[1] == wanted[1])) + 100
        assert chosen.counts[name] == len(group)
        assert set(chosen.users[name]) <= set(group.tolist())
        assert len(chosen.users[name]) == min(4, len(group))
        assert list(chosen.users[name]) == sorted(chosen.users[name])
    assert sum(chosen.counts.values()) == USERS
    assert chosen == choose_users(
        own.sample(fraction=1, shuffle=True, seed=1), "delrec", "teacher", protocol="full", most=4
    )
    others = choose_users(own, "delrec", "teacher", protocol="full", most=4, seed=1)
    assert others.users != chosen.users and "at random (seed 1)" in others.rule


def test_standings_are_ordered_without_the_oracle_and_their_intervals_drawn_by_seed_0(records):
    oracle = records.filter(system="teacher").with_columns(pl.lit("oracle").alias("system"))
    found = standings(pl.concat([oracle, records]), "MRR", protocol="full")
    assert [(one.teacher, one.system) for one in found] == [
        *(("", name) for name in ("popularity", "markov", "lm_embeddings")),
        *(("gru4rec", "delrec"), ("sasrec", "teacher"), ("sasrec", "delrec")),
    ]
    both = [metrics_of_ranks(ranks("delrec", seed))["MRR"] for seed in (0, 1)]
    interval = bootstrap_interval(np.mean(both, axis=0), seed=0)
    assert (found[-1].ci_low, found[-1].ci_high) == pytest.approx((interval.low, interval.high))
    pair = (records, "delrec", "markov", "MRR")
    assert compare_with_baseline(*pair) == compare_with_baseline(*pair, seed=0, resamples=10_000)


def test_the_first_five_are_found_and_twelve_of_a_group_are_shown():
    users = np.arange(20)
    rows = pl.concat(
        [
            record_table(
                RecordKey("toy", "leave_one_out", "full", system, "sasrec"),
                users=users,
                targets=users,
                ranks=np.full(20, rank),
                ties=np.zeros(20, int),
                candidates=20,
                cold=np.zeros(20, bool),
                head=np.zeros(20, bool),
            )
            for system, rank in (("delrec", 5.0), ("teacher", 6.0))
        ]
    )
    chosen = choose_users(rows, "delrec", "teacher", protocol="full")
    assert chosen.counts == {"ours_only": 20, "theirs_only": 0, "both": 0, "neither": 0}
    shown = chosen.users["ours_only"]
    assert len(shown) == chosen.most == 12 and chosen.seed == 0
    assert chosen.histories(lambda user: np.array([user, 7])) == {user: [user, 7] for user in shown}
