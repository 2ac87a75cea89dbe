"""Hybrids: standardized scores and weights by validation, against brute force."""

import itertools
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest

from delrec_jax.config import BaselinesConfig
from delrec_jax.data.interactions import from_rows
from delrec_jax.data.split_kinds import leave_one_out
from delrec_jax.errors import UserError
from delrec_jax.evaluation.user_ranks import rank_users
from delrec_jax.teachers.standardised import standardised
from delrec_jax.workdir.hybrid_passes import Together
from delrec_jax.workdir.hybrids import WEIGHTS, Hybrid, HybridWeights
from delrec_jax.workdir.protocols import full_rankers
from delrec_jax.workdir.ranking_times import RankingTimes, Stopwatch, Timed

ITEMS, USERS = 15, 40


@dataclass
class Table:
    """A system whose scores are given for all users, and that says how often it was asked."""

    valid: np.ndarray
    test: np.ndarray
    asked: int = 0

    def scores(self, part, rows):
        self.asked += 1
        return (self.valid if part == "valid" else self.test)[rows]

    def order(self, part):
        return None


@pytest.fixture(scope="module")
def split():
    random = np.random.default_rng(0)
    rows = [random.choice(ITEMS, random.integers(3, 8), replace=False) for _ in range(USERS)]
    times = [np.arange(len(row)) for row in rows]
    return leave_one_out(from_rows([f"u{user}" for user in range(USERS)], rows, times))


@pytest.fixture(scope="module")
def systems(split):
    """Two systems that know a part of the targets each, and one that knows nothing."""
    random = np.random.default_rng(1)

    def table(knows, scale):
        found = {}
        for part in ("valid", "test"):
            scores = random.normal(size=(USERS, ITEMS))
            target = split.target(part)
            scores[np.arange(USERS), target] += np.where(knows, 3.0, 0.0)
            found[part] = (scale * scores + 100).astype(np.float32)
        return Table(**found)

    half = np.arange(USERS) % 2 == 0
    return {
        "ease": table(half, 50.0),
        "markov": table(~half, 0.1),
        "tfidf": table(half & ~half, 1.0),
    }


def z(scores, history):
    unseen = np.setdiff1d(np.arange(len(scores)), history)
    return (scores - scores[unseen].mean()) / scores[unseen].std()


def brute_gains(split, tables, weights):
    gains = []
    for row, (history, target) in enumerate(
        zip(split.histories("valid"), split.target("valid"), strict=True)
    ):
        parts = zip(weights, tables, strict=True)
        total = sum(w * z(table[row].astype(float), history) for w, table in parts)
        rivals = np.setdiff1d(np.arange(ITEMS), [*history, target])
        rank = 1 + (total[rivals] > total[target]).sum()
        gains.append(1 / np.log2(rank + 1) if rank <= 10 else 0.0)
    return np.array(gains)


def test_scores_are_standardized_over_unseen_items_by_hand():
    scores = np.array([[1.0, 3.0, 100.0, 5.0], [2.0, 2.0, 2.0, 2.0], [0.0, -np.inf, 2.0, 4.0]])
    seen = np.array([[False, False, True, False], [False] * 4, [False] * 4])
    found = np.asarray(standardised(scores.astype(np.float32), ~seen))
    deviation = (8 / 3) ** 0.5  # of 1, 3, 5
    np.testing.assert_allclose(
        found[0], [-2 / deviation, 0, 97 / deviation, 2 / deviation], rtol=1e-5
    )
    assert found[1].tolist() == [0, 0, 0, 0], "who has nothing to say adds nothing"
    last = np.array([0.0, 0.0, 2.0, 4.0])  # what cannot be scored is as low as the lowest
    np.testing.assert_allclose(found[2], (last - last.mean()) / last.std(), rtol=1e-5)


@pytest.mark.parametrize(
    "names", [("ease", "markov"), ("tfidf", "ease"), ("ease", "markov", "tfidf")]
)
def test_no_other_weight_gains_more_than_a_standard_error_by_brute_force(split, systems, names):
    for table in systems.values():
        table.asked = 0
    chosen = HybridWeights(split, BaselinesConfig(), systems).choose(names)
    assert [systems[name].asked for name in names] == [1] * len(names)
    tables, weights = [systems[name].valid for name in names], list(chosen.weights.values())
    own = brute_gains(split, tables, weights)
    np.testing.assert_allclose(chosen.valid_ndcg10, own.mean(), rtol=1e-5)
    for place, tried in itertools.product(range(len(names)), WEIGHTS):
        other = list(weights)
        other[place] = tried
        if any(other):
            gain = brute_gains(split, tables, other) - own
            assert gain.mean() <= gain.std() / USERS**0.5 + 1e-6
    for name, table in zip(names, tables, strict=True):
        alone = brute_gains(split, [table], [1.0]).mean()
        np.testing.assert_allclose(chosen.parts_ndcg10[name], alone, rtol=1e-5)
    assert chosen.best_part == max(chosen.parts_ndcg10, key=chosen.parts_ndcg10.get)


