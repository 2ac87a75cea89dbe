"""What the teacher expects after a history, against a loop over its items."""

from types import SimpleNamespace

import flax.struct
import jax.numpy as jnp
import numpy as np
import pytest

from delrec_jax.config import DistillConfig, TaskShare
from delrec_jax.delrec.guides import Guides
from delrec_jax.errors import UserError

ITEMS, WIDTH, LONGEST = 12, 4, 3
TABLE = np.random.default_rng(0).normal(size=(ITEMS, ITEMS)).astype(np.float32)
TITLES = np.random.default_rng(1).normal(size=(ITEMS, WIDTH)).astype(np.float32) + 2.0
COLD = np.arange(ITEMS) == 5
HISTORIES = [np.array([3, 1]), np.array([0, 2, 4, 7, 9]), np.array([11])]


def scores(histories):
    known = (histories >= 0)[..., None]
    return jnp.where(known, jnp.asarray(TABLE)[histories], 0.0).sum(1)


class ByLatest(flax.struct.PyTreeNode):
    """The teacher."""

    def scores(self, histories):
        return scores(histories)


def guides(**settings):
    only = {"rps": TaskShare(share=1.0, weight=1.0)}
    config = DistillConfig(prompt="user", tasks=only, top_h=3, num_candidates=4, **settings)
    experiment = SimpleNamespace(
        distill=config, teacher=SimpleNamespace(reads=lambda longest: LONGEST)
    )
    split = SimpleNamespace(known_items=lambda count: ~COLD)
    data = SimpleNamespace(split=split, num_items=ITEMS)
    asked = []

    def teacher():
        asked.append(1)
        return ByLatest()

    return Guides(experiment, data, teacher, lambda: None, lambda: TITLES), asked


def test_guides_are_the_expected_titles_of_the_best_open_items():
    made, asked = guides(temperature=0.5)
    titles = TITLES - TITLES.mean(0)
    titles /= np.linalg.norm(titles, axis=1, keepdims=True)
    for history, guide in zip(HISTORIES, made(HISTORIES), strict=True):
        given = TABLE[history[-LONGEST:]].sum(0)
        fresh = [item for item in range(ITEMS) if item not in history and not COLD[item]]
        best = sorted(fresh, key=lambda item: -given[item])[:3]
        shares = np.exp(given[best] / 0.5) / np.exp(given[best] / 0.5).sum()
        wanted = shares @ titles[best]
        np.testing.assert_allclose(guide, wanted / np.linalg.norm(wanted), rtol=1e-4)
    assert made(HISTORIES) is made(list(HISTORIES)) and len(asked) == 1


def test_only_the_latest_guides_are_kept():
    made, _ = guides(temperature=0.5)
    first = made(HISTORIES)
    for item in range(20):
        made([np.array([item % ITEMS, (item + 1) % ITEMS])[: 1 + item // ITEMS]])
        assert made(HISTORIES) is first  # used each time
    assert len(made._found) == 8


def test_a_task_that_asks_of_no_row_is_refused():
    with pytest.raises(UserError, match=r"set distill\.tasks\.ta\.share to 0"):
        DistillConfig(prompt="both")
    with pytest.raises(UserError, match=r"distill\.prompt is 'mine'"):
        DistillConfig(prompt="mine")
    with pytest.raises(UserError, match=r"distill\.user_rank is 0"):
        DistillConfig(user_rank=0)
