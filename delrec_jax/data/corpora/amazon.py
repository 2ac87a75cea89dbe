"""Amazon product reviews with metadata, by category, in the editions of 2014, 2018 and 2023.

Sources: J. McAuley et al., "Image-based recommendations on styles and substitutes", SIGIR 2015
(2014); J. Ni, J. Li and J. McAuley, "Justifying recommendations using distantly-labeled reviews
and fine-grained aspects", EMNLP 2019 (2018); Y. Hou et al., "Bridging language and items for
retrieval and recommendation", 2024 (2023). The first two are published as 5-cores, the last in full.
"""

import dataclasses
import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import polars as pl
import tensorflow_datasets as tfds

from delrec_jax.data.corpora.amazon_categories import CATEGORIES, check_category, config_name
from delrec_jax.data.corpora.builder import SequenceCorpusBuilder
from delrec_jax.data.corpora.python_literals import field_reader
from delrec_jax.data.corpora.raw import RawTables
from delrec_jax.data.corpora.record_lines import (
    BadLine,
    json_record,
    plain_text,
    python_record,
    read_records,
    required,
    text_of,
    time_of,
    without_repeats,
)
from delrec_jax.data.corpora.resource import Resource
from delrec_jax.data.corpora.tables import RulesConfig, make_corpus
from delrec_jax.data.corpora.times import whole_seconds
from delrec_jax.data.interactions import Corpus

MARKUP_TITLE = "titles: HTML or script, emptied"

_INTERACTIONS = {"user": pl.String, "item": pl.String, "rating": pl.Float64, "time": pl.Int64}
_ITEMS = {"item": pl.String, "title": pl.String, "brand": pl.String, "category": pl.String}
_RATING = re.compile(r"([^,]+),([^,]+),([0-9](?:\.[0-9]+)?),(-?[0-9]{1,15})")
# The crawler sometimes took parts of the page for a title. The 2018 edition's own notebook recognizes such rows by
# "getTime"; a bare "<" or "<3" occurs in real titles.
_MARKUP = re.compile(
    r"\bgetTime\b|aPageStart|\bfunction ?\w*\([^)]*\) ?\{|</?(?:a|div|html|img|link|meta|script|span|style|table)\b",
    re.IGNORECASE,
)


@dataclasses.dataclass(frozen=True)
class _Edition:
    """Where an edition's files are, and how its fields are named."""

    reviews: str
    meta: str
    user: str
    item: str
    rating: str
    time: str
    per_second: int
    brand: str
    category: str
    python_meta: bool


_SNAP = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles/"
_UCSD = "https://mcauleylab.ucsd.edu/public_datasets/data/"
_EDITION_2018 = _Edition(
    reviews=_UCSD + "amazon_v2/categoryFilesSmall/{}_5.json.gz",
    meta=_UCSD + "amazon_v2/metaFiles2/meta_{}.json.gz",
    user="reviewerID",
    item="asin",
    rating="overall",
    time="unixReviewTime",
    per_second=1,
    brand="brand",
    category="main_cat",
    python_meta=False,
)
_EDITIONS = {
    "2014": dataclasses.replace(
        _EDITION_2018,
        reviews=_SNAP + "reviews_{}_5.json.gz",
        meta=_SNAP + "meta_{}.json.gz",
        category="categories",
        python_meta=True,
    ),
    "2018": _EDITION_2018,
    "2023": _Edition(
        reviews=_UCSD + "amazon_2023/raw/review_categories/{}.jsonl.gz",
        meta=_UCSD + "amazon_2023/raw/meta_categories/meta_{}.jsonl.gz",
        user="user_id",
        item="parent_asin",  # one id for a product in all its colors and sizes
        rating="rating",
        time="timestamp",
        per_second=1000,
        brand="store",
        category="main_category",
        python_meta=False,
    ),
}


@dataclasses.dataclass(frozen=True)
class AmazonSettings:
    """Which category of which edition, and what is kept of it.

    Attributes:
      edition: "2014", "2018" or "2023".
      category: As in the files' names, such as "Home_and_Kitchen".
      reviews: The reviews that `resources` names.
      meta: The metadata that `resources` names.
      rules: The rules of every corpus.
    """

    edition: str
    category: str
    reviews: Path
    meta: Path
    rules: RulesConfig


