"""One process that has joined JAX's runtime, as on a TPU VM with one host, is told to end; prints what it noticed as JSON."""

import json
import os
import signal
import socket
import threading

from delrec_jax.distributed import DistributedConfig, join
from delrec_jax.errors import Preempted
from delrec_jax.training.preemption import StopRequest, end_at_sigterm


def main():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{free.getsockname()[1]}"
    found = {"joined": join(DistributedConfig(coordinator=place, num_processes=1, process_id=0))}
    end_at_sigterm()
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        found["in a training"] = stop.asked()
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(0)  # Python's handlers run between two of its instructions
        found["elsewhere"] = False
    except Preempted:
        found["elsewhere"] = True
    print(json.dumps(found))


if __name__ == "__main__":
    main()
