"""A language model that ranks: texts in, item scores out, by the chosen verbalizer.

This is the only interface between the language model and the rest: stage 1 differentiates it with respect to the prompt,
stage 2 with respect to the adapters, and evaluation only calls it. It holds shapes and titles, never weights: if the head
is frozen, `item_vectors` computes the item vectors once, and they are passed to each call, like the parameters.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from delrec_jax.language import verbalizer as ties
from delrec_jax.language.family import LanguageModel
from delrec_jax.language.logical_axes import constrain
from delrec_jax.language.soft_prompt import slot_rows
from delrec_jax.language.verbalizer import Question, Titles, Verbalizer


@dataclass(frozen=True, eq=False)  # arrays do not compare to one bool
class Ranker:
    """What scores depend on besides weights and texts.

    Attributes:
      model: the language model.
      title_tokens: int32 [I, W], 0 where padded.
      title_weights: float32 [I, W], 1 / length where there is a token, 0 where padded.
      sentinel: id of the MASK.
      verbalizer: how items get their scores.
      codes: ids of the candidates' codes, if the verbalizer lists them.
    """

    model: LanguageModel
    title_tokens: np.ndarray
    title_weights: np.ndarray
    sentinel: int
    verbalizer: Verbalizer
    codes: tuple[int, ...]

    @property
    def titles(self) -> Titles:
        """Tokens and weights of all titles."""
        return Titles(self.title_tokens, self.title_weights)

    @property
    def ranks_catalogue(self) -> bool:
        """Whether one pass scores every item; otherwise only stated candidates can be scored."""
        return self.verbalizer.ranks_catalogue

    @cached_property
    def first_same_title(self) -> Int[np.ndarray, "I"]:
        """For each item, the first item that the verbalizer cannot distinguish from it."""
        return ties.first_same_title(self.title_tokens, self.verbalizer)

    @property
    def shared_titles(self) -> list[np.ndarray]:
        """Groups of items whose scores always tie, because the verbalizer cannot distinguish their titles."""
        return ties.shared_titles(self.title_tokens, self.verbalizer)

    def item_vectors(self, params: Any) -> Float[Array, "I D"]:
        """Returns what the verbalizer computes once for all titles, if it ranks the catalogue."""
        return self.verbalizer.item_vectors(self.model, params, self.titles)

    def readout(self) -> dict[str, Any]:
        """Returns the start of the verbalizer's own parameters; empty if it has none."""
        return self.verbalizer.readout(self.model, len(self.title_tokens))

    def catalogue_scores(
        self,
        params: Any,
        ids: Int[Array, "B T"],
        *,
        vectors: Float[Array, "I D"] | None = None,
        prompt: Any = None,
        adapters: Any = None,
        dropout_key: jax.Array | None = None,
        owners: Int[Array, "B T"] | None = None,
        guides: Float[Array, "B D"] | None = None,
        readout: Mapping[str, Any] | None = None,
    ) -> Float[Array, "B I"]:
        """Returns the scores of all items from one pass, if the verbalizer ranks the catalogue.

        Args:
          params: the base parameters.
          ids: texts.
          vectors: the result of `item_vectors(params)`, and perhaps rows of padding; None = computed here.
          prompt: the soft prompt, when texts have slots, in either form of `soft_prompt`.
          adapters: AdaLoRA's tree.
          dropout_key: given while training with dropout.
          owners: the item that each token belongs to, if the verbalizer reads it.
          guides: what the teacher expects after each text's history, if the prompt reads it.
          readout: the verbalizer's own parameters; None = as `readout` starts them.

        Raises:
          UserError: the verbalizer scores stated candidates only.
        """
        options = {
            "prompt": slot_rows(prompt, guides),
            "adapters": adapters,
            "dropout_key": dropout_key,
        }
        question = self._question(params, ids, options, owners, readout)
        vectors = self.item_vectors(params) if vectors is None else self._real(vectors)
        scores = self.verbalizer.catalogue_scores(question, vectors)
        # Only the columns of tied items, which may lie on other devices than those of the first items.
        if len(self._tied):
            first = scores[:, self.first_same_title[self._tied]]
            scores = scores.at[:, self._tied].set(first)
        return constrain(scores, "users", "catalogue")

    def candidate_scores(
        self,
        params: Any,
        ids: Int[Array, "B T"],
        candidates: Int[Array, "B C"],
        *,
        vectors: Float[Array, "I D"] | None = None,
        prompt: Any = None,
        adapters: Any = None,
        dropout_key: jax.Array | None = None,
        owners: Int[Array, "B T"] | None = None,
        guides: Float[Array, "B D"] | None = None,
        readout: Mapping[str, Any] | None = None,
    ) -> Float[Array, "B C"]:
        """Returns the scores of each text's candidates, -inf at padding (-1).

        If the verbalizer lists codes, the text must list the candidates in this order; otherwise it need not contain them.
        The other arguments are those of `catalogue_scores`.

        Raises:
          UserError: there are more candidates than codes.
        """
        options = {
            "prompt": slot_rows(prompt, guides),
            "adapters": adapters,
            "dropout_key": dropout_key,
        }
        question = self._question(params, ids, options, owners, readout)
        vectors = None if vectors is None else self._real(vectors)
        scores = self.verbalizer.candidate_scores(question, self.titles, candidates, vectors)
        if len(self._tied):
            groups = jnp.asarray(self.first_same_title)[candidates]  # [B, C]
            scores = ties.share_scores(scores, groups)
        # Padding was scored as the last item, which must not affect ranks.
        return jnp.where(candidates < 0, -jnp.inf, scores)

    def _question(
        self,
        params: Any,
        ids: Array,
        options: dict[str, Any],
        owners: Array | None,
        readout: Mapping[str, Any] | None,
    ) -> Question:
        name, held = self.verbalizer.name, self.readout() if readout is None else readout
        asked = (name, self.model, params, ids, self.sentinel, self.codes, options)
        return Question(*asked, owners=owners, readout=held)

    def _real(self, vectors: Array) -> Array:
        """The vectors without the rows of padding that make them divide over devices."""
        return vectors[: len(self.title_tokens)]

    @cached_property
    def _tied(self) -> Int[np.ndarray, "N"]:
        """The items that the verbalizer cannot distinguish from an earlier one."""
        return np.flatnonzero(self.first_same_title != np.arange(len(self.title_tokens)))
