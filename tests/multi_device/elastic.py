"""A training that is cut off under one number of devices or processes, and goes on under another; prints what happened.

    python elastic.py ROOM GROUP PORT NUMBER WHAT ...

GROUP processes of this machine are one run, and this one is NUMBER (PORT 0: it is alone). WHAT is a mesh over devices of all of
them, `data x fsdp x tensor`: a run is trained and dies two steps after a checkpoint, in the folder ROOM/MESH-GROUP. Or it is
MESH<FOLDER: the run that was begun in that folder goes on to its end, in a copy.
"""

import hashlib
import json
import logging
import math
import shutil
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from delrec_jax import distributed
from delrec_jax.batches import batch_type
from delrec_jax.data.pipeline import row_iterator, training_iterator
from delrec_jax.distributed import DistributedConfig, on_host, on_main
from delrec_jax.training.checkpoints import Checkpoints
from delrec_jax.training.gradients import mean_loss_gradients
from delrec_jax.training.loop import Run, fit
from delrec_jax.training.loop_config import LoopConfig
from delrec_jax.training.mesh import MeshConfig
from delrec_jax.training.sharding import make_layout, own_share
from delrec_jax.training.steps import TrainStep, create_state, state_shardings

EXAMPLES, BATCH, STEPS, SAVED, CUT = (
    48,
    8,
    12,
    4,
    6,
)  # two epochs; the save is within the first


class Cut(Exception):
    """Stands for the power cut."""


@batch_type
class Row:
    number: np.ndarray
    x: np.ndarray


class Noting:
    """An iterator that notes which examples this process was given, and may end in a power cut."""

    def __init__(self, batches, left=STEPS):
        self.batches, self.left, self.given = batches, left, []

    def __next__(self):
        self.left -= 1
        if self.left < 0:
            raise Cut
        batch = next(self.batches)
        self.given.append(np.ravel(batch.number).tolist())
        return batch

    def get_state(self):
        return self.batches.get_state()

    def set_state(self, state):
        self.batches.set_state(state)


def batches(kind, share):
    """One of both kinds of iterators over the same examples."""
    x = np.random.default_rng(7).normal(size=(EXAMPLES, 8)).astype(np.float32)
    rows = Row(np.arange(EXAMPLES), x)
    if kind == "rows":
        return row_iterator(rows, batch_size=BATCH, seed=3, share=share)

    def example(index, rng):
        return Row(np.int64(index), x[index] + rng.normal(size=8).astype(np.float32) / 10)

    return training_iterator(example, EXAMPLES, batch_size=BATCH, buckets=(1,), seed=3, share=share)


def loss(params, frozen, batch, key):
    hidden = jnp.tanh(batch.x @ params["inner"]) * jax.random.bernoulli(key, 0.8, (BATCH, 16))
    return (hidden @ params["outer"] - batch.x[:, 0]) ** 2, jnp.ones(BATCH), {}


def axes_of(path, shape):
    return {"inner": ("embed", "mlp"), "outer": ("mlp",)}.get(path[-1], (None,) * len(shape))


def digest(tree):
    """SHA-256 of all bits of a tree, wherever its parts are; all processes must ask."""
    found = hashlib.sha256()
    for leaf in map(on_host, jax.tree.leaves(tree)):
        found.update(leaf.tobytes())
    return found.hexdigest()


def train(folder, layout, kind, left):
    """What one start of the run did: its examples by step, its parameters at each evaluation and at the end."""
    rng = np.random.default_rng(0)
    params = {"inner": rng.normal(size=(8, 16)).astype(np.float32), "outer": jnp.ones(16)}
    optimizer, seen = optax.adam(0.05), []
    share = own_share(layout, BATCH)
    source = Noting(batches(kind, share), left)

    def evaluate(params):
        seen.append(digest(params))
        return {"value": float(on_host(params["outer"]).sum())}

    run = Run(
        name="elastic",
        directory=folder,
        state=create_state(params, optimizer),
        frozen={},
        batches=source,
        step=TrainStep(mean_loss_gradients(loss), optimizer, layout),
        evaluate=evaluate,
        monitor="value",
        select="last",
        config=LoopConfig(steps=STEPS, evaluate_every=SAVED, checkpoint_every=SAVED),
        key=jax.random.key(5),
        layout=layout,
        share=share,
    )
    found = {"share": share}
    with Checkpoints(folder / "checkpoints") as checkpoints:
        if checkpoints.latest_step is not None:
            restored = checkpoints.restore(
                jax.tree.map(
                    lambda leaf, place: jax.ShapeDtypeStruct(
                        leaf.shape, leaf.dtype, sharding=place
                    ),
                    run.state,
                    state_shardings(run.state, layout),
                )
            )
            found["restored"] = {
                "step": checkpoints.latest_step,
                "params": digest(restored[0].params),
                "all": digest(restored[0]),
            }
    try:
        result, _ = fit(run)
        found["end"] = {name: value.tolist() for name, value in result.items()}
    except Cut:
        pass
    return found | {"given": source.given, "params": seen}


def main(room, group, port, number, *tasks):
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    if port:
        place = f"127.0.0.1:{port}"
        distributed.join(DistributedConfig("on", place, group, number, heartbeat_seconds=60))
    found = {}
    for task in tasks:
        mesh, resumes, begun = task.partition("<")
        sizes = tuple(map(int, mesh.split("x")))
        layout = make_layout(MeshConfig(*sizes), axes_of, jax.devices()[: math.prod(sizes)])
        own = f"{mesh}-{group}"
        for kind in ("rows", "texts"):
            folder = room / (f"{begun}-then-{own}" if resumes else own) / kind
            if resumes:
                on_main(lambda s=room / begun / kind, c=folder: shutil.copytree(s, c))
            found[f"{kind} {own}{resumes}{begun}"] = train(
                folder, layout, kind, STEPS if resumes else CUT
            )
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    place, group, port, number, *tasks = sys.argv[1:]
    main(Path(place), int(group), int(port), int(number), *tasks)
