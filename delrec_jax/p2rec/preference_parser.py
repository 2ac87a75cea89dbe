"""P2Rec's preference parser: the encoder reads from a user's text what they prefer.

The encoder's output, averaged over the text or over its titles alone, is mapped linearly to the categories. The average is
also the embedding of an item, whose text is that of a user with this item alone. Liu et al., arXiv 2406.00333.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from delrec_jax.config import ParseConfig
from delrec_jax.language.family import LanguageModel
from delrec_jax.language.logical_axes import constrain
from delrec_jax.language.pooling import mean_pooled
from delrec_jax.language.ranker import Ranker

Projection = dict[str, Array]


def init_projection(width: int, count: int, key: jax.Array) -> Projection:
    """A projection with hardly any preference: zero bias and a kernel so small that softmax is nearly uniform.

    Args:
      width: D of the encoder.
      count: K, the categories.
      key: random key.

    Returns:
      `kernel` [D, K], drawn from N(0, 0.01 / D), and `bias` [K], float32.
    """
    noise = jax.random.normal(key, (width, count), jnp.float32)
    return {"kernel": 0.1 * width**-0.5 * noise, "bias": jnp.zeros(count, jnp.float32)}


@dataclass(frozen=True, eq=False)  # like `Ranker`: shapes alone, weights come with each call
class PreferenceParser:
    """Maps texts to embeddings or to category logits; soft prompts are not used, since the texts have no slots.

    Attributes:
      model: any model that encodes texts; it need not give answers.
    """

    model: LanguageModel

    def pooled(
        self,
        params: Any,
        ids: Int[Array, "B T"],
        counted: Int[Array, "B T"] | None = None,
        *,
        adapters: Any = None,
        dropout_key: jax.Array | None = None,
    ) -> Float[Array, "B D"]:
        """The mean of the encoder's output over tokens of each text, in float32 whatever the model's dtype.

        Args:
          params: the base parameters.
          ids: texts; 0 is padding, which does not count. A text of padding alone (a row that fills a batch) gives zeros.
          counted: 1 at the tokens that are averaged; None = all of them. The encoder reads the full text either way.
          adapters: AdaLoRA's tree.
          dropout_key: given while training with dropout.
        """
        hidden, mask = self.model.encode(params, ids, adapters=adapters, dropout_key=dropout_key)
        if counted is not None:
            mask = mask & (counted > 0)
        return constrain(mean_pooled(hidden, mask), "batch", None)

    def logits(
        self,
        params: Any,
        projection: Projection,
        ids: Int[Array, "B T"],
        counted: Int[Array, "B T"] | None = None,
        *,
        adapters: Any = None,
        dropout_key: jax.Array | None = None,
    ) -> Float[Array, "B K"]:
        """The logits of each text's distribution over the categories.

        Args:
          params: the base parameters.
          projection: `kernel` [D, K] and `bias` [K].
          ids: texts.
          counted: as in `pooled`.
          adapters: AdaLoRA's tree.
          dropout_key: given while training with dropout.
        """
        pooled = self.pooled(params, ids, counted, adapters=adapters, dropout_key=dropout_key)
        return pooled @ projection["kernel"] + projection["bias"]


def preference_parser(ranker: Ranker, config: ParseConfig) -> PreferenceParser:
    """The parser of this language model, with the adapters of `parse`."""
    adapters = config.adalora if config.lm == "adalora" else None
    return PreferenceParser(ranker.model.with_adapters(adapters))
