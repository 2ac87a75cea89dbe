"""A tiny training in a process of its own that hangs where it is told: `hanging.py WHERE DIRECTORY`.

From then on the watchdog counts a thousand ticks at a time, so that no test depends on the speed of the machine.
"""

import sys
import threading
from pathlib import Path

import optax
import orbax.checkpoint as ocp
from numbered import LAYOUT, Numbered, distance, train

from delrec_jax.training.gradients import mean_loss_gradients
from delrec_jax.training.steps import TrainStep
from delrec_jax.training.watchdog import Watchdog
from delrec_jax.training.watching import Watch

HUNG = threading.Event()
COUNT = Watchdog.count


def hang_here(*ignored, **named):
    """Never returns; a checkpoint that is still being written is not what hangs."""
    for thread in threading.enumerate():
        if thread.name == "watchdog of a save":
            thread.join()
    HUNG.set()
    threading.Event().wait()


def hang_unnoticed(*ignored):
    """Never returns, and nobody has to know yet."""
    threading.Event().wait()


def count(watchdog, seconds):
    """Many ticks at once when something hangs."""
    for _ in range(1000 if HUNG.is_set() else 1):
        COUNT(watchdog, seconds)


class Step:
    """A train step whose seventh call hangs."""

    def __init__(self):
        optimizer = optax.sgd(0.02, momentum=0.9)
        self.whole, self.calls = TrainStep(mean_loss_gradients(distance), optimizer, LAYOUT), 0

    def __call__(self, *given):
        self.calls += 1
        if self.calls == 7:
            hang_here()
        return self.whole(*given)


def main(where, directory):
    Watchdog.count = count
    batches, more = Numbered(), {}
    if where == "batch":
        batches = Numbered(at=9, happens=hang_here)
    if where == "step":
        more = {"step": Step()}
    if where == "save":
        ocp.CheckpointManager.save = hang_here
    if where == "write":
        # In the background, which the steps do not notice; the end waits for it.
        ocp.CheckpointManager._finalize = hang_unnoticed
        close = ocp.CheckpointManager.close
        ocp.CheckpointManager.close = lambda manager: HUNG.set() or close(manager)
        more = {"config": {"checkpoint_every": 12}}
    train(Path(directory), batches, watch=Watch(hang_after=600.0), **more)


if __name__ == "__main__":
    main(*sys.argv[1:])
