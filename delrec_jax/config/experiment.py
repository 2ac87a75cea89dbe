"""The complete experiment, put together from the dataclasses of its parts.

Config files (`configs/*.py`) make an `ml_collections.ConfigDict`; `from_config` builds the experiment from it.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ml_collections import ConfigDict

from delrec_jax.choices import one_of
from delrec_jax.config.baselines import BaselinesConfig
from delrec_jax.config.delrec import TRAINED_CONTROLS, DistillConfig, TuneConfig
from delrec_jax.config.language import LMConfig, PretrainConfig
from delrec_jax.config.p2rec import ENSEMBLE, AugmentConfig, ParseConfig
from delrec_jax.config.ranges import check_ranges
from delrec_jax.config.teacher import TeacherConfig
from delrec_jax.config.tree import at_least, build
from delrec_jax.data.corpora import DataConfig
from delrec_jax.data.prompts import PromptConfig
from delrec_jax.data.split_kinds import SplitConfig
from delrec_jax.distributed import DistributedConfig
from delrec_jax.errors import UserError
from delrec_jax.language.verbalizers import find_verbalizer
from delrec_jax.teachers.registry import LISTS, NETWORKS
from delrec_jax.training.mesh import MeshConfig
from delrec_jax.training.profiling import parse_span
from delrec_jax.training.tracking.trackers import tracker_names

METHODS = ("delrec", "p2rec", "delrec_p2rec")
"""What `delrec run` runs: DELRec, P2Rec, or DELRec with a teacher that P2Rec augmented."""


@dataclass(frozen=True)
class CandidatesConfig:
    """Candidate sets of the protocols `sampled-NUM` and `rerank-RERANK`.

    Attributes:
      num: size of a sampled set: the target and num - 1 unseen items, drawn once and stored.
      rerank: number of the teacher's best unseen items.
      seed: seed of the draw; not the experiment's, so that runs with different seeds are ranked over the same sets.
    """

    num: int = 20
    rerank: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        at_least("candidates.num", self.num, 2)
        at_least("candidates.rerank", self.rerank, 1)


@dataclass(frozen=True)
class EvaluateConfig:
    """How systems are evaluated.

    Attributes:
      batch_size: texts per batch.
      users: number of test users that are ranked, at most, drawn by their ids: the same ones for every system and seed, and
        all of a smaller draw are in a larger one; 0 = all.
    """

    batch_size: int = 128
    users: int = 0

    def __post_init__(self) -> None:
        at_least("evaluate.batch_size", self.batch_size, 1)


@dataclass(frozen=True)
class Experiment:
    """Everything that a run depends on, and where it runs.

    Attributes:
      method: `delrec`, `p2rec`, or `delrec_p2rec`: DELRec with a teacher that P2Rec augmented.
      profile: `START:STOP`, the steps to trace in every training run; empty = none.
      watch: the trackers that are told of every training run, joined by commas; empty = none.
      hang_after: seconds after which a train step, an evaluation, a checkpoint or a wait for other processes counts as
        hanging: the process then ends with status 70, and the same command resumes; 0 = never. What happens for the first
        time (and may compile) has four times as long, and whatever took long before has four times that.
      seed: of everything random in a run; its streams are independent of one another (`prng`).
    """

    method: str = "delrec"
    data: DataConfig = field(default_factory=DataConfig)
    split: SplitConfig = SplitConfig()
    candidates: CandidatesConfig = CandidatesConfig()
    prompts: PromptConfig = PromptConfig()
    lm: LMConfig = LMConfig()
    pretrain: PretrainConfig = PretrainConfig()
    teacher: TeacherConfig = TeacherConfig()
    baselines: BaselinesConfig = BaselinesConfig()
    distill: DistillConfig = field(default_factory=DistillConfig)
    tune: TuneConfig = TuneConfig()
    parse: ParseConfig = ParseConfig()
    augment: AugmentConfig = AugmentConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    mesh: MeshConfig = MeshConfig()
    distributed: DistributedConfig = DistributedConfig()
    profile: str = ""
    watch: str = ""
    hang_after: float = 1800.0
    seed: int = 0

    def __post_init__(self) -> None:
        parse_span(self.profile)
        tracker_names(self.watch)
        at_least("hang_after", self.hang_after, 0)
        one_of("method", self.method, METHODS)
        if self.method != "delrec":
            self._check_p2rec()
        for name in self.tune.controls:
            if name in TRAINED_CONTROLS and name not in self.distill.controls:
                raise UserError(
                    f"tune.controls has {name!r}, a prompt that stage 1 trains only if distill.controls has it too"
                )
        self._check_verbalizer()
        if self.teacher.name == LISTS:
            self._check_lists()
        self._check_titled()

    def _check_lists(self) -> None:
        for key, value, neutral in (
            ("tune.beside", self.tune.beside, ""),
            ("distill.prompt", self.distill.prompt, "shared"),
        ):
            if value != neutral:
                raise UserError(
                    f"{key} is {value!r}, which asks the teacher about many histories, but teacher.name=lists knows only those "
                    f"of its file: set {key}={neutral or repr(neutral)}, or take another teacher"
                )

    def _check_titled(self) -> None:
        if not self.distill.titled:
            return
        if self.teacher.name not in NETWORKS:
            raise UserError(
                f"distill.prompt=titles reads the teacher's item vectors, but teacher.name={self.teacher.name} has none: "
                f"use one of {', '.join(NETWORKS)}, or distill.prompt=shared"
            )
        if self.method == "delrec_p2rec" and self.augment.way == ENSEMBLE:
            raise UserError(
                "distill.prompt=titles reads the teacher's item vectors, but with augment.way=ensemble the augmented teacher "
                "is two networks with vectors of their own: use another augment.way, or distill.prompt=shared"
            )

    def _check_verbalizer(self) -> None:
        name, verbalizer = self.lm.verbalizer, find_verbalizer(self.lm.verbalizer)
        for stage, config in (("distill", self.distill), ("tune", self.tune)):
            if config.loss_over == "catalogue" and not verbalizer.ranks_catalogue:
                raise UserError(
                    f"lm.verbalizer={name} scores stated candidates only: set {stage}.loss_over=candidates too"
                )
        if self.prompts.show_candidates and self.tune.loss_over == "catalogue":
            raise UserError(
                "tune.loss_over=catalogue trains on texts without candidates, but prompts.show_candidates lists them wherever "
                "items are ranked: set tune.loss_over=candidates, or prompts.show_candidates=False"
            )
        if self.tune.refresh_vectors and not verbalizer.encodes_titles:
            raise UserError(
                f"tune.refresh_vectors is {self.tune.refresh_vectors}, but with lm.verbalizer={name} titles have no vectors of "
                "their own: set it to 0, or use lm.verbalizer=embedding"
            )
        if verbalizer.reads_owners and (self.prompts.show_candidates or self.prompts.show_ranks):
            raise UserError(
                f"lm.verbalizer={name} reads the ages of a history's titles, and other titles in a text would mislead it: set "
                "prompts.show_candidates and prompts.show_ranks to False"
            )

    def _check_p2rec(self) -> None:
        if self.teacher.name not in NETWORKS:
            raise UserError(
                f"teacher.name is {self.teacher.name!r}, but method={self.method} groups the teacher's item vectors: use one "
                f"of {', '.join(NETWORKS)}"
            )
        if self.method == "delrec_p2rec" and self.teacher.name not in self.augment.teachers:
            raise UserError(
                f"teacher.name is {self.teacher.name!r}, but augment.teachers is {self.augment.teachers}: DELRec's teacher "
                "must be among those that are augmented"
            )


def default_config() -> ConfigDict:
    """Returns the defaults as a mutable ConfigDict, which config files start from."""
    return ConfigDict(dataclasses.asdict(Experiment()), convert_dict=True)


YOUNGER: Mapping[tuple[str, ...], Any] = {
    ("lm", "prefix"): "",
    ("lm", "bert", "pooling"): "mean",
}
"""Settings that workdirs of earlier versions do not have, with the value that does what was done before they came."""


def to_dict(experiment: Experiment) -> dict[str, Any]:
    """Returns plain nested dictionaries, as JSON would hold them.

    As in workdirs from before there were any, a loop that does nothing about spikes has no settings of them, and settings of
    `YOUNGER` are there only with another value.
    """
    settings: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(experiment)))
    for section in settings.values():
        loop = section.get("loop") if isinstance(section, dict) else None
        if loop is not None and not loop["on_spike"]:
            del loop["on_spike"], loop["spike"]
    for (*sections, name), before in YOUNGER.items():
        section = settings
        for key in sections:
            section = section[key]
        if section[name] == before:
            del section[name]
    return settings


def from_config(config: ConfigDict) -> Experiment:
    """Builds the experiment from a config file's dictionary.

    Raises:
      UserError: an unknown key (with the nearest one), a wrong type, a value out of range, or values that do not go together.
    """
    settings = config.to_dict()
    check_ranges(settings)
    experiment: Experiment = build(Experiment, settings)
    return experiment
