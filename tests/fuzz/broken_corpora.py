"""Damaged sources of every format that is read, and damaged files of another system's lists.

A source is made whole, one of its files is damaged (in an archive: it, or what is in it), and it is read into a corpus.
"""

import gzip
import io
import json
import shutil
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
from corpus_files import dump, python2_repr, save_columns
from damaged_bytes import BINARY_DAMAGES, OTHER_VALUE, PLACE_DAMAGES, TEXT_DAMAGES, replaced
from verdicts import Case, choice, generator

from delrec_jax.data.corpora.amazon import read_amazon
from delrec_jax.data.corpora.atomic import read_atomic_tables
from delrec_jax.data.corpora.csv_pair import csv_paths, read_csv_pair
from delrec_jax.data.corpora.movielens import read_movielens
from delrec_jax.data.corpora.steam import read_llara, read_ucsd
from delrec_jax.data.corpora.tables import RulesConfig, make_corpus
from delrec_jax.data.interactions import Corpus, fingerprint
from delrec_jax.data.recommendation_lists import read_recommendation_lists

USERS, ITEMS, EACH = 12, 20, 5
PAIRS = [(user, (user + 3 * step) % ITEMS, step) for step in range(EACH) for user in range(USERS)]
TIME = 1_400_000_000


@dataclass(frozen=True)
class Source:
    """A format.

    Attributes:
      files: names of its files.
      write: makes them in a folder.
      read: reads them into a corpus, or into lists.
      packed: names of members of a zip archive in `files[0]`; the others are gzipped where their name says so.
      binary: names of files that are no text.
    """

    files: tuple[str, ...]
    write: Callable[[Path], Any]
    read: Callable[[Path], Any]
    packed: tuple[str, ...] = ()
    binary: tuple[str, ...] = ()


def time_of(user: int, step: int) -> int:
    return TIME + 600 * step + user


def text(rows: list[Any], separator: str) -> str:
    return "".join(separator.join(map(str, row)) + "\n" for row in rows)


def write_atomic(folder: Path) -> None:
    rows = [(f"u{u}", f"i{i}", 4, time_of(u, s)) for u, i, s in PAIRS]
    head = ("user_id:token", "item_id:token", "rating:float", "timestamp:float")
    (folder / "shop.inter").write_text(text([head, *rows], "\t"))
    head = ("item_id:token", "title:token_seq", "year:token")
    items = [(f"i{n}", f"Caf\u00e9 {n}", 1990 + n) for n in range(ITEMS)]
    (folder / "shop.item").write_text(text([head, *items], "\t"))


def write_csv(folder: Path) -> None:
    rows = [(f"u{u}", f"i{i}", 4, time_of(u, s)) for u, i, s in PAIRS]
    (folder / "interactions.csv").write_text(text([("user", "item", "rating", "time"), *rows], ","))
    items = [(f"i{n}", f'"Caf\u00e9, no. {n}"', 1990 + n) for n in range(ITEMS)]
    (folder / "items.csv").write_text(text([("item", "title", "year"), *items], ","))


def write_dated_csv(folder: Path) -> None:
    write_csv(folder)
    rows = [(f"u{u}", f"i{i}", f"2020-0{1 + s}-{10 + u}T10:0{s}:00Z") for u, i, s in PAIRS]
    (folder / "interactions.csv").write_text(text([("userId", "movie_id", "date"), *rows], ","))


def write_ml_100k(folder: Path) -> None:
    movies = [
        (
            n + 1,
            f"Film {n} ({1990 + n})",
            f"{10 + n}-Jan-{1970 + n}",
            "",
            "url",
            *[int(g == n % 19) for g in range(19)],
        )
        for n in range(ITEMS)
    ]
    ratings = [(u + 1, i + 1, 4, time_of(u, s)) for u, i, s in PAIRS]
    members = {"u.data": text(ratings, "\t"), "u.item": text(movies, "|")}
    pack(
        folder / "ml-100k.zip",
        {f"ml-100k/{name}": found.encode("latin-1") for name, found in members.items()},
    )


def write_ml_1m(folder: Path) -> None:
    movies = [(n + 1, f"Film {n} ({1990 + n})", "Drama|Comedy") for n in range(ITEMS)]
    ratings = [(u + 1, i + 1, 4, time_of(u, s)) for u, i, s in PAIRS]
    members = {"ratings.dat": text(ratings, "::"), "movies.dat": text(movies, "::")}
    pack(
        folder / "ml-1m.zip",
        {f"ml-1m/{name}": found.encode("latin-1") for name, found in members.items()},
    )


