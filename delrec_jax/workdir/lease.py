"""A lease on a workdir in a bucket: an object that one run at a time holds, in place of a file lock.

A bucket has no locks that end with their process, so the holder renews its lease, and one that nobody renews is taken over.
Whether a run still holds it never depends on a clock: each renewal replaces exactly the version that this run wrote before.
"""

import json
import os
import platform
import threading
import time
import uuid
from datetime import UTC, datetime
from typing import Any

from delrec_jax.errors import UserError
from delrec_jax.training.writers import say
from delrec_jax.workdir.bucket import NEW, Bucket, Changed, Stored
from delrec_jax.workdir.session import WorkdirInUse

LEASE = "lease.json"

_EXPIRES = 180.0  # seconds
_EVERY = 20.0


class Lease:
    """The right to write to a workdir in a bucket; a context manager that takes it, renews it and gives it back."""

    def __init__(self, bucket: Bucket, *, expires: float = _EXPIRES, every: float = _EVERY):
        """Takes nothing yet.

        Args:
          bucket: where the workdir is.
          expires: seconds after which a lease that was not renewed is taken over; the same for all runs.
          every: seconds between two renewals, and between two looks at another run's lease.
        """
        self._bucket, self._expires, self._every = bucket, expires, every
        now = datetime.now(UTC).isoformat(sep=" ", timespec="seconds")
        holder = {"host": platform.node(), "process": os.getpid(), "since": now}
        # The id tells this lease from that of an earlier run with the same process number.
        self._content = json.dumps({**holder, "id": uuid.uuid4().hex}, indent=1).encode()
        self._generation, self._lost = NEW, False
        self._lock, self._end = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._keep_renewing, daemon=True)

    def __enter__(self) -> "Lease":
        """Takes the lease.

        Raises:
          WorkdirInUse: another run holds it and renews it.
          UserError: the bucket cannot be used.
        """
        self._generation = self._take()
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._end.set()
        self._thread.join()
        if not self._lost:
            try:
                self._bucket.delete(LEASE, self._generation)
            except UserError as error:  # how the run itself ended is what matters
                say(f"the lease could not be given back, and expires by itself: {error}")

    def check(self) -> None:
        """Looks whether this run still holds it.

        Raises:
          UserError: another run has taken it over, or the bucket cannot be reached.
        """
        with self._lock:  # the number of a renewal in progress is not known yet
            found = self._bucket.look(LEASE)
            self._lost = self._lost or found is None or found.generation != self._generation
        if self._lost:
            raise UserError(
                f"--workdir={self._bucket.url}: another run has taken it over, because this one did not renew its lease; this "
                "run ends, and what it did since its last checkpoint there is not kept"
            )

    def _take(self) -> int:
        """Returns the generation of the lease, once it is this run's."""
        generation = NEW
        while True:
            try:
                return self._bucket.put(LEASE, self._content, generation).generation
            except Changed:
                found = self._bucket.read(LEASE)
            generation = NEW if found is None else self._await_end(*found)

    def _await_end(self, content: bytes, stored: Stored) -> int:
        """Watches another run's lease until it has expired; returns the generation to replace.

        Raises:
          WorkdirInUse: it was renewed.
        """
        url, holder = self._bucket.url, _holder(content)
        age = (datetime.now(UTC) - stored.updated).total_seconds()
        left = min(self._expires - age, self._expires)  # the second if this clock is behind
        left = max(left, 2 * self._every)  # if it is ahead: a holder that lives renews it meanwhile
        ends = time.monotonic() + left
        say(
            f"{url}: held by another run ({holder}); waiting for up to {left:.0f} s to see whether it is still alive"
        )
        while (left := ends - time.monotonic()) > 0:
            time.sleep(min(left, self._every))
            found = self._bucket.look(LEASE)
            if found is None:
                return NEW
            if found.generation != stored.generation:
                raise WorkdirInUse(
                    f"--workdir={url}: another run is using it ({holder}); wait for it, stop it, or give another --workdir"
                )
        say(f"{url}: taken over from another run ({holder}), which did not renew its lease")
        return stored.generation

    def _keep_renewing(self) -> None:
        while not self._end.wait(self._every):
            try:
                self._renew()
            except Changed:
                self._lost = True
                return
            except UserError:
                continue  # out of reach for now: if nobody took it meanwhile, the next renewal succeeds

    def _renew(self) -> None:
        with self._lock:
            self._generation = self._bucket.put(LEASE, self._content, self._generation).generation


def _holder(content: bytes) -> str:
    try:
        found: dict[str, Any] = json.loads(content)
        return f"process {found['process']} on {found['host']} since {found['since']}"
    except (ValueError, KeyError, TypeError):
        return "its lease cannot be read"
