"""The one exception that a user is meant to read, and the words that several of its messages share.

Raise it at the boundary (files, flags, titles typed in) with three things: where (file
and line, or key), what was found, and the remedy. The command line prints it as one
line and exits with status 2; every other exception is a defect of ours and keeps its
traceback.
"""

from collections.abc import Mapping
from typing import Any

_SHOWN = 4  # differing settings that a message names


class UserError(Exception):
    """Bad input of the user: the message names the place, the value and the remedy."""

    status = 2
    """Of the process that ends by it."""


class OthersNotFound(UserError):
    """The other processes of the run did not come: a slow node may be the cause, and another start the remedy."""

    status = 69


class Preempted(BaseException):
    """The process was told to end, as schedulers do before they take a machine away; the same command goes on later.

    No `Exception`: like a keyboard interrupt, nothing may catch it on the way.
    """


def one_line(error: BaseException, *, most: int | None = None) -> str:
    """What an error says, in one line of at most so many characters; its type where it says nothing."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if most is None or len(text) <= most else text[:most] + " ..."


def differences(values: Mapping[str, tuple[Any, Any]]) -> str:
    """Of (what was stored, what is wanted) by key: `key (1 there, 2 now), ...` and how many more; "" where all are alike."""
    found = [
        f"{key} ({there!r} there, {now!r} now)"
        for key, (there, now) in values.items()
        if there != now
    ]
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(found[:_SHOWN]) + more
