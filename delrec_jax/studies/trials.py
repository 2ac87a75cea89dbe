"""The trials of a search: optuna draws their values, decides which to give up, and keeps all in a file that is resumed.

The values of a trial depend on the seed, its number, and what earlier trials were told: a search that is continued is the one
that would have run in one go (where trials run one at a time).
"""

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from delrec_jax import prng
from delrec_jax.errors import UserError, one_line
from delrec_jax.studies.opening import changes
from delrec_jax.studies.ranges import Range, drawn, suggest

# optuna is imported late: it is an extra, which only a search needs.
if TYPE_CHECKING:
    import optuna

_NAME = "search"
_BEFORE_PRUNING = 5  # finished trials whose median others are compared with

FINISHED, PRUNED, FAILED, OPEN = "finished", "pruned", "failed", "open"
"""What can become of a trial."""


@dataclass(frozen=True)
class Told:
    """What is known of a trial.

    Attributes:
      number: from 0.
      state: one of `FINISHED`, `PRUNED`, `FAILED`, `OPEN`.
      drawn: its values, by key of the config.
      value: of a finished trial on the validation users; None of any other.
      reason: why a failed one did.
    """

    number: int
    state: str
    drawn: Mapping[str, Any]
    value: float | None = None
    reason: str = ""


class Trials:
    """The trials of one search, in optuna's journal.

    One process at a time: it holds the lock of the search's workdir, and no lock of the journal can be another's.
    """

    def __init__(
        self,
        path: Path,
        ranges: Sequence[Range],
        *,
        seed: int,
        warm_up: int = 0,
        asked: Mapping[str, Any] | None = None,
    ):
        """Opens the journal, or begins it.

        Args:
          path: of the journal.
          ranges: as `ranges.fitted` returns them.
          seed: of the draws.
          warm_up: training steps within which no trial is given up.
          asked: what else values depend on; a journal of anything else is refused.

        Raises:
          UserError: optuna is not installed, or the journal is another search's.
        """
        _imported()
        _mend(path)
        self._ranges, self._seed = tuple(ranges), seed
        self._study: optuna.Study = self._opened(path, warm_up)
        self._claim(path, dict(asked or {}))
        self._trials: dict[int, optuna.Trial] = {}

    def _opened(self, path: Path, warm_up: int) -> "optuna.Study":
        library = _imported()
        try:
            backend = library.storages.journal.JournalFileBackend(str(path))
            self._storage: optuna.storages.BaseStorage = library.storages.JournalStorage(backend)
            study: optuna.Study = library.create_study(
                storage=self._storage,
                study_name=_NAME,
                direction="maximize",
                load_if_exists=True,
                sampler=self._sampler(0),
                pruner=library.pruners.MedianPruner(_BEFORE_PRUNING, warm_up),
            )
        except (ValueError, TypeError, KeyError, AttributeError, AssertionError) as error:
            raise UserError(
                f"{path}: damaged ({one_line(error, most=200)}); put back a copy of it, remove the line, or give another "
                "--workdir"
            ) from error
        return study

    def _claim(self, path: Path, asked: dict[str, Any]) -> None:
        before = self._study.user_attrs.get("asked", asked)
        if changed := changes(before, asked):
            raise UserError(
                f"{path} is another search's: {changed}; give another --workdir, as values of both cannot be compared"
            )
        self._study.set_user_attr("asked", json.loads(json.dumps(asked)))

    def _sampler(self, number: int) -> "optuna.samplers.BaseSampler":
        """A sampler of this trial's own, so that its draws do not depend on when the process was started."""
        library = _imported()
        seed = int(prng.generator(self._seed, "search", number).integers(2**31))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", library.exceptions.ExperimentalWarning)
            made: optuna.samplers.BaseSampler = library.samplers.TPESampler(
                multivariate=True, constant_liar=True, seed=seed
            )
        return made

    def left_open(self) -> list[int]:
        """The numbers of trials that an earlier process began and did not end."""
        return [told.number for told in self.told() if told.state == OPEN]

    def ask(self) -> int:
        """Begins a trial; returns its number."""
        self._study.sampler = self._sampler(len(self))
        trial = self._study.ask()
        self._trials[trial.number] = trial
        return trial.number

    def __len__(self) -> int:
        return len(self._study.get_trials(deepcopy=False))

    def _trial(self, number: int) -> "optuna.Trial":
        if number not in self._trials:
            self._study.sampler = self._sampler(number)
            study = self._storage.get_study_id_from_name(_NAME)
            place = self._storage.get_trial_id_from_study_id_trial_number(study, number)
            self._trials[number] = _imported().Trial(self._study, place)
        return self._trials[number]

    def drawn(self, number: int) -> dict[str, Any]:
        """The values of an open trial, by key of the config."""
        return suggest(self._trial(number), self._ranges)

    def report(self, number: int, values: Mapping[int, float]) -> None:
        """Reports the validation values of an open trial so far, by step; what was reported before is passed over."""
        trial = self._trial(number)
        before = self._study.get_trials(deepcopy=False)[number].intermediate_values
        for step in sorted(values.keys() - before.keys()):
            trial.report(values[step], step)

    def hopeless(self, number: int) -> bool:
        """Whether an open trial's best value so far is below the median of the finished ones at the same step."""
        return self._trial(number).should_prune()

    def finish(self, number: int, value: float) -> None:
        """Ends a trial with its value."""
        self._study.tell(number, value)

    def prune(self, number: int) -> None:
        """Ends a trial that was given up: it has no value."""
        self._study.tell(number, state=_imported().trial.TrialState.PRUNED)

    def fail(self, number: int, reason: str) -> None:
        """Ends a trial that has no value for this reason."""
        self._trial(number).set_user_attr("reason", reason)
        self._study.tell(number, state=_imported().trial.TrialState.FAIL)

    def told(self) -> list[Told]:
        """All trials, by number."""
        states = {"COMPLETE": FINISHED, "PRUNED": PRUNED, "FAIL": FAILED}
        return [
            Told(
                one.number,
                state := states.get(one.state.name, OPEN),
                drawn(one.params, self._ranges),
                one.value if state == FINISHED else None,
                one.user_attrs.get("reason", ""),
            )
            for one in self._study.get_trials(deepcopy=False)
        ]

    def best(self) -> list[Told]:
        """The finished trials, the best first; of equal ones the earlier."""
        finished = [one for one in self.told() if one.value is not None]
        return sorted(finished, key=lambda one: (-(one.value or 0.0), one.number))


def _imported() -> Any:
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise UserError(
            f"--search needs {error.name}, which is not installed: pip install '.[search]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    return optuna


def _mend(path: Path) -> None:
    """Removes what a process that was killed while writing left: a lock, and the beginning of a line."""
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    if path.exists() and not (content := path.read_bytes()).endswith(b"\n"):
        os.truncate(path, content.rfind(b"\n") + 1)
