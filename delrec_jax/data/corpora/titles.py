"""Titles fit to be read: decoded, in natural word order, and each different.

A language model sees items by title only, so two items of one title would be one item to
it, and "Usual Suspects, The" is a phrase that no text contains.
"""

import html
import re
from collections import Counter
from collections.abc import Sequence

from delrec_jax.data.interactions import untitled

# "Matrix, The" and "Matrix, The (1999)", but not "Lion, The Witch and the Wardrobe".
_TRAILING_ARTICLE = re.compile(r"(?P<name>.+), (?P<article>The|An|A)(?P<brackets>( \([^()]*\))*)")


def clean_title(raw: str) -> str:
    """One title with HTML entities decoded, white space collapsed and its article in front.

    Args:
      raw: The source's title; entities may be encoded more than once.

    Returns:
      The title, "" if nothing is left of it.
    """
    decoded = html.unescape(raw)
    while decoded != raw:
        raw, decoded = decoded, html.unescape(decoded)
    title = " ".join(decoded.split())
    match = _TRAILING_ARTICLE.fullmatch(title)
    if match is None:
        return title
    return f"{match['article']} {match['name']}{match['brackets']}"


def fill_empty_titles(titles: Sequence[str], ids: Sequence[str]) -> tuple[list[str], int]:
    """Puts "untitled item ID" where the title is empty.

    Returns:
      The titles and the number that were empty.
    """
    filled = [title or untitled(item) for title, item in zip(titles, ids, strict=True)]
    return filled, sum(not title for title in titles)


def distinct_titles(
    titles: Sequence[str], ids: Sequence[str], years: Sequence[str]
) -> tuple[list[str], int]:
    """Tells items of one title apart by release year or, failing that, by id, in brackets.

    Args:
      titles: Non-empty titles.
      ids: Unique item ids.
      years: Release years, "" where unknown.

    Returns:
      Unique titles, and the number of items whose title was changed. An item whose title
      was unique keeps it.
    """
    dated = _append_to_repeated(titles, years)
    counts = Counter(dated)
    # A year that tells only some of a group apart is kept by these only.
    result = [new if counts[new] == 1 else old for new, old in zip(dated, titles, strict=True)]
    while len(set(result)) < len(result):
        result = _append_to_repeated(result, ids)
    return result, sum(new != old for new, old in zip(result, titles, strict=True))


def _append_to_repeated(titles: Sequence[str], suffixes: Sequence[str]) -> list[str]:
    """Appends the suffix, where there is one, to every title that occurs more than once."""
    counts = Counter(titles)
    return [
        f"{title} ({suffix})" if suffix and counts[title] > 1 else title
        for title, suffix in zip(titles, suffixes, strict=True)
    ]
