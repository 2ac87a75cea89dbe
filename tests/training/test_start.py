"""Where the start of a training is kept: `go_back` needs it until the end, and a device may have no room for it."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax

from delrec_jax.batches import WHOLE
from delrec_jax.training import task
from delrec_jax.training.loop_config import LoopConfig


def test_the_start_is_kept_on_the_host(monkeypatch):
    runs = []
    monkeypatch.setattr(task, "fit", runs.append)
    tiny = SimpleNamespace(
        config=SimpleNamespace(loop=LoopConfig()),
        optimizer=optax.adam(0.1),
        layout=None,
        share=WHOLE,
        step=None,
    )
    asked = {
        "name": "tiny",
        "directory": None,
        "frozen": None,
        "batches": iter(()),
        "evaluate": None,
        "key": jax.random.key(0),
    }
    task.run_task(tiny, {"w": jnp.arange(3.0)}, **asked)
    (run,) = runs
    leaves = jax.tree.leaves(run.state)
    assert len(leaves) == 5, "step, w, its two moments and their count"
    assert all(isinstance(leaf, np.ndarray | np.generic) for leaf in leaves)
    np.testing.assert_array_equal(run.state.params["w"], [0, 1, 2])
