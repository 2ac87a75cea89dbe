"""TensorBoard: event files in the folder of each training run, and in `report/` for the results."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from delrec_jax.training.tracking.tracker import Row, numbers


class EventFiles:
    """A `Tracker` that writes event files with `tensorboardX`.

    Like `MetricsFile`, each file starts with the rows of the checkpoint: TensorBoard is told to forget what earlier files in
    the folder say, so no row appears twice, and none is missing because a killed process had not written it yet.
    """

    def __init__(self, root: Path, settings: Mapping[str, Any]):
        """Takes the workdir; TensorBoard has no place for its settings."""
        self._root = root
        self._writer: Any = None

    def start(
        self, training: str, directory: Path, rows: Sequence[Row], identity: Mapping[str, Any]
    ) -> None:
        """Opens a new event file in `directory`."""
        self._writer = _opened(directory)
        for row in rows:
            self.write(row)

    def write(self, row: Row) -> None:
        """Writes each number of a row at the row's step."""
        for name, value in numbers(row).items():
            self._writer.add_scalar(name, value, row["step"])

    def end(self) -> None:
        """Closes the file."""
        self._writer.close()

    def results(self, values: Mapping[str, float]) -> None:
        """Writes the results at step 0."""
        writer = _opened(self._root / "report")
        for name, value in values.items():
            writer.add_scalar(f"results/{name}", value, 0)
        writer.close()

    def close(self, *, finished: bool) -> None:
        """Does nothing: each file was closed."""


def _opened(directory: Path) -> Any:
    from tensorboardX import SummaryWriter

    # A queue without a practical bound: the writer's thread ends when the disk is full, and a full queue
    # would then block training forever.
    return SummaryWriter(logdir=str(directory), purge_step=0, max_queue=10_000, flush_secs=10)
