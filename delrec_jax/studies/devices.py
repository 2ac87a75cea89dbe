"""The GPUs of this machine, shared out to the processes of a study: on the same ones they would slow one another."""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path

VISIBLE = "CUDA_VISIBLE_DEVICES"

_DEVICES = Path("/dev")
_TPU_FILES = ("accel[0-9]*", "vfio/[0-9]*")


def visible_gpus(environment: Mapping[str, str], folder: Path = _DEVICES) -> list[str]:
    """Returns the GPUs as CUDA names them: those that the environment lists, else all of this machine.

    Args:
      environment: variables of this process.
      folder: where the system keeps its devices.
    """
    if VISIBLE in environment:
        return [name.strip() for name in environment[VISIBLE].split(",") if name.strip()]
    # Their names have the numbers of the machine, while CUDA counts those that a container has been given.
    found = [path for path in folder.glob("nvidia*") if path.name[len("nvidia") :].isdecimal()]
    return [str(number) for number in range(len(found))]


def share_of(gpus: Sequence[str], slot: int, slots: int) -> list[str]:
    """Returns the GPUs of one of several processes.

    All have equally many, since sums over another number of devices round otherwise; where there are fewer GPUs than processes,
    each has one, which others have too.

    Args:
      gpus: all of them.
      slot: number of the process, from 0.
      slots: processes at a time.
    """
    if not gpus:
        return []
    size = max(1, len(gpus) // slots)
    first = slot * size % len(gpus)
    return list(gpus[first : first + size])


def has_tpu(environment: Mapping[str, str], folder: Path = _DEVICES) -> bool:
    """Returns whether JAX would take a TPU of this machine, whose chips belong to one process at a time."""
    wanted = environment.get("JAX_PLATFORMS", "tpu")
    return (
        "tpu" in wanted
        and importlib.util.find_spec("libtpu") is not None
        and any(any(folder.glob(pattern)) for pattern in _TPU_FILES)
    )