def pack(path: Path, members: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def write_amazon(folder: Path, edition: str) -> None:
    new = edition == "2023"
    user, item, rating, time = (
        ("user_id", "parent_asin", "rating", "timestamp")
        if new
        else ("reviewerID", "asin", "overall", "unixReviewTime")
    )
    reviews = [
        {
            user: f"A{u}",
            item: f"B{i}",
            rating: 5.0,
            time: time_of(u, s) * (1000 if new else 1),
            "text": "good",
        }
        for u, i, s in PAIRS
    ]
    category = {"2014": "categories", "2018": "main_cat", "2023": "main_category"}[edition]
    value = [["Beauty", "Skin"]] if edition == "2014" else "Beauty"
    products = [
        {
            item: f"B{n}",
            "title": f"Cr\u00e8me {n}",
            "store" if new else "brand": "Ann",
            category: value,
        }
        for n in range(ITEMS)
    ]
    dump(folder / "reviews.json.gz", reviews, json.dumps)
    dump(folder / "meta.json.gz", products, repr if edition == "2014" else json.dumps)


def write_ucsd(folder: Path) -> None:
    reviews = [
        {"username": f"ann{u}", "product_id": f"{i}", "date": f"201{s}-02-{10 + u}", "text": "it's"}
        for u, i, s in PAIRS
    ]
    games = [
        {"app_name": f"Game {n}", "id": f"{n}", "genres": ["Action"], "release_date": "1998-11-08"}
        for n in range(ITEMS)
    ]
    dump(folder / "steam_reviews.json.gz", reviews, python2_repr)
    dump(folder / "steam_games.json.gz", games, python2_repr)


def write_llara(folder: Path) -> None:
    for name, first in (("Val_data.df", 0), ("Test_data.df", 5)):
        rows = [[(first + row + step) % ITEMS for step in range(4)] for row in range(8)]
        columns = {
            "seq": [[*row[:3], ITEMS] for row in rows],
            "len_seq": [3] * len(rows),
            "next": [row[3] for row in rows],
        }
        save_columns(folder / name, columns)
    names = "".join(f"{item}::Game {item}\n" for item in range(ITEMS))
    (folder / "id2name.txt").write_text(names)


LISTED = [
    (f"u{user}", length, f"i{(user + length + rank) % ITEMS}", round(2.5 - rank / 4, 2))
    for user in range(USERS)
    for length in (2, 3)
    for rank in range(4)
]
_COLUMNS = ("user_id", "length", "item_id", "score")


def write_lists(folder: Path) -> None:
    table = pl.DataFrame(LISTED, _COLUMNS, orient="row")
    table.write_csv(folder / "lists.csv")
    table.write_parquet(folder / "lists.parquet")


@cache
def listed_corpus() -> Corpus:
    with TemporaryDirectory() as folder:
        write_atomic(
            shop := Path(folder) / "shop" if (Path(folder) / "shop").mkdir() is None else Path()
        )
        return corpus(read_atomic_tables(str(shop)))


def corpus(raw: Any) -> Corpus:
    return make_corpus(raw, RulesConfig(min_length=3))


def lists(path: Path) -> tuple[Any, ...]:
    found = read_recommendation_lists(path, listed_corpus())
    return tuple(
        np.asarray(part).tobytes()
        for part in (found.users, found.lengths, found.offsets, found.items, found.scores)
    )


def amazon(folder: Path, edition: str) -> Corpus:
    files = (folder / "reviews.json.gz", folder / "meta.json.gz")
    return corpus(read_amazon(*files, edition=edition, category="Electronics"))


_AMAZON = ("reviews.json.gz", "meta.json.gz")
SOURCES: Mapping[str, Source] = {
    "atomic": Source(("shop.inter", "shop.item"), write_atomic, lambda f: corpus(read_atomic_tables(str(f)))),
    "csv": Source(("interactions.csv", "items.csv"), write_csv, lambda f: corpus(read_csv_pair(*csv_paths(str(f))))),
    "csv with dates": Source(
        ("interactions.csv", "items.csv"), write_dated_csv, lambda f: corpus(read_csv_pair(*csv_paths(str(f))))
    ),
    "ml-100k": Source(
        ("ml-100k.zip",), write_ml_100k, lambda f: corpus(read_movielens(f / "ml-100k.zip", "100k")),
        packed=("ml-100k/u.data", "ml-100k/u.item"),
    ),
    "ml-1m": Source(
        ("ml-1m.zip",), write_ml_1m, lambda f: corpus(read_movielens(f / "ml-1m.zip", "1m")),
        packed=("ml-1m/ratings.dat", "ml-1m/movies.dat"),
    ),
    **{
        f"amazon {year}": Source(_AMAZON, lambda f, y=year: write_amazon(f, y), lambda f, y=year: amazon(f, y))
        for year in ("2014", "2018", "2023")
    },
    "steam ucsd": Source(
        ("steam_reviews.json.gz", "steam_games.json.gz"), write_ucsd,
        lambda f: corpus(read_ucsd(f / "steam_reviews.json.gz", f / "steam_games.json.gz")),
    ),
    "steam llara": Source(
        ("Val_data.df", "Test_data.df", "id2name.txt"), write_llara,
        lambda f: corpus(read_llara([f / "Val_data.df", f / "Test_data.df"], f / "id2name.txt")),
        binary=("Val_data.df", "Test_data.df"),
    ),
    "lists csv": Source(("lists.csv",), write_lists, lambda f: lists(f / "lists.csv")),
    "lists parquet": Source(
        ("lists.parquet",), write_lists, lambda f: lists(f / "lists.parquet"), binary=("lists.parquet",)
    ),
}  # fmt: skip


def content(found: Any) -> Any:
    """What is compared: a corpus' content and what it says it lacks, or the lists."""
    if isinstance(found, Corpus):
        return fingerprint(found), {
            reason: count for reason, count in found.dropped.items() if count
        }
    return found


@cache
def healthy(name: str) -> Any:
    with TemporaryDirectory() as folder:
        shop = Path(folder) / "shop"
        shop.mkdir()
        SOURCES[name].write(shop)
        return content(SOURCES[name].read(shop))


def told(name: str, found: Any) -> bool:
    """Whether a corpus says that something is missing or was changed."""
    return isinstance(found, tuple) and len(found) == 2 and found[1] != healthy(name)[1]


def damaged_source(seed: int, number: int, folder: Path) -> Case:
    """One file of one source, damaged."""
    rng = generator(seed, "corpora", number)
    name = list(SOURCES)[number % len(SOURCES)]
    source, shop = SOURCES[name], folder / "shop"
    shutil.rmtree(shop, ignore_errors=True)
    shop.mkdir(parents=True)
    source.write(shop)
    file = choice(rng, source.files)
    kind = choice(rng, ("content",) * 7 + ("outside", "place", "exchanged"))
    what, rule = _damage(source, shop, file, kind, rng)
    return Case(
        label=f"{name}, {file}: {what}",
        attempt=lambda: content(source.read(shop)),
        names=[
            str(shop),
            "corpus shop: no interaction is left",
            "corpus ml-",
            "corpus amazon",
            "corpus steam",
        ],
        same=lambda found: found == healthy(name) or told(name, found),
        rule=rule,
    )


def _damage(
    source: Source, shop: Path, file: str, kind: str, rng: np.random.Generator
) -> tuple[str, str]:
    """Damages the file; returns what was done, and why other content may come of it."""
    path = shop / file
    if kind == "place":
        damage = choice(rng, PLACE_DAMAGES)
        damage(path)
        return damage.__name__, ""
    if kind == "exchanged":
        others = [other for other in SOURCES.values() if other is not source]
        other = choice(rng, others)
        elsewhere = shop.parent / "other"
        shutil.rmtree(elsewhere, ignore_errors=True)
        elsewhere.mkdir()
        other.write(elsewhere)
        name = choice(rng, other.files)
        replaced(path, elsewhere / name)
        return f"replaced by {name} of another format", OTHER_VALUE if name == file else ""
    packed = bool(source.packed) or file.endswith(".gz")
    if file in source.binary or (packed and kind == "outside"):
        damage = choice(rng, BINARY_DAMAGES)
        path.write_bytes(damage(path.read_bytes(), rng))
        return damage.__name__, OTHER_VALUE if file in source.binary else ""
    damage = choice(rng, list(TEXT_DAMAGES))
    if source.packed:
        with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        member = choice(rng, source.packed)
        members[member] = damage(members[member], rng)
        pack(path, members)
        return f"{damage.__name__} in {member}", TEXT_DAMAGES[damage]
    data = path.read_bytes()
    plain = gzip.decompress(data) if file.endswith(".gz") else data
    plain = damage(plain, rng)
    path.write_bytes(gzip.compress(plain) if file.endswith(".gz") else plain)
    return damage.__name__, TEXT_DAMAGES[damage]
