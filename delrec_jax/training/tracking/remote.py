"""Trackers that keep what they are told, such as MLflow and W&B: a workdir goes on in the same run, and no row comes twice.

`tracking/NAME.json` in the workdir says which run of the tracker belongs to it, and up to which step each training run was
sent.
A step is noted before it is sent. A row during which the process is killed, or the tracker fails, may be missing there
(`metrics.jsonl` has it), but none comes twice when the training run resumes from an earlier checkpoint.

Another run of the tracker begins where the results would not belong together: when the workdir's settings have changed
(`--update`), or a training run starts again from other data or other results of earlier stages.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from delrec_jax.errors import UserError, one_line
from delrec_jax.files import json_hash, write_text
from delrec_jax.training.tracking.tracker import Row, numbers

PROJECT = "delrec-jax"
"""The project (W&B) or experiment (MLflow) where the environment names no other."""


class RemoteRun(Protocol):
    """One run of a tracker, opened."""

    @property
    def id(self) -> str:
        """What it is found by when the workdir is used again."""

    def log(self, training: str, step: int, values: Mapping[str, float], *, number: int) -> None:
        """Adds the numbers of a row.

        Args:
          training: the training run.
          step: its step.
          values: numbers by name.
          number: how many rows of all training runs were sent before.
        """

    def results(self, values: Mapping[str, float], *, number: int) -> None:
        """Sets the results, which were set `number` times before."""

    def close(self, *, finished: bool) -> None:
        """Ends it for now; it may be opened again."""


@dataclass(frozen=True)
class Opening:
    """How a run is opened.

    Attributes:
      id: that of the run to go on with; "" = a new one.
      name: shown for a new one.
      settings: those of the workdir, by dotted key.
      root: the workdir.
    """

    id: str
    name: str
    settings: Mapping[str, Any]
    root: Path


@dataclass
class _Sent:
    """What was sent of a training run."""

    identity: str
    step: int = -1


@dataclass
class _State:
    """What the workdir remembers of a tracker."""

    settings: str
    id: str = ""
    rows: int = 0
    trainings: dict[str, _Sent] = field(default_factory=dict)
    results: str = ""
    results_sent: int = 0


class RemoteTracker:
    """A `Tracker` whose run is opened when there is something to send, and found again by a file in the workdir."""

    def __init__(
        self,
        name: str,
        open_run: Callable[[Opening], RemoteRun],
        root: Path,
        settings: Mapping[str, Any],
    ):
        """Reads what the workdir remembers.

        Args:
          name: that of the tracker.
          open_run: opens a run.
          root: the workdir.
          settings: those of the workdir that results depend on, by dotted key.
        """
        self._path, self._root = root / "tracking" / f"{name}.json", root
        self._open_run, self._settings = open_run, settings
        self._run: RemoteRun | None = None
        self._training = ""
        self._state = self._read()

    def start(
        self, training: str, directory: Path, rows: Sequence[Row], identity: Mapping[str, Any]
    ) -> None:
        """Sends the rows of the checkpoint that were not sent before."""
        digest, self._training = json_hash(identity), training
        before = self._state.trainings.get(training)
        if before is not None and before.identity != digest:
            self.close(finished=True)
            self._state = self._fresh()
        self._state.trainings.setdefault(training, _Sent(digest))
        for row in rows:
            self.write(row)

    def write(self, row: Row) -> None:
        """Sends a row unless its step, or a later one, was sent before."""
        sent = self._state.trainings[self._training]
        if row["step"] <= sent.step:
            return
        run, number = self._opened(), self._state.rows
        sent.step, self._state.rows = row["step"], number + 1
        self._save()
        run.log(self._training, row["step"], numbers(row), number=number)

    def end(self) -> None:
        """Does nothing: the next training run goes to the same run of the tracker."""

    def results(self, values: Mapping[str, float]) -> None:
        """Sends the results unless these were the last that were sent."""
        digest, state = json_hash(values), self._state
        if digest != state.results:
            self._opened().results(values, number=state.results_sent)
            state.results, state.results_sent = digest, state.results_sent + 1
            self._save()

    def close(self, *, finished: bool) -> None:
        """Ends the run for now, if it was opened."""
        if self._run is not None:
            run, self._run = self._run, None
            run.close(finished=finished)

    def _opened(self) -> RemoteRun:
        """The tracker's run; its id is stored at once, so that no second one is made after a kill."""
        if self._run is None:
            state = self._state
            opening = Opening(state.id, self._root.absolute().name, self._settings, self._root)
            try:
                self._run = self._open_run(opening)
            except Exception as error:
                if not state.id:
                    raise
                raise UserError(
                    f"{one_line(error)}; to begin another run there instead of going on with {state.id}, remove {self._path}"
                ) from error
            state.id = self._run.id
            self._save()
        return self._run

    def _fresh(self) -> _State:
        return _State(json_hash(self._settings))

    def _read(self) -> _State:
        """The state of before, if it is that of the same settings; a file that cannot be read is as good as none."""
        fresh = self._fresh()
        try:
            found = json.loads(self._path.read_text())
            trainings = {name: _Sent(**sent) for name, sent in found.pop("trainings").items()}
            state = _State(**found, trainings=trainings)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return fresh
        return state if state.settings == fresh.settings else fresh

    def _save(self) -> None:
        write_text(self._path, json.dumps(asdict(self._state), indent=1, sort_keys=True) + "\n")
