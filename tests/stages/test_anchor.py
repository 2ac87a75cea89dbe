"""`tune.anchor`: the scores before stage 2 are computed once per text, and training is what it is without that."""

import shutil
from dataclasses import dataclass, field, replace

import chex
import numpy as np
import pytest
from tiny_storefront import open_workspace
from watching import host

from delrec_jax.config import TuneConfig
from delrec_jax.delrec import anchor, files, tune
from delrec_jax.delrec.anchor import worth_keeping
from delrec_jax.stages.inputs import Inputs
from delrec_jax.training import task
from delrec_jax.training.loop import fit
from delrec_jax.training.loop_config import LoopConfig
from delrec_jax.workdir.prepared import load_data
from delrec_jax.workdir.workspace import Workspace


@dataclass
class Steps:
    """Stands in for `fit`: keeps batches, losses and parameters, and may break off before a step."""

    until: int = -1
    batches: list = field(default_factory=list)
    losses: list = field(default_factory=list)
    params: list = field(default_factory=list)

    def fit(self, run):
        def step(state, frozen, batch, key):
            if len(self.batches) == self.until:
                raise ConnectionAbortedError
            self.batches.append(host(batch))
            state, metrics = run.step(state, frozen, batch, key)
            self.losses.append(float(metrics["loss"]))
            self.params.append(host(state.params))
            return state, metrics

        return fit(replace(run, step=step))


@pytest.fixture
def tuned(tiny_run, tmp_path, monkeypatch):
    """(name, watch, changes) -> tunes the tiny run, which passes more than once over one label per user."""

    def run(name, watch, **changes):
        workdir = tmp_path / name
        if not workdir.exists():
            shutil.copytree(tiny_run, workdir)
            shutil.rmtree(workdir / "adapter")
        before = open_workspace(workdir).experiment
        optimizer = replace(before.tune.optimizer, learning_rate=0.05)
        settings = {"positions": 1, "anchor": 3.0, "optimizer": optimizer, **changes}
        ws = Workspace(workdir, replace(before, tune=replace(before.tune, **settings)), update=True)
        data = load_data(ws)
        monkeypatch.setattr(task, "fit", watch.fit)
        ws.begin("tune")
        tune.Tuning(ws, data, Inputs(ws).language).fit("distilled")
        return files.adapter_path(ws, "distilled").read_bytes()

    return run


def test_stored_scores_train_as_scores_of_every_step(tuned, monkeypatch):
    stored, computed, without = Steps(), Steps(), Steps()
    tuned("stored", stored)
    tuned("without", without, anchor=0.0)
    monkeypatch.setattr(anchor, "MOST_BYTES", 0)
    tuned("computed", computed)
    assert len(stored.batches) == len(computed.batches) == 8
    for batch, other in zip(stored.batches, computed.batches, strict=True):
        assert other.before is None and batch.before.shape[0] == len(batch.label)
        np.testing.assert_array_equal(batch.ids, other.ids)
    assert stored.losses == pytest.approx(computed.losses, rel=1e-5)
    # Adam divides by the gradient's size, so where it is nearly 0 rounding shows: a hundredth of a step of 0.05.
    chex.assert_trees_all_close(stored.params[-1], computed.params[-1], rtol=0, atol=5e-4)
    assert stored.losses[-1] != pytest.approx(without.losses[-1], rel=1e-3)


def test_a_training_that_broke_off_ends_with_the_same_bits(tuned):
    whole = tuned("whole", Steps())
    with pytest.raises(ConnectionAbortedError):
        tuned("broken", Steps(until=7))
    rest = Steps()
    assert tuned("broken", rest) == whole
    assert len(rest.batches) == 3, "it did not resume"
    assert all(batch.before is not None for batch in rest.batches)


def test_a_finished_training_computes_no_scores(tuned, monkeypatch):
    finished = tuned("finished", Steps())
    monkeypatch.setattr(anchor.ScoresBefore, "__call__", None)
    assert tuned("finished", Steps()) == finished


def test_scores_are_stored_where_texts_repeat_and_stay_and_fit():
    config = TuneConfig(anchor=0.5, batch_size=10, loop=LoopConfig(steps=100, evaluate_every=50))
    assert worth_keeping(config, rows=999, items=7)
    assert not worth_keeping(config, rows=1000, items=7), "every text comes once"
    assert not worth_keeping(replace(config, anchor=0.0), rows=999, items=7)
    assert not worth_keeping(replace(config, curriculum=True), rows=999, items=7)
    fitting = anchor.MOST_BYTES // (4 * 64)
    assert worth_keeping(config, rows=64, items=fitting)
    assert not worth_keeping(config, rows=64, items=fitting + 1)
