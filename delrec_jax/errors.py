"""The one exception that users are meant to read, and the words that several of its messages share.

Raise it at the boundary (files, flags, typed titles) with three things: where (file and line, or key), what was found, and the
remedy. The command line prints it as one line and exits with status 2; every other exception is a bug in this package and
keeps its traceback.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

# XLA's words for CPU and GPU, and TPU's ("Attempting to allocate").
_MEMORY = ("Out of memory", "out of memory", "allocat")
_SHOWN = 4  # how many differing settings a message names


class UserError(Exception):
    """Bad input from the user: the message names the place, the value and the remedy."""

    status = 2
    """Exit status of a process that ends with this error."""


class OthersNotFound(UserError):
    """The other processes of the run did not show up: a slow node may be the cause, and another start the remedy."""

    status = 69


class Preempted(BaseException):
    """The process was told to end, as schedulers do before they take a machine away; the same command resumes later.

    It is not an `Exception`: as with a keyboard interrupt, nothing may catch it on the way.
    """


def one_line(error: BaseException, *, most: int | None = None) -> str:
    """Returns an error's message in one line of at most `most` characters, or its type if it has no message."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if most is None or len(text) <= most else text[:most] + " ..."


def out_of_memory(error: BaseException) -> bool:
    """Whether memory of the host or of a device was too small; XLA tells it in words (its code means a full disk as well)."""
    if isinstance(error, MemoryError):
        return True
    said = str(error)
    return (
        "RESOURCE_EXHAUSTED" in said
        and "No space left" not in said
        and any(sign in said for sign in _MEMORY)
    )


def differences(values: Mapping[str, tuple[Any, Any]]) -> str:
    """Names the keys whose (stored, wanted) values differ: `key (1 there, 2 now), ...` and how many more; "" if none do."""
    found = [
        f"{key} ({there!r} there, {now!r} now)"
        for key, (there, now) in values.items()
        if there != now
    ]
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(found[:_SHOWN]) + more


@contextmanager
def without_panics() -> Iterator[None]:
    """Turns a panic of a library in Rust (polars, tokenizers), which is no `Exception`, into a `ValueError`.

    Their readers panic on some damaged files instead of raising an error.
    """
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError(one_line(error, most=200)) from error
