"""Clean titles: decoded, in natural word order, and each one unique.

A language model knows items only by title, so two items with the same title would be one item to it, and "Usual Suspects,
The" is a phrase that no text contains.
"""

import html
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from delrec_jax.data.interactions import untitled

LONGEST_TITLE = 1000
"""In characters; anything longer is not a title but a page or a damaged line."""

# Control, format and private characters, accents on nothing: tokenizers leave nothing of them.
_UNSEEN = ("Cc", "Cf", "Co", "Cn", "Cs", "Mn", "Zs")
# What pandas, databases and spreadsheets write for nothing.
_MISSING = ("nan", "NaN", "NAN", "None", "none", "null", "NULL", "<NA>", "N/A", "n/a")
_ENCODED = 4  # how often entities may have been encoded; a bound, since each pass decodes one layer

# "Matrix, The", but not "Lion, The Witch and the Wardrobe".
_ENGLISH = re.compile(r"(?P<name>.+), (?P<article>The|An|A)")
# Only if the name has no other comma: "Eat, Sleep, Die" is a list. O and I are articles too, but not in "Me, I".
_FOREIGN = re.compile(
    r"(?P<name>[^,]+), (?P<article>L'|Les|Las|Los|La|Le|Lo|Il|Gli|El|Das|Der|Die|Det|Den|Une|Un)"
)
# "Blue Angel, The (Blaue Engel, Der) (1930)": the name, then brackets at the end, perhaps with another name.
_NAME_AND_BRACKETS = re.compile(r"(?P<name>.*?)(?P<brackets>(?: \([^()]*\))*)")
# A bracket holds a name if there is a word before its comma: "(1, A)" is a number and a unit.
_BRACKET = re.compile(r"\((?P<known_as>(?:a\.?k\.?a\.? )?)(?P<name>[^(),]*[^\W\d_]{2}[^()]*)\)")


def clean_title(raw: str) -> str:
    """A title with HTML entities decoded, letters composed (NFC), white space collapsed and articles moved to the front.

    Args:
      raw: The source's title; entities may be encoded more than once.

    Returns:
      The title, "" if nothing that can be seen is left.
    """
    for _ in range(_ENCODED):
        if "&" in raw:
            raw = html.unescape(raw)
    title = " ".join(unicodedata.normalize("NFC", raw).split())
    if all(unicodedata.category(letter) in _UNSEEN for letter in title):
        return ""
    if ", " not in title or len(title) > LONGEST_TITLE:
        return title
    match = _NAME_AND_BRACKETS.fullmatch(title)
    assert match is not None  # the pattern matches every text
    return _article_first(match["name"]) + _BRACKET.sub(_bracket, match["brackets"])


def cut_long_titles(titles: Sequence[str]) -> tuple[list[str], int]:
    """Cuts titles to `LONGEST_TITLE` characters.

    Returns:
      The titles and the number that were longer.
    """
    cut = [title[:LONGEST_TITLE].rstrip() for title in titles]
    return cut, sum(len(title) > LONGEST_TITLE for title in titles)


def fill_empty_titles(titles: Sequence[str], ids: Sequence[str]) -> tuple[list[str], int]:
    """Puts "untitled item ID" where the title is empty, or what software writes for a missing one and several items have.

    Returns:
      The titles and the number that were empty.
    """
    missing = {title for title, count in Counter(titles).items() if count > 1 and title in _MISSING}
    empty = [not title or title in missing for title in titles]
    filled = [
        untitled(item) if gone else title
        for gone, title, item in zip(empty, titles, ids, strict=True)
    ]
    return filled, sum(empty)


def distinct_titles(
    titles: Sequence[str], ids: Sequence[str], years: Sequence[str]
) -> tuple[list[str], int]:
    """Makes equal titles distinct by the release year or, failing that, the id, in brackets.

    Args:
      titles: Non-empty titles.
      ids: Unique item ids.
      years: Release years, "" where unknown.

    Returns:
      Unique titles, and the number of items whose title was changed. An item with a unique title keeps it.
    """
    dated = _append_to_repeated(titles, years)
    counts = Counter(dated)
    # Where years distinguish only some items of a group, only these keep the year.
    result = [new if counts[new] == 1 else old for new, old in zip(dated, titles, strict=True)]
    while len(set(result)) < len(result):
        result = _append_to_repeated(result, ids)
    return result, sum(new != old for new, old in zip(result, titles, strict=True))


def _append_to_repeated(titles: Sequence[str], suffixes: Sequence[str]) -> list[str]:
    """Appends its suffix, if not empty, to every title that occurs more than once."""
    counts = Counter(titles)
    return [
        f"{title} ({suffix})" if suffix and counts[title] > 1 else title
        for title, suffix in zip(titles, suffixes, strict=True)
    ]


def _article_first(name: str) -> str:
    match = _ENGLISH.fullmatch(name) or _FOREIGN.fullmatch(name)
    if match is None:
        return name
    # A letter at the end of a list is no article: "Vitamin D, E, A".
    if match["article"] in ("A", "An") and "," in re.sub(r"\(.*?\)", "", match["name"]):
        return name
    space = "" if match["article"].endswith("'") else " "
    return f"{match['article']}{space}{match['name']}"


def _bracket(match: re.Match[str]) -> str:
    if match["name"].endswith((", A", ", An")):  # "Sports Bra (Nude, A)" has a size
        return match[0]
    return f"({match['known_as']}{_article_first(match['name'])})"
