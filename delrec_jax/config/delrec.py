"""The settings of DELRec's stages: `distill` and `tune`."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from delrec_jax.choices import one_of
from delrec_jax.config.distill_tasks import TaskShare, check_controls, check_tasks, paper_tasks
from delrec_jax.config.tree import at_least
from delrec_jax.errors import UserError
from delrec_jax.language.adalora_config import AdaLoRAConfig, Schedule
from delrec_jax.training.loop_config import LoopConfig
from delrec_jax.training.optimizers import OptimizerConfig

WEIGHTINGS = ("fixed", "gradient_norm", "uncertainty")
"""How the losses of the tasks are combined (`delrec.task_weighting`)."""

PROMPTS = ("shared", "user", "both", "titles")
"""What the slots of a soft prompt depend on."""

SLOT_VECTORS = ("teacher", "random")
"""What the slots of `distill.prompt=titles` are made from."""

CONTROL_PROMPTS = ("none", "random", "shuffled", "true")
"""Prompts beside the distilled one that stage 2 can tune with."""

TRAINED_CONTROLS = ("shuffled", "true")
"""Those among them that stage 1 trains, each at the cost of the distilled prompt."""


def _check_loss(stage: str, over: str) -> None:
    one_of(f"{stage}.loss_over", over, ("catalogue", "candidates"))


@dataclass(frozen=True)
class DistillConfig:
    """Stage 1: distills the teacher's pattern into a soft prompt.

    Attributes:
      length: number of soft slots, K.
      prompt: `shared`: one vector per slot, the same for all users (the paper); `user`: slots that are a trained map of what
        the teacher expects after this very history; `both`: the sum of the two; `titles`: a slot after each title of the
        text instead of K slots in one place, a trained map of the item's vector in the teacher (LLaRA, `title_slots`).
      user_rank: rank of that map.
      slot_vectors: what the slots of titles are made from: `teacher`, or `random` vectors in place of the teacher's, the
        control that shows whether these say anything.
      init: `normal`, `vocabulary` or `text` (the words of `init_text`).
      init_text: these words.
      top_h: number of the teacher's best items among the candidates, and (with `prompt=user` or `both`) in the guide that a
        user's slots are made from.
      num_candidates: candidates per text, m.
      loss_over: `candidates`: the target distribution is compared with the language model's among the m candidates;
        `catalogue`: with that over all known items that the text does not show, where the others are to get nothing.
      rps_label: `top1` (the reference) or `listwise`.
      temperature: tau of `listwise`, and of the guide's weights.
      positions: RPS texts per user, at most.
      tasks: shares and weights by name: `ta` (Temporal Analysis), `rps` (Recommendation Pattern Simulating), and others.
      train_users, valid_users: shares of users for training and for selection; results are reported on the others.
      exam_users: number of users that select and of those that results are reported on, at most, each drawn by the seed; all
        of a smaller draw are in a larger one; 0 = all.
      select_by: `agreement` (top-1), `kendall_tau` or `likelihood` on the validation users.
      weighting: how the losses of the tasks are combined: `fixed`, `gradient_norm` or `uncertainty`.
      controls: prompts that are trained beside the distilled one, by the same steps: `shuffled` (on the lists of a teacher
        whose answers go to other histories) and `true` (on the items that came next). Each is a row of the tables.
      batch_size: texts per step.
      group_by_length: batches that share out their texts by length, so that short ones are not padded to long ones; 0 = none.
    """

    length: int = 8
    prompt: str = "shared"
    user_rank: int = 64
    slot_vectors: str = "teacher"
    init: str = "normal"
    init_text: str = ""
    top_h: int = 10
    num_candidates: int = 20
    loss_over: str = "candidates"
    rps_label: str = "listwise"
    temperature: float = 1.0
    positions: int = 4
    tasks: Mapping[str, TaskShare] = field(default_factory=paper_tasks)
    train_users: float = 0.7
    valid_users: float = 0.1
    exam_users: int = 0
    select_by: str = "agreement"
    weighting: str = "fixed"
    controls: tuple[str, ...] = TRAINED_CONTROLS
    optimizer: OptimizerConfig = OptimizerConfig(name="adam", learning_rate=1e-1, b2=0.999)
    loop: LoopConfig = LoopConfig(steps=600, evaluate_every=100)
    batch_size: int = 64
    group_by_length: int = 0

    def __post_init__(self) -> None:
        least = {
            "batch_size": 1,
            "group_by_length": 0,
            "length": 1,
            "top_h": 1,
            "num_candidates": 2,
            "positions": 1,
        }
        for name, fewest in least.items():
            at_least(f"distill.{name}", getattr(self, name), fewest)
        left = 1 - self.train_users - self.valid_users
        if self.train_users <= 0 or self.valid_users <= 0 or left < 1e-9:
            raise UserError(
                f"distill.train_users is {self.train_users} and distill.valid_users {self.valid_users}: both must be above 0, "
                "and leave users to report on"
            )
        if self.top_h > self.num_candidates:
            raise UserError(
                f"distill.top_h is {self.top_h}, but a text has only distill.num_candidates = {self.num_candidates} "
                "candidates: lower the one or raise the other"
            )
        _check_loss("distill", self.loss_over)
        at_least("distill.user_rank", self.user_rank, 1)
        for name, known in {
            "prompt": PROMPTS,
            "slot_vectors": SLOT_VECTORS,
            "select_by": ("agreement", "kendall_tau", "likelihood"),
            "weighting": WEIGHTINGS,
        }.items():
            one_of(f"distill.{name}", getattr(self, name), known)
        if self.rps_label not in ("top1", "listwise") or self.temperature <= 0:
            raise UserError(
                f"distill.rps_label is {self.rps_label!r} and distill.temperature {self.temperature}: use 'top1' or "
                "'listwise', and a positive temperature"
            )
        unknown = [name for name in self.controls if name not in TRAINED_CONTROLS]
        if unknown or len(set(self.controls)) < len(self.controls):
            raise UserError(
                f"distill.controls is {self.controls}: use each of {', '.join(TRAINED_CONTROLS)} at most once"
            )
        check_tasks(self.tasks, self.weighting, prompt=self.prompt if self.guided else "")
        check_controls(self.controls, self.tasks, self.weighting)

    @property
    def guided(self) -> bool:
        """Whether slots depend on what the teacher expects."""
        return self.prompt in ("user", "both")

    @property
    def titled(self) -> bool:
        """Whether a slot follows each title."""
        return self.prompt == "titles"


@dataclass(frozen=True)
class TuneConfig:
    """Stage 2: AdaLoRA on the language model; the prompt stays frozen unless the config says otherwise.

    Attributes:
      adalora: targets, ranks, phases.
      positions: labels per training user, at most (the latest ones).
      loss_over: `catalogue` or `candidates`.
      num_candidates: items of `candidates`, including the label.
      anchor: weight of the divergence from the model before stage 2; 0 = none. Needs `loss_over=catalogue`. Where texts come
        again in later epochs, the scores before stage 2 are computed once and stored (`delrec.anchor`), 4 bytes per label and
        item, if they fit in 2 GiB.
      select_by: `HR@1` or `NDCG@10` of the validation item.
      valid_users: validation users that select, drawn by the seed; 0 = all.
      controls: prompts beside the distilled one with which the language model is tuned too, under the same budget, among
        `none`, `random`, `shuffled` (distilled from the shuffled teacher) and `true` (trained on true next items). Each is a
        row of the tables that DELRec is tested against, and costs as much as DELRec itself.
      train_prompt: the prompt goes on training, together with the adapters. (DELRec freezes it; LLaRA trains its projector so.)
      prompt_rate: factor of the learning rate for the prompt, with `train_prompt`.
      curriculum: a text of step t of T has the prompt with probability t / T, and none otherwise: the model learns the task
        in words first (LLaRA). Validation always reads the prompt.
      beside: `teacher` = residual tuning: the loss is that of the language model's scores plus `beside_weight` times the
        teacher's, standardized over the known items that the user has not seen, without a gradient; and validation selects
        by this sum. The model then learns what the teacher lacks. Evaluation ranks by the language model alone. "" = off.
      beside_weight: the weight of the teacher's scores, above 0; fixed, not trained: the teacher was trained on the very
        positions that stage 2 learns from, and is better there than it will be on new ones. A trained weight would grow with
        that, and the language model would be left with too little to learn. A weight below 1 allows for it.
      refresh_vectors: steps after which the vectors of all titles are made again with the current adapters (with
        `lm.verbalizer=embedding`), which then tune both sides of the cosine; 0 = they stay those of the frozen model.
        Evaluation always compares with the vectors of the adapters that it evaluates.
      batch_size: texts per step.
      group_by_length: as in `distill`.
    """

    adalora: AdaLoRAConfig = AdaLoRAConfig()
    positions: int = 8
    loss_over: str = "catalogue"
    anchor: float = 0.0
    num_candidates: int = 20
    controls: tuple[str, ...] = CONTROL_PROMPTS
    train_prompt: bool = False
    prompt_rate: float = 1.0
    curriculum: bool = False
    beside: str = ""
    beside_weight: float = 1.0
    refresh_vectors: int = 0
    select_by: str = "NDCG@10"
    valid_users: int = 0
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-3)
    loop: LoopConfig = LoopConfig(steps=200, evaluate_every=40)
    batch_size: int = 64
    group_by_length: int = 0

    def __post_init__(self) -> None:
        least = {
            "batch_size": 1,
            "group_by_length": 0,
            "valid_users": 0,
            "num_candidates": 2,
            "positions": 1,
            "anchor": 0,
        }
        for name, fewest in least.items():
            at_least(f"tune.{name}", getattr(self, name), fewest)
        self._check_refreshes()
        one_of("tune.select_by", self.select_by, ("HR@1", "NDCG@10"))
        _check_loss("tune", self.loss_over)
        if self.anchor and self.loss_over == "candidates":
            raise UserError(
                f"tune.anchor is {self.anchor} and tune.loss_over 'candidates': the anchor compares scores of the whole "
                "catalogue; set tune.anchor=0.0, or tune.loss_over=catalogue"
            )
        self._check_controls()
        if self.beside not in ("", "teacher"):
            raise UserError(f"tune.beside is {self.beside!r}: use 'teacher', or '' for none")
        if not 0 < self.prompt_rate < float("inf"):
            raise UserError(f"tune.prompt_rate is {self.prompt_rate}: it must be above 0")
        if not 0 < self.beside_weight < float("inf"):
            raise UserError(f"tune.beside_weight is {self.beside_weight}: it must be above 0")
        if self.optimizer.average:
            raise UserError(
                f"tune.optimizer.average is {self.optimizer.average}: AdaLoRA's masks change the adapters after the "
                "optimizer, so an average would not include them; set it to 0"
            )
        # Refuses an impossible schedule before other stages have run for hours.
        Schedule.planned(self.adalora, self.loop.steps)

    def _check_refreshes(self) -> None:
        at_least("tune.refresh_vectors", every := self.refresh_vectors, 0)
        if every and self.anchor:
            raise UserError(
                f"tune.refresh_vectors is {every} and tune.anchor {self.anchor}: the anchor has the vectors of before "
                "stage 2; set one of them to 0"
            )
        for name in ("checkpoint_every", "evaluate_every"):
            if every and getattr(self.loop, name) % every:
                raise UserError(
                    f"tune.refresh_vectors is {every}, but tune.loop.{name} is {getattr(self.loop, name)}: make it a multiple, "
                    "as a run resumes where vectors are made"
                )

    def _check_controls(self) -> None:
        unknown = [name for name in self.controls if name not in CONTROL_PROMPTS]
        if unknown or len(set(self.controls)) < len(self.controls):
            raise UserError(
                f"tune.controls is {self.controls}: use each of {', '.join(CONTROL_PROMPTS)} at most once ('distilled' is "
                "always tuned with)"
            )
