"""Text of others on a terminal: titles, names of files and what servers say.

A terminal obeys control characters: those in a title could recolor or clear the screen, rename the window, type into some
terminals, or show a text in another order than it has.
"""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

# Controls but for tab and line feed; line and paragraph separators; what turns the direction of writing; half characters.
_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    r"""Returns a text with the characters that a terminal would obey written out, as in `\x1b[2J`."""
    return _OBEYED.sub(lambda found: ascii(found[0])[1:-1], text)


def terminal() -> "Console":
    """Returns a console on stdout. Where nobody reads any more, it raises BrokenPipeError, which `endings` reports."""
    from rich.console import Console  # imported late: help and typos need none

    class Told(Console):
        """rich's own ends the process with status 1."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    return Told()
