"""Steam: LLaRA's data frames of sampled windows, and the review dump of McAuley's lab at UCSD.

Sources: J. Liao et al., "LLaRA: Large Language-Recommendation Assistant", SIGIR 2024 (edition
`llara`); W.-C. Kang and J. McAuley, "Self-attentive sequential recommendation", ICDM 2018
(edition `ucsd`).
"""

import dataclasses
import datetime
import operator
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from delrec_jax.data.corpora.archives import lines_of, open_lines
from delrec_jax.data.corpora.builder import SequenceCorpusBuilder
from delrec_jax.data.corpora.frames import load_frame
from delrec_jax.data.corpora.python_literals import field_reader
from delrec_jax.data.corpora.raw import YEAR, RawTables
from delrec_jax.data.corpora.record_lines import (
    BadLine,
    plain_text,
    python_record,
    read_records,
    required,
    text_of,
    without_repeats,
)
from delrec_jax.data.corpora.resource import Resource
from delrec_jax.data.corpora.tables import RulesConfig, make_corpus
from delrec_jax.data.corpora.text_table import shown
from delrec_jax.data.interactions import Corpus
from delrec_jax.errors import UserError

# A fixed revision: the frames were replaced once (May 2024), after repeats at sequence ends.
_LLARA = "hf://datasets/joyliao7777/LLaRA@88e1e386a7a15bb10f7d84ba5199f43b23b75377/steam/"
_UCSD = "https://cseweb.ucsd.edu/~wckang/"
_FILES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "llara": (_LLARA, ("Val_data.df", "Test_data.df", "id2name.txt")),
    "ucsd": (_UCSD, ("steam_reviews.json.gz", "steam_games.json.gz")),
}
_TRAINING = "Train_data.df"
_PARTS = {"train": "train", "val": "valid", "test": "test"}
"""How a frame's name begins, and what the project calls its windows."""
_INTERACTIONS = {"user": pl.String, "item": pl.String, "time": pl.Int64}
_GAMES = {"item": pl.String, "title": pl.String, "genre": pl.String, YEAR: pl.String}


@dataclasses.dataclass(frozen=True)
class SteamSettings:
    """Which edition of Steam, and what is kept of it.

    Attributes:
      edition: "llara" or "ucsd".
      files: The files that `resources` names, in that order; one of LLaRA's frames is enough, unless `given`.
      rules: The rules of every corpus.
      given: Whether LLaRA's own split is asked for, with its training windows.
    """

    edition: str
    files: tuple[Path, ...]
    rules: RulesConfig
    given: bool = False


class SteamCorpus(SequenceCorpusBuilder[SteamSettings]):
    """TFDS builder of Steam, with `SteamSettings`."""

    def parse(self) -> Corpus:
        """Reads the files and applies the rules."""
        *first, last = self.settings.files
        if self.settings.edition == "llara":
            raw = read_llara(first, last, given=self.settings.given)
        else:
            raw = read_ucsd(first[0], last)
        return make_corpus(raw, self.settings.rules)


def resources(edition: str, *, given: bool = False) -> tuple[Resource, ...]:
    """The files to download: the frames (that of the training windows only if `given`) and the names, or reviews and games.

    Raises:
      UserError: for an unknown edition.
    """
    if edition not in _FILES:
        raise UserError(f"data.edition: {edition!r} is none of {', '.join(_FILES)} (Steam)")
    base, names = _FILES[edition]
    names = (_TRAINING, *names) if given else names
    return tuple(Resource(base + name, name) for name in names)


def read_llara(frames: Sequence[Path], names: Path, *, given: bool = False) -> RawTables:
    """Reads LLaRA's windows: each row of a frame is a user, its time the position.

    The frames have no user ids, so a row becomes the user `val-0000001`, `test-0000001` and so on: the split and the row's
    number. The training frame is read for LLaRA's own split alone: judging by its size, it has many overlapping windows per
    user, which cannot be distinguished from many users, and the last item of one window would be an earlier item of the next.

    Args:
      frames: Pickled data frames whose names begin with val or test (or train), with the columns seq (item numbers, padded
        at the end), len_seq and next.
      names: Lines of `number::title`.
      given: Whether the windows keep LLaRA's parts: then there is one frame for each of train, val and test.

    Raises:
      UserError: for anything wrong in the files.
    """
    items = _read_names(names)
    asked = tuple(_PARTS) if given else ("val", "test")
    splits = [_split(path, asked) for path in frames]
    if not splits or len(set(splits)) < len(splits) or (given and len(splits) < len(asked)):
        fewer = "" if given else ", or fewer"
        raise UserError(
            f"{names}: {len(frames)} frames of {shown(splits)} next to it; give one for each of {', '.join(asked)}{fewer}"
        )
    windows = [
        _read_windows(path, split, len(items)) for path, split in zip(frames, splits, strict=True)
    ]
    if given:
        windows = [
            rows.with_columns(part=pl.lit(_PARTS[split]))
            for rows, split in zip(windows, splits, strict=True)
        ]
    return RawTables("steam-llara", pl.concat(windows), items)


