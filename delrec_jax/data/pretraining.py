"""Texts that a small language model is pre-trained on where no pretrained weights are at hand (design 4.12).

Three kinds, mixed by share, several questions in each text:

- `instructed`: a history and an instruction in plain words where a soft prompt will stand later; the answer is what
  the instruction says of the last item. It comes from the catalogue's attributes alone: no user's row is read.
- `attributes`: "The genre of TITLE is : MASK".
- `cloze`: a user's training history with titles masked, and its next item.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int32

from delrec_jax.data import prompts
from delrec_jax.data.interactions import Interactions
from delrec_jax.data.prompts import Ids, Pieces
from delrec_jax.errors import UserError

_NO_PATTERN = np.zeros(0, np.int32)


@dataclass(frozen=True)
class PretrainTextConfig:
    """Shares and shapes of the texts.

    Attributes:
      instructed: share of instructed texts (needs a catalogue with known relations: the storefront).
      attributes: share of attribute questions.
      cloze: share of masked histories (reads the training part).
      queries: questions a text, at most.
      full_texts: share of instructed texts that use a task's whole template; the others are just history and
        instructions, which are short and hence many.
      no_instruction: share of instructed texts whose instruction is left out.
      history: longest history of an instructed text, in items.
      window: longest history of a cloze text, in items.
      mask_rate: share of a cloze history's titles that are masked.
      heldout_items: share of items that are never an answer, for the gate.
    """

    instructed: float = 0.8
    attributes: float = 0.2
    cloze: float = 0.0
    queries: int = 4
    full_texts: float = 0.3
    no_instruction: float = 0.15
    history: int = 6
    window: int = 32
    mask_rate: float = 0.3
    heldout_items: float = 0.1

    def __post_init__(self):
        shares = (self.instructed, self.attributes, self.cloze)
        if min(shares) < 0 or sum(shares) <= 0:
            raise UserError(
                f"pretrain.text: shares instructed, attributes, cloze are {shares}: at least one must be positive, none negative"
            )


@dataclass(frozen=True)
class Material:
    """What the texts are made of, tokenised once.

    Attributes:
      pieces: titles and templates.
      sentinels: ids of `<extra_id_0>`, `<extra_id_1>`, ...
      maps: behaviour -> the item it leads to from every item, int32 [I]; empty without known relations.
      joints: the tokens before and after an instruction that stands outside a template.
      words: behaviour -> its instructions, tokenised.
      attribute_heads: attribute -> the tokens of "The {attribute} of" and of "is :".
      attribute_values: attribute -> tokens of its value for every item (empty where unknown).
      train: everybody's training part; read by `cloze` alone.
      heldout: bool [I], items that are never an answer.
      config: shares and shapes.
    """

    pieces: Pieces
    sentinels: Sequence[int]
    maps: Mapping[str, Int32[np.ndarray, "I"]]
    joints: tuple[Ids, Ids]
    words: Mapping[str, Sequence[Ids]]
    attribute_heads: Mapping[str, tuple[Ids, Ids]]
    attribute_values: Mapping[str, Sequence[Ids]]
    train: Interactions
    heldout: Bool[np.ndarray, "I"]
    config: PretrainTextConfig


@dataclass(frozen=True)
class Question:
    """One sentinel's answer: its tokens, and the item they are the title of (-1 for an attribute)."""

    answer: Ids
    item: int


def answer_width(material: Material) -> int:
    """Tokens of the longest answer."""
    values = [value for column in material.attribute_values.values() for value in column]
    return max(len(answer) for answer in [*material.pieces.titles, *values])


