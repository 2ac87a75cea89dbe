"""What encoder_step.py gives to both sides: texts, titles, item vectors, targets, and the start of what trains."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from delrec_jax.language.bert_config import BertConfig
from delrec_jax.language.soft_prompt import slot_ids

CLS, SEP, MASK, FIRST_WORD = 101, 102, 103, 1000
SHOWN, LONGEST_TITLE, OPENING = 4, 9, 3
RANK = 8


@dataclass(frozen=True)
class Shape:
    """Sizes of the model and of the work.

    Attributes:
      batch: texts per update.
      tokens: of the longest text; the shortest has 52.
      candidates: items that stage 1's target distribution lists.
      users: texts that are ranked, `at_once` per batch.
    """

    model: BertConfig
    batch: int = 32
    tokens: int = 64
    slots: int = 8
    items: int = 2420
    candidates: int = 100
    users: int = 512
    at_once: int = 128


TINY = BertConfig(vocab_size=2000, hidden_size=48, num_attention_heads=4, intermediate_size=96)
SHAPES = {
    "MiniLM-L6": Shape(BertConfig()),
    "quick": Shape(TINY, batch=8, items=200, candidates=20, users=32, at_once=8),
}


class Texts(NamedTuple):
    """Texts of N users, who each have been shown four titles.

    Attributes:
      ids: int32 [N, T], slots right after CLS, padded with 0.
      owners: int32 [N, T], 1 + the item that each token belongs to, 0 outside titles.
      ages: int32 [N, T], 0 for tokens of the latest title, 1 for the one before, ...; -1 outside titles.
      shown: int32 [N, 4], the items, the latest last.
    """

    ids: np.ndarray
    owners: np.ndarray
    ages: np.ndarray
    shown: np.ndarray


@dataclass(frozen=True)
class Work:
    """What both sides compute with.

    Attributes:
      titles: int32 [I, W], padded with 0; no two are the same.
      vectors: float32 [I, D], frozen.
      prompt: float32 [K, D].
      training: the texts of an update.
      candidates: int32 [B, C]; stage 1's targets float32 [B, C] sum to 1 over them.
      labels: int32 [B], the answers of stage 2.
      known: bool [I], the items that compete.
      asked: the texts that are ranked.
    """

    shape: Shape
    titles: np.ndarray
    vectors: np.ndarray
    prompt: np.ndarray
    training: Texts
    candidates: np.ndarray
    targets: np.ndarray
    labels: np.ndarray
    known: np.ndarray
    asked: Texts

    def adapter(self, block: int, name: str) -> dict[str, np.ndarray]:
        """A [D, R], E [R] and B [R, D] of one projection, the same whichever others are adapted."""
        rng = np.random.default_rng([block, ord(name)])
        width = self.shape.model.hidden_size
        sizes = {"A": (width, RANK), "E": (RANK,), "B": (RANK, width)}
        scale = {"A": 0.02, "E": 1.0, "B": 0.02}
        return {
            part: (scale[part] * rng.normal(size=size)).astype(np.float32)
            for part, size in sizes.items()
        }


def make_work(shape: Shape) -> Work:
    """Random work, the same in all processes."""
    rng = np.random.default_rng(0)
    width = shape.model.hidden_size
    titles = rng.integers(FIRST_WORD, shape.model.vocab_size, (shape.items, LONGEST_TITLE))
    lengths = rng.integers(5, LONGEST_TITLE + 1, shape.items)
    titles = np.where(np.arange(LONGEST_TITLE) < lengths[:, None], titles, 0).astype(np.int32)
    rows = [rng.permutation(shape.items)[: shape.candidates] for _ in range(shape.batch)]
    targets = rng.exponential(size=(shape.batch, shape.candidates))
    return Work(
        shape=shape,
        titles=titles,
        vectors=rng.normal(size=(shape.items, width)).astype(np.float32),
        prompt=(width**-0.5 * rng.normal(size=(shape.slots, width))).astype(np.float32),
        training=_texts(shape, titles, shape.batch, rng),
        candidates=np.stack(rows).astype(np.int32),
        targets=(targets / targets.sum(1, keepdims=True)).astype(np.float32),
        labels=rng.integers(0, shape.items, shape.batch).astype(np.int32),
        known=rng.random(shape.items) < 0.97,
        asked=_texts(shape, titles, shape.users, rng),
    )


def _texts(shape: Shape, titles: np.ndarray, count: int, rng: np.random.Generator) -> Texts:
    """CLS, slots, three words, four titles that each end in a separator, more words, SEP."""
    ids, owners = np.zeros((2, count, shape.tokens), np.int32)
    ages = np.full((count, shape.tokens), -1, np.int32)
    shown = np.stack([rng.permutation(shape.items)[:SHOWN] for _ in range(count)]).astype(np.int32)
    at = 1 + shape.slots
    shortest = at + OPENING + SHOWN * (LONGEST_TITLE + 1)
    for row, length in enumerate(np.linspace(shape.tokens, shortest, count).astype(int)):
        ids[row, :length] = rng.integers(FIRST_WORD, shape.model.vocab_size, length)
        ids[row, 0], ids[row, length - 1] = CLS, SEP
        ids[row, 1:at] = slot_ids(shape.model.vocab_size, shape.slots)
        place = at + OPENING
        for number, item in enumerate(shown[row]):
            title = titles[item][titles[item] > 0]
            here = slice(place, place + len(title))
            ids[row, here], owners[row, here] = title, item + 1
            ages[row, here] = SHOWN - 1 - number
            place += len(title) + 1
    return Texts(ids, owners, ages, shown)
