"""The runs of a study: each arm with each seed, as a complete experiment with a workdir of its own."""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ml_collections import ConfigDict

from delrec_jax.config import Experiment, from_config, leaf_keys, to_dict, unknown_key
from delrec_jax.config.files import beside, code_of, run_file
from delrec_jax.errors import UserError, one_line
from delrec_jax.p2rec.cells import seeds
from delrec_jax.studies.study import Arm, Study


@dataclass(frozen=True)
class StudyRun:
    """One arm with one seed.

    Attributes:
      arm: what it changes.
      seed: of the study; the arm's shift is added for everything random.
      experiment: the complete settings.
    """

    arm: Arm
    seed: int
    experiment: Experiment

    @property
    def name(self) -> str:
        """Of its workdir in `runs/`."""
        return f"{self.arm.name}-{self.seed}"


@dataclass(frozen=True)
class StudyFile:
    """A study file that has been run but not yet asked for its study.

    Attributes:
      path: the file.
      base: the config file that its arms change, unless another is given.
      get_study: what it defines to make the study of a base config.
    """

    path: Path
    base: Path
    get_study: Callable[[ConfigDict], object]

    @classmethod
    def load(cls, path: Path) -> "StudyFile":
        """Runs the file.

        Raises:
          UserError: there is no such file, it cannot be run, or it has no `BASE` or `get_study`.
        """
        module = run_file(path, "study file", "configs/studies/")
        base, get_study = getattr(module, "BASE", None), getattr(module, "get_study", None)
        if not isinstance(base, str):
            raise UserError(
                f"{path}: has no BASE: set it to the config file that the arms change, from the folder of this file"
            )
        if not callable(get_study):
            raise UserError(f"{path}: has no function get_study(base)")
        return cls(path, beside(path, base), get_study)

    def study(self, base: ConfigDict) -> Study:
        """Returns what `get_study` makes of a base config.

        Raises:
          UserError: it fails, or returns anything but a `Study`.
        """
        with code_of(self.path):
            found = self.get_study(copy.deepcopy(base))
        if not isinstance(found, Study):
            raise UserError(f"{self.path}: get_study() returns {found!r}: it must return a Study")
        return found


def study_runs(study: Study, base: ConfigDict) -> list[StudyRun]:
    """The runs of a study, all arms of one seed before the next seed.

    Args:
      study: arms and seeds.
      base: the config that the arms change.

    Raises:
      UserError: an arm changes a key that does not exist, its values do not go together, or two arms are the same.
    """
    found = [
        StudyRun(arm, seed, arm_experiment(arm, seed, base))
        for seed in study.seeds
        for arm in study.arms
    ]
    _refuse_same(found[: len(study.arms)])
    _refuse_shared_seeds(found)
    return found


def arm_experiment(arm: Arm, seed: int, base: ConfigDict) -> Experiment:
    """The complete settings of an arm.

    Args:
      arm: what it changes.
      seed: of everything random.
      base: the config that it changes.

    Raises:
      UserError: it changes a key that does not exist, or its values do not go together.
    """
    config = copy.deepcopy(base)
    known = leaf_keys(config.to_dict())
    if "seed" in arm.changes:
        raise UserError(f"arm {arm.name}: changes the seed, which is the study's: set its seeds")
    for key in arm.changes:
        if key not in known:
            raise UserError(f"arm {arm.name}: {unknown_key(key, known)}{_of_new_task(key, known)}")
    try:
        config.update_from_flattened_dict(dict(arm.changes))
        config.seed = seed + arm.seed_shift
        return from_config(config)
    except UserError as error:
        raise UserError(f"arm {arm.name}: {error}") from error
    except (TypeError, ValueError) as error:  # ml_collections on a value of another type
        raise UserError(f"arm {arm.name}: {one_line(error)}") from error


def _of_new_task(key: str, known: Iterable[str]) -> str:
    """What to do about a key of a task that the base config does not have; "" for any other key."""
    section = ".".join(key.split(".")[:3])
    new = section.startswith("distill.tasks.")
    new = new and not any(one.startswith(f"{section}.") for one in known)
    return "; a task is added in the base config, with a share of 0" if new else ""


def _refuse_shared_seeds(runs: Sequence[StudyRun]) -> None:
    """P2Rec repeats its method within a run, from the run's seed on: two runs of an arm must not have a seed in common."""
    taken: dict[tuple[str, int], int] = {}
    for run in runs:
        experiment = run.experiment
        for seed in seeds(experiment) if experiment.method == "p2rec" else ():
            other = taken.setdefault((run.arm.name, seed), run.seed)
            if other != run.seed:
                raise UserError(
                    f"arm {run.arm.name}: parse.seeds is {experiment.parse.seeds}, so that the runs of the study's seeds "
                    f"{other} and {run.seed} would both have seed {seed}: set parse.seeds to 1 in what the study changes"
                )


def _refuse_same(runs: Sequence[StudyRun]) -> None:
    """Two arms with the same settings would be one experiment under two names."""
    for place, one in enumerate(runs):
        for other in runs[:place]:
            if to_dict(one.experiment) == to_dict(other.experiment):
                raise UserError(
                    f"arms {other.arm.name} and {one.arm.name} have the same settings: remove one, or look at its changes"
                )
