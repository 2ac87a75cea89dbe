"""What README.md, the tutorial and the guides say to type: the commands of their code blocks, and what their text has between
backticks."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = (
    ROOT / "README.md",
    ROOT / "docs" / "tutorial.md",
    *sorted((ROOT / "docs" / "guides").glob("*.md")),
)
"""All that tells a user what to type."""
GUIDES = "\n".join(page.read_text() for page in PAGES)
"""Their text, one after the other."""

_FENCE = re.compile(r"^```.*\n", re.MULTILINE)
_PYTHON = "import "  # begins a block of Python
_TITLE = " · "  # in the first line of a block: a command printed it, nobody types it


@dataclass(frozen=True)
class Command:
    """A line of a code block, its continuations joined.

    Attributes:
      words: as a shell splits it, without its comment.
      comment: what follows ` # `.
    """

    words: tuple[str, ...]
    comment: str = ""

    def __str__(self) -> str:
        return shlex.join(self.words)

    def has(self, words: str) -> bool:
        """Whether all of these words are among the command's."""
        return set(words.split()) <= set(self.words)


def _blocks(text: str) -> list[str]:
    """The contents of the code blocks."""
    parts = _FENCE.split(text)
    if len(parts) % 2 == 0:
        raise ValueError("a code block is not closed")
    return parts[1::2]


def python_blocks(text: str) -> list[str]:
    """The code blocks that are Python, in their order."""
    return [block for block in _blocks(text) if block.startswith(_PYTHON)]


def commands(text: str) -> list[Command]:
    """The commands of all code blocks, in their order."""
    found = []
    for block in _blocks(text):
        if _TITLE in block.partition("\n")[0] or block.startswith(_PYTHON):
            continue
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            if words := tuple(shlex.split(line, comments=True)):
                found.append(Command(words, line.partition(" # ")[2].strip()))
    return found


def printed(text: str) -> list[str]:
    """The blocks that a command printed."""
    return [block for block in _blocks(text) if _TITLE in block.partition("\n")[0]]


def only(words: str, *, but: str) -> Command:
    """The one command that has these words and not that one."""
    (found,) = [one for one in commands(GUIDES) if one.has(words) and not one.has(but)]
    return found


PROSE = " ".join("".join(_FENCE.split(GUIDES)[::2]).split())
"""The text without its code blocks, in one line."""


def spans(start: str = "") -> list[str]:
    """What the text has between backticks, if it begins like this."""
    return [span for span in re.findall(r"`([^`]+)`", PROSE) if span.startswith(start)]


def listed(pattern: str) -> list[str]:
    """What is between backticks in the group of a pattern that fits the text once."""
    (found,) = re.findall(pattern, PROSE)
    return re.findall(r"`([^`]+)`", found)


def rows_below(header: str) -> list[list[str]]:
    """The cells of the rows below this header of a Markdown table."""
    rows = GUIDES.partition(f"| {header} |")[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


def take_apart(text: str, title: str) -> tuple[str, list[str], list[str]]:
    """Takes a printed table of results apart.

    Args:
      text: what was printed.
      title: the line above the table.

    Returns:
      Its note with every number 0, its columns, and the names of its rows without selected steps.
    """
    lines = [line.strip() for line in text.splitlines()]
    lines = lines[lines.index(title) + 1 :]
    head = next(n for n, line in enumerate(lines) if line.startswith("System"))
    rows = [line for line in lines[head + 1 :] if not line.startswith("─")]
    rows = rows[: [*rows, ""].index("")]
    note = re.sub(r"\d+", "0", " ".join(" ".join(lines[:head]).split()))
    cells = [re.split(r"\s{2,}", line) for line in (lines[head], *rows)]
    # Which step was selected is the run's own.
    names = [re.sub(r" \((not (tuned|trained): )?step \d+\)", "", row[0]) for row in cells[1:]]
    return note, cells[0], names
