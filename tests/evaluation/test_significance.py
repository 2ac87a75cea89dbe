import itertools

import numpy as np
import polars as pl
import pytest
from scipy import stats

from delrec_jax.errors import UserError
from delrec_jax.evaluation import resampling_blocks
from delrec_jax.evaluation import significance as sig
from delrec_jax.evaluation.metrics import bootstrap_interval
from delrec_jax.evaluation.records import SYSTEMS, RecordKey, record_table


def table(system, ranks, *, targets=None, head=False, cold=False, **key):
    key = {"corpus": "toy", "split": "leave_one_out", "protocol": "full"} | key
    users = np.arange(len(ranks))
    return record_table(
        RecordKey(system=system, **key),
        users=users,
        targets=users if targets is None else targets,
        ranks=np.asarray(ranks, float),
        ties=np.zeros(len(ranks), int),
        candidates=9,
        cold=np.broadcast_to(cold, len(ranks)),
        head=np.broadcast_to(head, len(ranks)),
    )


def test_sign_flip_agrees_with_all_sign_patterns():
    differences = np.array([0.5, -0.2, 0.9, 0.4, 0.0, 0.3, -0.1, 0.8])
    patterns = np.array(list(itertools.product((-1, 1), repeat=8)))
    exact = (np.abs(patterns @ differences) >= abs(differences.sum()) - 1e-12).mean()
    ours = sig.sign_flip_p_value(differences, seed=0, resamples=40_000)
    assert ours == pytest.approx(exact, abs=0.01)


def test_sign_flip_agrees_with_the_exact_binomial_test_on_hits():
    # 0/1 metrics: among discordant users the signs are fair coins (the exact McNemar test).
    differences = np.array([1] * 14 + [-1] * 4 + [0] * 60)
    exact = stats.binomtest(14, 18).pvalue
    assert sig.sign_flip_p_value(differences, seed=1, resamples=40_000) == pytest.approx(
        exact, abs=0.005
    )


def test_sign_flip_of_no_difference_is_one_and_is_never_zero():
    assert sig.sign_flip_p_value(np.zeros(5), seed=0) == 1.0
    assert sig.sign_flip_p_value(np.ones(200), seed=0, resamples=99) == 0.01


def test_sign_flip_does_not_depend_on_its_chunks(monkeypatch):
    differences = np.random.default_rng(0).normal(0.1, 1, 40)
    whole = sig.sign_flip_p_value(differences, seed=3, resamples=500)
    monkeypatch.setattr(resampling_blocks, "_AT_ONCE", 40 * 8)
    assert sig.sign_flip_p_value(differences, seed=3, resamples=500) == whole


def test_holm_by_hand():
    # Sorted .01 .02 .03 .04 times 4 3 2 1 = .04 .06 .06 .04, made monotone: .04 .06 .06 .06.
    assert sig.holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert sig.holm([0.9, 0.8]) == [1.0, 1.0]
    assert sig.holm([]) == []


def test_compare_reads_the_right_systems_and_sign():
    records = pl.concat([table("delrec", [1, 1, 1, 2]), table("teacher", [1, 2, 5, 2])])
    one = sig.compare(records, "delrec", "teacher", "HR@1", resamples=99)
    assert (one.difference, one.users, one.protocol) == (0.5, 4, "full")
    assert one.ci_low <= 0.5 <= one.ci_high
    other = sig.compare(records, "teacher", "delrec", "HR@1", resamples=99)
    assert other.difference == -0.5
    assert other.p_value == one.p_value == one.p_adjusted


def test_pairing_is_by_user_and_not_by_row():
    first = table("delrec", [1, 1, 5, 5])
    second = table("teacher", [1, 1, 5, 5]).reverse()
    one = sig.compare(pl.concat([first, second]), "delrec", "teacher", "HR@1", resamples=99)
    assert (one.ci_low, one.ci_high, one.p_value) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize("column", ["corpus", "split"])
def test_systems_of_different_data_are_not_paired(column):
    records = pl.concat([table("delrec", [1, 2]), table("teacher", [1, 2], **{column: "other"})])
    with pytest.raises(UserError, match=f"column '{column}' differs"):
        sig.compare(records, "delrec", "teacher", "MRR")


def test_a_family_is_drawn_by_the_seed_and_under_the_protocol_that_are_asked_for():
    ranks = np.random.default_rng(0).integers(1, 9, (2, 40))
    records = pl.concat(
        [
            table(system, one, protocol=protocol)
            for protocol in ("full", "sampled-20")
            for system, one in zip(("delrec", "teacher"), ranks, strict=True)
        ]
    )
    asked = {"seed": 5, "protocol": "sampled-20"}
    pair = ("delrec", "teacher")
    (one,) = sig.compare_family(records, [pair], "MRR", **asked)
    assert one == sig.compare(records, *pair, "MRR", **asked)
    assert one != sig.compare(records, *pair, "MRR", protocol="sampled-20")


