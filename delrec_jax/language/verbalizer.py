"""From answers of the language model to scores of items: what a verbalizer is (method.md, "the verbalizer").

A verbalizer is one object in one file (`mean_scoring`, `sequence_scoring`, `index_scoring`; a user's own); `verbalizers` lists
those of the package. It says how titles are scored, what it needs in the text, and which titles it cannot tell apart.

Those must tie exactly, for a tie gets the mean rank and a difference in the last bit does not. No order of summation is
promised to be the same for two columns of one product, so the score of the first of them is given to all (`share_scores`).
"""

from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from delrec_jax.errors import UserError
from delrec_jax.language.family import AnsweringModel, LanguageModel, answering


class Titles(NamedTuple):
    """Titles as padded tokens.

    Attributes:
      tokens: int32 [I, W], 0 where padded.
      weights: float32 [I, W], 1 / length where there is a token, 0 where padded.
    """

    tokens: Int[np.ndarray, "I W"]
    weights: Float[np.ndarray, "I W"]

    def of(self, items: Int[Array, "B C"]) -> tuple[Int[Array, "B C W"], Float[Array, "B C W"]]:
        """Tokens and weights of these items' titles."""
        return jnp.asarray(self.tokens)[items], jnp.asarray(self.weights)[items]


@dataclass(frozen=True)
class Question:
    """A batch of texts put to the language model, with one MASK in each.

    Attributes:
      verbalizer: who asks, for messages.
      model: what is asked.
      params: its base parameters.
      ids: the texts.
      sentinel: id of the MASK.
      codes: ids of the codes that stand before listed candidates, where the verbalizer lists them.
      options: prompt, adapters and dropout key, as `LanguageModel.encode` takes them.
    """

    verbalizer: str
    model: LanguageModel
    params: Any
    ids: Int[Array, "B T"]
    sentinel: int
    codes: tuple[int, ...]
    options: Mapping[str, Any]

    def state(self) -> Float[Array, "B D"]:
        """The state that answers the MASK of each text, ready for the head."""
        sentinels = jnp.full((self.ids.shape[0], 1), self.sentinel)
        model = self._answering
        return model.answers(self.params, self.ids, sentinels, **self.options)[:, 0]

    def states(self, titles: Int[Array, "B C W"]) -> Float[Array, "B C W D"]:
        """The states that predict each token of each text's own titles, given the tokens before it."""
        model = self._answering
        return model.forced_answers(self.params, self.ids, titles, self.sentinel, **self.options)

    def encoding(self) -> tuple[Float[Array, "B T D"], Bool[Array, "B T"]]:
        """What the model makes of the texts, and where they are not padding."""
        return self.model.encode(self.params, self.ids, **self.options)

    def head(self) -> Float[Array, "V D"]:
        """The model's output weights."""
        return self._answering.head(self.params)

    @property
    def _answering(self) -> AnsweringModel:
        return asked(self.model, self.verbalizer)


@runtime_checkable
class Verbalizer(Protocol):
    """How items get their scores.

    Attributes:
      name: for messages.
      ranks_catalogue: one pass scores every item, by `item_vectors`; otherwise only stated candidates can be scored.
      lists_codes: candidates stand in the text, each behind a code of one token.
      shows_examples: the report shows worked examples of ranked candidates.
      max_logits: logits alive at once beside the scores, for the estimate of `delrec plan`.
    """

    name: str
    ranks_catalogue: bool = False
    lists_codes: bool = False
    shows_examples: bool = False
    max_logits: int = 0

    @abstractmethod
    def key(self, title: Sequence[int]) -> Hashable | None:
        """What the verbalizer sees of a title: items of equal keys always tie. None = the item ties with no other.

        Args:
          title: its tokens.
        """
        ...

    @abstractmethod
    def candidate_scores(
        self,
        question: Question,
        titles: Titles,
        candidates: Int[Array, "B C"],
        vectors: Float[Array, "I D"] | None,
    ) -> Float[Array, "B C"]:
        """Scores of each text's candidates; what a padded one (-1) gets does not matter.

        Args:
          question: the texts.
          titles: of the whole catalogue.
          candidates: items.
          vectors: what `item_vectors` returned, where it was computed before.
        """
        ...

    def item_vectors(
        self, model: LanguageModel, params: Any, titles: Titles
    ) -> Float[Array, "I D"]:
        """What can be computed of all titles once, while the base parameters do not change.

        Raises:
          UserError: the verbalizer does not rank the catalogue.
        """
        raise _only_candidates(self)

    def catalogue_scores(
        self, question: Question, vectors: Float[Array, "I D"]
    ) -> Float[Array, "B I"]:
        """Scores of every item.

        Raises:
          UserError: the verbalizer does not rank the catalogue.
        """
        raise _only_candidates(self)

    def answers(self, candidates: int, title_tokens: int) -> tuple[int, int]:
        """Answers that the model is asked for in each text, and tokens of each: one token of one answer, unless said.

        Args:
          candidates: of each text.
          title_tokens: of the longest title.
        """
        del candidates, title_tokens
        return 1, 1


def asked(model: LanguageModel, verbalizer: str) -> AnsweringModel:
    """The model, which a verbalizer of this name asks for answers.

    Raises:
      UserError: it only encodes.
    """
    remedy = "use a verbalizer that reads encodings, or method=p2rec, which needs no answers"
    return answering(model, f"lm.verbalizer={verbalizer}", remedy=remedy)


def _only_candidates(verbalizer: Verbalizer) -> UserError:
    return UserError(
        f"lm.verbalizer={verbalizer.name} scores stated candidates only; use 'mean' for whole-catalogue scores"
    )


def title_matrix(titles: list[list[int]]) -> Titles:
    """Padded title tokens and their weights.

    Raises:
      ValueError: a title without tokens.
    """
    lengths = np.array([len(title) for title in titles])
    if (lengths == 0).any():
        raise ValueError(f"item {int(np.flatnonzero(lengths == 0)[0])} has a title without tokens")
    tokens = np.zeros((len(titles), lengths.max()), np.int32)
    for row, title in zip(tokens, titles, strict=True):
        row[: len(title)] = title
    weights = (np.arange(lengths.max()) < lengths[:, None]) / lengths[:, None]
    return Titles(tokens, weights.astype(np.float32))


def first_same_title(
    tokens: Int[np.ndarray, "I W"], verbalizer: Verbalizer
) -> Int[np.ndarray, "I"]:
    """For each item the first item that the verbalizer cannot tell from it; itself where there is none before it.

    Args:
      tokens: title tokens, 0 where padded.
      verbalizer: whose keys are compared.
    """
    first = dict[Any, int]()
    keys = (verbalizer.key(row[row > 0].tolist()) for row in tokens)
    found = [item if key is None else first.setdefault(key, item) for item, key in enumerate(keys)]
    return np.array(found, np.int32)


def shared_titles(tokens: Int[np.ndarray, "I W"], verbalizer: Verbalizer) -> list[np.ndarray]:
    """Groups of two and more items whose scores are always equal under this verbalizer, as arrays of items."""
    representative = first_same_title(tokens, verbalizer)
    order = np.argsort(representative, kind="stable")
    starts = np.flatnonzero(np.diff(representative[order])) + 1
    return [group for group in np.split(order, starts) if len(group) > 1]


def share_scores(scores: Float[Array, "B C"], groups: Int[Array, "B C"]) -> Float[Array, "B C"]:
    """Gives every candidate of a group the score of the row's first one of that group: their tie is exact."""
    place = jnp.argmax(groups[:, :, None] == groups[:, None, :], axis=-1)
    return jnp.take_along_axis(scores, place, axis=1)
