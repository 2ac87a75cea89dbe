"""The jitted steps: what trains is state, what is frozen is an argument.

Both kinds of step know where their arrays are placed: parameters, optimizer state and batch go in and come out with stated
shardings, on one device as on a pod.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding

from delrec_jax.training.gradients import GradientFn, Metrics
from delrec_jax.training.sharding import Layout, place_batch


@flax.struct.dataclass
class TrainState:
    """Everything that a step changes, and nothing else.

    Attributes:
      step: number of updates done.
      params: the parameters that train.
      opt_state: state of the optimizer of `params`.
    """

    step: jax.Array
    params: Any
    opt_state: Any


def create_state(params: Any, optimizer: optax.GradientTransformation) -> TrainState:
    """A state at step 0."""
    return TrainState(jnp.zeros([], jnp.int32), params, optimizer.init(params))


class TrainStep:
    """One compiled update: gradients, optimizer, new state; the old state is donated.

    A call, `step(state, frozen, batch, key) -> (state, metrics)`, needs arrays that are placed as the layout says. `key` is
    the run's key; the step folds its own number into it.
    """

    def __init__(
        self, gradient_fn: GradientFn, optimizer: optax.GradientTransformation, layout: Layout
    ):
        """Defines the step; it is compiled when it is first called.

        Args:
          gradient_fn: (params, frozen, batch, key) -> (gradients, metrics).
          optimizer: updates `params`.
          layout: batches are split over its mesh; state and frozen weights are placed by its rules.
        """
        self.layout = layout
        self._gradient_fn, self._optimizer = gradient_fn, optimizer
        self._jitted = PerTree(self._jit)

    def __call__(
        self, state: TrainState, frozen: Any, batch: Any, key: jax.Array
    ) -> tuple[TrainState, Metrics]:
        """Takes one step with a placed batch."""
        with self.layout.active():
            stepped: tuple[TrainState, Metrics] = self._jitted(state, frozen)(
                state, frozen, batch, key
            )
            return stepped

    def gradients(self, state: TrainState, frozen: Any, batch: Any, key: jax.Array) -> Any:
        """The gradients of the step that would be next, in the tree of the parameters; compiled for each call."""
        with self.layout.active():
            return jax.jit(self.gradients_of)(state, frozen, batch, key)[0]

    def gradients_of(
        self, state: TrainState, frozen: Any, batch: Any, key: jax.Array
    ) -> tuple[Any, Metrics]:
        """Gradients and metrics of the next step: what `update` starts with."""
        step_key = jax.random.fold_in(key, state.step)
        return self._gradient_fn(state.params, frozen, batch, step_key)

    def trace(self, state: TrainState, frozen: Any, batch: Any, key: Any) -> Any:
        """Traces the step for arrays, or for their shapes alone: ready to be lowered."""
        with self.layout.active():
            return self._jitted(state, frozen).trace(state, frozen, batch, key)

    def lower(self, state: TrainState, frozen: Any, batch: Any, key: Any) -> Any:
        """Lowers the step for arrays, or for their shapes alone: ready to be compiled."""
        with self.layout.active():
            return self._jitted(state, frozen).lower(state, frozen, batch, key)

    @property
    def programs(self) -> int:
        """Number of programs compiled so far: one per shape of batches."""
        return self._jitted.programs

    def _jit(self, state: TrainState, frozen: Any) -> Any:
        layout, home = self.layout, state_shardings(state, self.layout)
        return jax.jit(
            self.update,
            in_shardings=(home, layout.of(frozen), layout.batch, layout.whole),
            out_shardings=(home, layout.whole),
            donate_argnums=0,
        )

    def update(
        self, state: TrainState, frozen: Any, batch: Any, key: jax.Array
    ) -> tuple[TrainState, Metrics]:
        """One update of the state, and its metrics: what is compiled, alone or as part of a larger program."""
        grads, metrics = self.gradients_of(state, frozen, batch, key)
        updates, opt_state = self._optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {**metrics, "gradient_norm": optax.global_norm(grads)}
        return TrainState(state.step + 1, params, opt_state), metrics


def state_shardings(state: TrainState, layout: Layout) -> Any:
    """Where each leaf of a state is placed, as a `TrainState` of shardings."""
    step: Any = layout.whole
    optimizer = layout.of_optimizer(state.opt_state, state.params)
    return TrainState(step, layout.of(state.params), optimizer)


class EvalStep:
    """One compiled function of parameters and rows, such as scores: `step(held, rows) -> array` on this process.

    The rows (host arrays [B, ...], the same in all processes) are split over the mesh like training batches, for any B; the
    result [B, ...] comes back complete, as an array on this process's first device: what follows (metrics) needs no mesh.
    With `axes`, it stays where it is: no device and no host ever holds all scores of a large catalogue.
    """

    def __init__(
        self,
        function: Callable[[Any, Any], jax.Array],
        layout: Layout,
        axes: tuple[str, ...] | None = None,
    ):
        """Defines the function; it is compiled when it is first called.

        Args:
          function: (held, rows) -> [B, ...].
          layout: where both are placed.
          axes: names of the result's axes, such as ("users", "catalogue"), by which it stays split over the mesh; where the
            columns do not divide, the rows are split as those of a batch. None = it comes back complete.
        """
        self.layout, self._function, self._axes = layout, function, axes
        self._jitted = PerTree(self._jit)

    def __call__(self, held: Any, rows: Any) -> jax.Array:
        """The function's value for every row."""
        asked = len(jax.tree.leaves(rows)[0])
        missing = self.layout.rows(asked) - asked
        filled = jax.tree.map(lambda leaf: _repeat_last(np.asarray(leaf), missing), rows)
        placed = place_batch(filled, self.layout)
        with self.layout.active():
            found = self._jitted(held)(held, placed)
        here: jax.Array = found.addressable_data(0) if self._axes is None else found
        return here[:asked] if missing else here

    def in_batches(self, held: Any, rows: Any, size: int) -> np.ndarray:
        """The function's value for any number of rows, computed in batches of one shape, on the host."""
        count = len(jax.tree.leaves(rows)[0])
        parts = []
        for start in range(0, count, size):
            batch = jax.tree.map(lambda leaf, at=start: np.asarray(leaf)[at : at + size], rows)
            missing = size - min(size, count - start)
            filled = jax.tree.map(lambda leaf, more=missing: _repeat_last(leaf, more), batch)
            parts.append(np.asarray(self(held, filled)))
        return np.concatenate(parts)[:count]

    def lower(self, held: Any, rows: Any) -> Any:
        """Lowers the function for arrays, or for their shapes alone: ready to be compiled."""
        with self.layout.active():
            return self._jitted(held).lower(held, rows)

    def _jit(self, held: Any) -> Any:
        shardings = (self.layout.of(held), self.layout.batch)
        if self._axes is None:
            return jax.jit(self._function, in_shardings=shardings, out_shardings=self.layout.whole)
        return jax.jit(self._split, in_shardings=shardings)

    def _split(self, held: Any, rows: Any) -> jax.Array:
        """The function's value, split by the names of its axes."""
        found, names = self._function(held, rows), self._axes
        assert names is not None
        result = replace(self.layout, axes_of=lambda path, shape: names)
        wanted = result.spec(("scores",), found.shape)
        divides = len(wanted) == found.ndim or self.layout.ways_of(names[-1]) == 1
        home = NamedSharding(self.layout.mesh, wanted) if divides else self.layout.batch
        placed: jax.Array = jax.lax.with_sharding_constraint(found, home)
        return placed


class PerTree:
    """One jitted function per structure and shapes of the trees that it is called with: its shardings depend on them."""

    def __init__(self, jit: Callable[..., Any]):
        self._jit = jit
        self._jitted: dict[Any, Any] = {}

    def __call__(self, *trees: Any) -> Any:
        """The function for trees like these."""
        leaves, structure = jax.tree.flatten(trees)
        kind = structure, tuple(np.shape(leaf) for leaf in leaves)
        if kind not in self._jitted:
            self._jitted[kind] = self._jit(*trees)
        return self._jitted[kind]

    @property
    def programs(self) -> int:
        """Number of programs compiled so far."""
        return sum(jitted._cache_size() for jitted in self._jitted.values())


def _repeat_last(rows: np.ndarray, times: int) -> np.ndarray:
    return np.concatenate([rows, np.repeat(rows[-1:], times, axis=0)]) if times else rows
