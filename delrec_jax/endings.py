"""How a command ends: whatever ends it early is reported in one line on stderr, with an exit status of its own.

It imports nothing heavy, so that help and a typo in a flag stay quick.
"""

import errno
import os
import select
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
def reported() -> Iterator[None]:
    """Ends the process with one line and a status for errors that are not bugs of this package; bugs keep their traceback.

    0: done; 2: a mistake of the user, or too little disk or memory; 69: another process of the run was lost; 75: told to end
    (SIGTERM); 130: interrupted; 141: nobody reads what it prints (`delrec ... | head`). A training that hangs ends with 70
    (`training.watchdog`). After 69, 70, 75 and 130 the same command resumes from the last checkpoint.
    """
    try:
        with _late_callbacks_quiet():
            yield
    except UserError as error:
        _end(str(error), error.status)
    except KeyboardInterrupt:
        _end("interrupted; the same command resumes from the last checkpoint", INTERRUPTED)
    except Preempted as notice:
        _end(f"told to end; {notice}; the same command resumes from there", PREEMPTED)
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


def _end(message: str, status: int) -> None:
    print(f"delrec: {printable(message)}", file=sys.stderr, flush=True)
    if "jax" in sys.modules:
        from delrec_jax.distributed import leave, wait_for_all

        # All were told at the same step, and some took longer for the last save.
        if together := status == PREEMPTED:
            bounded(lambda: _quietly(wait_for_all))
        leave(status, last=together)
    sys.exit(status)


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
