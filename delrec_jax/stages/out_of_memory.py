"""What to do when a stage has too little memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce
from typing import Any

from delrec_jax.config import Experiment
from delrec_jax.errors import UserError, one_line, out_of_memory
from delrec_jax.workdir.stage_table import Stage

_SIZES = ("batch_size", "batch_tokens")


@contextmanager
def memory_told(name: str, stage: Stage, experiment: Experiment) -> Iterator[None]:
    """Names the stage in which memory was too small, and the settings that need less of it.

    Raises:
      UserError: in place of whatever numpy or XLA raised for want of memory.
    """
    try:
        yield
    except Exception as error:
        if not out_of_memory(error):
            raise
        smaller = " or ".join(batch_sizes(stage, experiment))
        less = (
            f"try a smaller {smaller} (with --update, which begins the stage again), or "
            if smaller
            else ""
        )
        raise UserError(
            f"{name}: out of memory ({one_line(error, most=200)}): {less}use a larger machine or more devices; `delrec plan` "
            "with the same config says what each stage needs. Where there is more memory, the same command resumes"
        ) from error


def batch_sizes(stage: Stage, experiment: Experiment) -> list[str]:
    """The settings of a stage that say how many rows, or tokens, are in memory at once, with their values."""
    found = []
    for setting in stage.settings:
        section = reduce(_part, setting.split("."), experiment)
        found += [
            f"config.{setting}.{name} ({size})"
            for name in _SIZES
            if (size := getattr(section, name, None)) is not None
        ]
    return found


def _part(section: Any, name: str) -> Any:
    return getattr(section, name, None)
