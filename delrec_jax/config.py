"""The whole experiment as frozen dataclasses, built strictly from a config file and its overrides.

Each stage's dataclass stands beside the code it configures; here they are put together. Config files are
`ml_collections` (`configs/*.py`), so `--config.distill.learning_rate=...` works as everywhere in the field; a key that
does not exist or a value of the wrong type is an error that names the key and the nearest one.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from ml_collections import ConfigDict

from delrec_jax.config_teacher import TeacherConfig
from delrec_jax.config_tree import at_least, build
from delrec_jax.config_tree import leaf_keys as leaf_keys  # offered here too, beside to_dict
from delrec_jax.config_tree import unknown_key as unknown_key
from delrec_jax.data.corpora import DataConfig
from delrec_jax.data.pretraining import PretrainTextConfig
from delrec_jax.data.prompts import PromptConfig
from delrec_jax.data.split_kinds import SplitConfig
from delrec_jax.distributed import DistributedConfig
from delrec_jax.errors import UserError
from delrec_jax.language.adalora_config import AdaLoRAConfig, Schedule
from delrec_jax.language.t5_config import T5Config
from delrec_jax.language.verbalizer import CATALOGUE_KINDS, KINDS
from delrec_jax.objectives.task_weighting import WeightingConfig
from delrec_jax.training.loop import LoopConfig
from delrec_jax.training.optimizers import OptimizerConfig
from delrec_jax.training.sharding import MeshConfig
from delrec_jax.training.watching import WatchConfig


@dataclass(frozen=True)
class CandidatesConfig:
    """Candidate sets of the protocols `sampled-NUM` and `rerank-RERANK`.

    Attributes:
      num: the target and num - 1 unseen items, drawn once and stored.
      rerank: the teacher's best unseen items.
      seed: of the draw; not the experiment's, so that runs of several seeds are ranked over the same sets.
    """

    num: int = 20
    rerank: int = 20
    seed: int = 0

    def __post_init__(self):
        at_least("candidates.num", self.num, 2)
        at_least("candidates.rerank", self.rerank, 1)


@dataclass(frozen=True)
class LMConfig:
    """The language model.

    Attributes:
      t5: its shape; the vocabulary's size is the tokenizer's when `pretrain` makes one.
      vocab_size: ids of a trained tokenizer, sentinels included, at most.
      sentinels: number of `<extra_id_*>` of a trained tokenizer.
      verbalizer: `mean` or `first` (rank the whole catalogue from one pass), `sequence` or `index` (stated candidates only).
      weights: a directory or hub name of pretrained T5 weights, such as `google/flan-t5-small`; the sizes in `t5` do not
        count then, and `pretrain` trains nothing. Empty = a small T5 of our own.
      tokenizer: directory or hub name; empty = the one beside `weights`, or one of our own.
    """

    t5: T5Config = T5Config(
        d_model=64,
        d_kv=32,
        d_ff=128,
        num_layers=2,
        num_decoder_layers=1,
        num_heads=2,
        dropout_rate=0.0,
    )
    vocab_size: int = 600
    sentinels: int = 32
    verbalizer: str = "mean"
    weights: str = ""
    tokenizer: str = ""

    def __post_init__(self):
        if self.verbalizer not in KINDS:
            raise UserError(f"lm.verbalizer is {self.verbalizer!r}: use one of {', '.join(KINDS)}")
        if self.tokenizer and not self.weights:
            raise UserError(
                f"lm.tokenizer is {self.tokenizer!r}, but lm.weights is not set: without pretrained weights `delrec pretrain` "
                "trains its own tokenizer; leave it empty"
            )


@dataclass(frozen=True)
class GateConfig:
    """What the pre-trained LM must have learned before it is worth distilling into: least accuracies on held-out items.

    Attributes:
      attributes: attribute questions, best word of all the attribute's values.
      next_in_series: "the next volume" of a series, top-1 of the whole catalogue; needs known relations.
      next_item: HR@10 of the next item for validation users, over the whole catalogue.
    """

    attributes: float = 0.0
    next_in_series: float = 0.0
    next_item: float = 0.0


@dataclass(frozen=True)
class PretrainConfig:
    """Pre-training of a small T5 on the catalogue's own text.

    Attributes:
      text: which texts, in which shares.
      bag_weight: weight of the words' loss.
      catalogue_weight: weight of the cross-entropy over all titles, for answers that are titles.
    """

    text: PretrainTextConfig = PretrainTextConfig()
    optimizer: OptimizerConfig = OptimizerConfig(
        learning_rate=3e-3, warmup_steps=60, weight_decay=0.01
    )
    loop: LoopConfig = LoopConfig(steps=1500, evaluate_every=250)
    batch_size: int = 64
    bag_weight: float = 1.0
    catalogue_weight: float = 0.0
    gate: GateConfig = GateConfig()

    def __post_init__(self):
        at_least("pretrain.batch_size", self.batch_size, 1)


@dataclass(frozen=True)
class DistillConfig:
    """Stage 1: the teacher's pattern into a soft prompt.

    Attributes:
      length: soft slots, K.
      init: `normal`, `vocabulary` or `text` (then `init_text`).
      top_h: the teacher's best items among the candidates.
      num_candidates: candidates of a text, m.
      rps_label: `top1` (the reference) or `listwise`.
      temperature: tau of `listwise`.
      positions: RPS texts a user, at most.
      ta_share: share of TA among the texts of a batch.
      train_users, valid_users: shares of users that train and select; the others are reported on.
      select_by: `agreement` (top-1), `kendall_tau` or `likelihood` on the validation users.
      weighting: how TA and RPS are weighted.
    """

    length: int = 8
    init: str = "normal"
    init_text: str = ""
    top_h: int = 10
    num_candidates: int = 20
    rps_label: str = "listwise"
    temperature: float = 1.0
    positions: int = 4
    ta_share: float = 0.25
    train_users: float = 0.7
    valid_users: float = 0.1
    select_by: str = "agreement"
    weighting: WeightingConfig = WeightingConfig()
    optimizer: OptimizerConfig = OptimizerConfig(name="adam", learning_rate=1e-1, b2=0.999)
    loop: LoopConfig = LoopConfig(steps=600, evaluate_every=100)
    batch_size: int = 64

    def __post_init__(self):
        at_least("distill.batch_size", self.batch_size, 1)
        if self.top_h > self.num_candidates:
            raise UserError(
                f"distill.top_h is {self.top_h}, but a text has only distill.num_candidates = {self.num_candidates} "
                "candidates: lower the one or raise the other"
            )
        if self.rps_label not in ("top1", "listwise") or self.temperature <= 0:
            raise UserError(
                f"distill.rps_label is {self.rps_label!r} and distill.temperature {self.temperature}: use 'top1' or "
                "'listwise', and a positive temperature"
            )
        if self.select_by not in ("agreement", "kendall_tau", "likelihood"):
            raise UserError(
                f"distill.select_by is {self.select_by!r}: use 'agreement', 'kendall_tau' or 'likelihood'"
            )


@dataclass(frozen=True)
class TuneConfig:
    """Stage 2: AdaLoRA on the language model, the prompt frozen.

    Attributes:
      adalora: targets, ranks, phases.
      positions: labels a training user, at most (the latest ones).
      loss_over: `catalogue` or `candidates` (then `num_candidates` with the label).
      anchor: weight of the divergence from the model before stage 2 (with `loss_over=catalogue`).
      select_by: `HR@1` or `NDCG@10` of the validation item.
      few_users: users whose labels the few-label runs may use; 0 = no such runs.
    """

    adalora: AdaLoRAConfig = AdaLoRAConfig()
    positions: int = 8
    loss_over: str = "catalogue"
    anchor: float = 0.0
    num_candidates: int = 20
    few_users: int = 100
    select_by: str = "NDCG@10"
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-3)
    loop: LoopConfig = LoopConfig(steps=200, evaluate_every=40)
    batch_size: int = 64

    def __post_init__(self):
        at_least("tune.batch_size", self.batch_size, 1)
        if self.select_by not in ("HR@1", "NDCG@10"):
            raise UserError(f"tune.select_by is {self.select_by!r}: use 'HR@1' or 'NDCG@10'")
        if self.loss_over not in ("catalogue", "candidates"):
            raise UserError(
                f"tune.loss_over is {self.loss_over!r}: use 'catalogue' or 'candidates'"
            )
        if self.optimizer.average:
            raise UserError(
                f"tune.optimizer.average is {self.optimizer.average}: AdaLoRA's masks change the adapters after the "
                "optimizer, an average would not know them; set it to 0"
            )
        Schedule.planned(
            self.adalora, self.loop.steps
        )  # refuses a plan before hours of other stages


@dataclass(frozen=True)
class EvaluateConfig:
    """Texts a batch."""

    batch_size: int = 128

    def __post_init__(self):
        at_least("evaluate.batch_size", self.batch_size, 1)


@dataclass(frozen=True)
class Experiment:
    """Everything a run depends on, and where it runs.

    Attributes:
      profile: `START:STOP`, steps of every training run to trace; empty = none.
      tensorboard: also write TensorBoard event files.
    """

    data: DataConfig = field(default_factory=DataConfig)
    split: SplitConfig = SplitConfig()
    candidates: CandidatesConfig = CandidatesConfig()
    prompts: PromptConfig = PromptConfig()
    lm: LMConfig = LMConfig()
    pretrain: PretrainConfig = PretrainConfig()
    teacher: TeacherConfig = TeacherConfig()
    distill: DistillConfig = DistillConfig()
    tune: TuneConfig = TuneConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    mesh: MeshConfig = MeshConfig()
    distributed: DistributedConfig = DistributedConfig()
    profile: str = ""
    tensorboard: bool = False
    seed: int = 0

    def __post_init__(self):
        WatchConfig(profile=self.profile)  # refuses a form that it cannot read
        over_candidates = self.lm.verbalizer not in CATALOGUE_KINDS
        if over_candidates and self.tune.loss_over == "catalogue":
            raise UserError(
                f"lm.verbalizer={self.lm.verbalizer} scores stated candidates only: set tune.loss_over=candidates too"
            )
        if self.tune.few_users and self.split.kind != "leave_one_out":
            raise UserError(
                f"tune.few_users is {self.tune.few_users}, but under split.kind={self.split.kind} the users that train have no "
                "validation items of their own to select with: set tune.few_users=0"
            )


def default_config() -> ConfigDict:
    """The defaults as a mutable ConfigDict; what config files start from."""
    return ConfigDict(dataclasses.asdict(Experiment()), convert_dict=True)


def to_dict(experiment: Experiment) -> dict[str, Any]:
    """Plain nested dictionaries, as JSON would hold them."""
    return json.loads(json.dumps(dataclasses.asdict(experiment)))


def from_config(config: ConfigDict) -> Experiment:
    """Builds the experiment from a config file's dictionary.

    Raises:
      UserError: an unknown key (with the nearest one), a wrong type, or values that cannot go together.
    """
    return build(Experiment, config.to_dict())
