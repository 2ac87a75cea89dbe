"""The runs of a study: each arm with each seed, as a complete experiment with a workdir of its own."""

import copy
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ml_collections import ConfigDict

from delrec_jax.config import Experiment, from_config, leaf_keys, to_dict, unknown_key
from delrec_jax.errors import UserError, one_line
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
    """A study file that has been loaded but not yet asked for its study.

    Attributes:
      path: the file.
      base: the config file that its arms change, unless another is given.
    """

    path: Path
    base: Path

    @staticmethod
    def load(path: Path) -> "StudyFile":
        """Loads the file.

        Raises:
          UserError: there is no such file, it cannot be run, or it has no `BASE` or `get_study`.
        """
        base = getattr(_module(path), "BASE", None)
        if not isinstance(base, str):
            raise UserError(
                f"{path}: has no BASE: set it to the config file that the arms change, from the folder of this file"
            )
        return StudyFile(path, path.parent / base)

    def study(self, base: ConfigDict) -> Study:
        """Returns what `get_study` makes of a base config.

        Raises:
          UserError: it fails, or returns anything but a `Study`.
        """
        get_study = getattr(_module(self.path), "get_study", None)
        if not callable(get_study):
            raise UserError(f"{self.path}: has no function get_study(base)")
        try:
            found = get_study(copy.deepcopy(base))
        except UserError as error:
            raise UserError(f"{self.path}: {error}") from error
        except Exception as error:
            # A study file is the user's code: whatever it raises is theirs to read, in one line.
            raise UserError(f"{self.path}: {type(error).__name__}: {one_line(error)}") from error
        if not isinstance(found, Study):
            raise UserError(f"{self.path}: get_study() returns {found!r}: it must return a Study")
        return found


def _module(path: Path) -> object:
    if not path.is_file():
        raise UserError(f"{path}: there is no such study; the ready ones are in configs/studies/")
    spec = importlib.util.spec_from_file_location("delrec_study", path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path}: is not a Python file; a study file is called NAME.py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"{path}: {type(error).__name__}: {one_line(error)}") from error
    return module


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
            raise UserError(f"arm {arm.name}: {unknown_key(key, known)}")
    try:
        config.update_from_flattened_dict(dict(arm.changes))
        config.seed = seed + arm.seed_shift
        return from_config(config)
    except UserError as error:
        raise UserError(f"arm {arm.name}: {error}") from error
    except (TypeError, ValueError) as error:  # ml_collections on a value of another type
        raise UserError(f"arm {arm.name}: {one_line(error)}") from error


def _refuse_same(runs: Sequence[StudyRun]) -> None:
    """Two arms with the same settings would be one experiment under two names."""
    for place, one in enumerate(runs):
        for other in runs[:place]:
            if to_dict(one.experiment) == to_dict(other.experiment):
                raise UserError(
                    f"arms {other.arm.name} and {one.arm.name} have the same settings: remove one, or look at its changes"
                )
