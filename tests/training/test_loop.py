import dataclasses
import json
import os
import signal
import threading
import time
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from unsplit import unsplit

from delrec_jax.batches import batch_type
from delrec_jax.data.pipeline import training_iterator
from delrec_jax.errors import Preempted, UserError
from delrec_jax.training.averaging import with_average
from delrec_jax.training.gradients import mean_loss_gradients
from delrec_jax.training.loop import fit
from delrec_jax.training.loop_config import LoopConfig
from delrec_jax.training.optimizers import OptimizerConfig, make_optimizer
from delrec_jax.training.refreshing import Refresh
from delrec_jax.training.run import Run
from delrec_jax.training.sharding import MeshConfig, make_layout
from delrec_jax.training.steps import TrainStep, create_state
from delrec_jax.training.watching import TIMINGS

pytestmark = pytest.mark.exact

LAYOUT = make_layout(MeshConfig(), unsplit)
TARGET = np.array([1.0, -1.0, 2.0], np.float32)


class Killed(Exception):
    """Stands for the power cut."""


class KilledAfter:
    """An iterator that dies after n batches."""

    def __init__(self, batches, n):
        self.batches, self.left = batches, n

    def __next__(self):
        self.left -= 1
        if self.left < 0:
            raise Killed
        return next(self.batches)

    def get_state(self):
        return self.batches.get_state()

    def set_state(self, state):
        self.batches.set_state(state)


@batch_type
class Sight:
    y: Any


def batches(kill_after=None):
    """Noisy sights of the target."""

    def example(index, rng):
        return Sight(y=TARGET + rng.normal(size=3).astype(np.float32))

    source = training_iterator(example, 7, batch_size=2, buckets=(1,), seed=3)
    return source if kill_after is None else KilledAfter(source, kill_after)


def loss(params, frozen, batch, key):
    """Squared distance under a random mask, so that data and key both matter."""
    keep = jax.random.bernoulli(key, 0.7, (3,))
    return (keep * (params["w"] - batch.y * frozen) ** 2).sum(-1), jnp.ones(2), {}


def closeness(params):
    return {"closeness": -float(np.square(np.asarray(params["w"]) - TARGET).sum())}


def make_run(directory, *, rate=0.1, kill_after=None, loss=loss, **more):
    optimizer = optax.adam(rate)
    settings = LoopConfig(steps=9, evaluate_every=2, checkpoint_every=2)
    run = Run(
        name="tiny/test",
        directory=directory,
        state=create_state({"w": jnp.zeros(3)}, optimizer),
        frozen=jnp.float32(1.0),
        batches=batches(kill_after),
        step=TrainStep(mean_loss_gradients(loss), optimizer, LAYOUT),
        evaluate=closeness,
        monitor="closeness",
        config=settings,
        key=jax.random.key(5),
        layout=LAYOUT,
    )
    return dataclasses.replace(run, **more)


def rows(directory):
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMINGS} for line in lines]


def never(*args):
    raise AssertionError("computed although the result was there")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("best")
    return directory, *fit(make_run(directory))


@pytest.fixture(scope="module")
def finished_last(tmp_path_factory):
    directory = tmp_path_factory.mktemp("last")
    return directory, *fit(make_run(directory, select="last"))


def test_rows_of_the_log(finished):
    directory, _, _ = finished
    log = rows(directory)
    assert [row["step"] for row in log] == [0, 2, 4, 6, 8, 9]
    assert set(log[0]) == {"run", "step", "closeness"}
    for row in log[1:]:
        assert set(row) == {"run", "step", "closeness", "loss", "gradient_norm"}
    assert {row["run"] for row in log} == {"tiny/test"}
    assert log[0]["closeness"] == -6.0
    first = json.loads((directory / "metrics.jsonl").read_text().splitlines()[0])
    assert first["seconds"] == 0


def test_the_best_evaluation_is_selected(finished):
    directory, params, meta = finished
    best = max(rows(directory), key=lambda row: row["closeness"])
    assert meta["best_value"] == best["closeness"] > -6
    assert meta["best_step"] == best["step"]
    assert meta["steps"] == 9 and meta["monitor"] == "closeness"
    np.testing.assert_allclose(closeness(params)["closeness"], best["closeness"])


def test_a_harmful_run_leaves_its_start(tmp_path):
    params, meta = fit(make_run(tmp_path, rate=100.0))
    np.testing.assert_array_equal(params["w"], 0)
    assert meta["best_step"] == 0 and meta["best_value"] == -6.0 and meta["steps"] == 9


def test_select_last_keeps_the_last_step_even_when_it_is_worse(tmp_path):
    params, meta = fit(make_run(tmp_path, rate=100.0, select="last"))
    assert meta["best_step"] == 0
    np.testing.assert_allclose(
        closeness(params)["closeness"], rows(tmp_path)[-1]["closeness"], rtol=1e-6
    )
    assert np.abs(params["w"]).max() > 10


