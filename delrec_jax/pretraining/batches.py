"""Batches of the texts that a small language model is pre-trained on; `texts` makes the texts.

A batch holds one kind of text in one fixed shape: short texts come in many rows, no row is mostly padding, and each
kind is compiled once.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from delrec_jax.batches import Arrays, batch_type
from delrec_jax.config import PretrainTextConfig
from delrec_jax.data.pipeline import collate
from delrec_jax.data.title_tokens import Ids
from delrec_jax.errors import UserError
from delrec_jax.pretraining import texts
from delrec_jax.pretraining.texts import Material, Question
from delrec_jax.training.writers import say

_MOST = 0.9
"""Share of the texts of a kind that should fit: below it, what is left out is said."""


@batch_type
class QuestionText:
    """A text with questions; a batch has a leading axis B.

    Attributes:
      ids: int32 [T].
      sentinels: int32 [Q], one per question, 0 where unused.
      answers: int32 [Q, W] tokens, 0 where unused.
      items: int32 [Q], the items that are the answers, -1 where an answer is not an item.
    """

    ids: Int[Arrays, "*B T"]
    sentinels: Int[Arrays, "*B Q"]
    answers: Int[Arrays, "*B Q W"]
    items: Int[Arrays, "*B Q"]


def answer_width(material: Material) -> int:
    """Tokens of the longest answer."""
    values = [value for column in material.attribute_values.values() for value in column]
    return max(len(answer) for answer in [*material.pieces.titles, *values])


@dataclass(frozen=True)
class BatchShape:
    """The fixed shape of the batches of one kind of text, and their share; `tokens` and `questions` are per row."""

    name: str
    draw: Callable[[Material, np.random.Generator], tuple[Ids, list[Question]]]
    share: float
    rows: int
    tokens: int
    questions: int


def batch_rows(config: PretrainTextConfig, tokens: int, *, ways: int = 1) -> int:
    """Rows of a batch of texts with `tokens` tokens: as many as `batch_tokens` allows, a multiple of 8 and of the devices.

    Args:
      config: the texts' settings.
      tokens: length of the texts.
      ways: number of devices that share a batch; at least so many rows, and at least 8, are made.
    """
    unit = math.lcm(8, ways)
    return max(unit, config.batch_tokens // tokens // unit * unit)


def batch_shapes(
    material: Material, *, max_tokens: int, seed: int, ways: int = 1
) -> list[BatchShape]:
    """The shapes of all kinds with a share.

    The length is the 98 % quantile of 256 texts, or `max_tokens` where that is less; longer texts are drawn again, and where
    these are many, which leaves users' short histories alone, it is said.

    Args:
      material: what texts are made of.
      max_tokens: `prompts.max_tokens`.
      seed: of the 256 texts.
      ways: number of devices that share a batch.

    Raises:
      UserError: no text of a kind can be made, or none fits into `max_tokens`.
    """
    config = material.config
    kinds = {
        "short": texts.short_text,
        "several": texts.several_text,
        "full": texts.full_text,
        "attributes": texts.attribute_text,
        "recent": texts.recent_text,
        "cloze": texts.cloze_text,
    }
    shapes = []
    for name, draw in kinds.items():
        share = getattr(config, name)
        if share > 0:
            rng = np.random.default_rng(seed)
            drawn = [_ended(material, *draw(material, rng)) for _ in range(256)]
            longest = int(np.ceil(np.quantile([len(text) for text, _ in drawn], 0.98) / 8) * 8)
            asked = max(len(questions) for _, questions in drawn)
            if not asked:
                raise UserError(
                    f"pretrain.text.{name} is {share}, but no text of this kind can be made from this corpus; set it to 0"
                )
            tokens = min(longest, max_tokens)
            _tell_left_out(name, np.mean([len(text) <= tokens for text, _ in drawn]), max_tokens)
            rows = batch_rows(config, tokens, ways=ways)
            shapes.append(BatchShape(name, draw, share, rows, tokens, asked))
    return shapes


def _tell_left_out(kind: str, fit: np.floating, max_tokens: int) -> None:
    """Says that many texts of a kind are too long to be read; refuses where all are."""
    if not fit:
        raise UserError(
            f"prompts.max_tokens is {max_tokens}: no pre-training text of the kind {kind!r} is so short; raise it, or set "
            f"pretrain.text.{kind} to 0"
        )
    if fit < _MOST:
        say(
            f"  note: {1 - fit:.0%} of the pre-training texts of the kind {kind!r} are longer than prompts.max_tokens = "
            f"{max_tokens} and are left out, long histories first"
        )


def make_batch(
    material: Material,
    shapes: Sequence[BatchShape],
    width: int,
    *,
    index: int,
    rng: np.random.Generator,
) -> QuestionText:
    """Draws batch number `index`, which holds one kind of text; Q is the most questions that a text of this kind has."""
    if index < material.config.short_first:
        shapes = [shape for shape in shapes if shape.name in ("short", "recent")] or shapes
    shares = np.cumsum([shape.share for shape in shapes])
    shape = shapes[int(np.searchsorted(shares, rng.random() * shares[-1], side="right"))]
    examples: list[QuestionText] = []
    while len(examples) < shape.rows:
        text, questions = _ended(material, *shape.draw(material, rng))
        if len(text) <= shape.tokens and 0 < len(questions) <= shape.questions:
            examples.append(as_example(material, text, questions, (shape.questions, width)))
    return collate(examples, (shape.tokens,))


def _ended(material: Material, text: Ids, questions: list[Question]) -> tuple[Ids, list[Question]]:
    """A drawn text with the end that the later stages' texts have (`prompts.end_of_text`)."""
    return np.concatenate([text, material.pieces.end]), questions


def as_example(
    material: Material, text: Ids, questions: Sequence[Question], shape: tuple[int, int]
) -> QuestionText:
    """Pads the questions of a text to `shape` = (questions, tokens of an answer)."""
    count, width = shape
    answers = np.zeros((count, width), np.int32)
    items = np.full(count, -1, np.int32)
    sentinels = np.zeros(count, np.int32)
    for index, question in enumerate(questions):
        answers[index, : len(question.answer)] = question.answer
        items[index] = question.item
        sentinels[index] = material.sentinels[index]
    return QuestionText(ids=text, sentinels=sentinels, answers=answers, items=items)
