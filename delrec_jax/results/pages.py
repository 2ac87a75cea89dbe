"""Fills the tables of the docs from `results/NAME/summary.json`.

    python benchmarks/evidence/tables.py [--check] [PAGE ...]

A page (by default README.md and all of docs/) has blocks of the form

    <!-- table: NAME[,NAME] [KIND] [KEY=VALUE ...] -->
    <!-- end -->

and what stands between the two lines is replaced. Kinds, each with its keys:

    systems (the default)  protocol=full group=all metrics=HR@1,NDCG@10 interval=NDCG@10 systems=ease,hybrid*,teacher@sasrec
    comparisons            protocol=full group=all metrics=NDCG@10 systems=... references=...
    side                   several names as columns: protocol=full group=all metric=NDCG@10 systems=...
    origin                 commands, commit, machine, date, hashes
    ways                   P2Rec's ways by validation, from results/NAME/ways.json (augmentations.py); several names as columns

`--check` changes nothing and exits with 1 if a page is not what this script would write.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import layouts
from provenance import ROOT
from ways import ways_table

from delrec_jax.errors import UserError
from delrec_jax.files import write_text

RESULTS = ROOT / "results"

_START = re.compile(r"<!-- table:(?P<spec>[^\n]*?)-->")
_BLOCK = re.compile(_START.pattern + r"\n(?:(?!<!-- table:).)*?<!-- end -->", re.DOTALL)
_Layout = Callable[[Mapping[str, Any], Mapping[str, str]], str]
_KINDS: Mapping[str, tuple[_Layout, tuple[str, ...]]] = {
    "systems": (
        layouts.systems_table,
        ("protocol", "group", "metrics", "interval", "systems"),
    ),
    "comparisons": (
        layouts.comparisons_table,
        ("protocol", "group", "metrics", "systems", "references"),
    ),
    "side": (layouts.side_table, ("protocol", "group", "metric", "systems")),
    "origin": (layouts.origin_text, ()),
    "ways": (ways_table, ()),
}
_SEVERAL = ("side", "ways")


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the tables, or checks them; a mistake in a page ends with one line and status 2."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("pages", nargs="*", type=Path, metavar="PAGE")
    options.add_argument("--check", action="store_true", help="change nothing; 1 if out of date")
    options.add_argument("--results", type=Path, default=RESULTS, help="default: the repository's")
    values = options.parse_args(argv)
    pages = values.pages or [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    try:
        stale = [page for page in pages if refresh(page, values.results, write=not values.check)]
    except UserError as error:
        print(f"tables: {error}", file=sys.stderr)
        sys.exit(error.status)
    for page in stale:
        print(f"{page}: {'out of date' if values.check else 'written'}")
    if stale and values.check:
        print("run `python benchmarks/evidence/tables.py`")
        sys.exit(1)


def refresh(page: Path, results: Path, *, write: bool) -> bool:
    """Fills the blocks of a page; returns whether that changes it.

    Args:
        page: a markdown file.
        results: the folder of the summaries.
        write: whether to store the change.

    Raises:
        UserError: a block without an end, an unknown name, kind, key or value; names the page and the line.
    """
    text = page.read_text(encoding="utf-8")
    closed = {found.start() for found in _BLOCK.finditer(text)}
    for found in _START.finditer(text):
        if found.start() not in closed:
            raise UserError(
                f"{page}, line {_line(text, found.start())}: the table has no end; write <!-- end --> on a line below it"
            )

    def filled(found: re.Match[str]) -> str:
        try:
            table = render(found["spec"], results)
        except UserError as error:
            raise UserError(f"{page}, line {_line(text, found.start())}: {error}") from error
        return f"<!-- table:{found['spec']}-->\n{table}<!-- end -->"

    changed = _BLOCK.sub(filled, text)
    if write and changed != text:
        write_text(page, changed)
    return changed != text


def render(spec: str, results: Path) -> str:
    """The text of one block.

    Args:
        spec: `NAME[,NAME] [KIND] [KEY=VALUE ...]`.
        results: the folder of the summaries.

    Raises:
        UserError: the spec is not of this form, or a name has no summary.
    """
    words = spec.split()
    plain = [word for word in words if "=" not in word]
    options = dict(word.split("=", 1) for word in words if "=" in word)
    if not plain or len(plain) > 2 or "=" in words[0]:
        raise UserError(f"table '{spec.strip()}': write NAME [KIND] [KEY=VALUE ...]")
    kind = plain[1] if len(plain) > 1 else "systems"
    if kind not in _KINDS:
        raise UserError(f"table '{spec.strip()}': no kind '{kind}'; use {', '.join(_KINDS)}")
    layout, keys = _KINDS[kind]
    if unknown := [key for key in options if key not in keys]:
        raise UserError(
            f"table '{spec.strip()}': '{kind}' has no key '{unknown[0]}'; it has {', '.join(keys) or 'none'}"
        )
    file = "ways.json" if kind == "ways" else "summary.json"
    found = {name: stored(results, name, file) for name in plain[0].split(",")}
    if len(found) > 1 and kind not in _SEVERAL:
        raise UserError(f"table '{spec.strip()}': '{kind}' shows one name; use the kind 'side'")
    return layout(found, options)


def stored(results: Path, name: str, file: str = "summary.json") -> dict[str, Any]:
    """The summary of one name, or another of its files.

    Raises:
        UserError: there is none.
    """
    path = results / name / file
    if not path.is_file():
        raise UserError(f"{path}: no such summary; make it with collect.py {name} WORKDIR")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _line(text: str, place: int) -> int:
    return text.count("\n", 0, place) + 1


if __name__ == "__main__":
    main()
