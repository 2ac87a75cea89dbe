"""Tiny runs whose config lies outside of the package and names a part of the user's."""

import json
import shutil
from dataclasses import fields
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import pytest
from tiny_storefront import FEW_BASELINES, TINY, delrec

from delrec_jax.training.sharding import key_names
from delrec_jax.training.steps import TrainStep

HERE = Path(__file__).parent
_CONFIG = """from delrec_jax.config import default_config


def get_config():
    config = default_config()
    config.data.domain = "items"
    config.pretrain.text.heldout_items = 0.05
    config.teacher.name = "popularity"
"""
QUICK = (
    *TINY,
    *FEW_BASELINES,
    "--config.tune.controls=()",
    "--config.pretrain.loop.steps=3",
    "--config.pretrain.loop.evaluate_every=3",
    "--config.distill.loop.steps=3",
    "--config.distill.loop.evaluate_every=3",
    "--config.tune.loop.checkpoint_every=3",
    "--config.tune.anchor=0.0",
    "--config.tune.optimizer.learning_rate=0.02",
)


def watched(*arguments):
    """A command; returns what each training step read (keys of its batch), the leaves that it moved, and its loss."""
    call, seen = TrainStep.__call__, []

    def looked_at(self, state, frozen, batch, key):
        before = jax.tree.map(np.array, state.params)  # the step gives the state's memory away
        after, measured = call(self, state, frozen, batch, key)
        changed = jax.tree.map(lambda a, b: bool((a != np.asarray(b)).any()), before, after.params)
        paths = jax.tree_util.tree_leaves_with_path(changed)
        moved = {str(key_names(path)[-1]) for path, leaf in paths if leaf}
        read = {field.name for field in fields(batch)}
        seen.append((read, moved, float(measured["loss"])))
        return after, measured

    with mock.patch.object(TrainStep, "__call__", looked_at):
        delrec(*arguments)
    return seen


class Killed(BaseException):
    """The process is gone."""


def write_config(path, **settings):
    """A config file that sets these keys, dots written as double underscores."""
    lines = [
        f"    config.{key.replace('__', '.')} = {value!r}\n" for key, value in settings.items()
    ]
    path.write_text(_CONFIG + "".join(lines) + "    return config\n")
    return f"--config={path}"


def kill_after(steps, *arguments):
    """A command that dies after so many training steps."""
    call, taken = TrainStep.__call__, []

    def counted(self, *rest):
        if len(taken) == steps:
            raise Killed
        taken.append(None)
        return call(self, *rest)

    with mock.patch.object(TrainStep, "__call__", counted), pytest.raises(Killed):
        delrec(*arguments)


def copy_before(run, workdir, *later):
    """What a finished run had before these folders of stages."""
    shutil.copytree(run, workdir, ignore=lambda place, _: later if Path(place) == run else ())


def check_tuned(run, steps, *more):
    """A finished run's losses are finite, all 8 updates of stage 2 moved adapters (and `more`); their ranking is measured."""
    assert np.isfinite([loss for _, _, loss in steps]).all()
    assert [moved for batch, moved, _ in steps if "task" in batch] == 9 * [{"prompt"}]
    assert [moved for batch, moved, _ in steps if "label" in batch] == 8 * [{"A", "B", "E", *more}]
    chosen = json.loads((run / "adapter" / "distilled" / "result.json").read_text())
    assert chosen["best_step"] in (0, 4, 8) and chosen["steps"] == 8
    rows = json.loads((run / "report" / "metrics.json").read_text())
    values = [row["value"] for row in rows if row["system"] == "delrec"]
    assert values and np.isfinite(values).all()


def check_killed_while_tuning(run, config, workdir):
    """A copy of the run whose stage 2 is killed and begun again ends with the very bytes of the whole run."""
    copy_before(run, workdir, "adapter", "records", "report")
    flags = ("run", config, f"--workdir={workdir}", *QUICK)
    kill_after(5, *flags)  # a checkpoint is saved after the third
    assert not (workdir / "adapter" / "distilled" / "result.safetensors").exists()
    assert list((workdir / "adapter" / "distilled" / "checkpoints").glob("[1-9]*"))
    delrec(*flags)
    for name in ("adapter/distilled/result.safetensors", "report/metrics.json"):
        assert (workdir / name).read_bytes() == (run / name).read_bytes()
