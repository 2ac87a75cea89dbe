"""The storefront's catalogue: titles of several words, and the relations between items.

An item is a volume of a series of a genre, numbered `(genre * series + slot) * volumes + volume`. Its title says all three
in words, which its number does not: "Silver Harbor Mystery Book Three". Everything here depends on the catalogue's seed
and never on a user, so a language model may be trained on all of it.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32

from delrec_jax import prng
from delrec_jax.data.interactions import Catalogue
from delrec_jax.errors import UserError


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# Shared by all genres, so that no single word of a series' name reveals the genre.
_ADJECTIVES = _words(
    "Silver Hidden Broken Golden Silent Crimson Distant Frozen Hollow Burning Emerald Gentle "
    "Restless Velvet Wandering Northern Paper Copper Painted Forgotten Midnight Scarlet Quiet "
    "Ancient Crystal Drifting Faded Iron Lonely Marble Narrow Open Patient Rising Shattered "
    "Sleeping Southern Stolen Tangled Twisted Vanishing Weathered White Winter Wooden Secret "
    "Little Bright"
)
_NOUNS = _words(
    "Harbor Garden River Tower Mirror Bridge Lantern Valley Crown Island Letter Orchard Compass "
    "Station Window Forest Anchor Castle Meadow Shadow Clock Desert Mountain Voyage Feather "
    "Market Canyon Library Signal Thread Village Circus Engine Flame Gate Hunter Jewel Key "
    "Lake Mask Needle Ocean Path Road Stone Temple Whisper Door"
)
_GENRES = _words(
    "Mystery Romance Western Thriller Comedy Fantasy Drama Tragedy Memoir Chronicle Legend "
    "Fable Satire Ballad Parable Saga Puzzle Quest Biography Travelogue"
)
# Used only where more genres are asked for than there are words, and then for all of them, so that every title has the
# same number of words.
_GENRE_KINDS = _words(
    "Classic Modern Cosmic Rural Royal Nautical Gothic Lunar Polar Tropical Medical Musical "
    "Culinary Sporting Military Domestic"
)
_FORMS = ("Book", "Volume", "Part", "Episode")
_ONES = _words(
    "Zero One Two Three Four Five Six Seven Eight Nine Ten Eleven Twelve Thirteen Fourteen "
    "Fifteen Sixteen Seventeen Eighteen Nineteen"
)
_TENS = _words("Twenty Thirty Forty Fifty Sixty Seventy Eighty Ninety")

# Short on purpose: pre-training on a laptop reads each of them thousands of times.
BEHAVIOUR_WORDS: dict[str, tuple[str, ...]] = {
    "next_volume": ("the next volume", "one volume later"),
    "previous_volume": ("the previous volume", "one volume earlier"),
    "first_volume": ("the first volume", "where the series begins"),
    "companion_series": ("the companion series", "the next series in the genre"),
    "companion_next": ("the next volume of the companion series",),
    "next_genre": ("the next genre", "its counterpart in the next genre"),
    "next_genre_next_volume": ("the next volume in the next genre",),
    "previous_genre": ("the previous genre", "its counterpart in the previous genre"),
}


def build_catalogue(*, genres: int, series: int, volumes: int, seed: int) -> Catalogue:
    """The storefront's catalogue.

    Args:
      genres: Number of genres, G.
      series: Series in each genre, S.
      volumes: Volumes of each series, V.
      seed: Decides the words of each series' name.

    Returns:
      G * S * V items with the attributes `genre`, `series` and `volume`, in words.

    Raises:
      UserError: if there are not enough words for that size.
    """
    names = _series_names(genres, series, seed)
    genre_words = _genre_words(genres)
    numbers = [number_word(volume + 1) for volume in range(volumes)]
    rows = [
        (genre_words[genre], names[genre][slot], number, _FORMS[genre % len(_FORMS)])
        for genre in range(genres)
        for slot in range(series)
        for number in numbers
    ]
    return Catalogue(
        ids=tuple(f"item{index:05d}" for index in range(len(rows))),
        titles=tuple(f"{name} {genre} {form} {number}" for genre, name, number, form in rows),
        attributes={
            "genre": tuple(row[0] for row in rows),
            "series": tuple(row[1] for row in rows),
            "volume": tuple(row[2] for row in rows),
        },
    )


def behaviour_maps(*, genres: int, series: int, volumes: int) -> dict[str, Int32[np.ndarray, "I"]]:
    """The item that each behaviour of `BEHAVIOUR_WORDS` leads to from every item.

    All steps wrap around: the last volume is followed by the first, the last series of a genre by its first, and the last
    genre by the first.

    Returns:
      int32 [I] by the name of the behavior.
    """
    genre, slot, volume = np.unravel_index(
        np.arange(genres * series * volumes), (genres, series, volumes)
    )

    def at(genre: np.ndarray, slot: np.ndarray, volume: np.ndarray) -> np.ndarray:
        """The item at a place of the catalogue, whose axes wrap around."""
        flat = (genre % genres * series + slot % series) * volumes + volume % volumes
        return np.asarray(flat, np.int32)

    return {
        "next_volume": at(genre, slot, volume + 1),
        "previous_volume": at(genre, slot, volume - 1),
        "first_volume": at(genre, slot, 0 * volume),
        "companion_series": at(genre, slot + 1, volume),
        "companion_next": at(genre, slot + 1, volume + 1),
        "next_genre": at(genre + 1, slot, volume),
        "next_genre_next_volume": at(genre + 1, slot, volume + 1),
        "previous_genre": at(genre - 1, slot, volume),
    }


def number_word(number: int) -> str:
    """A number from 1 to 99 in words, such as "Three" or "Forty-Two".

    Raises:
      UserError: if the number is larger.
    """
    if number < len(_ONES):
        return _ONES[number]
    if number > 99:
        raise UserError(
            f"data.storefront.volumes: volume {number} has no number word; use at most 99"
        )
    tens, ones = divmod(number, 10)
    return _TENS[tens - 2] + (f"-{_ONES[ones]}" if ones else "")


def _genre_words(genres: int) -> Sequence[str]:
    if genres <= len(_GENRES):
        return _GENRES[:genres]
    combined = [f"{kind} {word}" for kind in _GENRE_KINDS for word in _GENRES]
    if genres > len(combined):
        raise UserError(
            f"data.storefront.genres: {genres} asked, {len(combined)} names exist; "
            "use fewer genres and more series"
        )
    return combined[:genres]


def _series_names(genres: int, series: int, seed: int) -> list[list[str]]:
    """Unique pairs of words; each word is used in several genres where there are several."""
    total = genres * series
    limit = min(len(_ADJECTIVES), len(_NOUNS))
    if total > limit * limit:
        raise UserError(
            f"data.storefront: genres x series = {total} series asked, {limit * limit} names of "
            "two words exist; use fewer series and more volumes"
        )
    # A third as many words as series: each word is then used in about three genres.
    size = min(limit, max(series + 1, math.isqrt(total - 1) + 1, total // 3))
    generator = prng.generator(seed, "storefront/names")
    adjectives = generator.permutation(_ADJECTIVES)[:size]
    nouns = generator.permutation(_NOUNS)[:size]
    # Diagonals of the square of words: pairs are unique, and the series of one genre, which
    # are neighbors on a diagonal, share no word.
    pairs = [f"{adjectives[k % size]} {nouns[(k + k // size) % size]}" for k in range(total)]
    blocks = [pairs[genre * series : (genre + 1) * series] for genre in range(genres)]
    return [[block[k] for k in generator.permutation(series)] for block in blocks]
