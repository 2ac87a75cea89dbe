"""Several processes as one run: how they find each other, who writes, and what all must agree on.

Every process executes the same program over the same (global) arrays, on JAX's own runtime. Only process 0 writes files and
messages. Where a file decides what happens next, process 0 looks and the others follow: they might look at another moment.
"""

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from delrec_jax.errors import OthersNotFound, UserError, one_line

_MODES = ("auto", "on", "off")

_HEAD_START = 2.0  # seconds in which processes end that have met just before

Found = TypeVar("Found")

# Words in the errors of JAX's coordination service, and of the transports that collectives use.
_SIGNS_OF_LOSS = (
    *("coordination service", "heartbeat", "barrier failed", "task is set to error"),
    *("gloo", "nccl", "connection closed", "connection reset", "socket closed"),
)


@dataclass(frozen=True)
class DistributedConfig:
    """How this process meets the others.

    Attributes:
      start: `auto` joins others if the environment names them (SLURM, GKE, JAX_COORDINATOR_ADDRESS) or the three keys
        below do; `on` always does, by JAX's own detection (TPU VM pods); `off` never does.
      coordinator: HOST:PORT of process 0.
      num_processes: total number of processes.
      process_id: number of this process, from 0.
      heartbeat_seconds: if a process is silent for this long, the others end; if it visibly dies, they end sooner.
    """

    start: str = "auto"
    coordinator: str = ""
    num_processes: int = 0
    process_id: int = -1
    heartbeat_seconds: int = 60

    def __post_init__(self) -> None:
        if self.start not in _MODES:
            raise UserError(f"distributed.start is {self.start!r}: use one of {', '.join(_MODES)}")
        given = (bool(self.coordinator), self.num_processes > 0, self.process_id >= 0)
        if any(given) and not all(given):
            raise UserError(
                f"distributed.coordinator {self.coordinator!r}, distributed.num_processes {self.num_processes} and "
                f"distributed.process_id {self.process_id} go together: give all three, or none if SLURM, GKE or a TPU pod "
                "provides them"
            )
        if all(given) and self.process_id >= self.num_processes:
            raise UserError(
                f"distributed.process_id is {self.process_id}: with {self.num_processes} processes it goes from 0 to "
                f"{self.num_processes - 1}"
            )
        if self.heartbeat_seconds < 1:
            raise UserError(
                f"distributed.heartbeat_seconds is {self.heartbeat_seconds}: it must be at least 1"
            )


def join(config: DistributedConfig, environment: Mapping[str, str] = os.environ) -> bool:
    """Joins the other processes, before anything else touches a device.

    Returns:
      Whether there are other processes.

    Raises:
      OthersNotFound: the other processes cannot be joined.
    """
    if config.start == "off" or (
        config.start == "auto" and not config.coordinator and not names_others(environment)
    ):
        return False
    stated: dict[str, Any] = {}
    if config.coordinator:
        stated = {
            "coordinator_address": config.coordinator,
            "num_processes": config.num_processes,
            "process_id": config.process_id,
        }
    try:
        jax.distributed.initialize(**stated, heartbeat_timeout_seconds=config.heartbeat_seconds)
    except (RuntimeError, ValueError) as error:
        said = one_line(error, most=300)
        raise OthersNotFound(
            f"the other processes cannot be joined ({said}): check distributed.coordinator, that all processes were started, "
            "and that its port is open between them; or set distributed.start=off for a run of one process"
        ) from error
    return True


def names_others(environment: Mapping[str, str]) -> bool:
    """Returns whether environment variables indicate more than one process.

    A SLURM allocation is not enough, a step in it (`srun`) is: a shell inside an allocation runs alone.
    """
    hosts = environment.get("TPU_WORKER_HOSTNAMES", "")
    return (
        "JAX_COORDINATOR_ADDRESS" in environment
        or int(environment.get("SLURM_STEP_NUM_TASKS") or 1) > 1
        or len([host for host in hosts.split(",") if host]) > 1
    )


def is_main() -> bool:
    """Returns whether this process writes files and messages: process 0, or the only one."""
    return not has_others() or jax.process_index() == 0


def place_among() -> tuple[int, int]:
    """Returns the number of this process, from 0, and how many there are."""
    return (jax.process_index(), jax.process_count()) if has_others() else (0, 1)


def on_main(action: Callable[[], Any]) -> None:
    """Runs an action in process 0 only; all processes continue when it is done."""
    if is_main():
        action()
    wait_for_all()


def wait_for_all() -> None:
    """Returns when every process has called it."""
    if has_others():
        multihost_utils.sync_global_devices("delrec")


def as_main_sees(question: Callable[[], bool]) -> bool:
    """Returns process 0's answer in all processes: what a file says must not depend on when each process looked.

    The others do not look at all: NFS would then cache for a minute that a file does not exist.
    """
    return bool(main_number(lambda: int(question())))


def main_number(question: Callable[[], int]) -> int:
    """Returns process 0's answer, of at most 31 bits, in all processes; the others do not ask."""
    answer = question() if is_main() else 0
    if not has_others():
        return answer
    return int(multihost_utils.broadcast_one_to_all(np.array(answer, np.int32)))


def as_main_has(found: Found) -> Found:
    """Returns process 0's value, of what JSON can hold, in all processes.

    For choices by sums of floats, which may differ in their last bits between machines.
    """
    if not has_others():
        return found
    own = json.dumps(found).encode()
    said = np.zeros(main_number(lambda: len(own)), np.uint8)
    if is_main():
        said[:] = np.frombuffer(own, np.uint8)
    said = np.asarray(multihost_utils.broadcast_one_to_all(said))
    value: Found = json.loads(said.tobytes())
    return value


def all_see(question: Callable[[], bool]) -> bool:
    """Returns in all processes whether the answer is yes in every one of them."""
    answer = bool(question())
    if not has_others():
        return answer
    return bool(multihost_utils.process_allgather(np.array(answer)).all())


def on_host(array: Any) -> np.ndarray:
    """Returns a copy of the full array in this process, wherever its parts are; all processes must call it."""
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        array = multihost_utils.process_allgather(array, tiled=True)
    return np.array(array)


def lost_another(error: BaseException) -> bool:
    """Returns whether an error means that a process at the other end of an exchange is gone."""
    if not has_others():
        return False
    text = str(error).lower()  # its type depends on which library was waiting
    return any(sign in text for sign in _SIGNS_OF_LOSS)


def leave(status: int, *, last: bool = False) -> None:
    """Ends this process at once if others may still be waiting for it: an orderly exit would wait for them in turn.

    Args:
      status: of the exit.
      last: process 0 lets the others leave before it. JAX's service is in process 0, and aborts those that outlive it: they
        would end with 134.
    """
    if not has_others():
        return
    if last and is_main():
        time.sleep(_HEAD_START)
    os._exit(status)


def has_others() -> bool:
    """Returns whether several processes have met; JAX counts them only if some have, as counting starts its devices."""
    return jax.distributed.is_initialized() and jax.process_count() > 1
