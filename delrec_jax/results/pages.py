"""Pages whose tables are written from the files in `results/`.

A page has blocks of the form

    <!-- table: NAME[,NAME] [KIND] [KEY=VALUE ...] -->
    <!-- end -->

and what stands between the two lines is replaced. The kinds of this module are `KINDS`; a caller may add its own.
"""

import json
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from delrec_jax.analysis.blocks import Block, to_markdown
from delrec_jax.errors import UserError
from delrec_jax.files import write_text
from delrec_jax.results import layouts, measured
from delrec_jax.results.comparison_layouts import comparisons_block

_START = re.compile(r"<!-- table:(?P<spec>[^\n]*?)-->")
_BLOCK = re.compile(_START.pattern + r"\n(?:(?!<!-- table:).)*?<!-- end -->", re.DOTALL)


@dataclass(frozen=True)
class Kind:
    """A kind of table.

    Attributes:
      layout: (name -> content of its file, options of the block) -> a table or text.
      keys: the options that it has.
      file: the file in `results/` that it shows, `{name}` for the name.
      several: whether it shows several names side by side.
    """

    layout: Callable[[Mapping[str, Any], Mapping[str, str]], Block | str]
    keys: tuple[str, ...] = ()
    file: str = "{name}/summary.json"
    several: bool = False


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "systems": Kind(
            layouts.systems_block, ("protocol", "group", "metrics", "interval", "systems")
        ),
        "comparisons": Kind(
            comparisons_block, ("protocol", "group", "metrics", "systems", "references")
        ),
        "intervals": Kind(layouts.intervals_block, ("protocol", "group", "metric", "systems")),
        "side": Kind(layouts.side_block, ("protocol", "group", "metric", "systems"), several=True),
        "origin": Kind(layouts.origin_text),
        "measured": Kind(measured.measured_table, file="measured/{name}.json"),
    }
)
"""Tables of systems (the default), tests, intervals, names side by side, the origin of a result, and measurements."""


def refresh(page: Path, results: Path, *, write: bool, kinds: Mapping[str, Kind] = KINDS) -> bool:
    """Fills the blocks of a page; returns whether that changes it.

    Args:
      page: a markdown file.
      results: the folder of the summaries.
      write: whether to store the change.
      kinds: the kinds of tables by name.

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
            table = render(found["spec"], results, kinds)
        except UserError as error:
            raise UserError(f"{page}, line {_line(text, found.start())}: {error}") from error
        return f"<!-- table:{found['spec']}-->\n{table}<!-- end -->"

    changed = _BLOCK.sub(filled, text)
    if write and changed != text:
        write_text(page, changed)
    return changed != text


def render(spec: str, results: Path, kinds: Mapping[str, Kind] = KINDS) -> str:
    """The text of one block.

    Args:
      spec: `NAME[,NAME] [KIND] [KEY=VALUE ...]`, a value with spaces in quotes.
      results: the folder of the summaries.
      kinds: the kinds of tables by name.

    Raises:
      UserError: the spec is not of this form, or a name has no summary.
    """
    try:
        words = shlex.split(spec)
    except ValueError as error:  # a quote that is not closed
        raise UserError(f"table '{spec.strip()}': {error}") from error
    plain = [word for word in words if "=" not in word]
    options = dict(word.split("=", 1) for word in words if "=" in word)
    if not plain or len(plain) > 2 or "=" in words[0]:
        raise UserError(f"table '{spec.strip()}': write NAME [KIND] [KEY=VALUE ...]")
    name = plain[1] if len(plain) > 1 else "systems"
    if name not in kinds:
        raise UserError(f"table '{spec.strip()}': no kind '{name}'; use {', '.join(kinds)}")
    kind = kinds[name]
    if unknown := [key for key in options if key not in kind.keys]:
        raise UserError(
            f"table '{spec.strip()}': '{name}' has no key '{unknown[0]}'; it has {', '.join(kind.keys) or 'none'}"
        )
    found = {one: stored(results, one, kind.file) for one in plain[0].split(",")}
    if len(found) > 1 and not kind.several:
        raise UserError(f"table '{spec.strip()}': '{name}' shows one name; use the kind 'side'")
    made = kind.layout(found, options)
    return made if isinstance(made, str) else to_markdown(made)


def stored(results: Path, name: str, file: str = "{name}/summary.json") -> dict[str, Any]:
    """The summary of one name, or another of its files.

    Raises:
      UserError: there is none.
    """
    path = results / file.format(name=name)
    if path.name == "summary.json" and not path.is_file():
        raise UserError(f"{path}: no such summary; make it with collect.py {name} WORKDIR")
    if not path.is_file():
        raise UserError(f"{path}: no such file; correct the name or write the file")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _line(text: str, place: int) -> int:
    return text.count("\n", 0, place) + 1
