"""The settings of P2Rec's stages: `parse` and `augment`."""

from dataclasses import dataclass

from delrec_jax.choices import one_of
from delrec_jax.config.tree import at_least
from delrec_jax.errors import UserError
from delrec_jax.language.adalora_config import AdaLoRAConfig, Schedule
from delrec_jax.teachers.item_table import WAYS
from delrec_jax.teachers.registry import NETWORKS
from delrec_jax.training.loop_config import LoopConfig
from delrec_jax.training.optimizers import OptimizerConfig

_SELECTORS = ("squared_error", "top_category")
_LMS = ("adalora", "frozen")
_POPULARITY = ("residual", "kept")
_POOLS = ("titles", "text")
_REDUCTIONS = ("pca", "half_whitened", "whitened", "learned")
ENSEMBLE = "ensemble"
"""The one way of augmentation that is no item table: two recommenders, trained apart."""
SOLVED = "ease"
"""The one recommender that `augment` solves instead of training it: EASE, which becomes CEASE with embeddings."""
CONTROLS = ("untuned", "shuffled", "random")
"""What embeddings are compared with: those of the untuned LM, of other items' titles, and random ones of the same spectrum."""
LOSSES = ("mse", "kl")
"""Distances between a predicted distribution and a user's own (`p2rec.preferences.distribution_error`)."""


@dataclass(frozen=True)
class ParseConfig:
    """Information reconstruction: the LM predicts each user's preference distribution over latent categories.

    Attributes:
      categories: number of groups of the teacher's item vectors, K.
      popularity: `residual` takes out of the vectors what a line in log(1 + training count) explains and scales the rest to
        unit length, before they are grouped; `kept` groups them as they are: largely by popularity, if the teacher has no
        output bias per item.
      seeds: how often everything after `teach` is repeated: with seed, seed + 1, ...
      max_tokens: tokens of a user's text, at most; the oldest items are dropped first, from the target too.
      sub_histories: share of the training examples that are a random part of the user's history, of consecutive items, its
        length drawn uniformly on a logarithmic scale from 1 to all: an item alone, as `augment` asks for, is then no stranger.
      pool: the encoder's states that are averaged, here and for an item's embedding: those at tokens of `titles`, or of the
        whole `text`, most of which is template where it shows one item.
      loss: `mse` (the paper) or `kl`.
      lm: `adalora`, or `frozen`: only the projection trains.
      adalora: its projections and ranks; the decoder is not used.
      valid_users: share of the training users that are held out for selection.
      exam_users: number of these that are read, at most, drawn by the seed; all of a smaller draw are in a larger one; 0 = all.
      select_by: `squared_error` or `top_category` (accuracy) of the held-out users.
      batch_size: users per step.
      group_by_length: batches that share out their texts by length, so that short ones are not padded to long ones; 0 = none.
    """

    categories: int = 20
    popularity: str = "residual"
    seeds: int = 1
    max_tokens: int = 512
    sub_histories: float = 0.5
    pool: str = "titles"
    loss: str = "mse"
    lm: str = "adalora"
    adalora: AdaLoRAConfig = AdaLoRAConfig(targets=("encoder/*/*/q", "encoder/*/*/v"))
    valid_users: float = 0.1
    exam_users: int = 0
    select_by: str = "squared_error"
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-3)
    loop: LoopConfig = LoopConfig(steps=400, evaluate_every=50)
    batch_size: int = 32
    group_by_length: int = 0

    def __post_init__(self) -> None:
        for name, fewest in {
            "categories": 2,
            "seeds": 1,
            "batch_size": 1,
            "group_by_length": 0,
        }.items():
            at_least(f"parse.{name}", getattr(self, name), fewest)
        choices = {
            "popularity": _POPULARITY,
            "pool": _POOLS,
            "loss": LOSSES,
            "lm": _LMS,
            "select_by": _SELECTORS,
        }
        for name, known in choices.items():
            one_of(f"parse.{name}", getattr(self, name), known)
        if not 0 <= self.sub_histories <= 1:
            raise UserError(
                f"parse.sub_histories is {self.sub_histories}: it is a share of the examples, from 0 to 1"
            )
        if not 0 < self.valid_users < 1:
            raise UserError(
                f"parse.valid_users is {self.valid_users}: it must lie between 0 and 1, and leave users to train on"
            )
        if self.optimizer.average:
            raise UserError(
                f"parse.optimizer.average is {self.optimizer.average}: AdaLoRA's masks change the adapters after the "
                "optimizer, so an average would not include them; set it to 0"
            )
        if self.lm == "adalora":
            Schedule.planned(self.adalora, self.loop.steps)


@dataclass(frozen=True)
class AugmentConfig:
    """Information augmentation: the LM's item embeddings in conventional recommenders.

    Attributes:
      way: `initialise` (the item table starts from the embeddings), `concatenate` (trained vectors next to the frozen
        embeddings, projected back), `adapter` (frozen embeddings through a small network, no trained vectors), `halves` (half
        of the table's columns are the frozen embeddings, the other half is trained) or `ensemble` (a recommender of `adapter`
        and the plain one, trained apart; their standardized scores are added).
      reduce: `pca` to the teacher's width (`halves`: to half of it); `half_whitened` or `whitened`, the same with the variances
        of components brought nearer to one another or made equal (`p2rec.text_vectors.principal`); or `learned`: the embeddings
        keep their width and the projection trains with the teacher (not for `initialise` and `halves`, which have none).
      start_std: standard deviation of the vectors that `initialise` starts with, and of the frozen half; a plain table's is
        0.02. Choose it by validation: 0.1 did harm with a small T5 and helped with a pretrained encoder.
      teachers: which recommenders: networks, and `ease`, which becomes CEASE with the embeddings (`teachers.cease`), whatever
        `way`, `reduce` and `start_std` are.
      controls: also train them with embeddings of the LM before `parse` (`untuned`), with the tuned LM's embeddings of other
        items' titles (`shuffled`), and with random vectors of the tuned embeddings' spectrum (`random`).
      max_title_tokens: an item's title is cut to this many tokens where it is embedded; 0 = as in users' texts
        (`prompts.max_title_tokens`), which must leave room for many titles.
      batch_size: titles per batch.
    """

    way: str = "concatenate"
    reduce: str = "pca"
    start_std: float = 0.02
    teachers: tuple[str, ...] = ("sasrec", "gru4rec", "caser")
    controls: tuple[str, ...] = CONTROLS
    max_title_tokens: int = 0
    batch_size: int = 256

    def __post_init__(self) -> None:
        at_least("augment.max_title_tokens", self.max_title_tokens, 0)
        at_least("augment.batch_size", self.batch_size, 1)
        one_of("augment.way", self.way, (*WAYS, ENSEMBLE))
        one_of("augment.reduce", self.reduce, _REDUCTIONS)
        if self.way in ("initialise", "halves") and self.reduce == "learned":
            raise UserError(
                f"augment.reduce is 'learned', but augment.way={self.way} has no projection that could be learned: use 'pca', "
                "'half_whitened' or 'whitened', or another augment.way"
            )
        if self.start_std <= 0:
            raise UserError(f"augment.start_std is {self.start_std}: it must be positive")
        if not self.teachers or len(set(self.teachers)) < len(self.teachers):
            raise UserError(f"augment.teachers is {self.teachers}: name at least one, each once")
        for name in self.teachers:
            one_of("augment.teachers", name, (*NETWORKS, SOLVED))
        if len(set(self.controls)) < len(self.controls):
            raise UserError(f"augment.controls is {self.controls}: name each once")
        for name in self.controls:
            one_of("augment.controls", name, CONTROLS)
