"""Settings of the verbalizer `embedding`."""

from dataclasses import dataclass

from delrec_jax.choices import one_of
from delrec_jax.errors import UserError

POOLINGS = ("mean", "first", "last", "recency")
"""How the states of a text become one."""


@dataclass(frozen=True)
class EmbeddingConfig:
    """How a text's states become a user's vector, and what of it is trained.

    Attributes:
      pooling: `mean` of all tokens, `first` (the state of `[CLS]`), `last` (the state at MASK), or `recency`: a mean in which
        a token of the latest title weighs 1, of the one before `decay`, then `decay` squared and so on, and a token outside
        titles `rest`. How titles are read is for the model to say (`lm.bert.pooling`).
      decay: factor per title, above 0.
      rest: weight of tokens outside titles, at least 0.
      recent: number of latest titles whose own vectors are added to what the text says; 0 = none.
      recent_weight: start of the trained weight beta of these vectors.
      scale: start of the trained factor of the cosine, above 0.
      mapped: train a linear map of the text's state, which begins as the identity.
      item_bias: train a bias per item, which begins at 0: learned popularity.
      item_residual: train an addition to each item's vector, which begins at 0.
    """

    pooling: str = "recency"
    decay: float = 0.6
    rest: float = 0.3
    recent: int = 2
    recent_weight: float = 1.0
    scale: float = 20.0
    mapped: bool = True
    item_bias: bool = False
    item_residual: bool = False

    def __post_init__(self) -> None:
        one_of("lm.embedding.pooling", self.pooling, POOLINGS)
        for key, holds, wanted in (
            ("decay", 0 < self.decay <= 1, "above 0 and at most 1"),
            ("rest", self.rest >= 0, "at least 0"),
            ("recent", self.recent >= 0, "at least 0"),
            ("scale", self.scale > 0, "above 0"),
        ):
            if not holds:
                raise UserError(f"lm.embedding.{key} is {getattr(self, key)}: it must be {wanted}")
