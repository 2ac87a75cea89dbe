"""A tiny training without end, alone or as one of two processes: `stoppable.py DIRECTORY HANG_AFTER [PORT NUMBER]`."""

import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from delrec_jax.batches import batch_type
from delrec_jax.data.pipeline import batch_iterator
from delrec_jax.distributed import DistributedConfig, join
from delrec_jax.endings import reported
from delrec_jax.training.gradients import mean_loss_gradients
from delrec_jax.training.loop import fit
from delrec_jax.training.loop_config import LoopConfig
from delrec_jax.training.preemption import end_at_sigterm
from delrec_jax.training.run import Run
from delrec_jax.training.sharding import MeshConfig, make_layout, own_share
from delrec_jax.training.steps import TrainStep, create_state
from delrec_jax.training.watching import Watch

# JAX's own heartbeat would notice a stopped process too, and is given more time than any test.
SILENT = 100_000


@batch_type
class Sights:
    y: Any


def loss(params, frozen, batch, key):
    losses = ((params["w"] - batch.y) ** 2).sum(-1)
    return losses, jnp.ones_like(losses), {}


def main(directory, hang_after, *meeting):
    if meeting:
        port, number = meeting
        join(DistributedConfig("on", f"127.0.0.1:{port}", 2, int(number), SILENT))
    end_at_sigterm()
    layout = make_layout(MeshConfig(), lambda path, shape: (None,) * len(shape))
    optimizer = optax.sgd(0.01)
    share = own_share(layout, 2)
    sights = Sights(y=np.ones((len(share.rows(2)), 3), np.float32))
    fit(
        Run(
            name="tiny/endless",
            directory=Path(directory),
            state=create_state({"w": jnp.zeros(3)}, optimizer),
            frozen=jnp.float32(1),
            batches=batch_iterator(lambda index, rng: sights, seed=0),
            step=TrainStep(mean_loss_gradients(loss), optimizer, layout),
            layout=layout,
            share=share,
            evaluate=lambda params: {"one": 1.0},
            monitor="one",
            config=LoopConfig(steps=10**9, evaluate_every=100, checkpoint_every=1000),
            key=jax.random.key(0),
            watch=Watch(hang_after=float(hang_after)),
        )
    )


if __name__ == "__main__":
    with reported():
        main(*sys.argv[1:])