def test_systems_that_know_different_users_are_better_together_and_a_useless_one_is_muted(
    split, systems
):
    weights = HybridWeights(split, BaselinesConfig(), systems)
    pair, useless = weights.choose(("ease", "markov")), weights.choose(("tfidf", "ease"))
    assert pair.valid_ndcg10 > max(pair.parts_ndcg10.values()) + 0.02
    assert useless.weights["ease"] > 2 * useless.weights["tfidf"]


def test_the_last_system_keeps_its_weight_although_none_would_rank_better(split):
    """The target is last or ninth: equal scores give it the mean rank of all, which is better with so few items."""
    last, ninth = np.zeros((2, USERS, ITEMS), np.float32)
    for row, (history, target) in enumerate(
        zip(split.histories("valid"), split.target("valid"), strict=True)
    ):
        last[row, target] = -1.0
        ninth[row, np.setdiff1d(np.arange(ITEMS), [*history, target])[:8]] = 1.0
    wrong = {"ease": Table(last, last), "markov": Table(ninth, ninth)}
    found = HybridWeights(split, BaselinesConfig(), wrong).choose(("ease", "markov"))
    assert found.weights == {"ease": 0.0, "markov": 1.0}
    scores = Hybrid(split, wrong, found.weights).scores("test", np.arange(3))
    assert np.asarray(scores).shape == (3, ITEMS)


def test_a_hybrid_adds_what_its_systems_say_and_asks_none_without_weight(split, systems):
    systems["tfidf"].asked = 0
    hybrid = Hybrid(split, systems, {"ease": 1.0, "markov": 0.5, "tfidf": 0.0})
    rows = np.array([3, 0, 7])
    found = np.asarray(hybrid.scores("test", rows))
    for place, row in enumerate(rows):
        history = split.histories("test")[row]
        wanted = z(systems["ease"].test[row].astype(float), history)
        wanted += 0.5 * z(systems["markov"].test[row].astype(float), history)
        np.testing.assert_allclose(found[place], wanted, atol=1e-3)
    assert systems["tfidf"].asked == 0


def test_hybrids_are_ranked_together_as_alone_and_each_of_their_systems_is_asked_once(
    split, systems
):
    hybrids = {
        "one": {"ease": 1.0, "markov": 0.5},
        "two": {"markov": 2.0, "tfidf": 0.0, "ease": 0.3},
        "three": {"tfidf": 1.0, "ease": 1.0},
    }
    rankers, times = full_rankers(split, "test"), {name: RankingTimes() for name in hybrids}
    order, size = np.random.default_rng(2).permutation(USERS)[:25], 8
    for table in systems.values():
        table.asked = 0
    found = Together(split, systems, hybrids).rank(
        dict.fromkeys(hybrids, rankers), times, order=order, batch_size=size
    )
    assert [systems[name].asked for name in ("ease", "markov", "tfidf")] == [4, 4, 4]
    for name, weights in hybrids.items():
        alone = Hybrid(split, systems, weights)
        ranks = rank_users(
            partial(alone.scores, "test"), rankers, num_users=USERS, batch_size=USERS
        )
        for protocol, one in ranks.items():
            rows = np.sort(order)
            np.testing.assert_array_equal(found[name][protocol].rank, one.rank[rows])
            np.testing.assert_array_equal(found[name][protocol].ties, one.ties[rows])
        assert (times[name].users, times[name].passes) == (25, 1)
    assert len({one["full"].rank.tobytes() for one in found.values()}) == 3


def test_a_hybrids_time_is_that_of_all_its_systems_and_of_its_own_sum(split, systems, monkeypatch):
    """Each part takes a second and each sum a tenth; nothing compiles."""
    seconds = {"StandardisedScores": 1.0, "function": 0.1}

    def timed(_, work, *given):
        return Timed(work(*given), seconds[type(work).__name__], compiled=False)

    monkeypatch.setattr(Stopwatch, "__call__", timed)
    hybrids = {"pair": {"ease": 1.0, "markov": 1.0}, "all": dict.fromkeys(systems, 1.0)}
    rankers, times = full_rankers(split, "test"), {name: RankingTimes() for name in hybrids}
    Together(split, systems, hybrids).rank(
        dict.fromkeys(hybrids, rankers), times, order=np.arange(USERS), batch_size=20
    )
    assert [one.first_seconds for one in times.values()] == pytest.approx([2.1, 3.1])
    assert [one.seconds for one in times.values()] == pytest.approx([2.1, 3.1])
    assert [one.timed_users for one in times.values()] == [20, 20]


@pytest.mark.parametrize("text", ["ease", "ease+ease", "ease+esae", "oracle+ease", "", "+"])
def test_hybrids_that_cannot_be_are_refused(text):
    with pytest.raises(UserError, match=r"baselines\.hybrids has .*two or more different systems"):
        BaselinesConfig(hybrids=(text,))


def test_unknown_baselines_are_refused():
    with pytest.raises(
        UserError, match=r"baselines\.names has 'bm25': use some of popularity, itemknn"
    ):
        BaselinesConfig(names=("bm25",))
    for wrong, said in (
        ({"names": ("ease", "markov", "ease")}, r"baselines\.names has 'ease' twice"),
        (
            {"hybrids": ("ease+markov", "markov + ease")},
            r"baselines\.hybrids has 'markov \+ ease' twice",
        ),
    ):
        with pytest.raises(UserError, match=said):
            BaselinesConfig(**wrong)