def make_example(material: Material, width: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draws one text with its questions.

    Returns:
      `ids` [T]; `sentinels` [Q], 0 where unused; `answers` [Q, W] tokens, 0 where unused; `items` [Q], -1 where the
      answer is no item.
    """
    config = material.config
    kinds = (instructed_text, attribute_text, cloze_text)
    shares = np.cumsum([config.instructed, config.attributes, config.cloze])
    kind = kinds[int(np.searchsorted(shares, rng.random() * shares[-1], side="right"))]
    text, questions = kind(material, rng)
    return as_example(material, text, questions, width)


def as_example(
    material: Material, text: Ids, questions: Sequence[Question], width: int
) -> dict[str, np.ndarray]:
    """Pads the questions of a text to fixed shapes."""
    count = material.config.queries
    answers = np.zeros((count, width), np.int32)
    items = np.full(count, -1, np.int32)
    sentinels = np.zeros(count, np.int32)
    for index, question in enumerate(questions):
        answers[index, : len(question.answer)] = question.answer
        items[index] = question.item
        sentinels[index] = material.sentinels[index]
    return {"ids": text, "sentinels": sentinels, "answers": answers, "items": items}


def _draw_item(material: Material, rng: np.random.Generator) -> int:
    return int(rng.integers(len(material.pieces.titles)))


def instructed_text(material: Material, rng: np.random.Generator) -> tuple[Ids, list[Question]]:
    """A history of varying length and some instructions on how it goes on.

    The history walks by random behaviours, as a store's customers do, or jumps at random. A full text asks its first
    question by the template of RPS or LSR. A text without instruction asks once, and any behaviour may be meant.
    """
    config = material.config
    names = list(material.maps)
    history = _walk(material, names, rng)
    silent = rng.random() < config.no_instruction
    full = silent or rng.random() < config.full_texts
    task = "rps" if rng.random() < 0.5 else "lsr"
    opened = (
        prompts.opening(material.pieces, task, history)
        if full
        else prompts.join_titles(material.pieces, history)
    )
    parts, questions = [opened], []
    for pick in rng.permutation(len(names))[: 1 if silent else config.queries]:
        item = int(material.maps[names[pick]][history[-1]])
        if material.heldout[item]:
            continue
        phrases = material.words[names[pick]]
        pattern = _NO_PATTERN if silent else phrases[int(rng.integers(len(phrases)))]
        if full and not questions:
            parts.append(prompts.question(material.pieces, task, pattern))
        else:
            sentinel = np.array([material.sentinels[len(questions)]], np.int32)
            parts += [material.joints[0], pattern, material.joints[1], sentinel]
        questions.append(Question(material.pieces.titles[item], item))
    return np.concatenate(parts), questions


def _walk(material: Material, names: Sequence[str], rng: np.random.Generator) -> list[int]:
    history = [_draw_item(material, rng)]
    for _ in range(int(rng.integers(material.config.history))):
        jump = rng.random() < 0.3
        step = material.maps[names[int(rng.integers(len(names)))]]
        history.append(_draw_item(material, rng) if jump else int(step[history[-1]]))
    return history


def attribute_text(material: Material, rng: np.random.Generator) -> tuple[Ids, list[Question]]:
    """Several questions on attributes of random items; what is unknown is not asked."""
    parts, questions = [], []
    names = list(material.attribute_values)
    for _ in range(material.config.queries):
        item, name = _draw_item(material, rng), names[int(rng.integers(len(names)))]
        value = material.attribute_values[name][item]
        if material.heldout[item] or not len(value):
            continue
        parts.append(attribute_question(material, name, item, material.sentinels[len(questions)]))
        questions.append(Question(value, -1))
    return np.concatenate(parts) if parts else material.pieces.separator, questions


def attribute_question(material: Material, name: str, item: int, sentinel: int) -> Ids:
    """The tokens of "The {name} of {title} is : MASK"."""
    head, tail = material.attribute_heads[name]
    return np.concatenate([head, material.pieces.titles[item], tail, [sentinel]]).astype(np.int32)


def cloze_text(material: Material, rng: np.random.Generator) -> tuple[Ids, list[Question]]:
    """A window of a user's training history with masked titles, then the item that follows it.

    The last sentinel asks for the next item by the words of LSR or RPS, as in evaluation.
    """
    config, train = material.config, material.train
    end = int(rng.integers(1, len(train.items)))
    user = int(np.searchsorted(train.offsets, end, side="right")) - 1
    start = int(train.offsets[user])
    if end == start:  # a user's first item has no history: ask for the second one's
        end = min(end + 1, int(train.offsets[user + 1]) - 1)
    window = train.items[max(start, end - config.window) : end]
    count = min(config.queries - 1, int(round(config.mask_rate * len(window))))
    masked = set(rng.permutation(len(window))[:count].tolist())
    parts, questions = [], []
    for place, item in enumerate(window):
        parts.append(material.pieces.separator)
        if place in masked:
            parts.append(np.array([material.sentinels[len(questions) + 1]], np.int32))
            questions.append(Question(material.pieces.titles[item], int(item)))
        else:
            parts.append(material.pieces.titles[item])
    task = "rps" if rng.random() < 0.5 else "lsr"
    head = prompts.opening(material.pieces, task, [])
    tail = prompts.question(material.pieces, task, _NO_PATTERN)
    target = int(train.items[end])
    asked = [Question(material.pieces.titles[target], target), *questions]
    return np.concatenate([head, *parts[1:], tail]), asked
