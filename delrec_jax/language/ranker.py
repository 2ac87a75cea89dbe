"""A language model that ranks: texts in, item scores out, by the chosen verbaliser.

This is the only door between the language model and the rest: stage 1 differentiates it by the prompt, stage 2 by
the adapters, evaluation calls it as it is. It holds shapes and titles, never weights: where the head is frozen, the item
vectors are computed once by `item_vectors` and handed to each call, as the parameters are.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from delrec_jax.errors import UserError
from delrec_jax.language import verbalizer
from delrec_jax.language.answering import answer_states, hidden_at_masks
from delrec_jax.language.sequence_scoring import sequence_scores, teacher_forced
from delrec_jax.language.t5 import T5, head_matrix


@dataclass(frozen=True, eq=False)  # arrays have no single truth: a ranker equals itself alone
class Ranker:
    """What scores depend on beside weights and texts.

    Attributes:
      module: the T5.
      title_tokens: int32 [I, W], 0 where padded.
      title_weights: float32 [I, W], 1 / length where there is a token.
      sentinel: id of the MASK.
      kind: `first`, `mean`, `sequence` or `index`.
      codes: ids of the candidates' codes, for `index`.
    """

    module: T5
    title_tokens: np.ndarray
    title_weights: np.ndarray
    sentinel: int
    kind: str
    codes: tuple[int, ...]

    def __post_init__(self):
        if self.kind not in verbalizer.KINDS:
            raise UserError(
                f"lm.verbalizer is {self.kind!r}: use one of {', '.join(verbalizer.KINDS)}"
            )

    @property
    def ranks_catalogue(self) -> bool:
        """Whether one pass scores every item; otherwise only stated candidates can be scored."""
        return self.kind in verbalizer.CATALOGUE_KINDS

    @cached_property
    def first_same_title(self) -> Int[np.ndarray, "I"]:
        """For each item the first one that the verbaliser cannot tell from it."""
        return verbalizer.first_same_title(self.title_tokens, self.kind)

    @property
    def shared_titles(self) -> list[np.ndarray]:
        """Groups of items whose scores always tie, because the verbaliser cannot tell their titles apart."""
        return verbalizer.shared_titles(self.title_tokens, self.kind)

    def item_vectors(self, params: Any) -> Float[Array, "I D"]:
        """One output vector a title, as `first` and `mean` rank by; for the others as `mean` would."""
        tokens, weights = self._words()
        return verbalizer.item_vectors(self._head(params), tokens, weights)

    def catalogue_scores(
        self,
        params: Any,
        ids: Int[Array, "B T"],
        *,
        vectors: Float[Array, "I D"] | None = None,
        prompt: Array | None = None,
        adapters: Any = None,
        dropout_key: jax.Array | None = None,
    ) -> Float[Array, "B I"]:
        """Scores of every item from one pass (`first` and `mean`).

        Args:
          params: the base parameters.
          ids: texts.
          vectors: what `item_vectors(params)` returned, where it was computed before; None = computed here.
          prompt: the soft prompt, when texts have slots.
          adapters: AdaLoRA's tree.
          dropout_key: given while training with dropout.

        Raises:
          UserError: `index` and `sequence` score stated candidates only.
        """
        if not self.ranks_catalogue:
            raise UserError(
                f"lm.verbalizer={self.kind} scores stated candidates only; use 'mean' for whole-catalogue scores"
            )
        options = {"prompt": prompt, "adapters": adapters, "dropout_key": dropout_key}
        hidden = self._hidden(params, ids, options)
        vectors = self.item_vectors(params) if vectors is None else vectors
        scores = verbalizer.mean_scores(hidden, vectors)
        return scores[:, self.first_same_title] if self._ties else scores

    def candidate_scores(
        self,
        params: Any,
        ids: Int[Array, "B T"],
        candidates: Int[Array, "B C"],
        *,
        vectors: Float[Array, "I D"] | None = None,
        prompt: Array | None = None,
        adapters: Any = None,
        dropout_key: jax.Array | None = None,
    ) -> Float[Array, "B C"]:
        """Scores of each text's candidates, -inf at a padded one (-1).

        With `index` the candidates must be listed in the text in this order; with the others they need not be there.
        Arguments as those of `catalogue_scores`; `vectors` serve `first` and `mean` alone.

        Raises:
          UserError: `index` with more candidates than codes.
        """
        options = {"prompt": prompt, "adapters": adapters, "dropout_key": dropout_key}
        if self.kind == "index":
            scores = self._index_scores(params, ids, candidates.shape[1], options)
        elif self.kind == "sequence":
            scores = self._sequence_scores(params, ids, candidates, options)
        else:
            hidden = self._hidden(params, ids, options)
            own = self._vectors_of(params, candidates) if vectors is None else vectors[candidates]
            scores = verbalizer.mean_candidate_scores(hidden, own)
        if self._ties:
            groups = jnp.asarray(self.first_same_title)[candidates]
            scores = verbalizer.share_scores(scores, groups)
        # Padding was scored as the last item; no rank may depend on it.
        return jnp.where(candidates < 0, -jnp.inf, scores)

    def _index_scores(self, params: Any, ids: Array, count: int, options: dict[str, Any]) -> Array:
        if count > len(self.codes):
            raise UserError(
                f"{count} candidates, but lm.verbalizer=index has {len(self.codes)} codes: lower the "
                "number of candidates or use 'mean'"
            )
        codes = jnp.asarray(self.codes[:count])
        hidden = self._hidden(params, ids, options)
        return verbalizer.index_scores(hidden, self._head(params), codes)

    def _sequence_scores(
        self, params: Any, ids: Array, candidates: Array, options: dict[str, Any]
    ) -> Array:
        titles = jnp.asarray(self.title_tokens)[candidates]
        weights = jnp.asarray(self.title_weights)[candidates]
        answers = teacher_forced(titles, self.sentinel)
        hidden = answer_states(self.module, params, ids, answers, **options)
        return sequence_scores(hidden, self._head(params), titles, weights)

    def _vectors_of(self, params: Any, candidates: Int[Array, "B C"]) -> Float[Array, "B C D"]:
        tokens, weights = (jnp.asarray(part)[candidates] for part in self._words())
        return verbalizer.item_vectors(self._head(params), tokens, weights)

    def _words(self) -> tuple[np.ndarray, np.ndarray]:
        """Tokens and weights whose vectors the verbaliser averages."""
        if self.kind == "first":
            return self.title_tokens[:, :1], np.ones((len(self.title_tokens), 1), np.float32)
        return self.title_tokens, self.title_weights

    @cached_property
    def _ties(self) -> bool:
        return bool((self.first_same_title != np.arange(len(self.title_tokens))).any())

    def _head(self, params: Any) -> Float[Array, "V D"]:
        return head_matrix(params, self.module.config)

    def _hidden(self, params: Any, ids: Array, options: dict[str, Any]) -> Float[Array, "B D"]:
        sentinels = jnp.full((ids.shape[0], 1), self.sentinel)
        return hidden_at_masks(self.module, params, ids, sentinels, **options)[:, 0]
