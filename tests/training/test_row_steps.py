"""Several steps per call: the same to the last bit, whatever their number, a kill, SIGTERM, or another number afterwards."""

import itertools
import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from unsplit import unsplit

from delrec_jax.data.pipeline import row_iterator
from delrec_jax.errors import Preempted, UserError
from delrec_jax.training.gradients import mean_loss_gradients
from delrec_jax.training.loop import fit
from delrec_jax.training.loop_config import LoopConfig
from delrec_jax.training.row_steps import RowNumbers, RowSteps, steps_ahead
from delrec_jax.training.run import Run
from delrec_jax.training.sharding import MeshConfig, make_layout, place
from delrec_jax.training.steps import TrainStep, create_state, state_shardings
from delrec_jax.training.watching import TIMINGS, Watch

pytestmark = pytest.mark.exact

LAYOUT = make_layout(MeshConfig(), unsplit)
ROWS = {"y": np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)}
CONFIG = LoopConfig(steps=11, evaluate_every=3, checkpoint_every=4)


def loss(params, frozen, batch, key):
    """Squared distance under a random mask, so that rows and key both matter; every operation rounds."""
    keep = jax.random.bernoulli(key, 0.7, (3,))
    distance = (jnp.tanh(params["w"] @ params["w"].T) @ params["v"] - batch["y"] * frozen) ** 2
    return (keep * distance).sum(-1), jnp.ones(2), {"largest": distance.max()}


OPTIMIZER = optax.adam(0.1)
ONE = TrainStep(mean_loss_gradients(loss), OPTIMIZER, LAYOUT)


def start():
    w = jnp.asarray(np.random.default_rng(1).normal(size=(3, 5)), jnp.float32)
    return create_state({"w": w, "v": jnp.ones(3)}, OPTIMIZER)


class Batches:
    """Row numbers; at the n-th batch from now on, something happens."""

    def __init__(self, at=None, happens=None):
        numbers = RowNumbers(numbers=np.arange(len(ROWS["y"])))
        self.source, self.drawn = row_iterator(numbers, batch_size=2, seed=3), 0
        self.at, self.happens = at, happens
        self.get_state, self.set_state = self.source.get_state, self.source.set_state

    def __next__(self):
        self.drawn += 1
        if self.drawn == self.at:
            self.happens()
        return next(self.source)


class Counted:
    """A step that remembers how many batches its calls had."""

    def __init__(self, steps):
        self.steps, self.calls = steps, []

    def __call__(self, state, frozen, batches, key):
        self.calls.append(len(batches))
        return self.steps(state, frozen, batches, key)


def train(directory, block, *, batches=None, watch=None):
    """Trains with at most `block` steps per call; the sizes of the calls."""
    counted = Counted(RowSteps(ONE, ROWS, most=block))
    run = Run(
        name="tiny/rows",
        directory=directory,
        state=start(),
        frozen=jnp.float32(1.0),
        batches=batches or Batches(),
        step=counted,
        evaluate=lambda params: {"size": float(np.abs(params["w"]).sum())},
        monitor="size",
        config=CONFIG,
        key=jax.random.key(5),
        layout=LAYOUT,
        select="last",
        watch=watch or Watch(),
        block=block,
    )
    fit(run)
    assert counted.steps.programs <= 1  # whatever the sizes of the calls
    return counted.calls


def left(directory):
    """What a run leaves that does not depend on the machine: the bytes of its result, and the rows of its log."""
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    log = [{k: v for k, v in json.loads(line).items() if k not in TIMINGS} for line in lines]
    return (directory / "result.safetensors").read_bytes(), log


@pytest.fixture(scope="module")
def one_by_one(tmp_path_factory):
    directory = tmp_path_factory.mktemp("one")
    assert train(directory, 1) == [1] * 11
    return left(directory)


def test_steps_of_rows_are_the_steps_of_their_batches(one_by_one):
    """The same rows in the same order, and each step's own key, as if the host had sent every batch."""
    state, batches = place(start(), state_shardings(start(), LAYOUT)), Batches()
    frozen, key, losses = jnp.float32(1.0), jax.random.key(5), []
    for _ in range(CONFIG.steps):
        batch = {"y": ROWS["y"][next(batches).numbers]}
        state, metrics = ONE(state, frozen, batch, key)
        losses.append(float(metrics["loss"]))
    logged = {row["step"]: row["loss"] for row in one_by_one[1] if "loss" in row}
    assert list(logged) == [3, 6, 9, 11]
    np.testing.assert_allclose(
        list(logged.values()), [losses[step - 1] for step in logged], rtol=1e-5
    )


@pytest.mark.parametrize(("block", "calls"), [(2, [2, 1, 1, 2, 2, 1, 2]), (4, [3, 1, 2, 2, 1, 2])])
def test_results_and_logs_are_the_same_to_the_last_bit(one_by_one, tmp_path, block, calls):
    """Evaluations at 3, 6 and 9, checkpoints at 4 and 8 and the end at 11 each end a call."""
    assert train(tmp_path, block) == calls
    assert left(tmp_path) == one_by_one


class Killed(Exception):
    """Stands for the power cut."""


def killed():
    raise Killed


@pytest.mark.parametrize(
    ("blocks", "deaths"), [((4, 1), (6,)), ((1, 4), (8,)), ((2, 7, 3), (5, 5))]
)
def test_killed_within_a_call_and_resumed_with_another_length(one_by_one, tmp_path, blocks, deaths):
    for block, at in itertools.zip_longest(blocks, deaths):
        if at is None:
            train(tmp_path, block)
        else:
            with pytest.raises(Killed):
                train(tmp_path, block, batches=Batches(at, killed))
    assert left(tmp_path) == one_by_one


def test_told_to_end_within_a_call_it_saves_at_the_end_of_the_call(
    one_by_one, tmp_path, orderly_end
):
    told = Batches(5, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Preempted, match="tiny/rows: saved at step 6 of 11"):
        train(tmp_path, 4, batches=told)
    assert train(tmp_path, 1) == [1] * 5
    assert left(tmp_path) == one_by_one


def test_a_trace_begins_and_ends_on_its_steps(one_by_one, tmp_path):
    calls = train(tmp_path, 4, watch=Watch(profile="5:10"))
    assert calls == [3, 1, 1, 1, 2, 1, 1, 1]
    assert any((tmp_path / "trace").rglob("*.xplane.pb"))
    assert left(tmp_path) == one_by_one


@pytest.mark.parametrize(
    ("at", "most", "steps"), [(0, 0, 1), (0, 9, 5), (5, 9, 2), (7, 9, 3), (10, 9, 4), (10, 3, 3)]
)
def test_steps_ahead(at, most, steps):
    assert steps_ahead(at, most, ends=(5, 100), every=(10, 7)) == steps


def test_a_batch_that_does_not_divide_over_the_devices_is_refused():
    class Split:
        """Stands for a layout over two devices."""

        def __getattr__(self, name):
            return 2 if name == "ways" else getattr(LAYOUT, name)

    step = TrainStep(mean_loss_gradients(loss), OPTIMIZER, Split())
    three = [RowNumbers(numbers=np.arange(3))]
    with pytest.raises(UserError, match="a batch of 3 rows does not divide over 2 devices"):
        RowSteps(step, ROWS, most=1)(start(), jnp.float32(1.0), three, jax.random.key(0))
