"""Texts that a small language model is pre-trained on when no pretrained weights are available.

There are six kinds; a batch holds one kind, so that short texts come in many rows and no row is mostly padding:

- `short`: a title or two and one instruction in plain words; the answer is the title it leads to from the last one.
- `several`: a longer history and several instructions, each with its own MASK.
- `full`: the full template of RPS or LSR with an instruction in place of the later soft prompt, then more instructions.
- `attributes`: "The genre of TITLE is : MASK", several per text.
- `cloze`: a user's training history with titles masked, and its next item; `recent`: the same with few titles.

The first three are made from the catalogue's attributes alone: no user's row is read. Only `cloze` and `recent` read the
training part. `batches` makes batches of the texts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int32

from delrec_jax.config import PretrainTextConfig
from delrec_jax.data.interactions import Interactions
from delrec_jax.data.prompts import NO_PATTERN, Pieces, join_titles
from delrec_jax.data.sequential_recommendation import LSR
from delrec_jax.data.title_tokens import NO_TOKENS, Ids, Items
from delrec_jax.pretraining.text_halves import opening, question

_TASKS = ("rps", LSR)  # RPS, which is stage 1's own, is known here by its name alone


@dataclass(frozen=True)
class Material:
    """What the texts are made from, tokenized once.

    Attributes:
      pieces: titles and templates.
      sentinels: ids of `<extra_id_0>`, `<extra_id_1>`, ...
      maps: behavior -> the item that it leads to from each item, int32 [I]; empty without known relations.
      joints: the tokens before and after an instruction outside a template.
      words: behavior -> its instructions, tokenized.
      attribute_heads: attribute -> the tokens of "The {attribute} of" and of "is :".
      attribute_values: attribute -> tokens of its value for every item (empty where unknown).
      train: the training part of all users; read by `cloze` and `recent` alone.
      heldout: bool [I], items that no question about the catalogue asks for (`cloze` and `recent` may).
      config: shares and shapes.
    """

    pieces: Pieces
    sentinels: Sequence[int]
    maps: Mapping[str, Int32[np.ndarray, "I"]]
    joints: tuple[Ids, Ids]
    words: Mapping[str, Sequence[Ids]]
    attribute_heads: Mapping[str, tuple[Ids, Ids]]
    attribute_values: Mapping[str, list[Ids]]
    train: Interactions
    heldout: Bool[np.ndarray, "I"]
    config: PretrainTextConfig


@dataclass(frozen=True)
class Question:
    """One sentinel's answer: its tokens, and the item whose title they are (-1 for an attribute)."""

    answer: Ids
    item: int


def _draw_item(material: Material, rng: np.random.Generator) -> int:
    return int(rng.integers(len(material.pieces.titles)))


def _ask(
    material: Material,
    history: Items,
    count: int,
    rng: np.random.Generator,
    *,
    start: int = 0,
) -> tuple[list[Ids], list[Question]]:
    """`count` different instructions about the last item, outside a template, except those with held-out answers."""
    parts: list[Ids] = []
    questions: list[Question] = []
    names = list(material.maps)
    for pick in rng.permutation(len(names))[:count]:
        item = int(material.maps[names[pick]][history[-1]])
        if not material.heldout[item]:
            sentinel = material.sentinels[start + len(questions)]
            pattern = _phrase(material, names[pick], rng)
            parts += [
                material.joints[0],
                pattern,
                material.joints[1],
                np.array([sentinel], np.int32),
            ]
            questions.append(Question(material.pieces.titles[item], item))
    return parts, questions


def _phrase(material: Material, name: str, rng: np.random.Generator) -> Ids:
    phrases = material.words[name]
    return phrases[int(rng.integers(len(phrases)))]


def short_text(material: Material, rng: np.random.Generator) -> tuple[Ids, list[Question]]:
    """One or two titles, one instruction."""
    history = _walk(material, 2, rng)
    parts, questions = _ask(material, history, 1, rng)
    return np.concatenate([join_titles(material.pieces, history), *parts]), questions


