"""A tiny training whose batches are numbered, so that a test can damage some and see which were drawn."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from unsplit import unsplit

from delrec_jax.batches import batch_type
from delrec_jax.training.gradients import mean_loss_gradients
from delrec_jax.training.loop import fit
from delrec_jax.training.loop_config import LoopConfig
from delrec_jax.training.row_steps import RowNumbers, RowSteps
from delrec_jax.training.run import Run
from delrec_jax.training.sharding import MeshConfig, make_layout
from delrec_jax.training.spikes import SpikeConfig
from delrec_jax.training.steps import TrainStep, create_state
from delrec_jax.training.watching import TIMINGS

LAYOUT = make_layout(MeshConfig(), unsplit)
SIGHTS = 1 + np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
SPIKE = SpikeConfig(deviations=10, window=8, least=3, rollbacks=2)


@batch_type
class Sights:
    y: Any


class Killed(Exception):
    """Stands for the power cut."""


class Numbered:
    """Batches by number, each of two rows; remembers which it gave."""

    def __init__(self, *, bad=None, numbers=None, block=0, at=None, happens=None):
        """`bad`: number -> what stands in its rows; `numbers`: which exist; before the draw number `at`, something happens."""
        self.rows = SIGHTS.copy()
        for number, value in (bad or {}).items():
            self.rows[2 * number : 2 * number + 2] = value
        self.numbers = list(range(len(SIGHTS) // 2)) if numbers is None else numbers
        self.block, self.next, self.given = block, 0, []
        self.at, self.happens = at, happens

    def __next__(self):
        if self.at == len(self.given):
            self.happens()
        number = self.numbers[self.next]
        self.next += 1
        self.given.append(number)
        rows = np.arange(2 * number, 2 * number + 2)
        return RowNumbers(numbers=rows) if self.block else Sights(y=self.rows[rows])

    def get_state(self):
        return {"next": self.next}

    def set_state(self, state):
        self.next = state["next"]


def distance(params, frozen, batch, key):
    """Squared distance under a random mask, so that rows and key both matter."""
    keep = jax.random.bernoulli(key, 0.7, (3,))
    return ((0.5 + keep) * (params["w"] + params["v"] - batch.y) ** 2).sum(-1), jnp.ones(2), {}


def rootless(params, frozen, batch, key):
    """A loss that is finite where a sight is at -5, and whose gradient with respect to w is not: of the root of 0."""
    losses, weights, metrics = distance(params, frozen, batch, key)
    zero = jnp.where((batch.y == -5).any(), 0 * params["w"][0], 1.0)
    return losses + jnp.sqrt(zero), weights, metrics


def train(directory, batches, *, loss=distance, optimizer=None, config=None, **more):
    """Trains 16 steps with evaluations at 5, 10, 15 and checkpoints at 4, 8, 12; the parameters and their description."""
    optimizer = optimizer or optax.sgd(0.02, momentum=0.9)
    settings = {"steps": 16, "evaluate_every": 5, "checkpoint_every": 4, "spike": SPIKE}
    settings |= config or {}
    step = TrainStep(mean_loss_gradients(loss), optimizer, LAYOUT)
    if batches.block:
        several = bool(settings.get("on_spike"))
        rows = Sights(y=batches.rows)
        step = RowSteps(step, rows, most=batches.block, all_metrics=several)
    run = {
        "name": "tiny/numbered",
        "directory": directory,
        "state": create_state({"v": jnp.zeros(3), "w": jnp.zeros(3)}, optimizer),
        "frozen": jnp.float32(1),
        "batches": batches,
        "step": step,
        "block": batches.block,
        "layout": LAYOUT,
        "evaluate": lambda params: {"size": float(np.abs(params["w"]).sum())},
        "monitor": "size",
        "select": "last",
        "config": LoopConfig(**settings),
        "key": jax.random.key(5),
    }
    return fit(Run(**(run | more)))


def log(directory):
    """The rows of a run's log, without what depends on the machine."""
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMINGS} for line in lines]


def saved(directory):
    """The steps of the complete checkpoints."""
    folder = directory / "checkpoints"
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())
