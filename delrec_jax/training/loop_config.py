"""Settings of a training loop."""

from dataclasses import dataclass

from delrec_jax import prng
from delrec_jax.choices import one_of
from delrec_jax.errors import UserError
from delrec_jax.training.spikes import MODES, SpikeConfig


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
      on_spike: what happens at a spike of the loss (see `spike`): empty = nothing; `stop` ends the run; `rollback` goes back to
        the last checkpoint that was due or the best so far, then continues with the batch after the spike: all batches since
        that checkpoint are skipped. With either, the host waits for the loss of every step (of every call of several steps).
    """

    steps: int = 1000
    evaluate_every: int = 100
    checkpoint_every: int = 500
    patience: int = 0
    random_bits: str = "threefry"
    max_seconds: float = 0.0
    on_spike: str = ""
    spike: SpikeConfig = SpikeConfig()

    def __post_init__(self) -> None:
        for name, least in (("steps", 0), ("evaluate_every", 1), ("checkpoint_every", 1)):
            if getattr(self, name) < least:
                raise UserError(
                    f"loop.{name} is {getattr(self, name)}: it must be at least {least}"
                )
        one_of("loop.random_bits", self.random_bits, prng.BITS)
        if self.on_spike not in MODES:
            raise UserError(
                f"loop.on_spike is {self.on_spike!r}: use {' or '.join(MODES[1:])}, or leave it empty"
            )
