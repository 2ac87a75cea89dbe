"""The settings of the stage `teach`: the network, its loss, and how it is trained."""

from dataclasses import dataclass

from delrec_jax.config.tree import at_least
from delrec_jax.errors import UserError
from delrec_jax.plugins import is_own
from delrec_jax.teachers.caser import CaserConfig
from delrec_jax.teachers.gru4rec import GRU4RecConfig
from delrec_jax.teachers.losses import LossConfig
from delrec_jax.teachers.registry import CLOSED_FORMS, NETWORKS, closed_form
from delrec_jax.teachers.sasrec import SASRecConfig
from delrec_jax.training.loop import LoopConfig
from delrec_jax.training.optimizers import OptimizerConfig


@dataclass(frozen=True)
class TeacherConfig:
    """The conventional recommender.

    Attributes:
      name: one of `sasrec`, `gru4rec`, `caser` (each with its own shape below) and `popularity`, or `FILE.py:NAME` of a
        recommender that is not a network (`teachers.registry.ClosedForm`).
      loss: loss of the three networks.
      batch_size: training rows per step; a row has `max_length` labels of one or several users.
      cold_negatives: items without a training interaction are negatives like all others (the usual practice). False leaves
        them out of the loss, so that a teacher that reads text does not unlearn what titles say about them.
      output_bias: scores have one trained bias per item, which learns how popular the item is, so that the item vectors
        (and P2Rec's categories, which are groups of them) need not.
    """

    name: str = "sasrec"
    sasrec: SASRecConfig = SASRecConfig()
    gru4rec: GRU4RecConfig = GRU4RecConfig()
    caser: CaserConfig = CaserConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-3)
    loop: LoopConfig = LoopConfig(steps=600, evaluate_every=100, patience=5)
    batch_size: int = 32
    cold_negatives: bool = True
    output_bias: bool = False

    def __post_init__(self) -> None:
        at_least("teacher.batch_size", self.batch_size, 1)
        if self.name not in NETWORKS:
            if not is_own(self.name) and self.name not in CLOSED_FORMS:
                known = ", ".join((*NETWORKS, *CLOSED_FORMS))
                raise UserError(
                    f"teacher.name is {self.name!r}: use one of {known}, or FILE.py:NAME of your own"
                )
            closed_form(self.name)

    @property
    def shape(self) -> SASRecConfig | GRU4RecConfig | CaserConfig:
        """The shape of the named network.

        Raises:
          ValueError: the recommender is not a network.
        """
        if self.name not in NETWORKS:
            raise ValueError(f"{self.name} is not a network")
        shape: SASRecConfig | GRU4RecConfig | CaserConfig = getattr(self, self.name)
        return shape

    @property
    def max_length(self) -> int:
        """The number of a history's latest items that the teacher reads."""
        return self.shape.max_length if self.name in NETWORKS else closed_form(self.name).max_length
