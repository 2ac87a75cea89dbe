"""What a training of a stage begins with, goes through and ends with, for tests that look inside."""

from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np
from safetensors.numpy import load_file

from delrec_jax.training.loop import fit
from delrec_jax.training.sharding import place, place_batch
from delrec_jax.training.steps import state_shardings


def host(tree):
    return jax.tree.map(np.array, jax.device_get(tree))


@dataclass
class Watch:
    """Stands in for `fit` in a stage and keeps what a run began with and ended with."""

    frozen: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    params: dict[str, list[Any]] = field(default_factory=dict)
    metrics: dict[str, list[Any]] = field(default_factory=dict)

    def fit(self, run):
        before, states, metrics = host(run.frozen), [host(run.state.params)], []

        def step(*arguments):
            state, measured = run.step(*arguments)
            states.append(host(state.params))
            metrics.append({name: float(value) for name, value in measured.items()})
            return state, measured

        result = fit(replace(run, step=step))
        self.frozen[run.name] = (before, host(run.frozen))
        self.params[run.name], self.metrics[run.name] = states, metrics
        return result

    def summary(self):
        """By run, as JSON can hold it: leaves that no step has moved, and all that was measured at each step."""
        return {
            name: {"still": unmoved(states[0], states[-1]), "metrics": self.metrics[name]}
            for name, states in self.params.items()
        }


@dataclass
class FirstSteps:
    """Stands in for `fit`: steps on a run's first batch (one compiled shape) and nothing else; leaves no file."""

    count: int
    params: list[Any] = field(default_factory=list)
    metrics: list[Any] = field(default_factory=list)

    def fit(self, run):
        state = place(run.state, state_shardings(run.state, run.layout))
        batch = place_batch(next(run.batches), run.layout)
        for _ in range(self.count):
            state, measured = run.step(state, run.frozen, batch, run.key)
            self.params.append(host(state.params))
            self.metrics.append({name: float(value) for name, value in measured.items()})
        return {}, {"best_step": 0, "steps": self.count, "ranks": {}}


def unmoved(before, after):
    """Paths of the leaves that are the same in both trees."""
    pairs = zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True)
    return [jax.tree_util.keystr(path) for (path, a), b in pairs if (a == b).all()]


def same(a, b):
    """Whether two trees are equal to the last bit."""
    flat = [jax.tree_util.tree_flatten_with_path(tree)[0] for tree in (a, b)]
    assert [path for path, _ in flat[0]] == [path for path, _ in flat[1]]
    pairs = zip(*flat, strict=True)
    return all(x.dtype == y.dtype and x.tobytes() == y.tobytes() for (_, x), (_, y) in pairs)


def stored(path):
    """A safetensors file as the nested tree that it holds."""
    tree = {}
    for name, array in load_file(path).items():
        node = tree
        *parents, leaf = name.split("/")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = array
    return tree
