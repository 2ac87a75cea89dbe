"""A command's workdir, opened: a folder as it is, or the local copy of one in a bucket."""

import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from delrec_jax.config import Experiment
from delrec_jax.distributed import all_see, is_main, main_number, on_main, wait_for_all
from delrec_jax.errors import UserError
from delrec_jax.files import expanded, refuse_url
from delrec_jax.training.mesh import own_mesh
from delrec_jax.training.writers import say
from delrec_jax.workdir.bucket import SCHEME, Bucket
from delrec_jax.workdir.lease import Lease
from delrec_jax.workdir.mirror import Mirror, fetch
from delrec_jax.workdir.session import keep_compiled, locked, session
from delrec_jax.workdir.workspace import Workspace


@contextmanager
def opened(
    workdir: str, experiment: Experiment, *, cache: str = "", update: bool = False, reads: bool
) -> Iterator[Workspace]:
    """Opens a workdir for one command.

    Args:
      workdir: a folder, or `gs://BUCKET/PATH`.
      experiment: what runs there.
      cache: where local copies of workdirs in buckets are; "" = in this user's cache.
      update: as in `Workspace`.
      reads: whether the command only reads; otherwise it is a session (`session.session`).

    Raises:
      UserError: the workdir cannot be used, or another run is using it.
    """
    in_bucket = workdir.startswith(SCHEME)
    if not in_bucket:
        refuse_url(workdir, "--workdir=")
    folder = local_copy(workdir, cache) if in_bucket else expanded(workdir)
    keep_compiled(folder)
    if reads:
        if in_bucket:
            say(f"{workdir}: the local copy is {folder}")
            with locked(folder, name=workdir):
                fetch(Bucket(workdir), folder, checkpoints=False)
        elif not folder.is_dir():
            raise UserError(f"--workdir={workdir}: there is no such folder; give that of a run")
        alone = replace(experiment, mesh=own_mesh(experiment.mesh))
        yield Workspace(folder, alone, update=update, read_only=True)
    elif in_bucket:
        with _mirrored(workdir, folder, experiment) as saved:
            ws = Workspace(folder, experiment, update=update, saved=saved)
            with ws.watch.trackers:
                yield ws
            saved()
    else:
        with session(folder, experiment):
            ws = Workspace(folder, experiment, update=update)
            with ws.watch.trackers:
                yield ws


def local_copy(url: str, cache: str) -> Path:
    """Returns the folder that stands for a workdir in a bucket on this machine."""
    own = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    base = Path(cache) if cache else expanded(own) / "delrec_jax" / "workdirs"
    name = url.rstrip("/")
    return base / f"{name.rpartition('/')[2]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


@contextmanager
def _mirrored(url: str, folder: Path, experiment: Experiment) -> Iterator[Callable[[], None]]:
    """A session in the local copy of a workdir in a bucket; yields what puts its changes, which process 0 alone does."""
    with session(folder, experiment, name=url), ExitStack() as stack:
        say(f"{url}: the local copy is {folder}")
        _check_shared(url, folder)
        saved = _nothing
        if is_main():
            bucket = Bucket(url)
            saved = Mirror(bucket, folder, stack.enter_context(Lease(bucket))).put
        wait_for_all()
        yield saved


def _nothing() -> None:
    pass


def _check_shared(url: str, folder: Path) -> None:
    """Refuses processes that do not see one another's files."""
    mark = folder / f".seen-{main_number(lambda: secrets.randbits(31))}"
    on_main(mark.touch)
    seen = all_see(mark.exists)
    on_main(mark.unlink)
    if not seen:
        raise UserError(
            f"--workdir={url}: several processes need one local copy, and not all of them see {folder}: give --cache=DIR on a "
            "file system that all of them see, or use one machine"
        )