def read_ucsd(reviews: Path, games: Path) -> RawTables:
    """Reads the review dump: a review is an interaction on its day, without a rating.

    Users are identified by `username`, as in the papers: not every line has a `user_id`.

    Args:
      reviews: steam_reviews.json.gz, one Python dict per line.
      games: steam_games.json.gz, likewise.

    Raises:
      UserError: if a file cannot be read or most of its lines cannot be used.
    """
    interactions, bad_reviews = read_records(reviews, _review_parser(), _INTERACTIONS)
    items, bad_games = read_records(games, _game_parser(), _GAMES)
    dropped = {f"interactions: {reason}": count for reason, count in bad_reviews.items()}
    dropped |= {f"items: {reason}": count for reason, count in bad_games.items()}
    items, dropped = without_repeats(items, dropped)
    return RawTables("steam-ucsd", interactions, items, dropped)


def _read_names(path: Path) -> pl.DataFrame:
    rows = []
    with open_lines(path) as file:
        for number, line in enumerate(lines_of(path, file)):
            item, separator, title = _decoded(path, number, line).partition("::")
            if not separator or item != str(number):
                raise UserError(
                    f"{path}, line {number + 1}: {line[:60]!r} does not begin with '{number}::'; "
                    "it must be LLaRA's id2name.txt, where games are numbered from 0"
                )
            rows.append((item, title.strip()))
    if not rows:
        raise UserError(f"{path}: the file is empty; fetch LLaRA's id2name.txt again")
    return pl.DataFrame(rows, {"item": pl.String, "title": pl.String}, orient="row")


def _decoded(path: Path, number: int, line: bytes) -> str:
    try:
        return text_of(line)
    except BadLine as error:
        raise UserError(f"{path}, line {number + 1}: {error}; fetch the file again") from error


def _split(path: Path, asked: Sequence[str]) -> str:
    split = path.name.lower().partition("_")[0]
    if split not in asked:
        raise UserError(
            f"{path}: the file's name must begin with one of {', '.join(asked)}, then '_' (LLaRA's training frame is read "
            "for split.kind=given alone: its rows are overlapping windows of unnamed users, and any other split would leak "
            "targets into training)"
        )
    return split


def _read_windows(path: Path, split: str, num_items: int) -> pl.DataFrame:
    """One user per row of a frame: the first `len_seq` items of `seq`, then `next`."""
    frame = load_frame(path)
    missing = {"seq", "len_seq", "next"} - set(frame)
    if missing:
        raise UserError(
            f"{path}: no column {sorted(missing)[0]!r} among {sorted(frame)}; "
            "it must be a data frame of LLaRA"
        )
    rows = zip(frame["seq"], frame["len_seq"], frame["next"], strict=True)
    windows = [
        _window(values, f"{path}, row {row}", num_items=num_items)
        for row, values in enumerate(rows)
    ]
    lengths = [len(window) for window in windows]
    users = pl.Series([f"{split}-{row:07d}" for row in range(len(windows))], dtype=pl.String)
    return pl.DataFrame(
        {
            "user": users[np.repeat(np.arange(len(windows)), lengths)],
            "item": pl.Series(list(chain(*windows)), dtype=pl.Int64).cast(pl.String),
            "time": pl.Series(list(chain(*map(range, lengths))), dtype=pl.Int64),
        }
    )


def _window(values: tuple[Any, Any, Any], place: str, *, num_items: int) -> list[int]:
    """The items of one row of a frame without padding, the next one last."""
    sequence, length, following = values
    try:
        items = [operator.index(item) for item in (*sequence, following)]
        size = operator.index(length)
    except TypeError:  # not a list, or not integers
        items, size = [], 0
    history = [item for item in items[:-1] if item != num_items]
    padded = history + [num_items] * (len(items) - 1 - len(history))
    window = [*history, *items[-1:]]
    # An empty history, which is all padding, has length 1 in LLaRA's frames.
    whole = size == max(len(history), 1) and items[:-1] == padded
    if not whole or not all(0 <= item < num_items for item in window):
        found = shown(" ".join(f"seq {sequence}, len_seq {length}, next {following}".split()))
        raise UserError(
            f"{place}: {found}: seq must be len_seq numbers from 0 to {num_items - 1}, as in "
            f"id2name.txt, padded with {num_items}, and next another such number; fetch the files "
            "again, all of one version"
        )
    return window


def _review_parser() -> Callable[[bytes], tuple[str, str, int]]:
    read = field_reader(("username", "product_id", "date"))
    days = _Days()

    def parse(line: bytes) -> tuple[str, str, int]:
        record = python_record(read, line)
        return (
            required(record, "username"),
            required(record, "product_id"),
            days[record.get("date")],
        )

    return parse


def _game_parser() -> Callable[[bytes], tuple[str, str, str, str]]:
    read = field_reader(("id", "app_name", "title", "genres", "release_date"))

    def parse(line: bytes) -> tuple[str, str, str, str]:
        record = python_record(read, line)
        title = plain_text(record.get("app_name")) or plain_text(record.get("title"))
        genres = record.get("genres")
        names = [plain_text(genre) for genre in genres] if isinstance(genres, list) else []
        year = plain_text(record.get("release_date"))[:4]
        known = year.isascii() and year.isdigit() and len(year) == 4
        return required(record, "id"), title, ", ".join(names), year if known else ""

    return parse


class _Days(dict[object, int]):
    """The Unix time of a day written YYYY-MM-DD, cached: millions of reviews have a few thousand days."""

    def __missing__(self, text: object) -> int:
        try:
            if not isinstance(text, str) or len(text) != 10 or text[7] != "-":
                raise ValueError("not a day")
            day = datetime.date.fromisoformat(text)
        except ValueError as error:
            raise BadLine("line without a date YYYY-MM-DD") from error
        self[text] = (day - datetime.date(1970, 1, 1)).days * 86_400
        return self[text]
