"""The settings of the stage `teach`: the network, its loss, and how it is trained."""

from dataclasses import dataclass, replace

from delrec_jax.config.tree import at_least
from delrec_jax.errors import UserError
from delrec_jax.teachers import registry
from delrec_jax.teachers.caser import CaserConfig
from delrec_jax.teachers.gru4rec import GRU4RecConfig
from delrec_jax.teachers.losses import LossConfig
from delrec_jax.teachers.sasrec import SASRecConfig
from delrec_jax.training.loop_config import LoopConfig
from delrec_jax.training.optimizers import OptimizerConfig


@dataclass(frozen=True)
class TeacherConfig:
    """The conventional recommender.

    Attributes:
      name: one of the networks `sasrec`, `gru4rec`, `caser` (each with its own shape below); a recommender that is computed
        instead of trained, `popularity`, `itemknn`, `markov`, `ease`, `tfidf` or `cease`, or `FILE.py:NAME` of one's own
        (`teachers.registry.ClosedForm`); or a hybrid of these, `A+B+...` such as `ease+markov+sasrec`: the sum of its parts'
        standardized scores, with weights chosen on validation users. At most one part is a network, and none is one's own.
        (EASE, CEASE and Markov remember the training part, and so does a hybrid with them: on the histories that stage 1 and
        `tune.beside` take from it, they are much better than on new ones.) Or `lists`: another system's, see below.
      lists: for `name=lists`, a CSV or parquet file with the columns user_id, length, item_id, score: for each history (the
        user's first `length` items, oldest first), its best items and their scores. `delrec histories` writes which histories
        are needed, and how many items of each that the user has not had: `distill.top_h` for stage 1, `candidates.rerank` for
        ranking. Items that a list leaves out come after all listed ones, with a probability of 0 in list-wise labels. Nothing
        can be asked about other histories, so that P2Rec and `tune.beside` cannot use such a teacher.
      folds: for recommenders without a network: 0, or a number of groups from 2 on that users are drawn into. What is distilled
        from the training part (stage 1's lists and guides, `tune.beside`) then comes, for each user, from the same recommender
        fitted without the user's group: as sure, and as often wrong, as it is about new histories.
      loss: loss of the three networks.
      batch_size: training rows per step; a row has `max_length` labels of one or several users.
      steps_per_call: train steps per dispatch, at most. Rows stay on the devices, so that a step of a millisecond need not
        wait for the host. On a CPU a dispatch is a twentieth of a small step and 5 are enough; on a GPU or TPU take 25 or more.
        Results do not depend on it, and it may be changed between interruption and resumption: rows keep their order, and an
        evaluation, a checkpoint and the end always follow directly on their step. SIGTERM, `loop.max_seconds` and the
        progress bar wait for the end of a call.
      valid_users: validation users that select, at most, the same ones under every seed; 0 = all. With a million users, an
        evaluation takes longer than the steps between two of them.
      cold_negatives: items without a training interaction are negatives like all others (the usual practice). False leaves
        them out of the loss, so that a teacher that reads text does not unlearn what titles say about them.
      output_bias: scores have one trained bias per item, which learns how popular the item is, so that the item vectors
        (and P2Rec's categories, which are groups of them) need not.
    """

    name: str = "sasrec"
    lists: str = ""
    folds: int = 0
    sasrec: SASRecConfig = SASRecConfig()
    gru4rec: GRU4RecConfig = GRU4RecConfig()
    caser: CaserConfig = CaserConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-3)
    loop: LoopConfig = LoopConfig(steps=600, evaluate_every=100, patience=5)
    batch_size: int = 32
    steps_per_call: int = 5
    valid_users: int = 0
    cold_negatives: bool = True
    output_bias: bool = False

    def __post_init__(self) -> None:
        at_least("teacher.batch_size", self.batch_size, 1)
        at_least("teacher.steps_per_call", self.steps_per_call, 1)
        at_least("teacher.valid_users", self.valid_users, 0)
        registry.check_name(self.name)
        if (self.name == registry.LISTS) != bool(self.lists):
            raise UserError(
                f"teacher.name is {self.name!r} and teacher.lists {self.lists!r}: name=lists and the path of a file with lists "
                "go together; give both or neither"
            )

        at_least("teacher.folds", self.folds, 0)
        if self.folds == 1 or (
            self.folds and (registry.network_of(self.name) or self.name == registry.LISTS)
        ):
            raise UserError(
                f"teacher.folds is {self.folds} with teacher.name={self.name}: only recommenders in closed form, and hybrids "
                "of these, can be fitted again without a group of users, and 2 groups are the fewest; set it to 0"
            )

    @property
    def network(self) -> "TeacherConfig | None":
        """The same settings with the name of the network that the recommender is or has as a part; None if it has none."""
        name = registry.network_of(self.name)
        return replace(self, name=name) if name else None

    @property
    def shape(self) -> SASRecConfig | GRU4RecConfig | CaserConfig:
        """The shape of the network that the recommender is or has as a part.

        Raises:
          ValueError: it has none.
        """
        name = registry.network_of(self.name)
        if not name:
            raise ValueError(f"{self.name} has no network")
        shape: SASRecConfig | GRU4RecConfig | CaserConfig = getattr(self, name)
        return shape

    @property
    def max_length(self) -> int:
        """The number of a history's latest items that the teacher reads; 0 if it exists only as lists."""
        if self.name == registry.LISTS:
            return 0
        return registry.max_length(self.name, self.shape.max_length if self.network else 0)

    def reads(self, longest: int) -> int:
        """Returns the length that histories of at most `longest` items are padded to for this teacher.

        What is no network costs as much as its padding, and has no positions that would change with it.
        """
        return self.max_length if self.network else min(self.max_length, max(1, longest))
