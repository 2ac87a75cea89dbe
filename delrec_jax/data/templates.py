"""The words of the prompts: four tasks in four domains, with named fields.

DELRec's three texts (method.md): Temporal Analysis (TA), Recommendation Pattern Simulating (RPS) and LLM-based
Sequential Recommendation (LSR, the text of stage 2 and of evaluation); and P2Rec's: a user's history, from which the
encoder reads what he prefers. A template is a sequence of plain text and
fields; every text starts and ends at a word boundary, so that the tokens of the pieces are the tokens of the whole.
"""

import enum
from dataclasses import dataclass

from delrec_jax.errors import UserError


class Field(enum.Enum):
    """What a template leaves open."""

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

_HISTORY: Template = ("The user has {past} these {plural} in order :", Field.HISTORY)
_PATTERN: Template = (". The recommendation pattern of the {teacher} model is :", Field.PATTERN)
_REFER: Template = (". Refer to the recommendation pattern of the {teacher} model :", Field.PATTERN)
_CANDIDATES: Template = (". The candidate {plural} are :", Field.CANDIDATES)

TASKS: dict[str, Template] = {
    "ta": (
        "The user has {past} these {plural} in order :",
        Field.EARLIER,
        "; placeholder ;",
        Field.AFTER_EARLIER,
        ". The placeholder is :",
        Field.GAP_EARLIER,
        ". Then :",
        Field.HISTORY,
        "; placeholder ;",
        Field.AFTER,
        *_PATTERN,
        *_CANDIDATES,
        ". The placeholder is :",
        Field.MASK,
    ),
    "rps": (
        *_HISTORY,
        *_PATTERN,
        *_CANDIDATES,
        ". After the first the {teacher} model ranks :",
        Field.RANKED,
        ". The next {noun} predicted by the {teacher} model might be :",
        Field.MASK,
    ),
    "lsr": (
        *_HISTORY,
        *_REFER,
        *_CANDIDATES,
        ". The next {noun} the user will {verb} is :",
        Field.MASK,
    ),
}

# P2Rec asks the decoder nothing. Not among TASKS: tokenizers are trained on those, and each word stands in them already.
PREFERENCE: Template = (*_HISTORY, ". The pattern of the user is :")

SEPARATOR = ";"
QUESTION = "The {attribute} of {title} is :"  # pre-training alone


def domain(name: str) -> Domain:
    """The words of a domain.

    Raises:
      UserError: no such domain.
    """
    if name not in DOMAINS:
        raise UserError(f"data.domain is {name!r}: use one of {', '.join(DOMAINS)}")
    return DOMAINS[name]


def without(template: Template, omitted: set[Field]) -> Template:
    """The template without some fields and the text that introduces each of them."""
    kept: list[str | Field] = []
    for part in template:
        if part in omitted:
            kept.pop()
        else:
            kept.append(part)
    return tuple(kept)


def fill(text: str, words: Domain, teacher: str) -> str:
    """Puts the domain's words and the teacher's name into a piece of template text."""
    return text.format(
        noun=words.noun, plural=words.plural, verb=words.verb, past=words.past, teacher=teacher
    )


def all_words(words: Domain, teacher: str) -> list[str]:
    """Every piece of text of this domain's tasks, and so every word of any template; trains tokenizers."""
    texts = [part for template in TASKS.values() for part in template if isinstance(part, str)]
    return [fill(text, words, teacher) for text in texts] + [SEPARATOR]
