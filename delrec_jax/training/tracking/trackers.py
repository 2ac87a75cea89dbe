"""The trackers of `config.watch`, several at once: none can stop a training, and one that fails is given up with a warning."""

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from delrec_jax.distributed import is_main
from delrec_jax.errors import UserError, one_line
from delrec_jax.training.tracking import mlflow_run, wandb_run
from delrec_jax.training.tracking.events import EventFiles
from delrec_jax.training.tracking.remote import RemoteTracker
from delrec_jax.training.tracking.tracker import Row, Tracker
from delrec_jax.training.writers import say

Make = Callable[[Path, Mapping[str, Any]], Tracker]


@dataclass(frozen=True)
class Kind:
    """A kind of tracker.

    Attributes:
      packages: modules that must be there; the extra of the kind's name installs them.
      make: makes one from the workdir and its settings by dotted key; must not import the packages.
    """

    packages: tuple[str, ...]
    make: Make


KINDS: Mapping[str, Kind] = {
    "tensorboard": Kind(("tensorboardX",), EventFiles),
    "wandb": Kind(("wandb",), partial(RemoteTracker, "wandb", wandb_run.open_run)),
    "mlflow": Kind(
        ("mlflow", "sqlalchemy", "alembic"), partial(RemoteTracker, "mlflow", mlflow_run.open_run)
    ),
}
"""The trackers that `config.watch` can name; each is an extra of the package too."""


def tracker_names(watch: str) -> tuple[str, ...]:
    """Returns the names in `config.watch`: none, one, or several joined by commas.

    Raises:
      UserError: there is no such tracker.
    """
    names = tuple(dict.fromkeys(name.strip() for name in watch.split(",") if name.strip()))
    for name in names:
        if name not in KINDS:
            raise UserError(
                f"config.watch is {watch!r}, but there is no tracker {name!r}: use {', '.join(KINDS)}, several joined by "
                "commas, or '' for none"
            )
    return names


class Trackers:
    """All trackers of a workdir; a context manager around a command that may train.

    Outside of the context, on other processes than the main one, and without names, it does nothing.
    """

    def __init__(
        self,
        watch: str = "",
        root: Path = Path(),
        settings: Mapping[str, Any] | None = None,
        *,
        kinds: Mapping[str, Kind] = KINDS,
    ):
        """Takes `config.watch`, the workdir, and the settings that its results depend on, by dotted key."""
        self._names = tracker_names(watch) if kinds is KINDS else tuple(kinds)
        self._root, self._settings, self._kinds = root, settings or {}, kinds
        self._open: dict[str, Tracker] = {}

    def __enter__(self) -> "Trackers":
        """Makes the trackers.

        Raises:
          UserError: a package is not installed.
        """
        for name in self._names:
            _check_installed(name, self._kinds[name].packages)
        if is_main():
            for name in self._names:
                self._open[name] = self._kinds[name].make(self._root, self._settings)
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        self._each(lambda tracker: tracker.close(finished=kind is None))
        self._open = {}

    @contextmanager
    def training(
        self, name: str, directory: Path, rows: Sequence[Row], identity: Mapping[str, Any]
    ) -> Iterator[Callable[[Row], None]]:
        """Tells of one training run.

        Args:
          name: that of the training run.
          directory: where its files are.
          rows: the rows of its checkpoint.
          identity: what its results depend on, by key.

        Yields:
          What must be called with each further row.
        """
        self._each(lambda tracker: tracker.start(name, directory, rows, identity))
        try:
            yield lambda row: self._each(lambda tracker: tracker.write(row))
        finally:
            self._each(lambda tracker: tracker.end())

    def results(self, values: Mapping[str, float]) -> None:
        """Tells the main table of the report, by `SYSTEM/METRIC`."""
        self._each(lambda tracker: tracker.results(values))

    def abandon(self) -> None:
        """Ends them within a training run that will not end in order, so that they keep what they were told."""
        self._each(lambda tracker: tracker.end())
        self._each(lambda tracker: tracker.close(finished=False))

    def _each(self, action: Callable[[Tracker], None]) -> None:
        """Does it with every tracker; one that fails, for whatever reason, is told nothing more by this command."""
        for name, tracker in list(self._open.items()):
            try:
                action(tracker)
            except Exception as error:
                del self._open[name]
                say(
                    f"WARNING: config.watch: {name} is told nothing more by this command ({one_line(error, most=400)}); "
                    "metrics.jsonl has all rows"
                )


def _check_installed(name: str, packages: Sequence[str]) -> None:
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f'config.watch is {name}, but {package} is not installed: pip install ".[{name}]", or leave {name} '
                "out of config.watch"
            )