def test_what_cannot_be_paired_is_refused():
    base = table("delrec", [1, 2])
    with pytest.raises(UserError, match="column 'target' differs"):
        other = table("teacher", [1, 2], targets=np.array([0, 7]))
        sig.compare(pl.concat([base, other]), "delrec", "teacher", "MRR")
    with pytest.raises(UserError, match="column 'candidate_hash' differs"):
        other = table("teacher", [1, 2], candidate_hash="x")
        sig.compare(pl.concat([base, other]), "delrec", "teacher", "MRR")
    with pytest.raises(UserError, match="column 'user' differs"):
        sig.compare(pl.concat([base, table("teacher", [1])]), "delrec", "teacher", "MRR")
    for run in ({"teacher": "caser"}, {"corpus": "other"}, {"split": "by_user", "seed": 1}):
        with pytest.raises(UserError, match="mixes several runs"):
            mixed = pl.concat([base, table("delrec", [1, 2], **run)])
            sig.compare(mixed, "delrec", "delrec", "MRR")
    with pytest.raises(UserError, match="column 'teacher' differs"):
        both = [table("delrec", [1], teacher="a"), table("teacher", [1], teacher="b")]
        sig.compare(pl.concat(both), "delrec", "teacher", "MRR")
    with pytest.raises(UserError, match="part: unknown 'warm'"):
        sig.compare(base, "delrec", "delrec", "MRR", part="warm")
    with pytest.raises(UserError, match=r"'delrec' has no rows.*part 'cold'"):
        sig.compare(base, "delrec", "delrec", "MRR", part="cold")
    with pytest.raises(UserError, match=r"'teacher' has no rows.*found: delrec"):
        sig.compare(base, "delrec", "teacher", "MRR")
    with pytest.raises(UserError, match="unknown 'AUC'"):
        sig.compare(base, "delrec", "delrec", "AUC")


def seeds(system, ranks_by_seed, **key):
    return [table(system, ranks, seed=seed, **key) for seed, ranks in ranks_by_seed.items()]


def test_several_seeds_are_averaged_per_user_before_the_test():
    ours = seeds("delrec", {0: [1, 1, 5, 2], 1: [1, 1, 5, 2], 2: [1, 1, 2, 2]})
    theirs = seeds("teacher", {2: [1, 2, 2, 2], 0: [2, 2, 2, 2], 1: [1, 2, 1, 2]})
    one = sig.compare(pl.concat(ours + theirs), "delrec", "teacher", "HR@1", resamples=999)
    # By hand, hits of users 0 to 3 over three seeds: 3 3 0 0 against 2 0 1 0.
    differences = np.array([1, 3, -1, 0]) / 3
    assert one.difference == pytest.approx(differences.mean())
    assert (one.users, one.seeds) == (4, 3)
    assert one.p_value == sig.sign_flip_p_value(differences, seed=0, resamples=999)
    interval = bootstrap_interval(differences, seed=0)
    assert (one.ci_low, one.ci_high) == pytest.approx((interval.low, interval.high))


def test_one_seed_gives_the_plain_difference_whatever_its_number():
    records = pl.concat(seeds("delrec", {7: [1, 1, 5]}) + seeds("teacher", {7: [2, 1, 1]}))
    one = sig.compare(records, "delrec", "teacher", "MRR", resamples=99)
    plain = np.array([1, 1, 1 / 5]) - np.array([1 / 2, 1, 1])
    assert one.difference == plain.mean()
    assert one.p_value == sig.sign_flip_p_value(plain, seed=0, resamples=99)
    assert one.seeds == 1


def test_seeds_that_do_not_match_are_refused():
    ours = seeds("delrec", {0: [1, 2], 1: [1, 2]})
    with pytest.raises(UserError, match="column 'seed' differs"):
        records = pl.concat(ours + seeds("teacher", {0: [1, 2]}))
        sig.compare(records, "delrec", "teacher", "MRR")
    with pytest.raises(UserError, match="column 'seed' differs"):
        records = pl.concat(ours + seeds("teacher", {0: [1, 2], 2: [1, 2]}))
        sig.compare(records, "delrec", "teacher", "MRR")
    with pytest.raises(UserError, match="2 seeds do not all have the same users"):
        records = pl.concat(seeds("delrec", {0: [1, 2], 1: [1]}))
        sig.compare(records, "delrec", "delrec", "MRR")
    with pytest.raises(UserError, match="2 seeds do not all have the same users and targets"):
        other = table("delrec", [1, 2], seed=1, targets=np.array([5, 6]))
        sig.compare(pl.concat([ours[0], other]), "delrec", "delrec", "MRR")


