"""Settings of a training loop."""

from dataclasses import dataclass

from delrec_jax import prng
from delrec_jax.errors import UserError


@dataclass(frozen=True)
class LoopConfig:
    """How long to train, and how often to evaluate and save.

    Attributes:
      steps: planned updates; 0 = none, what would train stays as it starts.
      evaluate_every: steps between two evaluations (one more at step 0 and at the end).
      checkpoint_every: steps between two checkpoints.
      patience: evaluations without improvement before training stops; 0 = it never stops early.
      random_bits: how a step draws dropout and negatives: `threefry` (JAX's default: the same numbers on any hardware), or
        `rbg` (the hardware's generator: cheaper on a TPU; the numbers depend on the hardware and on JAX's version).
      max_seconds: training time after which no further step is taken; 0 = no limit. A limit makes a run depend on the
        speed of the machine: use it for demonstrations and budgets only.
    """

    steps: int = 1000
    evaluate_every: int = 100
    checkpoint_every: int = 500
    patience: int = 0
    random_bits: str = "threefry"
    max_seconds: float = 0.0

    def __post_init__(self) -> None:
        for name, least in (("steps", 0), ("evaluate_every", 1), ("checkpoint_every", 1)):
            if getattr(self, name) < least:
                raise UserError(
                    f"loop.{name} is {getattr(self, name)}: it must be at least {least}"
                )
        if self.random_bits not in prng.BITS:
            raise UserError(
                f"loop.random_bits is {self.random_bits!r}: use one of {', '.join(prng.BITS)}"
            )
