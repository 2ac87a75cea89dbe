"""Prompts as integers: each task's text is assembled from pieces that were tokenized once.

The text of an example is `template pieces + title pieces + soft slots + sentinel`; here they are concatenated as arrays, which
is all that the input pipeline does per example. If a text is too long, its OLDEST history items are dropped; the instruction,
candidates, soft slots, MASK and special tokens never are.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np

from delrec_jax.data.templates import (
    SEPARATOR,
    WORDINGS,
    Field,
    Template,
    fill,
    pattern_first,
    without,
    worded,
)
from delrec_jax.data.templates import domain as domain_words
from delrec_jax.data.title_tokens import NO_TOKENS, Ids, Items, TitleTokens
from delrec_jax.errors import UserError

_Text = TypeVar("_Text")

NO_PATTERN: Ids = NO_TOKENS  # instead of a prompt: its sentence is left out of the text
# The config's section that limits a text's length, and what else would help.
_LIMIT = (
    "prompts",
    "shorten the soft prompt (distill.length), hide the candidates (prompts.show_candidates=False) or cut long titles "
    "(prompts.cut_to_fit=True, prompts.max_title_tokens)",
)
_CUTS = (256, 192, 128, 96, 64, 48, 32, 24, 16, 12, 8)


@dataclass(frozen=True)
class PromptConfig:
    """How texts are built.

    Attributes:
      wording: `paper`, or `brief`: a few words in place of each sentence.
      max_tokens: length of the longest text, in tokens; the oldest history is dropped first.
      max_history: items of a history that are shown, at most.
      show_candidates: list the candidate set in the text (as the reference does; about 5 times as many tokens).
      show_ranks: also list ranks 2..h of the teacher in RPS (as the reference does).
      max_title_tokens: a title is cut to this many tokens in texts, those of P2Rec's single items included; scores of
        titles use all of them. 0 = full titles.
      cut_to_fit: if not even one history item fits in `max_tokens`, cut the titles of that text to 256, 192, 128 .. 8
        tokens, as few as are needed; False refuses such a text.
      ta_example: items of TA's in-context example (`a` of the method: 4 or 6).
      pattern_first: begin texts with the soft prompt and its sentence (as the reference does); False = after the history.
      end_of_text: end texts with the tokenizer's `</s>`, as pretrained models read them (and the reference does); texts for a
        tokenizer with `[CLS]` and `[SEP]` always begin and end with these.
    """

    wording: str = "paper"
    max_tokens: int = 512
    max_history: int = 50
    show_candidates: bool = False
    show_ranks: bool = False
    max_title_tokens: int = 0
    cut_to_fit: bool = False
    ta_example: int = 4
    pattern_first: bool = False
    end_of_text: bool = False

    def __post_init__(self) -> None:
        if self.wording not in WORDINGS:
            raise UserError(f"prompts.wording is {self.wording!r}: use 'paper' or 'brief'")
        if self.max_history < 1:
            raise UserError(f"prompts.max_history is {self.max_history}: it must be at least 1")


@dataclass(frozen=True)
class Pieces:
    """Everything that a text can consist of, tokenized once.

    Attributes:
      titles: `titles[i]` is the array of item i, cut to `max_title_tokens`.
      tasks: for each (task, with its PATTERN sentence or not) the template with its text replaced by tokens.
      separator: tokens between two titles.
      sentinel: id of `<extra_id_0>` or `[MASK]`.
      codes: one-token names of the candidates, for the `index` verbalizer; empty = candidates have none.
      begin: `[CLS]` or nothing, then the words of `lm.prefix`.
      end: `</s>`, `[SEP]` or nothing.
      config: limits and switches.
      limit: the config's section that `max_tokens` comes from, and what else would help, for messages.
      owners: the same pieces with each token's owner in its place (`read_texts.with_owners`); None if nothing reads owners.
      slotted: the same pieces with a soft slot after each title (`read_texts.with_title_slots`); None if no prompt has such.
    """

    titles: TitleTokens
    tasks: Mapping[tuple[str, bool], tuple[Ids | Field, ...]]
    separator: Ids
    sentinel: int
    codes: tuple[int, ...]
    begin: Ids
    end: Ids
    config: PromptConfig
    limit: tuple[str, str] = _LIMIT
    owners: "Pieces | None" = None
    slotted: "Pieces | None" = None

    @property
    def lists_candidates(self) -> bool:
        """Whether texts of tasks that have candidates list them."""
        return self.config.show_candidates or bool(self.codes)

    def framed(self, text: Ids) -> Ids:
        """Returns a text that has no template, such as a title alone, between what every text begins and ends with."""
        return np.concatenate([self.begin, text, self.end])

    @cached_property
    def shorter(self) -> tuple["Pieces", ...]:
        """The same pieces with titles cut more and more (`prompts.cut_to_fit`)."""
        longest = max(map(len, self.titles), default=0) - self.titles.kept
        return tuple(replace(self, titles=self.titles.cut(cut)) for cut in _CUTS if cut < longest)


def tokenise_pieces(
    encode_many: Callable[[list[str]], Sequence[Sequence[int]]],
    titles: Sequence[str],
    templates: Mapping[str, Template],
    *,
    domain: str,
    teacher: str,
    sentinel: int,
    codes: Sequence[int] = (),
    begin: Sequence[int] = (),
    end: Sequence[int] = (),
    config: PromptConfig,
) -> Pieces:
    """Tokenizes titles and template texts, each once.

    Args:
      encode_many: maps texts to lists of ids, without special tokens.
      titles: titles of the catalogue.
      templates: the template of each task by name.
      domain: `movies`, `games`, `items` or `home`.
      teacher: the conventional model's name in the text.
      sentinel: id of `<extra_id_0>` or `[MASK]`.
      codes: ids of the candidates' one-token names (verbalizer `index`).
      begin, end: tokens that every text begins and ends with (`Tokenizer.frame`, `lm.prefix`).
      config: limits and switches.
    """
    words = domain_words(domain)

    def arrays(texts: Sequence[str]) -> list[Ids]:
        return [np.array(ids, np.int32) for ids in encode_many(list(texts))]

    omitted = set()
    if not (config.show_candidates or codes):
        omitted.add(Field.CANDIDATES)
    if not config.show_ranks:
        omitted.add(Field.RANKED)
    tasks = {}
    for name, template in templates.items():
        for with_pattern in (True, False):
            hidden = omitted if with_pattern else omitted | {Field.PATTERN}
            shown = without(worded(template, config.wording), hidden)
            tasks[name, with_pattern] = tuple(
                part if isinstance(part, Field) else arrays([fill(part, words, teacher)])[0]
                for part in (pattern_first(shown) if config.pattern_first else shown)
            )
    separator = arrays([SEPARATOR])[0]
    cut = [title[: config.max_title_tokens or None] for title in arrays(titles)]
    return Pieces(
        titles=TitleTokens(cut, separator),
        tasks=tasks,
        separator=separator,
        sentinel=sentinel,
        codes=tuple(codes),
        begin=np.array(begin, np.int32),
        end=np.array(end, np.int32),
        config=config,
    )


def join_titles(pieces: Pieces, items: Items) -> Ids:
    """Returns the titles of items with separators between them."""
    return pieces.titles.joined(items)


def list_candidates(pieces: Pieces, items: Items) -> Ids:
    """Returns the candidate set as text, each title after its code if there are codes."""
    if not pieces.codes:
        return join_titles(pieces, items)
    if len(items) > len(pieces.codes):
        raise ValueError(f"{len(items)} candidates, but only {len(pieces.codes)} have a code")
    codes = np.array(pieces.codes[: len(items)], np.int32)
    return pieces.titles.joined_behind_codes(items, codes)


def assemble(pieces: Pieces, task: str, fields: Mapping[Field, Ids], history: Items) -> Ids:
    """Concatenates a task's text, special tokens included; an empty PATTERN leaves its sentence out.

    Args:
      pieces: tokenized pieces.
      task: name of its template.
      fields: tokens of every field except HISTORY and MASK.
      history: items of the HISTORY field, oldest first.

    Returns:
      Token ids, at most `max_tokens`.

    Raises:
      UserError: the text is too long even with one history item (`TooLong`).
    """
    template = pieces.tasks[task, len(fields[Field.PATTERN]) > 0]
    mask = np.array([pieces.sentinel], np.int32)
    fields = {**fields, Field.MASK: mask, Field.HISTORY: NO_TOKENS}
    parts = [fields[part] if isinstance(part, Field) else part for part in template]
    parts = [pieces.begin, *parts, pieces.end]
    fixed = sum(map(len, parts))
    room = pieces.config.max_tokens - fixed
    kept = _newest_that_fit(pieces, history, room)
    if room < 0 or (len(history) and not len(kept)):
        section, remedy = pieces.limit
        raise TooLong(
            f"{section}.max_tokens is {pieces.config.max_tokens}, but the {task} text needs {fixed} tokens without any "
            f"history; raise it, {remedy}"
        )
    parts[after_history(template)] = join_titles(pieces, kept)  # one later than in the template
    return np.concatenate(parts)


class TooLong(UserError):
    """A text does not fit in `max_tokens`, even with only one history item."""


def fitting(pieces: Pieces, build: Callable[[Pieces], _Text]) -> _Text:
    """Returns the text that `build` makes from pieces, with titles cut only as far as it needs to fit.

    Args:
      pieces: tokenized pieces; their config says whether titles may be cut (`cut_to_fit`).
      build: makes the text from these pieces or from the same with shorter titles.

    Raises:
      UserError: the text is too long, and titles may not be cut or are already as short as they may be.
    """
    try:
        return build(pieces)
    except TooLong:
        for shorter in pieces.shorter if pieces.config.cut_to_fit else ():
            try:
                return build(shorter)
            except TooLong:
                continue
        raise


def after_history(template: Sequence[Ids | Field]) -> int:
    """Returns the index of the part that follows HISTORY (`tuple.index` would compare arrays)."""
    return next(i for i, part in enumerate(template) if part is Field.HISTORY) + 1


def _newest_that_fit(pieces: Pieces, history: Items, room: int) -> np.ndarray:
    """Returns the newest items whose titles and separators fit into `room` tokens, oldest first."""
    titles = pieces.titles
    newest = np.asarray(history[max(0, len(history) - pieces.config.max_history) :], np.intp)
    needed = titles.separated_lengths[newest[::-1]].cumsum()
    # The first title shown has no separator before it.
    count = needed.searchsorted(room + titles.separator_length, side="right")
    return newest[len(newest) - count :]


def list_candidates_if_shown(pieces: Pieces, candidates: Items) -> Ids:
    """Returns the CANDIDATES field, or no tokens if the texts do not list candidates."""
    return list_candidates(pieces, candidates) if pieces.lists_candidates else NO_TOKENS