@pytest.mark.parametrize(
    ("part", "difference", "users"), [("all", 0.0, 5), ("head", 1.0, 1), ("tail", -1.0, 2)]
)
def test_a_part_compares_its_users_only(part, difference, users):
    where = {"head": [True, 0, 0, 0, 0], "cold": [False, 0, 0, 1, 1], "teacher": "caser"}
    records = [
        table("delrec", [1, 2, 2, 1, 2], **where),
        table("teacher", [2, 1, 1, 2, 2], **where),
    ]
    one = sig.compare(pl.concat(records), "delrec", "teacher", "HR@1", part=part, resamples=99)
    assert (one.difference, one.users, one.teacher) == (difference, users, "caser")
    assert one.protocol == ("full" if part == "all" else f"full@{part}")


def test_a_comparison_says_the_selected_steps_where_all_seeds_have_the_same():
    ours = [table("delrec", [1, 1], seed=seed, step=40 * seed) for seed in (0, 1)]
    theirs = [table("lm_true_prompt", [1, 2], seed=seed, step=7) for seed in (0, 1)]
    alone = sig.compare(pl.concat([ours[0], theirs[0]]), "delrec", "lm_true_prompt", "MRR")
    assert (alone.step, alone.reference_step) == (0, 7)
    both = sig.compare(pl.concat(ours + theirs), "delrec", "lm_true_prompt", "MRR", resamples=99)
    assert (both.step, both.reference_step) == (-1, 7)


@pytest.mark.parametrize("bare", ["lm_no_prompt", "lm_supervised"])
def test_delrec_is_tested_against_every_tuned_control_and_the_bare_model_there_is(bare):
    tuned = [name for name in SYSTEMS if name.startswith("lm_tuned")]
    pairs = sig.standard_pairs([bare, "lm_distilled_prompt", *tuned, "delrec"])
    assert len(tuned) == 4 and {("delrec", name) for name in (*tuned, bare)} <= set(pairs)
    assert ("lm_distilled_prompt", bare) in pairs


def test_standard_pairs_and_the_family():
    pairs = sig.standard_pairs(
        ["popularity", "teacher", "lm_shuffled_prompt", "lm_distilled_prompt", "delrec", "oracle"]
    )
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == {
        ("popularity", "teacher"),
        ("lm_shuffled_prompt", "teacher"),
        ("lm_distilled_prompt", "teacher"),
        ("delrec", "teacher"),
        ("delrec", "lm_shuffled_prompt"),
        ("delrec", "lm_distilled_prompt"),
        ("lm_distilled_prompt", "lm_shuffled_prompt"),
    }
    records = pl.concat(
        [
            table("delrec", [1] * 30),
            table("teacher", [2] * 30),
            table("popularity", [2] * 29 + [1]),
        ]
    )
    family = sig.compare_family(
        records, [("delrec", "teacher"), ("popularity", "teacher")], "HR@1", resamples=999
    )
    assert [one.p_adjusted for one in family] == sig.holm([one.p_value for one in family])
    assert family[0].p_adjusted == pytest.approx(2 * family[0].p_value)


@pytest.mark.parametrize(
    ("differences", "d"),
    [([1, -1, 3, 1], 1 / np.sqrt(8 / 3)), ([0, 0], 0.0), ([0.2, 0.2], None), ([1], None)],
)
def test_the_effect_size_is_the_mean_in_standard_deviations(differences, d):
    found = sig.standardized_difference(np.array(differences, float))
    assert found is None if d is None else found == pytest.approx(d)


def test_few_elements_at_once_are_the_same_and_10000_patterns_are_usual(monkeypatch):
    differences = np.random.default_rng(0).normal(0.1, 1, 40)
    usual = sig.sign_flip_p_value(differences, seed=3)
    assert usual == sig.sign_flip_p_value(differences, seed=3, resamples=10_000)
    whole = sig.sign_flip_p_value(differences, seed=3, resamples=50)
    monkeypatch.setattr(resampling_blocks, "_AT_ONCE", 1)
    assert sig.sign_flip_p_value(differences, seed=3, resamples=50) == whole


def test_comparisons_use_seed_0_and_10000_patterns():
    ranks = np.random.default_rng(1).integers(1, 9, (2, 30))
    records = pl.concat([table("delrec", ranks[0]), table("teacher", ranks[1])])
    one = sig.compare(records, "delrec", "teacher", "MRR")
    assert one == sig.compare(records, "delrec", "teacher", "MRR", seed=0, resamples=10_000)
    assert sig.compare_family(records, [("delrec", "teacher")], "MRR") == [one]
