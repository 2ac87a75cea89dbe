"""Settings of AdaLoRA (Zhang et al., ICLR 2023), in the words of `peft`'s `AdaLoraConfig`."""

from dataclasses import dataclass

from delrec_jax.errors import UserError


@dataclass(frozen=True)
class AdaLoRAConfig:
    """Which projections are adapted and how their ranks are allotted.

    Attributes:
      targets: last names of the projections that carry an adapter (`q`, `v`, ... of every attention).
      init_rank: rank of every adapter at the start.
      target_rank: mean rank that the budget ends at; equal to `init_rank` means plain LoRA.
      alpha: scale of the update, divided by `init_rank`.
      dropout: on the adapter's input, while training.
      warmup: steps at full rank (`tinit`), as a share of all planned steps.
      final: steps with a fixed pattern at the end (`tfinal`), as a share of all planned steps.
      interval: steps between two reallocations (`deltaT`).
      beta1: smoothing of the sensitivity.
      beta2: smoothing of its uncertainty.
      orthogonality: weight of the penalty on A A^T - I and B^T B - I.
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

    def __post_init__(self):
        if not 1 <= self.target_rank <= self.init_rank:
            raise UserError(
                f"tune.adalora.target_rank is {self.target_rank}: it must lie between 1 and "
                f"tune.adalora.init_rank ({self.init_rank})"
            )
        if self.warmup + self.final >= 1:
            raise UserError(
                f"tune.adalora.warmup + tune.adalora.final is {self.warmup + self.final}: together they "
                "must stay under 1, so that ranks have time to move"
            )
