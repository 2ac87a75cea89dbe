"""`rerank-m` lists the teacher's best items in an order that says nothing about the teacher's."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from delrec_jax.config import Experiment
from delrec_jax.config.experiment import CandidatesConfig
from delrec_jax.data.candidates import sampled_candidates
from delrec_jax.data.interactions import Interactions
from delrec_jax.data.split_kinds import leave_one_out
from delrec_jax.evaluation.user_ranks import rank_users
from delrec_jax.workdir import protocols

USERS, ITEMS, M = 2000, 40, 5
EXPERIMENT = Experiment(candidates=CandidatesConfig(num=M, rerank=M))


@pytest.fixture(scope="module")
def data():
    """Users who take four successive items: the teacher below always names the next one."""
    first = np.random.default_rng(0).integers(0, ITEMS, USERS)
    items = (first[:, None] + np.arange(4)) % ITEMS
    interactions = Interactions(
        user_ids=tuple(f"u{user}" for user in range(USERS)),
        offsets=np.arange(USERS + 1, dtype=np.int64) * 4,
        items=items.ravel().astype(np.int32),
        times=np.tile(np.arange(4), USERS),
    )
    split = leave_one_out(interactions)
    sets = {"test": sampled_candidates(split, "test", M, seed=0, num_items=ITEMS)}
    corpus = SimpleNamespace(name="steps")
    return SimpleNamespace(split=split, candidates=sets, num_items=ITEMS, corpus=corpus)


def teacher(histories):
    """Scores by how far an item is after the last one, the next one best."""
    return -((jnp.arange(ITEMS) - histories[:, -1:] - 1) % ITEMS).astype(jnp.float32)


def ranks_of_the_first_place(data, protocol):
    """Ranks of a model that prefers the candidates in the order in which they are listed."""
    found = protocols.Protocols(EXPERIMENT, data)
    found.add_rerank(teacher)
    ranker = {protocol: found.rankers(full_scores=False)[protocol]}
    scores = np.broadcast_to(-np.arange(M, dtype=np.float32), (USERS, M))
    ranks = rank_users(lambda rows: scores[rows], ranker, num_users=USERS, batch_size=500)
    first = found.candidates[protocol][0][:, 0] == found.targets
    return ranks[protocol].rank, first


@pytest.mark.parametrize("protocol", [f"rerank-{M}", f"sampled-{M}"])
def test_a_model_that_prefers_the_first_place_gets_chance(data, protocol):
    rank, first = ranks_of_the_first_place(data, protocol)
    np.testing.assert_array_equal(rank == 1, first)
    # Four standard deviations of a uniform place among M.
    assert abs(first.mean() - 1 / M) < 4 * np.sqrt((1 / M) * (1 - 1 / M) / USERS)
    assert abs(rank.mean() - (M + 1) / 2) < 4 * np.sqrt((M**2 - 1) / 12 / USERS)


def test_in_the_teachers_order_it_would_have_been_the_teacher(data, monkeypatch):
    monkeypatch.setattr(protocols, "drawn_order", lambda items, names, seed: items)
    rank, _ = ranks_of_the_first_place(data, f"rerank-{M}")
    assert (rank == 1).all()


def test_an_order_depends_on_seed_and_user_alone():
    items = np.arange(30 * M).reshape(30, M)
    names = [f"u{user}" for user in range(30)]
    whole = protocols.drawn_order(items, names, seed=0)
    assert [sorted(row) for row in whole.tolist()] == items.tolist()
    some = protocols.drawn_order(items[7:9], names[7:9], seed=0)
    np.testing.assert_array_equal(some, whole[7:9])
    assert (protocols.drawn_order(items, names, seed=1) != whole).any()
