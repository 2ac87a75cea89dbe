"""The settings of DELRec's stages: `distill` and `tune`."""

from dataclasses import dataclass

from delrec_jax.config.tree import at_least
from delrec_jax.errors import UserError
from delrec_jax.language.adalora_config import AdaLoRAConfig, Schedule
from delrec_jax.training.loop import LoopConfig
from delrec_jax.training.optimizers import OptimizerConfig


@dataclass(frozen=True)
class WeightingConfig:
    """Which weighting, and lambda (the share of TA) of `fixed`."""

    kind: str = "fixed"
    ta_weight: float = 0.2

    def __post_init__(self):
        if self.kind not in ("fixed", "gradient_norm", "uncertainty"):
            raise UserError(
                f"distill.weighting.kind is {self.kind!r}: use 'fixed', 'gradient_norm' or 'uncertainty'"
            )
        if not 0 <= self.ta_weight <= 1:
            raise UserError(f"distill.weighting.ta_weight is {self.ta_weight}: a share from 0 to 1")


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
