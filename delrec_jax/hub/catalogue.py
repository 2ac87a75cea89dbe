"""`catalogue.json` of a shared folder: the ids of the items and, unless they were left out, their titles."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from delrec_jax.data.corpora.text_rows import TextFormat
from delrec_jax.data.corpora.text_table import read_text_table
from delrec_jax.data.interactions import Catalogue
from delrec_jax.errors import UserError
from delrec_jax.files import write_text
from delrec_jax.hub.manifest import read_part, remedy

_ITEM, _TITLE = "item", "title"


def titles_hash(titles: Sequence[str]) -> str:
    """Returns the SHA-256 (hex) of titles in the order of the items."""
    return hashlib.sha256(json.dumps(list(titles)).encode()).hexdigest()


def write_catalogue(file: Path, catalogue: Catalogue, *, titles: bool) -> None:
    """Writes ids, and titles if they may travel."""
    content = {"ids": catalogue.ids} | ({"titles": catalogue.titles} if titles else {})
    write_text(file, json.dumps(content, ensure_ascii=False) + "\n")


def read_catalogue(file: Path, given: Mapping[str, str] | None, sha256: str) -> Catalogue:
    """Reads the catalogue.

    Args:
      file: catalogue.json.
      given: titles by id, for a folder without titles.
      sha256: hash of the titles that the model was made with.

    Raises:
      UserError: not a catalogue, or the titles are missing or others.
    """
    found = read_part(file)
    ids, titles = found.get("ids"), found.get("titles")
    if titles is None and isinstance(ids, list):
        titles = _given(file, ids, given)
    try:
        catalogue = Catalogue(_texts(ids), _texts(titles), {})
    except (TypeError, ValueError) as error:
        raise UserError(f"{file}: not a catalogue ({error}); {remedy(file)}") from error
    if titles_hash(catalogue.titles) != sha256:
        raise UserError(
            f"{file}: these are not the titles that the model was made with (their SHA-256 differs): give those of the same "
            "corpus, prepared by the same rules"
        )
    return catalogue


def read_titles(file: Path) -> dict[str, str]:
    """Reads titles by id from a CSV file with the columns item and title.

    Raises:
      UserError: no such file, without these columns, or an item without a title or with two.
    """
    table = read_text_table(file, form=TextFormat(separator=",", quoted=True))
    table.require(_ITEM, _TITLE)
    table.require_unique(_ITEM)
    return dict(zip(table.frame[_ITEM], table.frame[_TITLE], strict=True))


def _given(file: Path, ids: list[object], given: Mapping[str, str] | None) -> list[str]:
    if given is None:
        raise UserError(
            f"{file}: the titles were left out (--titles=no), and the language model reads titles: give them by id, "
            "load(..., titles={id: title}) or --titles=FILE.csv with the columns item and title"
        )
    if missing := [name for name in ids if name not in given]:
        raise UserError(f"titles: no title of the item {missing[0]!r} ({len(missing)} missing)")
    return [given[str(name)] for name in ids]


def _texts(values: object) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError("no list of texts")
    return tuple(values)