class AmazonCorpus(SequenceCorpusBuilder[AmazonSettings]):
    """TFDS builder of Amazon, with `AmazonSettings`; its named configurations are the categories of each edition."""

    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name=config_name(edition, category))
        for edition, categories in CATEGORIES.items()
        for category in categories
    ]

    def __init__(self, *, settings: AmazonSettings, data_dir: str | os.PathLike[str]):
        name = config_name(settings.edition, settings.category)
        super().__init__(settings=settings, data_dir=data_dir, config=name)

    def parse(self) -> Corpus:
        """Reads the files and applies the rules."""
        settings = self.settings
        raw = read_amazon(
            settings.reviews,
            settings.meta,
            edition=settings.edition,
            category=settings.category,
        )
        return make_corpus(raw, settings.rules)


def resources(edition: str, category: str) -> tuple[Resource, Resource]:
    """The files to download: the reviews and the metadata of a category.

    The files keep their names, which editions partly share: give each edition its own folder.

    Args:
      edition: "2014", "2018" or "2023".
      category: As in the files' names, such as "Home_and_Kitchen".

    Raises:
      UserError: for an unknown edition, or a category that the edition lacks.
    """
    check_category(edition, category)
    layout = _EDITIONS[edition]
    reviews, meta = layout.reviews.format(category), layout.meta.format(category)
    return Resource(reviews, _name_of(reviews)), Resource(meta, _name_of(meta))


def read_amazon(reviews: Path, meta: Path, *, edition: str, category: str) -> RawTables:
    """Reads reviews as interactions and metadata as items, line by line.

    Args:
      reviews: JSON lines, gzipped or not; of 2014 also ratings_CATEGORY.csv (user, item, rating,
        time, without a header).
      meta: One product per line; JSON, in 2014 Python literals.
      edition: "2014", "2018" or "2023".
      category: Names the corpus.

    Returns:
      The tables, with ratings, times in seconds, and the attributes `brand` (the store in 2023)
      and `category` (the main one; in 2014, which has none, the first path). Titles that are markup become "".

    Raises:
      UserError: for an unknown edition or category, if a file cannot be read, or if most of its
        lines cannot be used.
    """
    check_category(edition, category)
    layout = _EDITIONS[edition]
    ratings_only = edition == "2014" and ".csv" in reviews.suffixes
    parse_review = _rating if ratings_only else _review_parser(layout)
    interactions, bad_reviews = read_records(reviews, parse_review, _INTERACTIONS)
    interactions = whole_seconds(interactions, per_second=layout.per_second)
    markup: Counter[str] = Counter()
    items, bad_meta = read_records(meta, _meta_parser(layout, markup), _ITEMS)
    dropped = {f"interactions: {reason}": count for reason, count in bad_reviews.items()}
    dropped |= {f"items: {reason}": count for reason, count in bad_meta.items()}
    items, dropped = without_repeats(items, dropped)
    return RawTables(f"amazon-{edition}-{category}", interactions, items, {**dropped, **markup})


def _name_of(url: str) -> str:
    return url.rpartition("/")[2]


def _review_parser(layout: _Edition) -> Callable[[bytes], tuple[str, str, float, int]]:
    def parse(line: bytes) -> tuple[str, str, float, int]:
        record = json_record(line)
        return (
            required(record, layout.user),
            required(record, layout.item),
            _stars(record.get(layout.rating)),
            time_of(record.get(layout.time), per_second=layout.per_second),
        )

    return parse


def _rating(line: bytes) -> tuple[str, str, float, int]:
    """A line of 2014's ratings without text."""
    match = _RATING.fullmatch(text_of(line))
    if match is None:
        raise BadLine("line that is not user,item,rating,time")
    user, item, stars, time = match.groups()
    return user, item, _stars(float(stars)), time_of(int(time))


def _meta_parser(
    layout: _Edition, markup: Counter[str]
) -> Callable[[bytes], tuple[str, str, str, str]]:
    """A parser of metadata that counts in `markup` the titles that it empties."""
    read_literal = field_reader((layout.item, "title", layout.brand, layout.category))

    def parse(line: bytes) -> tuple[str, str, str, str]:
        record = python_record(read_literal, line) if layout.python_meta else json_record(line)
        item, title = required(record, layout.item), plain_text(record.get("title"))
        if _MARKUP.search(title):
            title = ""
            markup[MARKUP_TITLE] += 1
        return (
            item,
            title,
            _attribute(record.get(layout.brand)),
            _attribute(record.get(layout.category)),
        )

    return parse


def _attribute(value: object) -> str:
    """A name, or the first path of 2014's categories; "" for markup."""
    if isinstance(value, list) and value and isinstance(value[0], list):
        value = " > ".join(plain_text(part) for part in value[0])
    text = plain_text(value)
    return "" if _MARKUP.search(text) else text


def _stars(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 5:
        raise BadLine("line without a rating")
    return float(value)
