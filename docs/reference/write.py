"""Writes docs/reference/config.md and cli.md from the code: every key with default and meaning, every command with its flags.

    python docs/reference/write.py

A test fails where a page is not what this writes, or where a key has no meaning.
"""

import dataclasses
import re
import textwrap
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from delrec_jax.command_flags import FLAGS
from delrec_jax.command_help import USAGE
from delrec_jax.config import Experiment
from delrec_jax.files import write_text

FOLDER = Path(__file__).parent
SET_IN_CODE = ("lm.t5.adapters", "lm.bert.adapters")
"""Fields that are set in code, from other keys; a config that sets them is refused."""


class Key(NamedTuple):
    """A key of the config: its dotted name, its default, and what it means; empty = its class does not say."""

    name: str
    default: Any
    meaning: str


def keys(value: Any, prefix: str = "") -> Iterator[Key]:
    """Yields the keys of a dataclass and of those inside it, in their order."""
    meanings = attributes(type(value))
    for item in dataclasses.fields(value):
        inner, name = getattr(value, item.name), f"{prefix}{item.name}"
        if dataclasses.is_dataclass(inner):
            yield from keys(inner, f"{name}.")
        elif _is_parts(inner):
            for part, settings in inner.items():
                yield from keys(settings, f"{name}.{part}.")
        elif name not in SET_IN_CODE:
            yield Key(name, inner, meanings.get(item.name, ""))


def _is_parts(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(dataclasses.is_dataclass, value.values()))


def attributes(kind: type) -> dict[str, str]:
    """The meanings of a dataclass's fields, from the part "Attributes:" of its docstring, each in one line."""
    text = textwrap.dedent((kind.__doc__ or "").partition("\n")[2])
    listed = text.partition("Attributes:\n")[2].partition("\n\n")[0]
    found: dict[str, str] = {}
    for line in textwrap.dedent(listed).splitlines():
        if begins := re.match(r"((?:\w+, )*\w+): (.*)", line):
            names = begins[1].split(", ")
            found |= dict.fromkeys(names, begins[2])
        else:
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found


def config_page() -> str:
    """The page of all keys, one section of it for each section of the config."""
    defaults = Experiment()
    parts = [
        "# Config: every key\n",
        "Written by `python docs/reference/write.py` from the dataclasses in `delrec_jax/config/` and next to the code that",
        "they configure. Defaults are those of the code; a ready config changes some of them. Every key can be given as",
        "`--config.KEY=VALUE`. A config file is Python that is run: a config is code ([what is trusted](../../SECURITY.md)).\n",
        *_table("The run", [key for key in keys(defaults) if "." not in key.name]),
    ]
    for item in dataclasses.fields(defaults):
        inner = getattr(defaults, item.name)
        if dataclasses.is_dataclass(inner):
            parts += [
                *_table(f"`{item.name}`", list(keys(inner, f"{item.name}.")), _summary(type(inner)))
            ]
    return "\n".join(parts)


def _summary(kind: type) -> str:
    """The first paragraph of a docstring."""
    return " ".join((kind.__doc__ or "").strip().partition("\n\n")[0].split())


def _table(heading: str, rows: list[Key], summary: str = "") -> list[str]:
    lines = [f"## {heading}\n", *([f"{summary}\n"] if summary else [])]
    lines += ["| key | default | meaning |", "| --- | --- | --- |"]
    return [
        *lines,
        *(f"| `{key.name}` | {_shown(key.default)} | {_cell(key.meaning)} |" for key in rows),
        "",
    ]


def _shown(value: Any) -> str:
    return "empty" if value in ("", ()) else f"`{_cell(repr(value))}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def command_page() -> str:
    """The page of the commands."""
    parts = [
        "# Command line\n",
        "Written by `python docs/reference/write.py`. `delrec --help` prints the first block,",
        "`delrec COMMAND --help` a command's part of it.\n",
        f"```text\n{USAGE.strip()}\n```\n",
        "| flag | default | of | meaning |",
        "| --- | --- | --- | --- |",
    ]
    rows = [
        f"| `--{flag.name}` | {_shown(flag.default)} | {', '.join(flag.commands) or 'all'} | {_cell(flag.meaning)} |"
        for flag in FLAGS
    ]
    return "\n".join([*parts, *rows, ""])


PAGES: dict[str, typing.Callable[[], str]] = {"config.md": config_page, "cli.md": command_page}


def main() -> None:
    """Writes both pages."""
    for name, page in PAGES.items():
        write_text(FOLDER / name, page())


if __name__ == "__main__":
    main()
