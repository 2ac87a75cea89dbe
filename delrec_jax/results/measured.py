"""Tables of measurements (speed, memory, faults, plans), from `results/measured/NAME.json`.

The file is an object with these keys, all of them:

    title    what was measured
    note     how to read the table
    columns  the names of the columns
    rows     lists of cells, as they are shown; as many cells as columns
    command  what was typed, lines if several; "" if that was not recorded
    commit   of the code that was measured; "" if that was not recorded
    machine  on which, with versions
    date     when
"""

from collections.abc import Mapping, Sequence
from typing import Any

from delrec_jax.analysis.blocks import Block, Cell, Line, to_markdown
from delrec_jax.errors import UserError

REQUIRED = ("title", "note", "machine", "date")
"""Keys whose text may not be empty."""

OPTIONAL = ("command", "commit")
"""Keys whose text is empty where nobody wrote it down."""


def measured_table(found: Mapping[str, Mapping[str, Any]], options: Mapping[str, str]) -> str:
    """The table of one measurement, and the line that says where it comes from.

    Args:
      found: for one name, what `results/measured/NAME.json` holds.
      options: none.

    Raises:
      UserError: a key is missing, unknown or of another form, or a row is too long or too short; names file and key.
    """
    ((name, told),) = found.items()
    _check(f"results/measured/{name}.json", told)
    table = to_markdown(
        Block(
            title=told["title"],
            note=told["note"],
            columns=tuple(told["columns"]),
            lines=tuple(
                Line("", first, tuple(map(Cell, others))) for first, *others in told["rows"]
            ),
        )
    )
    return f"{table}\n{_origin(name, told)}"


def _origin(name: str, told: Mapping[str, Any]) -> str:
    commit = f"commit {told['commit']}" if told["commit"] else "commit not recorded"
    start = f"`results/measured/{name}.json`, {told['date']}: {commit}; {told['machine']}; "
    if not told["command"]:
        return f"{start}command not recorded.\n"
    if "\n" not in told["command"]:
        return f"{start}`{told['command']}`.\n"
    return f"{start}commands:\n\n```\n{told['command']}\n```\n"


def _check(file: str, told: Mapping[str, Any]) -> None:
    keys = (*REQUIRED, *OPTIONAL, "columns", "rows")
    if missing := [key for key in keys if key not in told]:
        raise UserError(f"{file}: no key '{missing[0]}'; write it")
    if unknown := [key for key in told if key not in keys]:
        raise UserError(f"{file}: no key is called '{unknown[0]}'; use {', '.join(keys)}")
    for key in (*REQUIRED, *OPTIONAL):
        if not isinstance(told[key], str) or (key in REQUIRED and not told[key].strip()):
            raise UserError(f"{file}: {key} is {told[key]!r}; write a text")
    _check_cells(f"{file}: columns", told["columns"])
    if not isinstance(told["rows"], list) or not told["rows"]:
        raise UserError(f"{file}: rows is {told['rows']!r}; write a list of rows")
    for number, row in enumerate(told["rows"]):
        _check_cells(f"{file}: rows[{number}]", row)
        if len(row) != len(told["columns"]):
            raise UserError(
                f"{file}: rows[{number}] has {len(row)} cells, and there are {len(told['columns'])} columns"
            )


def _check_cells(where: str, cells: Sequence[Any]) -> None:
    if not isinstance(cells, list) or not cells:
        raise UserError(f"{where} is {cells!r}; write a list of texts")
    for cell in cells:
        # Either would end the cell or the row of a Markdown table.
        if not isinstance(cell, str) or "|" in cell or "\n" in cell:
            raise UserError(f"{where} has {cell!r}; write a text without | and line breaks")
