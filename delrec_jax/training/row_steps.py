"""Several updates in one dispatch, on training rows that stay on the devices: only the rows' numbers are sent.

A step of a small network takes an accelerator less than the host needs to send a batch and start a program. So the rows are
put onto the devices once, and one program takes several steps. That program is the same for any number of steps up to its
most: its loop runs as often as it is told to. (A `lax.scan` would be one program per number of steps.) So a step gives the same
numbers to the last bit, however steps are put together; of programs with another most this is tested on a CPU.
"""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Int

from delrec_jax.batches import WHOLE, Arrays, Share, batch_type
from delrec_jax.training.gradients import Metrics
from delrec_jax.training.sharding import check_divides, place
from delrec_jax.training.steps import PerTree, TrainState, TrainStep, state_shardings


@batch_type
class RowNumbers:
    """Rows by number: all rows of a training part, or those of one batch.

    Attributes:
      numbers: the place of each among all rows.
    """

    numbers: Int[Arrays, " B"]

    def __len__(self) -> int:
        return len(self.numbers)


def steps_ahead(at: int, most: int, *, ends: Iterable[int], every: Iterable[int]) -> int:
    """The number of steps of the next call, at least 1: none that something follows on is passed.

    Args:
      at: steps done.
      most: steps per call at most; 0 is taken as 1.
      ends: something follows on these steps: the end of the run, an edge of a trace.
      every: something follows on the multiples of these: evaluations, checkpoints.
    """
    following = [at + each - at % each for each in every]
    return min([max(most, 1), *(end - at for end in (*ends, *following) if end > at)])


class RowSteps:
    """Updates by batches of numbered rows: `steps(state, frozen, batches, key) -> (state, metrics of the last step)`.

    `batches` are this process's shares of the `RowNumbers` of 1 to `most` successive batches. Everything else is as for
    `TrainStep`: the state is donated, and each step folds its own number into the key.

    Every device holds all rows, whatever the mesh: 12 bytes per position of a teacher's rows, so 1.2 GB for 10^8 labels. It
    then has the rows of its part of any batch, and several processes exchange nothing for them.
    """

    def __init__(
        self,
        step: TrainStep,
        rows: Any,
        *,
        most: int,
        share: Share = WHOLE,
        all_metrics: bool = False,
    ):
        """Puts the rows onto the devices; the program is compiled when it is first called.

        Args:
          step: one update by a batch of such rows.
          rows: host arrays [R, ...], the same in all processes.
          most: N, updates per call at most.
          share: which rows of every batch this process provides, see `sharding.own_share`.
          all_metrics: return the metrics of all steps, each an array [N], and not those of the last.
        """
        self._all_metrics = all_metrics
        self._one, self._most, self._share = step, most, share
        layout = step.layout
        self._rows = place(rows, jax.tree.map(lambda leaf: layout.whole, rows))
        self._numbers = NamedSharding(layout.mesh, PartitionSpec(None, *layout.batch.spec))
        self._jitted = PerTree(self._jit)

    def __call__(
        self, state: TrainState, frozen: Any, batches: list[RowNumbers], key: jax.Array
    ) -> tuple[TrainState, Metrics]:
        """Takes one step per batch."""
        layout = self._one.layout
        numbers, count = self._placed(batches), np.int32(len(batches))
        with layout.active():
            stepped: tuple[TrainState, Metrics] = self._jitted(state, frozen)(
                state, frozen, self._rows, numbers, count, key
            )
        return stepped

    def gradients(
        self, state: TrainState, frozen: Any, batches: list[RowNumbers], key: jax.Array
    ) -> Any:
        """The gradients of the first of these steps, as `TrainStep.gradients`."""
        with self._one.layout.active():
            return jax.jit(self._gradients)(state, frozen, self._rows, self._placed(batches), key)

    def _gradients(self, state: TrainState, frozen: Any, rows: Any, numbers: Any, key: Any) -> Any:
        return self._one.gradients_of(state, frozen, self._batch(rows, numbers[0]), key)[0]

    @property
    def programs(self) -> int:
        """Number of programs compiled so far."""
        return self._jitted.programs

    def _placed(self, batches: list[RowNumbers]) -> Int[jax.Array, "N B"]:
        """The numbers of all processes' rows; 0 after the last batch, so that the shape is always the same."""
        own, share = len(batches[0]), self._share
        mine = np.zeros((self._most, own), np.int32)
        mine[: len(batches)] = [batch.numbers for batch in batches]
        shape = self._most, share.whole(own)
        check_divides(self._one.layout, shape[1])

        def piece(place: Any) -> np.ndarray:
            """The columns of one device."""
            start, stop, _ = place[1].indices(shape[1])
            first = share.place(start, own)
            return mine[:, first : first + stop - start]

        return jax.make_array_from_callback(shape, self._numbers, piece)

    def _jit(self, state: TrainState, frozen: Any) -> Any:
        layout = self._one.layout
        home, whole = state_shardings(state, layout), layout.whole
        rows = jax.tree.map(lambda leaf: whole, self._rows)
        return jax.jit(
            self._several,
            in_shardings=(home, layout.of(frozen), rows, self._numbers, whole, whole),
            out_shardings=(home, whole),
            donate_argnums=0,
        )

    def _several(
        self,
        state: TrainState,
        frozen: Any,
        rows: Any,
        numbers: Int[jax.Array, "N B"],
        count: Int[jax.Array, ""],
        key: jax.Array,
    ) -> tuple[TrainState, Metrics]:
        """As many updates as `count`; the metrics of the last, or of all."""

        def one(index: jax.typing.ArrayLike, done: tuple[TrainState, Metrics]) -> Any:
            """The update by the rows of one batch."""
            after, found = self._one.update(done[0], frozen, self._batch(rows, numbers[index]), key)
            if not self._all_metrics:
                return after, found
            return after, jax.tree.map(lambda kept, new: kept.at[index].set(new), done[1], found)

        metrics = jax.eval_shape(
            lambda: self._one.update(state, frozen, self._batch(rows, numbers[0]), key)[1]
        )
        several = (self._most,) if self._all_metrics else ()
        before = jax.tree.map(lambda leaf: jnp.zeros((*several, *leaf.shape), leaf.dtype), metrics)
        stepped: tuple[TrainState, Metrics] = jax.lax.fori_loop(0, count, one, (state, before))
        return stepped

    def _batch(self, rows: Any, numbers: Int[jax.Array, " B"]) -> Any:
        """The rows of one batch, split like a batch."""
        home = self._one.layout.batch
        return jax.tree.map(
            lambda leaf: jax.lax.with_sharding_constraint(leaf[numbers], home), rows
        )
