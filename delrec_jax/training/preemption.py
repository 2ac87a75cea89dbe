"""Preemption: SIGTERM, which schedulers send before they take the machine away.

A training run saves its current state and ends; any other work ends at once, because it can be redone from what is on disk.
"""

import itertools
import signal
import threading
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils

from delrec_jax.distributed import has_others
from delrec_jax.errors import Preempted


def end_at_sigterm() -> None:
    """Makes SIGTERM raise `Preempted` in the main thread, wherever that is; an open `StopRequest` defers it.

    With several processes JAX's own service catches the signal, so that all of them end at the same step.
    """
    # JAX's service, which a TPU VM with one host has too, would only note the signal.
    if not has_others():
        signal.signal(signal.SIGTERM, _raise)


def end_if_told() -> None:
    """Ends between two stages if one of several processes was told to: only training asks within a stage.

    Raises:
      Preempted: it was.
    """
    if has_others() and StopRequest().asked():
        raise Preempted("this stage is done, and the next was not begun")


def _raise(number: int, frame: FrameType | None) -> None:
    raise Preempted("told to end before this stage was done")


class StopRequest:
    """Only notes SIGTERM while it is open: the training run asks for it between two steps, and saves."""

    # JAX counts for as long as the process lives: a notice that came at the end of one training must be found by the next.
    _calls = itertools.count(1)

    def __init__(self) -> None:
        self._noted = False
        self._before: Any = None

    def __enter__(self) -> "StopRequest":
        # Only the main thread may set handlers; and without `end_at_sigterm` the signal keeps its usual effect.
        here = threading.current_thread() is threading.main_thread()
        if here and signal.getsignal(signal.SIGTERM) is _raise:
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._noted = True

    def asked(self) -> bool:
        """Whether to end now; all processes must ask equally often, and get the same answer."""
        if jax.process_count() == 1:
            return self._noted
        # JAX ends all processes at one of these numbers, and not after it: none may be left out, as steps would be.
        return bool(multihost_utils.reached_preemption_sync_point(next(self._calls)))