def several_text(material: Material, rng: np.random.Generator) -> tuple[Ids, list[Question]]:
    """A history of varying length, several instructions."""
    history = _walk(material, material.config.history, rng)
    parts, questions = _ask(material, history, material.config.queries, rng)
    return np.concatenate([join_titles(material.pieces, history), *parts]), questions


def full_text(material: Material, rng: np.random.Generator) -> tuple[Ids, list[Question]]:
    """The template of RPS or LSR with an instruction in the prompt's place, or with none, for any behavior."""
    history = _walk(material, material.config.history, rng)
    names = list(material.maps)
    name = names[int(rng.integers(len(names)))]
    item = int(material.maps[name][history[-1]])
    if material.heldout[item]:
        return NO_TOKENS, []
    task = _TASKS[int(rng.random() >= 0.5)]
    silent = rng.random() < material.config.no_instruction
    pattern = NO_PATTERN if silent else _phrase(material, name, rng)
    opened = opening(material.pieces, task, history, pattern)
    asked = question(material.pieces, task, pattern)
    first = Question(material.pieces.titles[item], item)
    count = int(rng.integers(material.config.queries))
    parts, questions = _ask(material, history, count, rng, start=1)
    return np.concatenate([opened, asked, *parts]), [first, *questions]


def _walk(material: Material, longest: int, rng: np.random.Generator) -> list[int]:
    """A history that follows random behaviors, as a store's customers do, or jumps at random."""
    names = list(material.maps)
    history = [_draw_item(material, rng)]
    for _ in range(int(rng.integers(longest))):
        jump = rng.random() < 0.3
        step = material.maps[names[int(rng.integers(len(names)))]]
        history.append(_draw_item(material, rng) if jump else int(step[history[-1]]))
    return history


def attribute_text(material: Material, rng: np.random.Generator) -> tuple[Ids, list[Question]]:
    """Several questions about attributes of random items; unknown values are not asked for."""
    parts: list[Ids] = []
    questions: list[Question] = []
    names = list(material.attribute_values)
    for _ in range(int(rng.integers(1, material.config.queries + 1))):
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


def recent_text(material: Material, rng: np.random.Generator) -> tuple[Ids, list[Question]]:
    """A cloze text of the few items before a random position in a user's training part."""
    return _masked_history(material, material.config.recent_window, rng)


def cloze_text(material: Material, rng: np.random.Generator) -> tuple[Ids, list[Question]]:
    """A cloze text of a long window of a user's training part."""
    return _masked_history(material, material.config.window, rng)


def _masked_history(
    material: Material, longest: int, rng: np.random.Generator
) -> tuple[Ids, list[Question]]:
    """A window of a user's training history with masked titles, then the item that follows it.

    The last sentinel asks for the next item in the words of LSR or RPS, as in evaluation.
    """
    config, train = material.config, material.train
    end = int(rng.integers(1, len(train.items)))
    user = int(np.searchsorted(train.offsets, end, side="right")) - 1
    start = int(train.offsets[user])
    if end == start:  # a user's first item has no history
        return NO_TOKENS, []
    window = train.items[max(start, end - longest) : end]
    count = min(config.queries - 1, round(config.mask_rate * len(window)))
    masked = set(rng.permutation(len(window))[:count].tolist())
    parts: list[Ids] = []
    questions: list[Question] = []
    for place, item in enumerate(window):
        parts.append(material.pieces.separator)
        if place in masked:
            parts.append(np.array([material.sentinels[len(questions) + 1]], np.int32))
            questions.append(Question(material.pieces.titles[item], int(item)))
        else:
            parts.append(material.pieces.titles[item])
    task = _TASKS[int(rng.random() >= 0.5)]
    head = opening(material.pieces, task, [], NO_PATTERN)
    tail = question(material.pieces, task, NO_PATTERN)
    target = int(train.items[end])
    asked = [Question(material.pieces.titles[target], target), *questions]
    return np.concatenate([head, *parts[1:], tail]), asked