@pytest.mark.parametrize("select", ["best", "last"])
def test_the_average_is_evaluated_and_kept_where_the_optimizer_has_one(tmp_path, select):
    optimizer = with_average(optax.adam(0.1), 0.9)
    step = TrainStep(mean_loss_gradients(loss), optimizer, LAYOUT)
    state, seen = create_state({"w": jnp.zeros(3)}, optimizer), []
    run = make_run(tmp_path, state=state, step=step, select=select)
    run = dataclasses.replace(
        run,
        evaluate=lambda params: seen.append(np.array(params["w"])) or closeness(params),
        summary=lambda kept, state: {
            "average": np.array(state.opt_state.average["w"]).tolist(),
            "present": np.array(state.params["w"]).tolist(),
        },
    )
    params, meta = fit(run)
    np.testing.assert_array_equal(seen[-1], np.float32(meta["average"]))
    assert np.abs(seen[-1] - np.float32(meta["present"])).max() > 1e-3
    kept = (
        seen[-1] if select == "last" else max(seen, key=lambda w: closeness({"w": w})["closeness"])
    )
    np.testing.assert_array_equal(params["w"], kept)


def test_patience_counts_evaluations_without_a_better_one(tmp_path):
    config = LoopConfig(steps=50, evaluate_every=2, checkpoint_every=100, patience=3)
    _, meta = fit(make_run(tmp_path, rate=100.0, config=config))
    assert meta["steps"] == 6 and meta["best_step"] == 0
    assert [row["step"] for row in rows(tmp_path)] == [0, 2, 4, 6]


def test_a_better_evaluation_restores_the_patience(tmp_path):
    values = iter([0, -1, 1, 0, 0, 5])
    config = LoopConfig(steps=50, evaluate_every=1, checkpoint_every=100, patience=2)
    evaluate = lambda params: {"closeness": next(values)}  # noqa: E731
    _, meta = fit(make_run(tmp_path, config=config, evaluate=evaluate))
    assert meta["steps"] == 4 and meta["best_step"] == 2 and meta["best_value"] == 1


def test_a_tie_keeps_the_earlier(tmp_path):
    _, meta = fit(make_run(tmp_path, evaluate=lambda params: {"closeness": 1.0}))
    assert meta["best_step"] == 0


def test_out_of_time_stops_and_still_measures_the_end(tmp_path):
    config = LoopConfig(steps=10**6, evaluate_every=10**5, checkpoint_every=10**6, max_seconds=0.3)
    _, meta = fit(make_run(tmp_path, config=config))
    assert 0 < meta["steps"] < 10**6
    assert [row["step"] for row in rows(tmp_path)] == [0, meta["steps"]]
    assert "loss" in rows(tmp_path)[-1]


def test_what_summary_adds(tmp_path):
    run = make_run(
        tmp_path,
        summary=lambda kept, state: {"twice": 2 * int(state.step), "kept": float(kept["w"].sum())},
    )
    params, meta = fit(run)
    assert meta["twice"] == 18 and meta["kept"] == pytest.approx(float(params["w"].sum()))


def test_a_finished_result_is_not_computed_again(finished):
    directory, params, meta = finished
    before = (directory / "metrics.jsonl").read_bytes()
    again, meta_again = fit(make_run(directory, step=never, evaluate=never))
    np.testing.assert_array_equal(again["w"], params["w"])
    assert meta_again == meta
    assert (directory / "metrics.jsonl").read_bytes() == before


# "last" shows the optimizer's moments and the order of the batches, "best" the remembered best.
@pytest.mark.parametrize(
    ("deaths", "select"),
    [
        ([0], "last"),
        ([1], "last"),
        ([2], "best"),
        ([5], "last"),
        ([8], "best"),
        ([3, 1, 2, 4], "last"),
    ],
)
def test_killed_and_resumed_ends_as_if_nothing_had_happened(
    finished, finished_last, tmp_path, deaths, select
):
    whole, _, meta_whole = {"best": finished, "last": finished_last}[select]
    for n in deaths:
        with pytest.raises(Killed):
            fit(make_run(tmp_path, kill_after=n, select=select))
        assert not (tmp_path / "result.safetensors").exists()
    _, meta = fit(make_run(tmp_path, select=select))
    assert meta == meta_whole
    assert rows(tmp_path) == rows(whole)
    expected = (whole / "result.safetensors").read_bytes()
    assert (tmp_path / "result.safetensors").read_bytes() == expected


