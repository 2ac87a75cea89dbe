"""MovieLens 100K and 1M, read out of GroupLens' zip archives.

Source: F. M. Harper and J. A. Konstan, "The MovieLens Datasets: History and Context", ACM
Transactions on Interactive Intelligent Systems 5(4), 2015.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from delrec_jax.data.corpora.archives import read_member
from delrec_jax.data.corpora.builder import SequenceCorpusBuilder
from delrec_jax.data.corpora.raw import YEAR, RawTables
from delrec_jax.data.corpora.resource import Resource
from delrec_jax.data.corpora.tables import RulesConfig, make_corpus
from delrec_jax.data.corpora.text_rows import TextFormat
from delrec_jax.data.corpora.text_table import TextTable, read_text_table, shown
from delrec_jax.data.interactions import Corpus
from delrec_jax.errors import UserError

_URL = "https://files.grouplens.org/datasets/movielens/"
_RATING = ("user", "item", "rating", "time")
_MOVIE_100K = ("item", "title", "release", "video release", "url")
_GENRES_100K = (
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)
_YEAR_IN_TITLE = r"\(([0-9]{4})\)\s*$"


@dataclasses.dataclass(frozen=True)
class _Edition:
    """An archive, with the checksum that tensorflow_datasets 4.9.10 registers."""

    sha256: str
    ratings: str
    movies: str
    ratings_separator: str
    movies_separator: str
    movie_columns: tuple[str, ...]


_EDITIONS: Mapping[str, _Edition] = {
    "100k": _Edition(
        sha256="50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
        ratings="ml-100k/u.data",
        movies="ml-100k/u.item",
        ratings_separator="\t",
        movies_separator="|",
        movie_columns=(*_MOVIE_100K, *_GENRES_100K),
    ),
    "1m": _Edition(
        sha256="a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
        ratings="ml-1m/ratings.dat",
        movies="ml-1m/movies.dat",
        ratings_separator="::",
        movies_separator="::",
        movie_columns=("item", "title", "genres"),
    ),
}


@dataclasses.dataclass(frozen=True)
class MovieLensSettings:
    """Which MovieLens and what is kept of it.

    Attributes:
      edition: "100k" or "1m".
      archive: The zip file that `resources` names.
      rules: The rules of every corpus.
    """

    edition: str
    archive: Path
    rules: RulesConfig


class MovieLensCorpus(SequenceCorpusBuilder[MovieLensSettings]):
    """TFDS builder of MovieLens, with `MovieLensSettings`."""

    def parse(self) -> Corpus:
        """Reads the archive and applies the rules."""
        settings = self.settings
        return make_corpus(read_movielens(settings.archive, settings.edition), settings.rules)


def resources(edition: str) -> tuple[Resource]:
    """The zip archive to download.

    Args:
      edition: "100k" or "1m".

    Raises:
      UserError: for an unknown edition.
    """
    name = f"ml-{edition}.zip"
    return (Resource(_URL + name, name, sha256=_edition(edition).sha256),)


def read_movielens(archive: Path, edition: str) -> RawTables:
    """Reads the ratings and the movies of an archive.

    Args:
      archive: ml-100k.zip or ml-1m.zip, as downloaded.
      edition: "100k" or "1m".

    Returns:
      The tables, with ratings; movies have the attributes `genre` (names separated by spaces, "" where unknown) and `year`
      (of release), which also stays in the title.

    Raises:
      UserError: for anything wrong in the archive or its files.
    """
    layout = _edition(edition)
    ratings = _member(archive, layout.ratings, layout.ratings_separator, _RATING)
    ratings.require("user", "item")
    movies = _member(archive, layout.movies, layout.movies_separator, layout.movie_columns)
    movies.require("item")
    movies.require_unique("item")
    interactions = ratings.frame.select(
        "user",
        "item",
        ratings.times("time").cast(pl.Int64).alias("time"),
        ratings.numbers("rating").cast(pl.Float64).alias("rating"),
    )
    items = _movies_100k(movies) if edition == "100k" else _movies_1m(movies)
    return RawTables(f"ml-{edition}", interactions, items)


def _edition(edition: str) -> _Edition:
    if edition not in _EDITIONS:
        raise UserError(f"data.edition: {edition!r} is none of {', '.join(_EDITIONS)} (MovieLens)")
    return _EDITIONS[edition]


def _member(archive: Path, name: str, separator: str, columns: tuple[str, ...]) -> TextTable:
    return read_text_table(
        read_member(archive, name),
        name=f"{archive}: {name}",
        form=TextFormat(separator=separator, encoding="latin-1"),
        columns=columns,
    )


def _movies_100k(movies: TextTable) -> pl.DataFrame:
    """Genres from one 0/1 column each; the year from the title, or else from the release date."""
    for genre in _GENRES_100K:
        wrong = (~movies.frame[genre].is_in(["0", "1"])).arg_true()
        if len(wrong):
            raise UserError(
                f"{movies.place(wrong[0], genre)}: {shown(movies.frame[genre][wrong[0]])} is "
                "neither 0 nor 1; fetch the archive again"
            )
    names = [
        pl.when(pl.col(genre) == "1").then(pl.lit(genre))
        for genre in _GENRES_100K
        if genre != "unknown"
    ]
    year = pl.col("title").str.extract(_YEAR_IN_TITLE)
    released = pl.col("release").str.extract(r"-([0-9]{4})$")
    return movies.frame.select(
        "item",
        "title",
        pl.concat_str(names, separator=" ", ignore_nulls=True).alias("genre"),
        pl.coalesce(year, released, pl.lit("")).alias(YEAR),
    )


def _movies_1m(movies: TextTable) -> pl.DataFrame:
    return movies.frame.select(
        "item",
        "title",
        pl.col("genres").str.replace_all("|", " ", literal=True).alias("genre"),
        pl.col("title").str.extract(_YEAR_IN_TITLE).fill_null("").alias(YEAR),
    )
