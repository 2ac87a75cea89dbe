"""Verbalizers turn answers of the language model into scores of items (method.md, "the verbalizer").

A verbalizer is one object in one file (`mean_scoring`, `sequence_scoring`, `index_scoring`, `embedding_scoring`, or a user's
file); `verbalizers` lists the built-in ones. It defines how titles are scored, what the text must contain, and which titles
it cannot distinguish.

Such titles must tie exactly, because a tie gets the mean rank and a difference in the last bit does not. Two columns of one
product may be summed in different orders, so all tied items get the score of the first of them (`share_scores`).
"""

from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
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
        """Returns the tokens and weights of these items' titles."""
        return jnp.asarray(self.tokens)[items], jnp.asarray(self.weights)[items]


@dataclass(frozen=True)
class Question:
    """A batch of texts put to the language model, with one MASK in each.

    Attributes:
      verbalizer: name of the verbalizer that asks, for messages.
      model: the language model that is asked.
      params: its base parameters.
      ids: the texts.
      sentinel: id of the MASK.
      codes: ids of the codes that precede listed candidates, if the verbalizer lists them.
      options: prompt, adapters and dropout key, as `LanguageModel.encode` takes them.
      owners: 1 + the item whose title each token is part of, 0 outside titles; None if the verbalizer reads none.
      readout: the verbalizer's own parameters.
    """

    verbalizer: str
    model: LanguageModel
    params: Any
    ids: Int[Array, "B T"]
    sentinel: int
    codes: tuple[int, ...]
    options: Mapping[str, Any]
    owners: Int[Array, "B T"] | None = None
    readout: Mapping[str, Any] = field(default_factory=dict)

    def state(self) -> Float[Array, "B D"]:
        """Returns the state that answers the MASK of each text, ready for the head."""
        sentinels = jnp.full((self.ids.shape[0], 1), self.sentinel)
        model = self._answering
        return model.answers(self.params, self.ids, sentinels, **self.options)[:, 0]  # [B, D]

    def states(self, titles: Int[Array, "B C W"]) -> Float[Array, "B C W D"]:
        """Returns the states that predict each token of each text's own titles from the tokens before it."""
        model = self._answering
        return model.forced_answers(self.params, self.ids, titles, self.sentinel, **self.options)

    def encoding(self) -> tuple[Float[Array, "B T D"], Bool[Array, "B T"]]:
        """Returns the encoded texts, and where they are not padding."""
        return self.model.encode(self.params, self.ids, **self.options)

    def head(self) -> Float[Array, "V D"]:
        """Returns the model's output weights."""
        return self._answering.head(self.params)

    @property
    def _answering(self) -> AnsweringModel:
        return asked(self.model, self.verbalizer)


