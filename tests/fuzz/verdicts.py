"""What must be true of every damaged input: refused in one line that names the place and the remedy, or harmless.

A case is made from (seed, kind, number) alone, so that a failure can be repeated: its message says with which options.
"""

import re
import signal
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from delrec_jax.errors import UserError

REFUSED, SAME, RULED = "refused", "accepted, same result", "accepted by a stated rule"
OUTCOMES = (REFUSED, SAME, RULED)

_LONGEST = 2500  # characters of a message
_LIMIT = 300  # seconds for one case on a busy machine; none takes more than a few
_REMEDIES = re.compile(
    r"\b(add|ask|change|check|choose|convert|copy|correct|define|delete|did you mean|download|export|fetch|fill|free|give|"
    r"install|leave|load|lower|make|must|name|needs?|only|pack|point|put|raise|relax|remove|rename|restore|run|scale|set|save|shorten|"
    r"start|take|upgrade|use|wait|write)\b",
    re.IGNORECASE,
)


class Mistake(Exception):
    """What a case's command answered; `text` is what the user reads."""

    def __init__(self, text: str):
        super().__init__(text)
        self.text = text


@dataclass(frozen=True)
class Case:
    """One damaged input.

    Attributes:
      label: what was done to what.
      attempt: uses the input and returns what came of it; raises `UserError` or `Mistake` for what the user is told.
      names: one of these is in the message: file, line or key.
      same: whether the result is that of the undamaged input.
      rule: why another result is right; "" = it never is.
    """

    label: str
    attempt: Callable[[], Any]
    names: Sequence[str]
    same: Callable[[Any], bool]
    rule: str = ""


def generator(seed: int, kind: str, number: int) -> np.random.Generator:
    """The randomness of one case."""
    return np.random.default_rng([seed, number, *kind.encode()])


def choice(rng: np.random.Generator, values: Sequence[Any]) -> Any:
    """One of the values."""
    return values[int(rng.integers(len(values)))]


def judge(case: Case) -> str:
    """Returns one of `OUTCOMES`; raises AssertionError where none of them is true."""
    with _bounded():
        try:
            found = case.attempt()
        except (UserError, Mistake) as error:
            _check_message(str(error), case.names)
            return REFUSED
    if case.same(found):
        return SAME
    assert case.rule, f"accepted in silence: {str(found)[:300]}"
    return RULED


def tally(cases: Sequence[Callable[[], Case]], told: Callable[[int], str]) -> Counter[str]:
    """Judges all cases and counts their outcomes; the failures are told together, each with how to repeat it."""
    counts: Counter[str] = Counter()
    failures = []
    for number, make in enumerate(cases):
        case = make()
        try:
            counts[judge(case)] += 1
        except Exception as error:  # a traceback is the defect that is looked for
            failures.append(f"{told(number)}: {case.label}: {type(error).__name__}: {error}")
    assert not failures, f"{len(failures)} of {len(cases)}:\n" + "\n".join(failures)
    return counts


def _check_message(text: str, names: Sequence[str]) -> None:
    assert text.strip(), "an empty message"
    assert "\n" not in text and "Traceback" not in text, f"not one line: {text[:600]!r}"
    assert len(text) <= _LONGEST, f"{len(text)} characters: {text[:600]!r}"
    assert any(name in text for name in names), f"names none of {list(names)}: {text[:600]!r}"
    assert _REMEDIES.search(text), f"no remedy: {text[:600]!r}"


@contextmanager
def _bounded():
    """Ends what takes minutes: nothing that is damaged may keep a command busy."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def late(*_):
        raise AssertionError(f"not finished after {_LIMIT} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(_LIMIT)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
