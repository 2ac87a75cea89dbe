"""Settings of AdaLoRA (Zhang et al., ICLR 2023), modeled on `peft`'s `AdaLoraConfig`.

Messages call them `adalora.KEY`, because they appear both under `tune.adalora` and under `parse.adalora`.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple

from delrec_jax.errors import UserError


@dataclass(frozen=True)
class AdaLoRAConfig:
    """Which projections are adapted and how their ranks are allocated.

    Attributes:
      targets: path rules of the projections to adapt (see `is_target`): `q` means the q of every attention,
        `decoder/*/EncDecAttention/v` only the v of the decoder's cross-attention.
      init_rank: rank of every adapter at the start.
      target_rank: mean rank at the end of the schedule; equal to `init_rank`: no rank is
        ever masked (with `orthogonality=0` that is LoRA with a trained diagonal).
      alpha: the update is scaled by alpha / `init_rank`.
      dropout: dropout rate on the adapter's input during training.
      warmup: steps at full rank (`tinit`), as a share of all planned steps.
      final: steps with a fixed pattern at the end (`tfinal`), as a share of all planned steps.
      interval: steps between two reallocations (`deltaT`).
      beta1: smoothing factor of the sensitivity.
      beta2: smoothing factor of its uncertainty.
      orthogonality: weight of the penalty on A^T A - I and B B^T - I.
    """

    targets: tuple[str, ...] = ("q", "v")
    init_rank: int = 12
    target_rank: int = 8
    alpha: float = 32.0
    dropout: float = 0.05
    warmup: float = 0.1
    final: float = 0.3
    interval: int = 10
    beta1: float = 0.85
    beta2: float = 0.85
    orthogonality: float = 0.5

    def __post_init__(self) -> None:
        for rule in self.targets:
            if not all(rule.split("/")):
                raise UserError(
                    f"adalora.targets has the rule {rule!r}: write names or globs with single slashes between them, "
                    "such as 'q' or 'decoder/*/EncDecAttention/v'"
                )
        for key, holds, wanted in (
            ("alpha", 0 < self.alpha < float("inf"), "positive"),
            ("dropout", 0 <= self.dropout < 1, "at least 0 and under 1"),
            ("warmup", self.warmup >= 0, "at least 0"),
            ("final", self.final >= 0, "at least 0"),
            ("interval", self.interval >= 1, "at least 1"),
            ("beta1", 0 < self.beta1 < 1, "between 0 and 1"),
            ("beta2", 0 < self.beta2 < 1, "between 0 and 1"),
            ("orthogonality", 0 <= self.orthogonality < float("inf"), "at least 0"),
        ):
            if not holds:
                raise UserError(f"adalora.{key} is {getattr(self, key)}: it must be {wanted}")
        if not 1 <= self.target_rank <= self.init_rank:
            raise UserError(
                f"adalora.target_rank is {self.target_rank}: it must lie between 1 and "
                f"adalora.init_rank ({self.init_rank})"
            )
        if self.warmup + self.final >= 1:
            raise UserError(
                f"adalora.warmup + adalora.final is {self.warmup + self.final}: together they "
                "must be under 1, to leave steps in which ranks can change"
            )


def is_target(path: tuple[str, ...], targets: tuple[str, ...]) -> bool:
    """Whether one of the rules matches a projection.

    A rule is one glob (`*`, `?`, `[...]`) per name, joined by slashes, and is compared with the END of the path: `q` means
    every q, `EncDecAttention/*` all four projections of every cross-attention, `encoder/*/*/q` every q of the encoder. `*`
    never crosses a slash. The second name of a path is the block: `block_3`, or `blocks` for all blocks of a stack if
    `lm.t5.scan_layers` is on. Rules that do not name a block mean the same in both layouts; a rule for one block
    (`encoder/block_3/*/q`) matches nothing if layers are scanned, because scanned layers share one adapter array.

    Args:
      path: names down to the projection, such as `("encoder", "block_3", "SelfAttention", "q")`.
      targets: the rules.
    """
    return any(_ends_with(path, rule.split("/")) for rule in targets)


def _ends_with(path: tuple[str, ...], globs: list[str]) -> bool:
    end = path[-len(globs) :]
    return len(end) == len(globs) and all(map(fnmatchcase, end, globs))


class Schedule(NamedTuple):
    """The three phases, counted in steps: full rank, shrinking, fixed pattern."""

    warmup: int
    total: int
    final: int

    @property
    def freeze_at(self) -> int:
        """The step of the last reallocation, which fixes the pattern."""
        return self.total - self.final

    @classmethod
    def planned(cls, config: AdaLoRAConfig, total_steps: int) -> "Schedule":
        """Converts the shares of the config to steps of a run of `total_steps`.

        Raises:
          UserError: no reallocation falls between the warm-up and the fixed pattern: all ranks would be cut at once
            instead of shrinking step by step.
        """
        schedule = cls(
            int(config.warmup * total_steps), total_steps, int(config.final * total_steps)
        )
        first = (schedule.warmup // config.interval + 1) * config.interval
        if total_steps and config.target_rank < config.init_rank and first >= schedule.freeze_at:
            raise UserError(
                f"loop.steps is {total_steps}: AdaLoRA would not reallocate between its warm-up (until step "
                f"{schedule.warmup}) and its fixed pattern (from step {schedule.freeze_at}) with adalora.interval "
                f"{config.interval}; raise the steps or lower the interval, adalora.warmup or adalora.final"
            )
        return schedule
