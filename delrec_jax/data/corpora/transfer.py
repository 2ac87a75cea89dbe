"""One file over HTTP into a part file that can be continued: what has come is never asked for twice.

A part is continued only where the server knows the version that it is a part of, by ETag or date; so a file that
changed in between is never spliced from two.
"""

import dataclasses
import http.client
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from delrec_jax.errors import UserError

_CHUNK = 1 << 18
_PLAIN_EVERY_SECONDS = 10.0
_AGENT = "delrec_jax"  # some servers turn away urllib's own name
_TRY_AGAIN = {408, 425, 429}


class _Interrupted(Exception):
    """The connection failed in a way that may pass."""


@dataclasses.dataclass(frozen=True)
class Part:
    """What has come of a file, and the mark (ETag or date) by which the server knows this version of it.

    Attributes:
      path: Where the bytes are; beside it PATH.origin names url and mark.
      url: What it is a part of.
    """

    path: Path
    url: str

    @property
    def _origin(self) -> Path:
        return self.path.with_name(self.path.name + ".origin")

    @property
    def size(self) -> int:
        """Bytes that have come."""
        return self.path.stat().st_size if self.path.is_file() else 0

    @property
    def mark(self) -> str:
        """The version's mark, "" where the part cannot be continued."""
        if not self._origin.is_file():
            return ""
        url, _, mark = self._origin.read_text(errors="replace").partition("\n")
        return mark.strip() if url == self.url else ""

    @property
    def continues_at(self) -> int:
        """The first byte to ask for: 0 where what has come is of no use."""
        return self.size if self.mark else 0

    def begin(self, mark: str) -> None:
        """Empties the part, for a version of this mark."""
        self.path.write_bytes(b"")
        self._origin.write_text(f"{self.url}\n{mark}\n")

    def discard(self) -> None:
        """Removes what has come."""
        self.path.unlink(missing_ok=True)
        self._origin.unlink(missing_ok=True)

    def finish(self, path: Path) -> None:
        """Gives the whole file its name."""
        os.replace(self.path, path)
        self._origin.unlink(missing_ok=True)


def complete(part: Part, *, timeout: float, attempts: int, pause: float) -> None:
    """Completes a part, in several attempts if need be.

    Args:
      part: What has come so far, perhaps nothing.
      timeout: Seconds after which a connection that gives nothing is broken off.
      attempts: How often to try in all.
      pause: Seconds before the second attempt, doubled before each further one.

    Raises:
      UserError: if the server refuses the file, or each attempt breaks off; what has come is kept.
      OSError: if the part cannot be written.
    """
    say(f"downloading {part.url}")
    for attempt in range(1, attempts + 1):
        try:
            return _transfer(part, timeout)
        except _Interrupted as reason:
            if attempt == attempts:
                raise UserError(
                    f"{part.url}: broke off {attempts} times, at last because {reason}; check the network and run "
                    f"again ({part.continues_at:,} bytes are kept), or download it by hand and set data.manual_dir"
                ) from reason
            seconds = pause * 2 ** (attempt - 1)
            say(f"  {reason}; attempt {attempt + 1} of {attempts} in {seconds:g} s")
            time.sleep(seconds)
    raise ValueError(f"attempts must be 1 or more, not {attempts}")


def _transfer(part: Part, timeout: float) -> None:
    """One attempt: asks for what is missing and appends it."""
    start = part.continues_at
    response = _request(part, start, timeout)
    if response is None:
        return
    with response:
        if response.status != http.client.PARTIAL_CONTENT:
            start = 0
            part.begin(_mark(response))
        elif not _continues(response, start, part.mark):
            part.discard()
            raise _Interrupted("the server gave another part than the one asked for")
        total = _total(response, start)
        with part.path.open("ab") as file, _Bar(part.path.stem, start, total) as bar:
            for chunk in _chunks(response):
                file.write(chunk)
                bar.advance(len(chunk))
    if total is not None and part.size != total:
        raise _Interrupted(f"the connection closed at {part.size:,} of {total:,} bytes")


def _request(part: Part, start: int, timeout: float) -> http.client.HTTPResponse | None:
    """Asks for the file from byte `start` on; None where the part is already whole."""
    headers = {"User-Agent": _AGENT, "Accept-Encoding": "identity"}
    if start:
        # With If-Range a server sends a changed file from its beginning instead of a piece of it.
        headers |= {"Range": f"bytes={start}-", "If-Range": part.mark}
    try:
        return urllib.request.urlopen(
            urllib.request.Request(part.url, headers=headers), timeout=timeout
        )
    except urllib.error.HTTPError as error:
        with error:
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and start:
                _check_whole(part, error.headers.get("Content-Range"))
                return None
            reason = f"the server answers {error.code} {error.reason}"
            if error.code in _TRY_AGAIN or error.code >= http.client.INTERNAL_SERVER_ERROR:
                raise _Interrupted(reason) from error
            raise UserError(
                f"{part.url}: {reason}; look for where the file is now, download it by hand and set data.manual_dir to "
                "its folder"
            ) from error
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(_reason(error)) from error


def _check_whole(part: Part, content_range: str | None) -> None:
    """A server that has nothing left to send: the last run stopped before the rename, or the part is too long."""
    if content_range != f"bytes */{part.size}":
        part.discard()
        raise _Interrupted("the part in the cache is longer than the file")


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    try:
        while chunk := response.read1(_CHUNK):
            yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(_reason(error)) from error


def _reason(error: Exception) -> str:
    cause = getattr(error, "reason", error)
    return f"the connection failed: {str(cause) or type(cause).__name__}"


def _mark(response: http.client.HTTPResponse) -> str:
    """What tells this version of the file from others; a weak ETag does not promise the same bytes."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified", "")


def _continues(response: http.client.HTTPResponse, start: int, mark: str) -> bool:
    """Whether a partial answer begins where the part ends and is of the same version, If-Range or not."""
    begins = response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
    return begins and _mark(response) in ("", mark)


def _total(response: http.client.HTTPResponse, start: int) -> int | None:
    """Bytes of the whole file, as far as the server says."""
    whole = response.headers.get("Content-Range", "").rpartition("/")[2]
    if start and whole.isdecimal():
        return int(whole)
    return None if response.length is None else start + response.length


class _Bar:
    """A progress bar on a terminal, a line every ten seconds elsewhere."""

    def __init__(self, name: str, start: int, total: int | None):
        self._name, self._done, self._total = name, start, total
        self._last = time.monotonic()
        console = Console(file=sys.stderr)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(name, total=total, completed=start)

    def __enter__(self) -> "_Bar":
        self._bar.start()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._bar.stop()

    def advance(self, count: int) -> None:
        self._done += count
        self._bar.advance(self._task, count)
        if self._bar.disable and time.monotonic() - self._last > _PLAIN_EVERY_SECONDS:
            self._last = time.monotonic()
            whole = "" if self._total is None else f" of {self._total:,}"
            say(f"  {self._name}: {self._done:,}{whole} bytes")


def say(message: str) -> None:
    """One line to the person who watches."""
    print(message, file=sys.stderr, flush=True)
