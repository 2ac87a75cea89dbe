"""How a command ends: whatever ends it early is reported in one line on stderr, with an exit status of its own.

It imports nothing heavy, so that help and a typo in a flag stay quick.
"""

import errno
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType

from delrec_jax.errors import Preempted, UserError, one_line, out_of_memory
from delrec_jax.printable import printable

INTERRUPTED = 130
PREEMPTED = 75
UNREAD = 141  # as shells tell that a process got SIGPIPE
HUNG = 70

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
_PATH_ERRORS = (
    errno.EACCES,
    errno.EEXIST,
    errno.EPERM,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
)
"""What a path that was given can be; a file that is missing is told where it is read."""


@contextmanager
def reported(*, process: bool = False) -> Iterator[None]:
    """Ends the process with one line and a status for errors that are not bugs of this package; bugs keep their traceback.

    0: done; 2: a mistake of the user, or too little disk or memory; 69: another process of the run was lost; 75: told to end
    (SIGTERM); 130: interrupted; 141: nobody reads what it prints (`delrec ... | head`). A training that hangs ends with 70
    (`training.watchdog`). After 69, 70, 75 and 130 the same command resumes from the last checkpoint.

    Args:
      process: whether nothing follows in this process, so that whoever is told to end need not wait for threads of libraries.
    """
    try:
        with _late_callbacks_quiet(), _notices_kept():
            yield
    except UserError as error:
        _end(str(error), error.status)
    except KeyboardInterrupt:
        said = "interrupted; the same command resumes from the last checkpoint"
        _end(said, INTERRUPTED, at_once=process)
    except Preempted as notice:
        said = f"told to end; {notice}; the same command resumes from there"
        _end(said, PREEMPTED, at_once=process)
    except BrokenPipeError:
        if not _nobody_reads():
            raise
        sys.exit(UNREAD)
    except Exception as error:
        if _cannot_write(error):
            _end(
                f"{one_line(error)}: nothing more can be written; make room, then start the same command again",
                2,
            )
        if isinstance(error, OSError) and error.errno in _PATH_ERRORS and error.filename:
            said = one_line(error, most=600)
            _end(f"{said}: give a path that can be used, or correct its permissions", 2)
        if out_of_memory(error):
            _end(
                f"out of memory ({one_line(error, most=200)}): it needs a larger machine, or more devices",
                2,
            )
        from delrec_jax.distributed import lost_another

        if not lost_another(error):
            raise
        said = one_line(error, most=300)
        _end(
            f"another process of this run was lost ({said}); start all of them again: the run resumes from the last checkpoint",
            69,
        )


@contextmanager
def _late_callbacks_quiet() -> Iterator[None]:
    """Prints no traceback of a thread that answers an event loop which is gone.

    TensorStore's do when a disk is full and Orbax stops waiting at the first failed write; the failure itself is raised where
    the write was begun.
    """
    before = sys.excepthook

    def shown(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if kind is not RuntimeError or str(error) != "Event loop is closed":
            before(kind, error, trace)

    sys.excepthook = shown
    try:
        yield
    finally:
        sys.excepthook = before


@contextmanager
def _notices_kept() -> Iterator[None]:
    """Sends an interruption or a notice to end again where it was lost.

    Python discards what is raised while it collects garbage, and JAX has a callback there.
    """
    before = sys.unraisablehook

    def kept(lost: "sys.UnraisableHookArgs") -> None:
        signals = {KeyboardInterrupt: signal.SIGINT, Preempted: signal.SIGTERM}
        if (number := signals.get(lost.exc_type)) is None:
            before(lost)
        else:  # later, so that it does not come in the same callback
            threading.Timer(0.05, os.kill, (os.getpid(), number)).start()

    sys.unraisablehook = kept
    try:
        yield
    finally:
        sys.unraisablehook = before


def _nobody_reads() -> bool:
    """Whether what stdout is piped into has ended; if so, nothing more is written there, not even at the exit."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError, AttributeError):
        return False
    asked = select.poll()
    asked.register(descriptor, 0)
    if not any(event & (select.POLLERR | select.POLLHUP) for _, event in asked.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    return True


def _cannot_write(error: Exception) -> bool:
    """Whether the disk is the cause. Libraries written in C++ or Rust pass on the system's words, but no error number."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _DISK_ERRORS
    said = str(error).lower()
    return any(os.strerror(number).lower() in said for number in _DISK_ERRORS)


def _end(message: str, status: int, *, at_once: bool = False) -> None:
    print(f"delrec: {printable(message)}", file=sys.stderr, flush=True)
    if "delrec_jax.distributed" in sys.modules:
        _leave_others(status)
    if at_once:
        # Python's own end would free what threads of XLA and of TensorStore may still be using, and crash.
        for stream in filter(None, (sys.stdout, sys.stderr)):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)
    sys.exit(status)


def _leave_others(status: int) -> None:
    try:
        from delrec_jax.distributed import leave, wait_for_all
    except (ImportError, AttributeError):
        return  # interrupted while it was being imported: there is nobody yet
    # All were told at the same step, and some took longer for the last save.
    if together := status == PREEMPTED:
        bounded(lambda: _quietly(wait_for_all))
    leave(status, last=together)


def _quietly(action: Callable[[], None]) -> None:
    with suppress(Exception):  # nobody is there to wait for
        action()


def end_at_once(message: str, status: int) -> None:
    """Ends the process from any of its threads, with one line on stderr: an orderly end would wait for what hangs."""

    def tell() -> None:
        cursor = "\x1b[?25h\n" if os.isatty(2) else ""  # a progress bar hides it
        with suppress(OSError):  # not by sys.stderr, which may be locked by what hangs
            os.write(2, f"{cursor}delrec: {message}\n".encode())

    bounded(tell)
    os._exit(status)


def bounded(action: Callable[[], None], seconds: float = 10.0) -> None:
    """Does something that may hang (a disk, a pipe that nobody reads), and waits for it only so long."""
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    thread.join(seconds)
