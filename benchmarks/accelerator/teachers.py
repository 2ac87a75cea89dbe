"""Conventional recommenders: steps as the training loop dispatches them, one or several per call."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from measuring import Record, experiment_of, milliseconds, random_weights, zeros

from delrec_jax.planning.shapes import Assumed
from delrec_jax.planning.tasks import planned_tasks
from delrec_jax.teachers.windows import TrainingRows
from delrec_jax.training.row_steps import RowSteps
from delrec_jax.training.sharding import place_batch
from delrec_jax.workdir.teacher_training import teacher_batches

_CORPORA = {"ml_100k": 1_682, "beauty": 12_101}  # items
_ROWS, _PER_CALL = 4096, 25


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
    planned = planned_tasks(experiment, jax.devices()[:1], Assumed(items=items))[0]
    rows = _full_rows(experiment.teacher.max_length, items)
    batches = teacher_batches(len(rows), experiment.teacher, seed=0)
    key = jax.random.key(1)
    drawn = next(batches).numbers
    batch = jax.tree.map(lambda leaf: leaf[drawn], rows)
    ready, held = place_batch(batch, planned.layout), [_state(planned)]

    def step() -> Any:
        """One update by a batch that is on the device; the metrics."""
        held[0], metrics = planned.step(held[0], None, ready, key)
        return metrics

    calls = 3 if tiny else 50
    found = {
        "a step, batch ready: ms": milliseconds(step, calls=calls, rounds=3),
        "a batch's numbers, on the host: ms": milliseconds(
            lambda: next(batches), calls=calls, rounds=3
        ),
    }
    labels = experiment.teacher.batch_size * experiment.teacher.max_length
    found["labels a step"] = labels
    for many in (1, _PER_CALL):
        call = _call(planned, rows, batches, many, key)
        spent = milliseconds(call, calls=1 if tiny else 100 // many, rounds=3, warmup=1) / many
        found[f"loop, steps_per_call={many}: ms of a step"] = spent
        found[f"loop, steps_per_call={many}: labels/s"] = labels / spent * 1e3
    return found


def _call(planned: Any, rows: TrainingRows, batches: Any, many: int, key: jax.Array) -> Any:
    """What the loop does to take this many steps at once, as a function of nothing."""
    steps, held = RowSteps(planned.step, rows, most=many), [_state(planned)]

    def call() -> Any:
        held[0], metrics = steps(held[0], None, [next(batches) for _ in range(many)], key)
        return metrics

    return call


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
