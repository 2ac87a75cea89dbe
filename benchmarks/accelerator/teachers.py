"""Conventional recommenders: steps as the training loop dispatches them, and the same steps inside one `lax.scan`."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from measuring import Record, experiment_of, milliseconds, random_weights, zeros

from delrec_jax.planning.shapes import Assumed
from delrec_jax.planning.steps import planned_steps
from delrec_jax.teachers.windows import TrainingRows
from delrec_jax.training.sharding import place_batch
from delrec_jax.workdir.teacher_training import teacher_batches

_CORPORA = {"ml_100k": 1_682, "beauty": 12_101}  # items
_ROWS, _SCANNED = 4096, 20


def run(record: Record, tiny: bool) -> None:
    """Measures each network at MovieLens-100K's size, SASRec at Beauty's too; the settings are those of `configs/teachers`."""
    networks = [(name, "ml_100k") for name in ("sasrec", "gru4rec", "caser")]
    for name, corpus in networks[:1] if tiny else [*networks, ("sasrec", "beauty")]:
        record.measure(f"{name}, {corpus}", rates, name, corpus, tiny)


def rates(name: str, corpus: str, tiny: bool) -> dict[str, Any]:
    """Milliseconds of a step and of its parts, and labels per second."""

    def change(config: Any) -> None:
        config.teacher.name = name
        if tiny:
            config.teacher.sasrec.update(width=8, layers=1, heads=1, max_length=8)

    experiment, items = experiment_of(f"teachers/{corpus}.py", change), _CORPORA[corpus]
    planned = planned_steps(experiment, jax.devices()[:1], Assumed(items=items))[0]
    rows = _full_rows(experiment.teacher.max_length, items)
    batches = teacher_batches(rows, experiment.teacher, seed=0)
    layout, key = planned.layout, jax.random.key(1)
    ready = place_batch(next(batches), layout)
    held = [_state(planned)]

    def step(batch: Any) -> Any:
        """One update; the metrics."""
        held[0], metrics = planned.step(held[0], None, batch, key)
        return metrics

    ways = {
        "loop": lambda: step(place_batch(next(batches), layout)),
        "loop, batch ready": lambda: step(ready),
        "batch alone, on the host": lambda: next(batches),
    }
    calls = 3 if tiny else 50
    found = {f"{way}: ms": milliseconds(ways[way], calls=calls, rounds=3) for way in ways}
    scanned = _scanned(planned, rows, experiment.teacher.batch_size, key)
    spent = milliseconds(scanned, calls=1 if tiny else 4, rounds=3, warmup=1)
    found[f"scan over {_SCANNED} steps: ms of a step"] = spent / _SCANNED
    labels = experiment.teacher.batch_size * experiment.teacher.max_length
    found["labels a step"] = labels
    found["loop: labels/s"] = labels / found["loop: ms"] * 1e3
    found["scan: labels/s"] = labels / spent * _SCANNED * 1e3
    return found


def _full_rows(length: int, items: int) -> TrainingRows:
    """Rows of two users each without padding, popular items more often."""
    random = np.random.default_rng(0)
    drawn = (items * random.random((_ROWS, length + 1)) ** 2).astype(np.int32)
    segments = np.where(np.arange(length) < length // 2, 1, 2).astype(np.int32)
    return TrainingRows(
        items=drawn[:, :-1], labels=drawn[:, 1:], segments=np.tile(segments, (_ROWS, 1))
    )


def _state(planned: Any) -> Any:
    return planned.state.replace(
        step=jnp.zeros((), jnp.int32),
        params=random_weights(planned.state.params),
        opt_state=zeros(planned.state.opt_state),
    )


def _scanned(planned: Any, rows: TrainingRows, size: int, key: jax.Array) -> Any:
    """Several steps in one dispatch: all rows are on the device, and only their numbers are sent."""
    table = jax.tree.map(jnp.asarray, rows)
    random = np.random.default_rng(1)

    @partial(jax.jit, donate_argnums=0)
    def several(state: Any, table: TrainingRows, chosen: jax.Array) -> Any:
        """As many updates as `chosen` has batches."""

        def one(state: Any, index: jax.Array) -> Any:
            """One update on the rows of these numbers."""
            batch = jax.tree.map(lambda leaf: leaf[index], table)
            return planned.step._step(state, None, batch, key)  # the step as it is before jit

        return jax.lax.scan(one, state, chosen)

    held = [_state(planned)]

    def run() -> Any:
        chosen = random.integers(0, len(rows), (_SCANNED, size))
        held[0], metrics = several(held[0], table, chosen)
        return metrics

    return run
