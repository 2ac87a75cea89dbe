"""A watchdog over a training run: work that hangs ends the process, instead of holding its machines until somebody looks.

The training says what it begins, which costs it an assignment. A thread counts the time since then, in ticks of a second at
most, and no tick counts much more than its length: a process that was stopped for an hour (SIGSTOP) has not hung for an hour,
and no clock that is set back or forward matters. A native function that never lets other threads run would stop it too.
"""

import logging
import sys
import threading
import time
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import jax

from delrec_jax.distributed import has_others
from delrec_jax.endings import HUNG, bounded, end_at_once

FIRST = 4
"""What happens for the first time may compile, and has this many times the limit; later it has so many times its longest."""

_LONGEST_TICK = 1.0


@dataclass(eq=False)
class _Work:
    """Something that must end: what, at which step, within how many seconds, and how many have passed."""

    what: str
    kind: Hashable
    step: int
    limit: float
    waited: float = 0.0
    over: bool = False


class Watchdog:
    """Ends the process when a piece of work takes too long; a context manager around one training run.

    It says in one line what hangs, where and since when, after it has written the stacks of all threads beside the run's logs.
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        hang_after: float,
        *,
        flush: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        end: Callable[[str, int], None] = end_at_once,
    ):
        """Takes the limit; nothing is watched before the context is entered.

        Args:
          name: name of the training run.
          directory: where the stacks are written.
          hang_after: seconds that a piece of work may take; 0 = nothing is watched.
          flush: called before the end; it is given ten seconds.
          clock: returns the time in seconds.
          end: ends the process, with a message and a status.
        """
        self._name, self._directory, self._limit = name, directory, hang_after
        self._flush, self._clock, self._end = flush, clock, end
        self._trains = threading.get_ident()
        self._tick = min(_LONGEST_TICK, hang_after / 10)
        self._work: _Work | None = None
        self._behind: _Work | None = None
        self._longest: dict[Hashable, float] = {}
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    @property
    def active(self) -> bool:
        """Whether anything is watched."""
        return self._limit > 0

    def __enter__(self) -> "Watchdog":
        if self.active:
            self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._closed.set()
        if self.active:
            self._thread.join()

    def begin(self, what: str, step: int, *, shapes: Hashable = None) -> None:
        """Must be called when the training begins another piece of work; the one before is then over.

        Args:
          what: names the work in a message, such as `a train step`.
          step: the step that it belongs to.
          shapes: of what is computed: others are compiled anew, and may take as long as the first.
        """
        if not self.active:
            return
        if self._work is not None:
            self._finish(self._work)
        kind = what, shapes
        allowed = FIRST * self._longest.get(kind, self._limit)
        self._work = _Work(what, kind, step, max(self._limit, allowed))

    def follow(self, what: str, step: int, busy: Callable[[], bool]) -> None:
        """Watches work in the background while `busy()` is true or does not answer; what was followed before is over."""
        if not self.active:
            return
        if self._behind is not None:
            self._finish(self._behind)
        work = _Work(what, what, step, max(self._limit, FIRST * self._longest.get(what, 0.0)))
        self._behind = work

        def follow() -> None:
            try:
                while not work.over and busy() and not self._closed.wait(self._tick):
                    pass
            finally:
                self._finish(work)

        # A thread of its own: the question itself may hang.
        threading.Thread(target=follow, name="watchdog of a save", daemon=True).start()

    def _finish(self, work: _Work) -> None:
        if not work.over:
            work.over = True
            self._longest[work.kind] = max(self._longest.get(work.kind, 0.0), work.waited)

    def _watch(self) -> None:
        before = self._clock()
        while not self._closed.wait(self._tick):
            now = self._clock()
            self.count(now - before)
            before = now

    def count(self, seconds: float) -> None:
        """Counts a tick of this many seconds; ends the process if some work has had more than its time."""
        counted = min(max(seconds, 0.0), 2 * self._tick)
        for work in (self._work, self._behind):
            if work is not None and not work.over:
                work.waited += counted
                if work.waited > work.limit:
                    self._leave(work)

    def _leave(self, work: _Work) -> None:
        """Says its last words, none of which may hang in turn, and ends the process."""
        place = self._stacks(work)
        bounded(self._flush)
        bounded(_flush_streams)
        self._end(self._message(work, place), HUNG)

    def _stacks(self, work: _Work) -> str:
        """Writes the stacks of all threads beside the logs, or else to stderr; says where they are."""
        number = f"-{jax.process_index()}" if has_others() else ""
        path = self._directory / f"hang{number}.txt"
        written = threading.Event()

        def write() -> None:
            with suppress(OSError):
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("a") as file:
                    file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {_hangs(self._name, work)}\n")
                    file.write(_stacks(self._trains))
                written.set()

        bounded(write)
        if written.is_set():
            return f"are in {path}"
        bounded(lambda: print(_stacks(self._trains), file=sys.stderr, flush=True))
        return f"are above, as {path} could not be written"

    def _message(self, work: _Work, place: str) -> str:
        others = " (or another process does not take part)" if has_others() else ""
        return (
            f"{_hangs(self._name, work)}{others}; the stacks of all threads {place}. Start the same command again: it resumes "
            f"from the last complete checkpoint in {self._directory / 'checkpoints'}. If it was only slow, raise "
            f"config.hang_after ({self._limit:g}; 0 = wait forever)"
        )


def _hangs(name: str, work: _Work) -> str:
    return f"{name}: {work.what} hangs at step {work.step}: no end for {work.waited:.0f} s"


def _stacks(first: int) -> str:
    """The stack of every thread that runs Python, the latest call first, and before all others the thread of this number.

    `faulthandler` stops after 100 threads and begins with the youngest, so that the thread that trains may be missing.
    """
    frames = sys._current_frames()
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "\n".join(
        f"Thread {names.get(thread, thread)}:\n{_calls(frames[thread])}"
        for thread in sorted(frames, key=lambda thread: thread != first)
    )


def _calls(frame: FrameType | None) -> str:
    """Without the lines of the source: they would have to be read from a disk, which may be what hangs."""
    calls = ""
    while frame is not None:
        calls += f'  File "{frame.f_code.co_filename}", line {frame.f_lineno} in {frame.f_code.co_qualname}\n'
        frame = frame.f_back
    return calls


def _flush_streams() -> None:
    for handler in logging.getLogger().handlers:
        handler.flush()
    sys.stdout.flush()
    sys.stderr.flush()