@runtime_checkable
class Verbalizer(Protocol):
    """How items get their scores.

    Attributes:
      name: the verbalizer's name, for messages.
      ranks_catalogue: whether one pass scores every item, by `item_vectors`; otherwise only stated candidates can be scored.
      lists_codes: whether the text lists the candidates, each after a code of one token.
      asks_answers: whether it asks the model for answers, which one that only encodes cannot give.
      shows_examples: whether the report shows worked examples of ranked candidates.
      max_logits: logits in memory at once in addition to the scores, for the estimate of `delrec plan`.
      encodes_titles: whether its item vectors are the mean states of titles, which are then read once and stored.
      reads_owners: whether it reads which title each token belongs to, and so texts that show nothing but a history.
      distilled: the parts of its readout that stage 1 trains beside the prompt; stage 2 trains all of it.
    """

    name: str
    ranks_catalogue: bool = False
    lists_codes: bool = False
    asks_answers: bool = False
    shows_examples: bool = False
    max_logits: int = 0
    encodes_titles: bool = False
    reads_owners: bool = False
    distilled: tuple[str, ...] = ()

    def configured(self, settings: Any, begin: Sequence[int], end: Sequence[int]) -> "Verbalizer":
        """Returns the verbalizer with the settings of a run; by default it has none.

        Args:
          settings: the section `lm` of the config (`config.LMConfig`).
          begin, end: special tokens that the language model reads around a text.
        """
        del settings, begin, end
        return self

    def readout(self, model: LanguageModel, items: int) -> dict[str, Any]:
        """Returns the start of the verbalizer's own parameters; by default it has none.

        Args:
          model: the language model.
          items: number of items, I.
        """
        del model, items
        return {}

    @abstractmethod
    def key(self, title: Sequence[int]) -> Hashable | None:
        """Returns what the verbalizer sees of a title: items with equal keys always tie. None = the item never ties.

        Args:
          title: the tokens of the title.
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
        """Returns the scores of each text's candidates; the score of padding (-1) does not matter.

        Args:
          question: the texts.
          titles: the titles of all items.
          candidates: the items to score.
          vectors: the result of `item_vectors`, if it was computed before.
        """
        ...

    def item_vectors(
        self, model: LanguageModel, params: Any, titles: Titles
    ) -> Float[Array, "I D"]:
        """Returns what can be computed once for all titles, as long as the base parameters do not change.

        Raises:
          UserError: the verbalizer does not rank the catalogue.
        """
        raise _only_candidates(self)

    def catalogue_scores(
        self, question: Question, vectors: Float[Array, "I D"]
    ) -> Float[Array, "B I"]:
        """Returns the scores of every item.

        Raises:
          UserError: the verbalizer does not rank the catalogue.
        """
        raise _only_candidates(self)

    def answers(self, candidates: int, title_tokens: int) -> tuple[int, int]:
        """Returns the number of answers per text and of tokens per answer; by default one answer of one token.

        Args:
          candidates: number of candidates per text.
          title_tokens: number of tokens of the longest title.
        """
        del candidates, title_tokens
        return 1, 1


def asked(model: LanguageModel, verbalizer: str) -> AnsweringModel:
    """Returns the model, which a verbalizer of this name asks for answers.

    Raises:
      UserError: the model only encodes.
    """
    remedy = "use a verbalizer that reads encodings, or method=p2rec, which needs no answers"
    return answering(model, f"lm.verbalizer={verbalizer}", remedy=remedy)


def _only_candidates(verbalizer: Verbalizer) -> UserError:
    return UserError(
        f"lm.verbalizer={verbalizer.name} scores stated candidates only; use 'mean' to score the entire catalogue"
    )


def title_matrix(titles: list[list[int]]) -> Titles:
    """Returns padded title tokens and their weights.

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
    """Returns, for each item, the first item that the verbalizer cannot distinguish from it, possibly the item itself.

    Args:
      tokens: title tokens, 0 where padded.
      verbalizer: provides the keys that are compared.
    """
    first = dict[Any, int]()
    keys = (verbalizer.key(row[row > 0].tolist()) for row in tokens)
    found = [item if key is None else first.setdefault(key, item) for item, key in enumerate(keys)]
    return np.array(found, np.int32)


def shared_titles(tokens: Int[np.ndarray, "I W"], verbalizer: Verbalizer) -> list[np.ndarray]:
    """Returns groups of two or more items whose scores are always equal under this verbalizer, as arrays of items."""
    representative = first_same_title(tokens, verbalizer)
    order = np.argsort(representative, kind="stable")
    starts = np.flatnonzero(np.diff(representative[order])) + 1
    return [group for group in np.split(order, starts) if len(group) > 1]


def share_scores(scores: Float[Array, "B C"], groups: Int[Array, "B C"]) -> Float[Array, "B C"]:
    """Gives all candidates of a group the score of the first one in their row, so that they tie exactly."""
    place = jnp.argmax(groups[:, :, None] == groups[:, None, :], axis=-1)  # [B, C, C] -> [B, C]
    return jnp.take_along_axis(scores, place, axis=1)
