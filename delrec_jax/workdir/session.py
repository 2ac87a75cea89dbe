"""What surrounds a command that uses a workdir: the other processes, the lock, the compilation cache, SIGTERM."""

import fcntl
import hashlib
import logging
import os
import platform
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

import jax

from delrec_jax import distributed
from delrec_jax.config import Experiment
from delrec_jax.distributed import as_main_sees, is_main
from delrec_jax.errors import UserError
from delrec_jax.training.preemption import end_at_sigterm

CACHE = ".compilation_cache"
# Seconds of compilation; JAX's default of 1 s would keep little of a small model.
_WORTH_KEEPING = 0.1


class WorkdirInUse(UserError):
    """Another run holds the workdir's lock."""


@contextmanager
def session(workdir: Path, experiment: Experiment, *, name: str = "") -> Iterator[None]:
    """Joins the other processes, holds the workdir's lock, and arranges an orderly exit at SIGTERM.

    Args:
      workdir: the folder.
      experiment: says how the other processes are found.
      name: as in `locked`.

    Raises:
      UserError: the other processes cannot be joined, the workdir cannot be written, or another run is using it.
    """
    # When a disk is full, Orbax and asyncio log a traceback for each thread and array, though the error is raised and reported.
    for logger in ("absl", "asyncio"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    _with_host()
    distributed.join(experiment.distributed)
    end_at_sigterm()
    with locked(workdir, name=name):
        yield


def _with_host() -> None:
    """Adds the host to the devices that JAX_PLATFORMS names: a training's start is made there."""
    named = getattr(jax.config, "jax_platforms", None)
    if named and "cpu" not in named.split(","):
        jax.config.update("jax_platforms", f"{named},cpu")


def keep_compiled(workdir: Path) -> None:
    """Caches compiled programs next to the workdir, for all runs there; JAX_COMPILATION_CACHE_DIR names another place.

    CPUs with different features have separate caches: a program compiled on a newer CPU could crash on an older one. Where
    nothing can be kept, as beside somebody else's run, programs are compiled each time.
    """
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        place = workdir.absolute().parent / CACHE / _machine()
        jax.config.update("jax_compilation_cache_dir", str(place))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", _WORTH_KEEPING)


def _machine() -> str:
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else [platform.processor()]
    features = next((line for line in lines if line.startswith(("flags", "Features"))), lines[0])
    return f"{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:8]}"


@contextmanager
def locked(workdir: Path, *, name: str = "") -> Iterator[None]:
    """Allows one run per workdir; the operating system releases the lock however the process ends.

    Args:
      workdir: the folder.
      name: what messages call it; "" = as it is.

    Raises:
      UserError: another run is using it, or it cannot be written.
    """
    held, holder = None, ""
    if is_main():
        held, holder = _take(workdir)
    try:
        if as_main_sees(lambda: held is None):
            raise WorkdirInUse(
                f"--workdir={name or workdir}: another run is using it{holder}; wait for it, stop it, or give another --workdir"
            )
        yield
    finally:
        if held is not None:
            os.close(held)


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Waits for other processes that are within such a block of the same file; on file systems without locks for none."""
    with path.open("ab") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def in_use(workdir: Path) -> bool:
    """Returns whether a run is using a workdir now; False where the file system has no locks."""
    path = workdir / ".lock"
    if not path.exists():
        return False
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
    return False


def _take(workdir: Path) -> tuple[int | None, str]:
    """Returns the open lock file and "", or None and who holds the lock."""
    path = workdir / ".lock"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise UserError(
            f"--workdir={workdir}: cannot be used ({error}); give a folder that you can write to"
        ) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None, f" ({path.read_text().strip()})"
    except OSError:
        return file, ""  # a file system without locks: better no lock than no run
    now = datetime.now().isoformat(sep=" ", timespec="seconds")
    os.truncate(file, 0)
    os.write(file, f"process {os.getpid()} on {platform.node()} since {now}\n".encode())
    return file, ""
