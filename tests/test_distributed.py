from unittest import mock

import jax
import numpy as np
import pytest

from delrec_jax import distributed
from delrec_jax.distributed import DistributedConfig, join, names_others
from delrec_jax.errors import OthersNotFound, UserError
from delrec_jax.training import preemption
from delrec_jax.training.preemption import StopRequest

STATED = {"coordinator": "host:1234", "num_processes": 4, "process_id": 2}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8"}, False),  # a shell inside an allocation
        ({"SLURM_STEP_NUM_TASKS": "8"}, True),
        ({"SLURM_STEP_NUM_TASKS": "1"}, False),
        ({"JAX_COORDINATOR_ADDRESS": "a:1"}, True),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"TPU_WORKER_HOSTNAMES": ""}, False),
    ],
)
def test_which_environments_name_others(environment, expected):
    assert names_others(environment) is expected


@pytest.mark.parametrize(
    ("config", "environment", "arguments"),
    [
        (DistributedConfig(), {}, None),
        (DistributedConfig(start="off", **STATED), {"SLURM_STEP_NUM_TASKS": "8"}, None),
        (DistributedConfig(), {"SLURM_STEP_NUM_TASKS": "8"}, {}),
        (DistributedConfig(start="on"), {}, {}),
        (
            DistributedConfig(**STATED),
            {},
            {"coordinator_address": "host:1234", "num_processes": 4, "process_id": 2},
        ),
    ],
)
def test_when_others_are_joined_and_how(config, environment, arguments):
    with mock.patch.object(jax.distributed, "initialize") as initialize:
        assert join(config, environment) is (arguments is not None)
    if arguments is None:
        initialize.assert_not_called()
    else:
        initialize.assert_called_once_with(**arguments, heartbeat_timeout_seconds=60)


def test_others_that_cannot_be_found():
    failure = mock.patch.object(
        jax.distributed, "initialize", side_effect=RuntimeError("DEADLINE_EXCEEDED: no\nmore")
    )
    with (
        failure,
        pytest.raises(OthersNotFound, match=r"cannot be joined \(DEADLINE_EXCEEDED: no more\)"),
    ):
        join(DistributedConfig(**STATED), {})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"start": "maybe"}, "distributed.start is 'maybe'"),
        ({"coordinator": "a:1"}, "give all three"),
        ({"num_processes": 2, "process_id": 0}, "give all three"),
        ({**STATED, "process_id": 4}, "it goes from 0 to 3"),
        ({"heartbeat_seconds": 0}, "heartbeat_seconds is 0"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(UserError, match=message):
        DistributedConfig(**settings)


def test_one_process_is_the_main_one_and_waits_for_nobody(monkeypatch):
    def started():
        raise AssertionError("the question starts the devices")

    monkeypatch.setattr(jax, "process_count", started)
    monkeypatch.setattr(jax, "process_index", started)
    done = []
    assert distributed.is_main()
    distributed.on_main(lambda: done.append(1))
    distributed.wait_for_all()
    assert done == [1]
    assert distributed.as_main_sees(lambda: True) is True
    assert distributed.as_main_sees(lambda: False) is False
    assert not distributed.lost_another(RuntimeError("Gloo all-reduce failed"))


def test_a_copy_on_the_host_is_a_copy():
    array = np.zeros(3)
    copy = distributed.on_host(array)
    array += 1
    np.testing.assert_array_equal(copy, 0)


def test_a_copy_on_the_host_outlives_a_donated_array():
    array = jax.numpy.zeros(1000)
    copy = distributed.on_host(array)
    double = jax.jit(lambda x: x + 1, donate_argnums=0)
    assert double(array)[0] == 1 and array.is_deleted()
    np.testing.assert_array_equal(copy, 0)


def test_all_processes_have_what_the_main_one_found():
    """By the exchange of two processes that found different floats, one after the other on this machine."""
    found = [{"weights": {"ease": 0.1 + 0.2}, "names": ["é"]}, {"weights": {"ease": 0.3}}]
    sent = []
    with (
        mock.patch.object(distributed, "has_others", lambda: True),
        mock.patch.object(distributed, "is_main", lambda: len(sent) < 2),
        mock.patch.object(distributed, "multihost_utils") as exchange,
    ):
        exchange.broadcast_one_to_all.side_effect = lambda own: sent.append(own) or own
        assert distributed.as_main_has(found[0]) == found[0]
        length, text = sent
        replies = iter([length, text])
        exchange.broadcast_one_to_all.side_effect = lambda own: next(replies)
        assert distributed.as_main_has(found[1]) == found[0] != found[1]


def test_a_notice_to_end_is_asked_for_with_numbers_that_never_begin_anew():
    asked = []
    with (
        mock.patch.object(jax, "process_count", lambda: 2),
        mock.patch.object(preemption, "multihost_utils") as exchange,
    ):
        exchange.reached_preemption_sync_point.side_effect = asked.append
        for _ in range(2):  # two trainings
            with StopRequest() as stop:
                for _ in range(3):
                    stop.asked()
    assert asked == list(range(asked[0], asked[0] + 6))
