"""Stage 1's gradient against one worked out by hand: softmax minus target, over what the loss is taken over."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from delrec_jax.delrec.distilling_task import prompt_gradients
from delrec_jax.delrec.prompt_examples import PromptExample
from delrec_jax.delrec.task_weighting import TaskWeighting

SCORES = np.array([0.3, -1.0, 2.0, 0.5, 1.5], np.float32)  # of the five items, at this prompt
CANDIDATES = np.array([[0, 2, 3], [4, 1, 0], [2, 3, 4]])
TARGETS = np.array([[0.7, 0.2, 0.1], [1.0, 0, 0], [0, 0.5, 0.5]], np.float32)
OWNERS = np.array([[1, 0], [4, 4], [0, 2]])  # item 0, item 3 and item 1 are shown
KNOWN = np.array([True, True, True, True, False])  # item 4 competes only where it is listed
TASK = np.array([0, 1, 1])
WEIGHTS = np.array([0.2, 0.8])


class ScoresThemselves:
    """A model whose prompt is the catalogue's scores; each text adds a number to all of them, which changes no softmax."""

    def readout(self):
        return {}

    def catalogue_scores(self, params, ids, *, prompt, **_):
        return prompt[None] + ids[:, :1].astype(jnp.float32)

    def candidate_scores(self, params, ids, candidates, *, prompt, **_):
        return prompt[candidates] + ids[:, :1].astype(jnp.float32)


def by_hand(competing):
    """Gradient and losses by task, from the items that compete in each text."""
    grads, losses = np.zeros((2, 5)), np.zeros(2)
    for row, items in enumerate(competing):
        target = np.zeros(5)
        target[CANDIDATES[row]] = TARGETS[row]
        odds = np.where(items, np.exp(SCORES.astype(np.float64)), 0)
        share = odds / odds.sum()
        texts = (TASK[row] == TASK).sum()
        grads[TASK[row]] += (share - target) / texts
        losses[TASK[row]] -= (target[items] * np.log(share[items])).sum() / texts
    return WEIGHTS @ grads, losses


def listed(row):
    return np.isin(np.arange(5), CANDIDATES[row])


def shown(row):
    return np.isin(1 + np.arange(5), OWNERS[row])


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("loss_over", ["candidates", "catalogue"])
def test_the_gradient_is_softmax_minus_target(loss_over, accumulate):
    optimizer = SimpleNamespace(accumulate=accumulate)
    config = SimpleNamespace(loss_over=loss_over, optimizer=optimizer)
    weighting = TaskWeighting("fixed", (("ta", 0.2), ("rps", 0.8)))
    batch = PromptExample(
        ids=jnp.array([[7, 1], [3, 1], [5, 1]]),
        owners=jnp.array(OWNERS),
        guides=None,
        candidates=jnp.array(CANDIDATES),
        targets=jnp.array(TARGETS),
        task=jnp.array(TASK),
    )
    gradients = prompt_gradients(ScoresThemselves(), weighting, config, KNOWN)
    found, metrics = jax.jit(gradients)(
        {"prompt": jnp.array(SCORES)}, {"params": None, "vectors": None}, batch, jax.random.key(0)
    )
    competing = [
        listed(row) if loss_over == "candidates" else listed(row) | (KNOWN & ~shown(row))
        for row in range(3)
    ]
    grad, losses = by_hand(competing)
    np.testing.assert_allclose(found["prompt"], grad, atol=1e-6)
    np.testing.assert_allclose([metrics["loss/ta"], metrics["loss/rps"]], losses, rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], WEIGHTS @ losses, rtol=1e-5)
