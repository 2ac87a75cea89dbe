"""Inputs of a training run that follow its parameters, but not at every step, such as the vectors of a catalogue."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Refresh:
    """What of the frozen inputs is made again from the parameters while these train.

    A run is saved only where it is due, so that a resumed run makes the same from the same parameters.

    Attributes:
      every: steps between two times.
      make: params -> new values of some of the frozen inputs, placed as the layout says.
    """

    every: int
    make: Callable[[Any], dict[str, Any]]

    def due(self, step: int) -> bool:
        """Whether it is made after this many steps."""
        return step % self.every == 0