def test_a_best_from_before_the_kill_is_still_the_best(tmp_path):
    # The weights' sum is 0.43, 0.83, 1.15 at steps 2, 4, 6: this peaks midway.
    def evaluate(params):
        return {"closeness": -abs(float(np.abs(np.asarray(params["w"])).sum()) - 0.8)}

    whole, meta = fit(make_run(tmp_path / "whole", evaluate=evaluate))
    assert meta["best_step"] == 4
    with pytest.raises(Killed):
        fit(make_run(tmp_path / "cut", evaluate=evaluate, kill_after=7))
    resumed, meta_resumed = fit(make_run(tmp_path / "cut", evaluate=evaluate))
    assert meta_resumed == meta
    assert resumed["w"].tobytes() == whole["w"].tobytes()


def test_the_best_stays_on_disk_however_long_ago_it_was(tmp_path):
    def evaluate(params):
        return {"closeness": -abs(float(np.abs(np.asarray(params["w"])).sum()) - 0.8)}

    config = LoopConfig(steps=20, evaluate_every=2, checkpoint_every=2)
    with pytest.raises(Killed):
        fit(make_run(tmp_path, config=config, evaluate=evaluate, kill_after=17))
    kept = {int(path.name) for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()}
    assert kept == {4, 14, 16}
    params, meta = fit(make_run(tmp_path, config=config, evaluate=evaluate))
    assert meta["best_step"] == 4
    np.testing.assert_allclose(evaluate(params)["closeness"], meta["best_value"], rtol=1e-6)


def test_a_checkpoint_of_another_experiment_is_refused_with_the_keys_that_differ(tmp_path):
    mine = {"tune.batch_size": 64, "seed": 0, "results of pretrain (SHA-256)": "aa"}
    with pytest.raises(Killed):
        fit(make_run(tmp_path, kill_after=5, identity=mine))
    before = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    other = {**mine, "tune.batch_size": 32, "results of pretrain (SHA-256)": "bb"}
    with pytest.raises(UserError) as error:
        fit(make_run(tmp_path, identity=other))
    message = str(error.value)
    assert "belongs to another experiment" in message and "seed" not in message
    assert "tune.batch_size (64 there, 32 now)" in message
    assert "results of pretrain (SHA-256) ('aa' there, 'bb' now)" in message
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == before
    fit(make_run(tmp_path, identity=mine))


def test_the_random_stream_comes_from_the_checkpoint(tmp_path):
    whole, _ = fit(make_run(tmp_path / "whole"))
    with pytest.raises(Killed):
        fit(make_run(tmp_path / "cut", kill_after=5))
    resumed, _ = fit(make_run(tmp_path / "cut", key=jax.random.key(99)))
    assert resumed["w"].tobytes() == whole["w"].tobytes()


class TermAfter(KilledAfter):
    """An iterator before whose n-th batch the scheduler sends SIGTERM."""

    def __next__(self):
        self.left -= 1
        if self.left == -1:
            os.kill(os.getpid(), signal.SIGTERM)
        return next(self.batches)


def test_told_to_end_it_saves_where_it_is_and_goes_on_from_there(tmp_path, orderly_end):
    config = LoopConfig(steps=9, evaluate_every=2, checkpoint_every=100)
    whole, meta_whole = fit(make_run(tmp_path / "whole", config=config))
    run = make_run(tmp_path / "cut", config=config)
    told = dataclasses.replace(run, batches=TermAfter(batches(), 4))
    with pytest.raises(Preempted, match="tiny/test: saved at step 5 of 9"):
        fit(told)
    left = KilledAfter(batches(), 4)
    resumed, meta = fit(dataclasses.replace(run, batches=left))
    assert left.left == 0, "steps 6 to 9 are all that was left to do"
    assert meta == meta_whole and resumed["w"].tobytes() == whole["w"].tobytes()
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")


def refreshed(directory, made, **more):
    """A run whose frozen input follows the parameters every three steps."""

    def make(params):
        made.append(np.asarray(params["w"]))
        return {"scale": 1 + 0.5 * jnp.tanh(params["w"].sum())}

    def scaled(params, frozen, batch, key):
        return loss(params, frozen["scale"], batch, key)

    config = LoopConfig(steps=9, evaluate_every=3, checkpoint_every=3)
    settings = {"refresh": Refresh(3, make), "config": config, "select": "last"} | more
    return make_run(directory, loss=scaled, frozen={"scale": jnp.float32(1)}, **settings)


def test_what_is_refreshed_is_the_same_after_a_resume(tmp_path, orderly_end):
    made = []
    whole, meta = fit(refreshed(tmp_path / "whole", made))
    assert len(made) == 2, "after 3 and 6 of 9 steps"
    plain, _ = fit(refreshed(tmp_path / "plain", [], refresh=None))
    assert (plain["w"] != whole["w"]).any()
    told = refreshed(tmp_path / "cut", [], batches=TermAfter(batches(), 4))
    with pytest.raises(Preempted, match="saved at step 6 of 9"):  # not where it was told: 5
        fit(told)
    again = []
    resumed, meta_resumed = fit(refreshed(tmp_path / "cut", again))
    assert meta_resumed == meta and resumed["w"].tobytes() == whole["w"].tobytes()
    np.testing.assert_array_equal(again, made[1:])


