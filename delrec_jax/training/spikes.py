"""Spikes of the loss: a step whose loss is far above those of the steps before it, as one damaged batch can cause.

A run that goes back after a spike is still a function of its settings alone: what counts as a spike depends on earlier losses,
which are stored in checkpoints, and the batches that are skipped are those since the checkpoint that it goes back to.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from delrec_jax.errors import UserError

MODES = ("", "stop", "rollback")

_PER_DEVIATION = 1.4826
"""The standard deviation per median absolute deviation, of a normal distribution."""

_LEAST_SHARE = 0.01
"""A deviation is at least this share of the median: where losses hardly vary, a small rise is no spike."""


@dataclass(frozen=True)
class SpikeConfig:
    """What counts as a spike of the loss, and how often a run goes back.

    Attributes:
      deviations: a loss is a spike if it is so many robust standard deviations (1.4826 times the median absolute deviation, or
        1 % of the median if that is more) above the median of the losses before it. One that is not finite, or whose gradient
        is not, is always a spike.
      window: the losses before it that count: so many of the last.
      least: the fewest earlier losses that are needed to judge.
      rollbacks: times that a run may go back; after these, a spike ends it.
    """

    deviations: float = 10.0
    window: int = 100
    least: int = 50
    rollbacks: int = 3

    def __post_init__(self) -> None:
        for name, least in (("window", 2), ("least", 2), ("rollbacks", 1)):
            if getattr(self, name) < least:
                raise UserError(
                    f"loop.spike.{name} is {getattr(self, name)}: it must be at least {least}"
                )
        if not self.deviations > 0:
            raise UserError(f"loop.spike.deviations is {self.deviations}: it must be above 0")
        if self.least > self.window:
            raise UserError(
                f"loop.spike.least is {self.least}, but only {self.window} losses are kept (loop.spike.window): make it smaller"
            )


@dataclass(frozen=True)
class Spike:
    """A loss that is too high.

    Attributes:
      place: which of the losses that were looked at, from 0.
      loss: its value.
      bound: what it should not have exceeded; infinite if it is not finite itself and too few came before.
    """

    place: int
    loss: float
    bound: float

    def numbers(self) -> dict[str, float | None]:
        """Loss and bound, to be stored as JSON: None where not finite."""
        named = (("loss", self.loss), ("bound", self.bound))
        return {name: value if math.isfinite(value) else None for name, value in named}

    def __str__(self) -> str:
        """Says how high it was."""
        if not math.isfinite(self.loss):
            return f"the loss or its gradient was {self.loss}"
        return f"the loss jumped to {self.loss:.6g} (above {self.bound:.6g})"


def bound(before: Sequence[float], config: SpikeConfig) -> float:
    """Returns the highest loss that is no spike after these; infinite if they are too few."""
    if len(before) < config.least:
        return math.inf
    losses = np.array(before[-config.window :])
    median = float(np.median(losses))
    deviation = _PER_DEVIATION * float(np.median(np.abs(losses - median)))
    return median + config.deviations * max(deviation, _LEAST_SHARE * abs(median))


def first_spike(
    before: Sequence[float], losses: Sequence[float], config: SpikeConfig
) -> Spike | None:
    """Returns the first spike among the losses of successive steps, which follow on those of the steps before them."""
    known = [*before, *losses]
    for place, loss in enumerate(losses):
        highest = bound(known[: len(before) + place], config)
        if not loss <= highest or math.isinf(loss):  # NaN is not
            return Spike(place, loss, highest)
    return None
