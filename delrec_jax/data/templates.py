"""The words that prompts share: named fields, sentences, and the nouns of four domains.

A template is a sequence of plain text and fields; every text starts and ends at a word boundary, so that the tokens of the
pieces are the tokens of the entire text. Each task's own template is in the file named after it: `sequential_recommendation`,
and others in `delrec` and `p2rec`.
"""

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from delrec_jax.errors import UserError


class Field(enum.Enum):
    """The parts of a text that its template leaves open."""

    EARLIER = "earlier"  # TA: the in-context example's items before the gap
    AFTER_EARLIER = "after_earlier"  # TA: the item after the example's gap
    GAP_EARLIER = "gap_earlier"  # TA: the item in the example's gap
    HISTORY = "history"  # items in time order, oldest first
    AFTER = "after"  # TA: the item after the gap that is asked for
    PATTERN = "pattern"  # soft slots, or an instruction in words
    CANDIDATES = "candidates"  # the candidate set, when it is shown
    RANKED = "ranked"  # RPS: ranks 2..h of the teacher, when they are shown
    MASK = "mask"  # the sentinel that the decoder must produce


@dataclass(frozen=True)
class Domain:
    """The nouns and verbs of one kind of catalogue."""

    noun: str
    plural: str
    verb: str
    past: str


DOMAINS = {
    "movies": Domain("movie", "movies", "watch", "watched"),
    "games": Domain("game", "games", "play", "played"),
    "items": Domain("item", "items", "purchase", "purchased"),
    "home": Domain("home product", "home products", "purchase", "purchased"),
}

Template = tuple[str | Field, ...]

HISTORY: Template = ("The user has {past} these {plural} in order :", Field.HISTORY)
PATTERN: Template = (". The recommendation pattern of the {teacher} model is :", Field.PATTERN)
CANDIDATES: Template = (". The candidate {plural} are :", Field.CANDIDATES)
"""Sentences that several templates share."""

WORDINGS = ("paper", "brief")
"""Sentences as in the paper, or a few words each, which encoders of short texts read faster."""

_BRIEF = {
    Field.EARLIER: "{past} :",
    Field.HISTORY: "{past} :",
    Field.PATTERN: ". {teacher} :",
    Field.CANDIDATES: ". among :",
    Field.RANKED: ". then :",
    Field.MASK: ". next {noun} :",
}
_GAP = "placeholder"  # texts that say which item is asked for stay as they are

SEPARATOR = ";"
_STOP = ". "  # ends the sentence before, at the beginning of a text


def domain(name: str) -> Domain:
    """Returns the words of a domain.

    Raises:
      UserError: there is no such domain.
    """
    if name not in DOMAINS:
        raise UserError(f"data.domain is {name!r}: use one of {', '.join(DOMAINS)}")
    return DOMAINS[name]


def without(template: Template, omitted: set[Field]) -> Template:
    """Returns the template without some fields and the text that introduces each of them."""
    kept: list[str | Field] = []
    for part in template:
        if part in omitted:
            kept.pop()
        else:
            kept.append(part)
    return tuple(kept)


def worded(template: Template, wording: str) -> Template:
    """Returns the template in one of `WORDINGS`; texts that say that a placeholder is meant are the same in all."""
    if wording == "paper":
        return template
    texts: list[str | Field] = list(template)
    for place, part in enumerate(template):
        before = template[place - 1] if place else part
        if isinstance(part, Field) and isinstance(before, str) and _GAP not in before:
            texts[place - 1] = _BRIEF.get(part, before)
    return tuple(texts)


def pattern_first(template: Template) -> Template:
    """Returns the template with PATTERN and the text that introduces it before everything else.

    A template without PATTERN, or one that begins with it, is returned as it is.

    Raises:
      UserError: PATTERN has no such text, or the template begins with a field (a task of the user's own).
    """
    place = template.index(Field.PATTERN) if Field.PATTERN in template else 1
    if place == 1:
        return template
    introduction, first = template[place - 1], template[0]
    if not isinstance(introduction, str) or not isinstance(first, str):
        raise UserError(
            f"prompts.pattern_first moves PATTERN to the beginning of {template}: a text must come before PATTERN and at the "
            "template's beginning; change the template, or set it to False"
        )
    rest = (*template[1 : place - 1], *template[place + 1 :])
    return (introduction.removeprefix(_STOP), Field.PATTERN, _STOP + first, *rest)


WORDS = ("noun", "plural", "verb", "past", "teacher")
"""What a template may name in braces."""


def fill(text: str, words: Domain, teacher: str) -> str:
    """Puts the domain's words and the teacher's name into a piece of template text."""
    return text.format(
        noun=words.noun, plural=words.plural, verb=words.verb, past=words.past, teacher=teacher
    )


def all_words(templates: Iterable[Template], words: Domain, teacher: str) -> list[str]:
    """Returns every piece of text in these templates, and so all their words, for training tokenizers."""
    texts = [part for template in templates for part in template if isinstance(part, str)]
    return [fill(text, words, teacher) for text in texts] + [SEPARATOR]
