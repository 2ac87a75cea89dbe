"""What every experiment tracker does: the one protocol behind TensorBoard, Weights & Biases and MLflow."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

Row = Mapping[str, Any]
"""A row of `metrics.jsonl`: the name of the training run, its step, and numbers."""


class Tracker(Protocol):
    """Is told of one workdir, by one process; may raise anything, which `trackers.Trackers` turns into a warning."""

    def start(
        self, training: str, directory: Path, rows: Sequence[Row], identity: Mapping[str, Any]
    ) -> None:
        """A training run begins, or goes on after an interruption.

        Args:
          training: its name, such as `prompt/distilled`.
          directory: where its files are.
          rows: the rows of its checkpoint, some or all of which the tracker may have been told before.
          identity: what its results depend on, by key.
        """

    def write(self, row: Row) -> None:
        """A row of the training run that was started last; its step is above that of the row before."""

    def end(self) -> None:
        """The training run ends, finished or not."""

    def results(self, values: Mapping[str, float]) -> None:
        """The main table of the report, by `SYSTEM/METRIC`; a later call replaces it."""

    def close(self, *, finished: bool) -> None:
        """The command ends; `finished` says whether without an error."""


def numbers(row: Row) -> dict[str, float]:
    """Returns the numbers of a row but its step."""
    return {
        name: float(value)
        for name, value in row.items()
        if name != "step" and isinstance(value, int | float) and not isinstance(value, bool)
    }
