"""Saves over a good checkpoint on a disk that fails at one call after another (`failing_disk.c`); prints what is left.

    LD_PRELOAD=failing_disk.so python interrupted_saves.py failing_disk.so FOLDER EVERY

One call fails with "no space left"; from one call on, all fail, so that nothing reaches the disk any more; the process is
killed at that call. This for every EVERY-th call that changes a file or folder of the save.
"""

import ctypes
import errno
import json
import logging
import os
import shutil
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from delrec_jax.errors import UserError
from delrec_jax.training.checkpoints import Checkpoints

LIKE = {"table": np.zeros((300, 40), np.float32), "count": np.int32(0), "half": np.zeros(7, "e")}
GOOD, NEXT = 4, 8  # steps


def tree(step):
    """The arrays of a step, which no other step has."""
    return jax.tree.map(
        lambda leaf: jnp.asarray(np.arange(leaf.size).reshape(leaf.shape) % 97 + step, leaf.dtype),
        LIKE,
    )


def save(folder, step, armed=lambda: None):
    """Saves a step while the disk fails as `armed` says; whether it was told that it failed."""
    try:
        with Checkpoints(folder) as checkpoints:
            armed()
            checkpoints.save(step, tree(step), {"step": step})
            checkpoints.wait()
    except UserError:
        return True
    return False


def found(folder):
    """The step that a run would go on from, and whether it is what was saved then."""
    with Checkpoints(folder) as checkpoints:
        arrays, meta = checkpoints.restore(tree(0))
        same = jax.tree.map(
            lambda one, other: np.array_equal(one, other), arrays, tree(meta["step"])
        )
        right = all(jax.tree.leaves(same)) and meta["step"] == checkpoints.latest_step
        return {"step": meta["step"], "right": right, "listed": list(checkpoints.steps)}


def killed(folder, disk, call):
    """Saves in a process that is killed at that call; whether it was."""
    child = os.fork()  # before JAX has started its devices and their threads
    if not child:
        save(folder, NEXT, lambda: disk.kill_at(bytes(folder), call))
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def main(library, room, every):
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    disk = ctypes.CDLL(library)
    disk.fail_at.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_int, ctypes.c_int]
    disk.kill_at.argtypes = [ctypes.c_char_p, ctypes.c_long]
    disk.failed.restype = ctypes.c_char_p
    child = os.fork()  # as above
    if not child:
        save(room / "good", GOOD)
        shutil.copytree(room / "good", room / "counted")
        save(
            room / "counted",
            NEXT,
            lambda: disk.fail_at(bytes(room / "counted"), -1, 0, 0),
        )
        (room / "calls").write_text(str(disk.fail_at(b"", -1, 0, 0)))
        os._exit(0)
    os.waitpid(child, 0)
    calls = int((room / "calls").read_text())
    rows = []
    for call in range(0, calls, every):
        folder = room / f"killed-{call}"
        shutil.copytree(room / "good", folder)
        if killed(folder, disk, call):  # a save has a call more or less from time to time
            rows.append({"fault": "killed", "call": call, "told": True})
    for fault, once in (("full", 1), ("gone", 0)):
        for call in range(0, calls, every):
            folder = room / f"{fault}-{call}"
            shutil.copytree(room / "good", folder)
            told = save(
                folder,
                NEXT,
                lambda f=folder, c=call, o=once: disk.fail_at(bytes(f), c, o, errno.ENOSPC),
            )
            failed = disk.failed().decode()
            disk.fail_at(b"", -1, 0, 0)
            if failed:  # as above
                file = str(Path(failed).relative_to(folder))
                rows.append({"fault": fault, "call": call, "told": told, "file": file})
    for row in rows:
        folder = room / f"{row['fault']}-{row['call']}"
        row |= found(folder)
        row["leftovers"] = [p.name for p in folder.iterdir() if not p.name.isdigit()]
        save(folder, NEXT + 4)
        row["again"] = found(folder)
    print(json.dumps({"calls": calls, "rows": rows}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
