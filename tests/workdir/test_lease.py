"""One run at a time: a lease that is held, given back, expired, lost."""

import json
import threading
from datetime import datetime, timedelta

import pytest
from gcs_fake import URL

from delrec_jax.errors import UserError
from delrec_jax.workdir import lease
from delrec_jax.workdir.bucket import Bucket
from delrec_jax.workdir.lease import LEASE, Lease
from delrec_jax.workdir.session import WorkdirInUse

QUICK = {"expires": 600.0, "every": 0.02}
"""A holder that is alive renews at once; one that is not is waited for longer than any test takes."""


def wait_for(condition):
    for _ in range(6000):
        if condition():
            return
        threading.Event().wait(0.02)
    raise AssertionError


def test_it_says_who_holds_it_and_is_given_back(bucket):
    with Lease(Bucket(URL)):
        held = json.loads(bucket.content(LEASE))
        assert set(held) == {"host", "process", "since", "id"}
    assert LEASE not in bucket.names()


def test_it_is_given_back_however_the_run_ends(bucket):
    with pytest.raises(RuntimeError), Lease(Bucket(URL)):
        raise RuntimeError
    assert LEASE not in bucket.names()


def test_a_lease_that_is_renewed_is_held(bucket, capsys):
    with Lease(Bucket(URL), **QUICK):
        with pytest.raises(WorkdirInUse) as error, Lease(Bucket(URL), **QUICK):
            pass
        held = json.loads(bucket.content(LEASE))
    holder = f"process {held['process']} on {held['host']} since {held['since']}"
    assert str(error.value) == (
        f"--workdir={URL}: another run is using it ({holder}); wait for it, stop it, or give another --workdir"
    )
    assert f"held by another run ({holder}); waiting for up to" in capsys.readouterr().err


def test_a_lease_that_expired_is_soon_taken_over(bucket, capsys):
    bucket.store(LEASE, b'{"host": "old", "process": 7, "since": "then"}')
    bucket.age(LEASE, 601)
    with Lease(Bucket(URL), **QUICK) as lease:
        lease.check()
    said = capsys.readouterr().err
    assert "taken over from another run (process 7 on old since then)" in said
    assert "waiting for up to 0 s" in said


def test_a_holder_that_lives_is_not_robbed_by_a_clock_that_is_ahead(bucket, monkeypatch):
    class Ahead(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(hours=1)

    monkeypatch.setattr(lease, "datetime", Ahead)
    with (
        Lease(Bucket(URL), **QUICK),
        pytest.raises(WorkdirInUse),
        Lease(Bucket(URL), **QUICK | {"every": 0.2}),
    ):
        pass


def test_a_lease_that_nobody_renews_is_waited_for_and_taken_over(bucket, capsys):
    bucket.store(LEASE, b"{}")
    bucket.age(LEASE, -3600)  # clocks may differ; it is not waited for longer
    with Lease(Bucket(URL), expires=0.2, every=0.02):
        pass
    assert "its lease cannot be read" in capsys.readouterr().err


def test_a_lease_that_is_given_back_meanwhile_is_taken(bucket):
    bucket.store(LEASE, b"{}")
    looks = []

    def give_back(verb, name):
        looks.append(verb)
        if verb == "look" and looks.count("look") == 3:  # the second one while it waits
            bucket.objects.pop(f"runs/one/{LEASE}", None)

    bucket.before = give_back
    with Lease(Bucket(URL), **QUICK) as lease:
        lease.check()
        content, _ = Bucket(URL).read(LEASE)
        assert looks.count("look") > 3 and content != b"{}", "this run's own"


def test_a_lease_that_was_taken_over_is_lost_for_good(bucket):
    with Lease(Bucket(URL), **QUICK) as lease:
        lease.check()
        bucket.store(LEASE, b"theirs")
        for _ in range(2):
            with pytest.raises(UserError, match="another run has taken it over"):
                lease.check()
        wait_for(lambda: not lease._thread.is_alive())
    assert bucket.content(LEASE) == b"theirs"


def test_a_bucket_that_is_away_for_a_while_does_not_lose_the_lease(bucket):
    with Lease(Bucket(URL, patience=0.05), **QUICK) as lease:
        bucket.refuse("put", LEASE, 403, times=3)
        wait_for(lambda: bucket.refusals[0][3] == 0)
        lease.check()
    assert LEASE not in bucket.names()


def test_a_lease_that_cannot_be_given_back_does_not_hide_how_the_run_ended(bucket, capsys):
    bucket.refuse("delete", LEASE, 403)
    with pytest.raises(RuntimeError), Lease(Bucket(URL)):
        raise RuntimeError
    assert "expires by itself" in capsys.readouterr().err
