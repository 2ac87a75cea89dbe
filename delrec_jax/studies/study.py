"""What a study is: arms, which are changes of one base config, each run with several seeds and tested against a reference.

A study file (`configs/studies/NAME.py`) has `BASE`, the config file that its arms change unless the command names another, and
`get_study(base)`, which returns a `Study`. It is given the base config, so that arms can depend on it.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ml_collections import ConfigDict

from delrec_jax.errors import UserError
from delrec_jax.evaluation.metrics import METRICS
from delrec_jax.evaluation.systems import is_system
from delrec_jax.studies.ranges import Range
from delrec_jax.workdir.stage_table import COMMANDS

COMMON, TRIAL = "common", "trial-"
"""What the runs of a search are named: what its trials share, and before its number each trial."""

_NOT_IN_NAMES = set('/\\:@"\n\t ')  # of folders, and of systems in tables

_PROTOCOL = re.compile(r"full|full_with_seen|(sampled|rerank)-\d+")


@dataclass(frozen=True)
class Arm:
    """One column of an experiment: some changes of the base config.

    Attributes:
      name: in tables, and of its folders.
      changes: values by dotted key, such as `{"distill.length": 20}`.
      systems: the systems of its runs that are rows of the study's tables; none = those of the study.
      at: where it lies on the axes of a plot, by the axis's name: a number or a word.
      seed_shift: added to the seeds of the study: an arm that differs by nothing else shows the noise of seeds.
    """

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    systems: tuple[str, ...] = ()
    at: Mapping[str, float | str] = field(default_factory=dict)
    seed_shift: int = 0

    def __post_init__(self) -> None:
        if not self.name or _NOT_IN_NAMES & set(self.name):
            raise UserError(
                f"arm {self.name!r}: a name is not empty and has no spaces, slashes, colons, quotes or @"
            )
        for system in self.systems:
            if not is_system(system):
                raise UserError(f"arm {self.name}: there is no system {system!r}")


@dataclass(frozen=True)
class Study:
    """A question, and the runs that answer it.

    Attributes:
      question: one or two sentences.
      arms: the first is run first. A study with ranges needs none.
      reference: the arm that the others are tested against, and that the trials of a search begin from; if there are no arms,
        they begin from the base.
      seeds: of each arm; the base's own seed is not read.
      systems: the systems of each arm that are rows of the tables; the first is the one that is compared.
      context: systems of the reference's runs that stand beside the arms, such as the baselines.
      metric: that is tested.
      protocol: under which systems are ranked.
      tuned: whether the arms are settings, of which validation chooses one: test figures of the others are then hidden.
      by_users: whether tables also show groups of users: by the length of their history, and by how often their target occurs
        in training.
      command: `run`, or `baseline` for arms without a language model.
      ranges: of `--search`, whose trials have the first seed and are selected by the first system's metric on validation.
    """

    question: str
    arms: tuple[Arm, ...] = ()
    reference: str = ""
    seeds: tuple[int, ...] = (0, 1, 2)
    systems: tuple[str, ...] = ("delrec",)
    context: tuple[str, ...] = ()
    metric: str = "NDCG@10"
    protocol: str = "full"
    tuned: bool = False
    by_users: bool = False
    command: str = "run"
    ranges: tuple[Range, ...] = ()

    def __post_init__(self) -> None:
        self._check_names()
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise UserError(f"study: its seeds are {self.seeds}: give one or more different ones")
        if self.metric not in METRICS:
            raise UserError(f"study: metric {self.metric!r}: use one of {', '.join(METRICS)}")
        if not _PROTOCOL.fullmatch(self.protocol):
            raise UserError(
                f"study: protocol {self.protocol!r}: use full, full_with_seen, sampled-M or rerank-M"
            )
        if self.command not in COMMANDS:
            raise UserError(f"study: command {self.command!r}: use one of {', '.join(COMMANDS)}")
        if not self.systems:
            raise UserError("study: it has no systems; name at least one, such as 'delrec'")
        for system in (*self.systems, *self.context):
            if not is_system(system):
                raise UserError(f"study: there is no system {system!r}")

    def _check_names(self) -> None:
        names, keys = [arm.name for arm in self.arms], [one.key for one in self.ranges]
        for what, all_of_them in (("arms are named", names), ("ranges are of", keys)):
            if twice := [name for name in all_of_them if all_of_them.count(name) > 1]:
                raise UserError(f"study: two {what} {twice[0]!r}")
        if self.reference not in (names or [""]):
            raise UserError(
                f"study: the reference {self.reference!r} is none of its arms: {', '.join(names) or 'it has none'}"
            )
        if keys and (taken := [name for name in names if name == COMMON or name.startswith(TRIAL)]):
            raise UserError(
                f"study: the arm {taken[0]!r} is named as the runs of its search are; rename it"
            )
        if not names and not keys:
            raise UserError("study: it has neither arms nor ranges; give it one of them")

    def systems_of(self, arm: Arm) -> tuple[str, ...]:
        """The systems of an arm that are rows of the tables."""
        return arm.systems or self.systems


def main_metric(base: ConfigDict) -> str:
    """HR@1 on the storefront, where one next item is the most likely by far; NDCG@10 elsewhere."""
    return "HR@1" if base.data.corpus == "storefront" else "NDCG@10"


def along(
    key: str,
    values: Iterable[Any],
    *,
    axis: str = "",
    also: Callable[[Any], Mapping[str, Any]] = lambda value: {},
) -> tuple[Arm, ...]:
    """The arms for several values of one key.

    Args:
      key: dotted key of the config.
      values: its values, in the order of the axis.
      axis: the axis's name; empty = the last part of the key.
      also: what changes with the value, by dotted key, such as the room for longer prompts.
    """
    axis = axis or key.rpartition(".")[2]
    return tuple(
        Arm(
            f"{axis}={_word(value)}",
            {key: value, **also(value)},
            at={axis: value if isinstance(value, int | float) else _word(value)},
        )
        for value in values
    )


def grid(*axes: Sequence[Arm]) -> tuple[Arm, ...]:
    """Every combination of one arm per axis; later axes vary faster, and win where two change one key. Shifts of seeds add up.

    Args:
      axes: the arms of each axis, as `along` makes them.
    """
    found = []
    for parts in itertools.product(*axes):
        changes: dict[str, Any] = {}
        at: dict[str, float | str] = {}
        for part in parts:
            changes |= part.changes
            at |= part.at
        systems = tuple(dict.fromkeys(name for part in parts for name in part.systems))
        name, shift = ",".join(part.name for part in parts), sum(part.seed_shift for part in parts)
        found.append(Arm(name, changes, systems, at, shift))
    return tuple(found)


def _word(value: Any) -> str:
    text = "+".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return "".join("_" if letter in _NOT_IN_NAMES else letter for letter in text) or "none"
