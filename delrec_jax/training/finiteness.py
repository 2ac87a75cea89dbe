"""Which number of a training was the first that is not finite, and at which step.

A loss is read only now and then, and one NaN makes all others. So the steps since the last good checkpoint are taken again, one
by one, until the first of them that gives such a number: in its loss, its gradients, or the parameters that it leaves.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from delrec_jax.training.sharding import Layout, key_names

_NORM = "gradient_norm"


@runtime_checkable
class TellsGradients(Protocol):
    """A train step that can say which gradients it would take."""

    def gradients(self, state: Any, frozen: Any, batch: Any, key: jax.Array) -> Any:
        """The gradients of the next step, in the tree of the parameters."""


@dataclass(frozen=True)
class Origin:
    """Where numbers ceased to be finite.

    Attributes:
      step: the step that gave the first one, counted from 1.
      what: `the loss`, `the gradient of PATH` or `the parameter PATH`: the first in this order, paths in the tree's.
    """

    step: int
    what: str


class Steps(Protocol):
    """A training that can be taken again from its last good checkpoint, step by step."""

    def back(self) -> int:
        """Goes back to the checkpoint; returns its step."""

    def step(self) -> Mapping[str, Any]:
        """Takes one step; returns its metrics."""

    def parameters(self) -> Any:
        """The parameters now."""

    def gradients(self) -> Any:
        """The gradients of the step that would be next; None if they cannot be had."""


def origin(steps: Steps, last: int, layout: Layout) -> Origin | None:
    """Takes the steps up to `last` again until a number is not finite.

    Returns:
      Where; None if all were finite this time, as on hardware that does not add up in the same order each time.
    """
    at = first = steps.back()
    while at < last:
        metrics, at = steps.step(), at + 1
        bad = first_bad_metric(metrics)
        if bad == _NORM:
            return Origin(at, _gradient(steps, at - first, layout))
        if bad is not None:
            return Origin(at, in_words(bad))
        leaf = first_bad_leaf(steps.parameters(), layout)
        if leaf is not None:
            return Origin(at, f"the parameter {leaf}")
    return None


def first_bad_metric(metrics: Mapping[str, Any]) -> str | None:
    """The first metric that is not finite: the loss, then others by name, then the norm of the gradients; None = all are."""
    names = sorted(metrics, key=lambda name: (name != "loss", name == _NORM, name))
    values = jax.device_get(dict(metrics))
    return next((name for name in names if not np.isfinite(values[name]).all()), None)


def in_words(metric: str) -> str:
    """Returns how a message calls a metric."""
    return {"loss": "the loss", _NORM: "the norm of the gradients"}.get(
        metric, f"the metric {metric}"
    )


def first_bad_leaf(tree: Any, layout: Layout) -> str | None:
    """The path of the first array of a tree that has a number which is not finite; None if there is none.

    Args:
      tree: placed arrays; those of whole numbers are skipped.
      layout: where they are placed.
    """
    found = [
        ("/".join(key_names(path)), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        if jnp.issubdtype(leaf.dtype, jnp.inexact)
    ]
    if not found:
        return None
    good = jax.jit(_all_finite, out_shardings=layout.whole)([leaf for _, leaf in found])
    return next(
        (path for (path, _), fine in zip(found, np.asarray(good), strict=True) if not fine), None
    )


def _all_finite(leaves: list[jax.Array]) -> jax.Array:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves])


def _gradient(steps: Steps, taken: int, layout: Layout) -> str:
    """Names the gradient that is not finite in the step after `taken - 1` steps from the checkpoint."""
    steps.back()
    for _ in range(taken - 1):
        steps.step()
    gradients = steps.gradients()
    leaf = None if gradients is None else first_bad_leaf(gradients, layout)
    return in_words(_NORM) if leaf is None else f"the gradient of {leaf}"
