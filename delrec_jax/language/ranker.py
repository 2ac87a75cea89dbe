"""A language model that ranks: texts in, item scores out, by the chosen verbaliser.

This is the only door between the language model and the rest: stage 1 differentiates it by the prompt, stage 2 by
the adapters, evaluation calls it as it is. It holds shapes and titles, never weights.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from delrec_jax.errors import UserError
from delrec_jax.language import verbalizer
from delrec_jax.language.answering import hidden_at_masks
from delrec_jax.language.t5 import T5, head_matrix


@dataclass(frozen=True, eq=False)  # arrays have no single truth: a ranker equals itself alone
class Ranker:
    """What scores depend on beside weights and texts.

    Attributes:
      module: the T5.
      title_tokens: int32 [I, W], 0 where padded.
      title_weights: float32 [I, W], 1 / length where there is a token.
      sentinel: id of the MASK.
      kind: `mean` or `index`.
      codes: ids of the candidates' codes, for `index`.
    """

    module: T5
    title_tokens: np.ndarray
    title_weights: np.ndarray
    sentinel: int
    kind: str
    codes: tuple[int, ...]

    def _hidden(self, params: Any, ids: Array, options: dict[str, Any]) -> Float[Array, "B D"]:
        sentinels = jnp.full((ids.shape[0], 1), self.sentinel)
        return hidden_at_masks(self.module, params, ids, sentinels, **options)[:, 0]

    def item_vectors(self, params: Any) -> Float[Array, "I D"]:
        """One output vector a title."""
        head = head_matrix(params, self.module.config)
        return verbalizer.item_vectors(head, self.title_tokens, self.title_weights)

    def catalogue_scores(
        self,
        params: Any,
        ids: Int[Array, "B T"],
        *,
        prompt: Array | None = None,
        adapters: Any = None,
        dropout_key: jax.Array | None = None,
    ) -> Float[Array, "B I"]:
        """Scores of every item from one pass (`mean` alone).

        Raises:
          UserError: `index` cannot score what stands not in the text.
        """
        if self.kind != "mean":
            raise UserError(
                "lm.verbalizer=index scores listed candidates only; use 'mean' for whole-catalogue scores"
            )
        options = {"prompt": prompt, "adapters": adapters, "dropout_key": dropout_key}
        return verbalizer.mean_scores(self._hidden(params, ids, options), self.item_vectors(params))

    def candidate_scores(
        self,
        params: Any,
        ids: Int[Array, "B T"],
        candidates: Int[Array, "B C"],
        *,
        prompt: Array | None = None,
        adapters: Any = None,
        dropout_key: jax.Array | None = None,
    ) -> Float[Array, "B C"]:
        """Scores of each text's candidates; with `index` they must be listed in the text in this order.

        Raises:
          UserError: `index` with more candidates than codes.
        """
        options = {"prompt": prompt, "adapters": adapters, "dropout_key": dropout_key}
        hidden = self._hidden(params, ids, options)
        if self.kind == "index":
            if candidates.shape[1] > len(self.codes):
                raise UserError(
                    f"{candidates.shape[1]} candidates, but lm.verbalizer=index has {len(self.codes)} codes: lower the "
                    "number of candidates or use 'mean'"
                )
            codes = jnp.asarray(self.codes[: candidates.shape[1]])
            return verbalizer.index_scores(hidden, head_matrix(params, self.module.config), codes)
        return verbalizer.mean_candidate_scores(hidden, self.item_vectors(params), candidates)
