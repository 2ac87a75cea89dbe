"""A JAX trace of some steps of a training run: where the time goes, operation by operation."""

from pathlib import Path

import jax

from delrec_jax.errors import UserError
from delrec_jax.training.writers import say

Span = tuple[int, int]


def parse_span(text: str) -> Span | None:
    """Parses START:STOP, two step numbers with 0 <= START < STOP; None for an empty text.

    Raises:
      UserError: names `config.profile`, the value and the expected form.
    """
    if not text:
        return None
    start, colon, stop = text.partition(":")
    # isdecimal alone accepts the digits of every script, as int() does.
    good = colon and all(part.isascii() and part.isdecimal() for part in (start, stop))
    if not good or int(start) >= int(stop):
        raise UserError(
            f"config.profile is {text!r}: write START:STOP, two step numbers with START below STOP, such as 10:15, "
            "or leave it empty"
        )
    return int(start), int(stop)


class StepTrace:
    """Traces steps START to STOP (counted as in Python: the first step is 0) of one training run.

    The caller makes sure that the device is idle when `start` and `stop` are called. A trace that cannot be made or
    written is reported and does not end the run: training is worth more than its trace.
    """

    def __init__(self, name: str, directory: Path, span: Span, done: int):
        """Waits for START; a run that resumes at or after STOP is not traced again.

        Args:
          name: name of the training run.
          directory: where the trace is written.
          span: START and STOP.
          done: steps done before this process started.
        """
        self._name, self._directory, self._span = name, directory, span
        self._waiting, self._since = done < span[1], -1

    def starts(self, done: int) -> bool:
        """Whether to start now that `done` steps are done."""
        return self._waiting and self._span[0] <= done < self._span[1]

    def stops(self, done: int) -> bool:
        """Whether to stop now that `done` steps are done."""
        return self._since >= 0 and done >= self._span[1]

    def start(self, done: int) -> None:
        """Starts the trace."""
        self._waiting = False
        try:
            jax.profiler.start_trace(self._directory)
            self._since = done
        except (RuntimeError, OSError) as error:
            say(f"  WARNING: {self._name}: no trace: {error}")

    def stop(self, done: int) -> None:
        """Writes the trace and says where it is."""
        since, self._since = self._since, -1
        try:
            jax.profiler.stop_trace()
        except (RuntimeError, OSError) as error:
            say(f"  WARNING: {self._name}: the trace was not written to {self._directory}: {error}")
            return
        say(
            f"  {self._name}: a trace of steps {since}:{done} is in {self._directory} "
            "(XProf and TensorBoard show it)"
        )

    def close(self, done: int, *, failed: bool) -> None:
        """Ends a trace that is still running; reports if training ended before START."""
        if self._since >= 0:
            self.stop(done)
        elif self._waiting and not failed:
            start, stop = self._span
            say(
                f"  {self._name}: nothing was traced: config.profile is {start}:{stop}, and training ended at step {done}"
            )
