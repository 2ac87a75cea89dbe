"""The verbalizer `embedding`: an item's score is the cosine of the text's state and the vector of the item's title.

Both come from the same encoder, so a sentence encoder ranks a catalogue that it never saw:

    v_i = unit(t_i - mean of all t),      t_i = mean of the states of title i, read alone (or `[CLS]`'s)
    u   = unit(unit(M (s - mean of all t)) + beta * mean of v over the latest titles)
    score_i = scale * (u . v_i)

where s are the text's states pooled by `lm.embedding.pooling`. Scale, beta, and the map M, which begins as the identity, are
trained beside prompt and adapters: the verbalizer's readout. A pooled history alone recommends poorly, because it is nearest
to titles that resemble all of its parts a little; the second term is what the latest titles say by themselves.

Source: Reimers and Gurevych, "Sentence-BERT", EMNLP 2019 (mean pooling, cosine).
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from delrec_jax.language.embedding_config import EmbeddingConfig
from delrec_jax.language.family import LanguageModel
from delrec_jax.language.pooling import POOLS, mean_pooled, weighted_pooled
from delrec_jax.language.title_ages import latest_items, title_ages
from delrec_jax.language.verbalizer import Question, Titles, Verbalizer
from delrec_jax.precision import EXACT

_AT_ONCE = 128  # titles that are encoded together
_TINY = 1e-6

Readout = dict[str, Any]


@dataclass(frozen=True)
class Embedding(Verbalizer):
    """Scores by cosine; ranks the catalogue from one pass.

    Attributes:
      config: pooling, and what is trained.
      begin, end: tokens around every text, with which titles are read too.
    """

    config: EmbeddingConfig = EmbeddingConfig()
    begin: tuple[int, ...] = ()
    end: tuple[int, ...] = ()

    name = "embedding"
    ranks_catalogue = True
    shows_examples = True
    encodes_titles = True
    reads_owners = True
    distilled = ("log_scale", "recent_weight")

    def configured(self, settings: Any, begin: Sequence[int], end: Sequence[int]) -> "Embedding":
        return replace(self, config=settings.embedding, begin=tuple(begin), end=tuple(end))

    def key(self, title: Sequence[int]) -> Hashable | None:
        """Returns the title itself, unless items have parameters of their own."""
        own = self.config.item_bias or self.config.item_residual
        return None if own else tuple(title)

    def readout(self, model: LanguageModel, items: int) -> Readout:
        config, width = self.config, model.width
        found: Readout = {
            "log_scale": jnp.log(jnp.float32(config.scale)),
            "recent_weight": jnp.float32(config.recent_weight),
        }
        if config.mapped:
            found["map"] = jnp.eye(width)
        if config.item_bias:
            found["item_bias"] = jnp.zeros(items)
        if config.item_residual:
            found["item_residual"] = jnp.zeros((items, width))
        return found

    def item_vectors(
        self, model: LanguageModel, params: Any, titles: Titles
    ) -> Float[Array, "I D"]:
        """Returns the vector of each title, read alone, in float32."""
        tokens = jnp.asarray(titles.tokens)

        def vector(title: Int[Array, "W"]) -> Float[Array, "D"]:
            return title_vectors(model, params, self.framed(title[None]))[0]

        return cast(Array, jax.lax.map(vector, tokens, batch_size=_AT_ONCE))

    def framed(self, titles: Int[Array, "N W"]) -> Int[Array, "N T"]:
        """Returns titles between the special tokens; what follows a title's end is padding."""
        count, width = titles.shape
        lengths = (titles > 0).sum(1, keepdims=True)
        room = jnp.zeros((count, len(self.end)), titles.dtype)
        opening = jnp.broadcast_to(jnp.asarray(self.begin, titles.dtype), (count, len(self.begin)))
        whole = jnp.concatenate([opening, titles, room], axis=1)
        place = jnp.arange(width + len(self.begin) + len(self.end)) - len(self.begin) - lengths
        for number, token in enumerate(self.end):
            whole = jnp.where(place == number, token, whole)
        return whole

    def catalogue_scores(
        self, question: Question, vectors: Float[Array, "I D"]
    ) -> Float[Array, "B I"]:
        """Returns the scores of all items, from one product."""
        readout, items = question.readout, self._items(question, vectors)
        users = self._users(question, vectors, items)
        scores = jnp.matmul(users, items.T, precision=EXACT)
        return scores + readout["item_bias"] if self.config.item_bias else scores

    def candidate_scores(
        self,
        question: Question,
        titles: Titles,
        candidates: Int[Array, "B C"],
        vectors: Float[Array, "I D"] | None,
    ) -> Float[Array, "B C"]:
        """Returns the scores of each text's candidates."""
        if vectors is None:
            vectors = self.item_vectors(question.model, question.params, titles)
        readout, items = question.readout, self._items(question, vectors)
        users = self._users(question, vectors, items)
        scores = jnp.einsum("bd,bcd->bc", users, items[candidates], precision=EXACT)
        return scores + readout["item_bias"][candidates] if self.config.item_bias else scores

    def _items(self, question: Question, vectors: Float[Array, "I D"]) -> Float[Array, "I D"]:
        """Returns the unit vectors of all items."""
        items = unit(vectors - vectors.mean(axis=0))
        if self.config.item_residual:
            items = unit(items + question.readout["item_residual"])
        return items

    def _users(
        self, question: Question, vectors: Float[Array, "I D"], items: Float[Array, "I D"]
    ) -> Float[Array, "B D"]:
        """Returns the vector of each text, of length `scale`."""
        readout = question.readout
        said = self._pooled(question) - vectors.mean(axis=0)
        if self.config.mapped:
            said = jnp.matmul(said, readout["map"], precision=EXACT)
        user = unit(said)
        if self.config.recent:
            latest = latest_items(self._owners(question), self.config.recent)  # [B, R]
            shown = (latest >= 0)[..., None]
            recent = jnp.where(shown, items[latest], 0.0).sum(1) / jnp.maximum(shown.sum(1), 1)
            user = unit(user + readout["recent_weight"] * recent)
        return jnp.exp(readout["log_scale"]) * user

    def _pooled(self, question: Question) -> Float[Array, "B D"]:
        states, mask = question.encoding()
        if pool := POOLS.get(self.config.pooling):
            return pool(states, mask)
        if self.config.pooling == "last":
            return mean_pooled(states, question.ids == question.sentinel)
        ages = title_ages(self._owners(question))  # [B, T]
        weights = jnp.where(ages >= 0, self.config.decay ** jnp.maximum(ages, 0), self.config.rest)
        return weighted_pooled(states, jnp.where(mask, weights, 0.0))

    def _owners(self, question: Question) -> Int[Array, "B T"]:
        if question.owners is None:
            raise ValueError(
                f"lm.verbalizer={self.name} reads the owner of each token, and was given none"
            )
        return question.owners


EMBEDDING = Embedding()


def title_vectors(
    model: LanguageModel, params: Any, ids: Int[Array | np.ndarray, "N T"], adapters: Any = None
) -> Float[Array, "N D"]:
    """Returns what the model makes of each title with its special tokens, in float32; plain without adapters."""
    if adapters is None:
        model = model.with_adapters(None)
    return POOLS[model.pooling](*model.encode(params, jnp.asarray(ids), adapters=adapters))


def unit(x: Float[Array, "... D"]) -> Float[Array, "... D"]:
    """Returns vectors divided by their lengths; zeros stay zeros."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), _TINY**2))