def test_outside_of_training_it_ends_at_once(tmp_path, orderly_end):
    fit(make_run(tmp_path))
    with pytest.raises(Preempted):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)


def test_a_checkpoint_that_cannot_be_written_is_one_line_with_the_remedy(tmp_path):
    (tmp_path / "checkpoints").write_text("a file in the way")
    before = set(threading.enumerate())
    with pytest.raises(UserError, match=r"checkpoints: a checkpoint cannot be written .*free some"):
        fit(make_run(tmp_path))
    # A thread that went on waiting would keep the process for minutes after its last word.
    for thread in set(threading.enumerate()) - before:
        if not thread.daemon:
            thread.join(timeout=120)
            assert not thread.is_alive(), thread


def test_patience_is_not_renewed_by_a_kill(tmp_path):
    config = LoopConfig(steps=50, evaluate_every=2, checkpoint_every=2, patience=3)
    with pytest.raises(Killed):
        fit(make_run(tmp_path, rate=100.0, config=config, kill_after=5))
    _, meta = fit(make_run(tmp_path, rate=100.0, config=config))
    assert meta["steps"] == 6


def test_resuming_really_goes_on_from_the_checkpoint(tmp_path):
    with pytest.raises(Killed):
        fit(make_run(tmp_path, kill_after=7))
    run = make_run(tmp_path, kill_after=3)  # steps 7, 8, 9 are all that is left
    fit(run)
    assert run.batches.left == 0


def test_the_callers_start_survives_the_run(tmp_path):
    run = make_run(tmp_path)
    fit(run)
    np.testing.assert_array_equal(run.state.params["w"], 0)


def test_the_step_compiles_once_over_a_run(tmp_path):
    run = make_run(tmp_path, loss=chex.assert_max_traces(loss, 1))
    fit(run)
    assert run.step.programs == 1


def test_a_damaged_result_is_an_error_that_names_it(tmp_path):
    fit(make_run(tmp_path))
    (tmp_path / "result.safetensors").write_bytes(b"no")
    with pytest.raises(
        UserError, match=r"result\.safetensors: cannot be read.*run the stage again"
    ):
        fit(make_run(tmp_path))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_names_the_run_and_the_step(tmp_path, bad):
    def broken(params, frozen, batch, key):
        losses, weights, metrics = loss(params, frozen, batch, key)
        return losses * bad, weights, metrics

    with pytest.raises(
        UserError, match=r"tiny/test: the loss is not finite at step 1, .*learning_rate"
    ):
        fit(make_run(tmp_path, loss=broken))
    assert not (tmp_path / "result.safetensors").exists()


def test_no_step_at_all_gives_the_start(tmp_path):
    config = LoopConfig(steps=0)
    params, meta = fit(make_run(tmp_path, config=config))
    np.testing.assert_array_equal(params["w"], 0)
    assert meta["steps"] == 0 and [row["step"] for row in rows(tmp_path)] == [0]


def planned(directory, *, plan, steps, **more):
    """A run of `steps` steps whose optimizer was made for `plan`."""
    optimizer = make_optimizer(OptimizerConfig(learning_rate=0.1), plan)
    return make_run(
        directory,
        state=create_state({"w": jnp.zeros(3)}, optimizer),
        step=TrainStep(mean_loss_gradients(loss), optimizer, LAYOUT),
        config=LoopConfig(steps=steps, evaluate_every=2, checkpoint_every=2),
        **more,
    )


@pytest.mark.parametrize("plan", [8, 10])
def test_a_schedule_of_another_length_is_refused_before_the_first_step(tmp_path, plan):
    run = dataclasses.replace(planned(tmp_path, plan=plan, steps=9), step=never, evaluate=never)
    with pytest.raises(
        UserError,
        match=rf"tiny/test: loop\.steps is 9, but its optimizer was made for {plan} steps",
    ):
        fit(run)


def test_a_schedule_of_the_planned_length_is_trained_to_its_end(tmp_path):
    _, meta = fit(planned(tmp_path, plan=9, steps=9))
    assert meta["steps"] == 9


def test_a_checkpoint_of_another_plan_is_refused(tmp_path):
    with pytest.raises(Killed):
        fit(planned(tmp_path, plan=9, steps=9, kill_after=5))
    with pytest.raises(
        UserError, match=r"loop\.steps is 20.*made for 9 steps.*remove .*checkpoints"
    ):
        fit(planned(tmp_path, plan=20, steps=20))
