"""A run goes on under another number of devices or processes: the same parameters to the last bit, and every example once."""

import json
import os
import socket
import subprocess
import sys
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from compiling import QUICK_ENVIRONMENT
from elastic import BATCH, EXAMPLES, SAVED, STEPS

SCRIPT = Path(__file__).with_name("elastic.py")
DEADLINE = 600
KINDS = ("rows", "texts")
EPOCH = EXAMPLES // BATCH


def in_order(shares):
    """The examples of each step over all processes; processes may hold the same share."""
    by_share = {tuple(found["share"][0]): found["given"] for found in shares}
    parts = [by_share[blocks] for blocks in sorted(by_share)]
    asked = sorted(chain(*by_share))
    assert asked == list(range(shares[0]["share"][1])), (
        "some share of the batches was never asked for"
    )
    return [list(chain(*step)) for step in zip(*parts, strict=True)]


def check(begun, resumed, undisturbed):
    """What every change must leave as it is; each argument: what all processes of a run did."""
    before, after = in_order(begun)[:SAVED], in_order(resumed)
    # Of an epoch that the change falls into, and of the next one: each example once, in the order of an undisturbed run.
    together = before + after
    assert len(together) == STEPS
    for epoch in (together[:EPOCH], together[EPOCH : 2 * EPOCH]):
        assert sorted(chain(*epoch)) == list(range(EXAMPLES))
    assert together == in_order(undisturbed)
    # The parameters of the checkpoint, as every process of both runs sees them.
    saved = {found["params"][1] for found in begun}
    restored = {found["restored"]["params"] for found in resumed}
    assert len(saved) == 1 and restored == saved
    assert {found["restored"]["step"] for found in resumed} == {SAVED}
    for name, value in undisturbed[0]["end"].items():
        for found in resumed:  # sums over another number of devices are rounded otherwise
            np.testing.assert_allclose(found["end"][name], value, rtol=1e-4, atol=1e-5)


MESHES = ("1x1x1", "1x4x1", "2x2x2")
RING = tuple(zip(MESHES, (*MESHES[1:], MESHES[0]), strict=True))


@pytest.fixture(scope="module")
def devices(on_devices, tmp_path_factory):
    """On eight fake devices: each mesh goes on with what another began."""
    room = tmp_path_factory.mktemp("elastic")
    first = f"{MESHES[0]}<nothing"  # from the beginning, undisturbed
    for kind in KINDS:
        (room / "nothing" / kind).mkdir(parents=True)
    changes = [f"{after}<{before}-1" for before, after in RING]
    return on_devices(SCRIPT, room, 1, 0, 0, first, *MESHES, *changes)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("before", "after"), RING)
def test_another_number_of_devices(devices, before, after, kind):
    begun = devices[f"{kind} {before}-1"]
    resumed = devices[f"{kind} {after}-1<{before}-1"]
    check([begun], [resumed], [devices[f"{kind} 1x1x1-1<nothing"]])


def run(room, group, devices, *tasks):
    """What each of a group of processes did, each with so many devices."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1] if group > 1 else 0
    flags = f"{QUICK_ENVIRONMENT['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    started = [
        subprocess.Popen(
            [sys.executable, SCRIPT, *map(str, (room, group, port, number, *tasks))],
            env={**os.environ, **QUICK_ENVIRONMENT, "XLA_FLAGS": flags},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(group)
    ]
    said = [one.communicate(timeout=DEADLINE) for one in started]
    assert [one.returncode for one in started] == [0] * group, said
    return [json.loads(out.splitlines()[-1]) for out, _ in said]


# Processes of one device each, copies of the weights in two and shared weights in four; and one process with eight devices.
GROUPS = {"1x1x1-1": (1, 1), "2x1x1-2": (2, 1), "1x4x1-4": (4, 1), "8x1x1-1": (1, 8)}


@pytest.mark.slow
def test_every_other_number_of_processes(tmp_path):
    for kind in KINDS:
        (tmp_path / "nothing" / kind).mkdir(parents=True)
    done = {}
    for name, (group, devices) in GROUPS.items():
        mesh = name.split("-")[0]
        again = [f"{mesh}<nothing"] if name == "1x1x1-1" else []
        done[name] = run(tmp_path, group, devices, mesh, *again)
    for name, (group, devices) in GROUPS.items():
        mesh = name.split("-")[0]
        changes = [f"{mesh}<{other}" for other in GROUPS if other != name]
        found = run(tmp_path, group, devices, *changes)
        for other in GROUPS:
            for kind in KINDS if other != name else ():
                check(
                    [one[f"{kind} {other}"] for one in done[other]],
                    [one[f"{kind} {name}<{other}"] for one in found],
                    [done["1x1x1-1"][0][f"{kind} 1x1x1-1<nothing"]],
                )
