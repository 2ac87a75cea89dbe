"""`delrec teach`: trains the conventional recommender on the training part alone."""

import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from delrec_jax import prng
from delrec_jax.config_teacher import TeacherConfig
from delrec_jax.data.pipeline import training_iterator
from delrec_jax.distributed import on_main
from delrec_jax.evaluation.metrics import metrics_of_ranks
from delrec_jax.evaluation.ranking import rank_users
from delrec_jax.stages.assets import CHECKPOINT, Data, load_data
from delrec_jax.stages.protocols import RowHistories, full_rankers
from delrec_jax.stages.workspace import Workspace, write_json
from delrec_jax.teachers.logical_axes import axes_of
from delrec_jax.teachers.network import NetworkTeacher, init_params, sequence_loss
from delrec_jax.teachers.registry import DISPLAY_NAMES, NETWORKS
from delrec_jax.teachers.windows import TrainingRows, training_rows
from delrec_jax.training.gradients import LossFn, mean_loss_gradients
from delrec_jax.training.loop import Run, fit
from delrec_jax.training.optimizers import make_optimizer
from delrec_jax.training.sharding import Layout, make_layout, own_share
from delrec_jax.training.steps import EvalStep, create_state, make_train_step
from delrec_jax.training.writers import say

_BATCH = 512  # users of a validation batch


def teach(ws: Workspace) -> None:
    """Trains the named network, selected by validation NDCG@10 in full ranking; popularity needs no training."""
    config, path = ws.experiment.teacher, ws.folder("teach") / "teacher.json"
    if config.name not in NETWORKS:
        on_main(lambda: write_json(path, {"name": config.name}))
        return
    data = load_data(ws)
    module = NETWORKS[config.name](config.shape, data.num_items)
    train = data.split.train
    rows = training_rows(train.offsets, train.items, length=config.max_length)
    optimizer = make_optimizer(config.optimizer, config.loop.steps)
    layout = make_layout(ws.experiment.mesh, axes_of)
    share = own_share(layout, config.batch_size)
    params = init_params(module, prng.key(ws.experiment.seed, "teacher/init"))
    gradients = mean_loss_gradients(teacher_loss(config, module), config.optimizer.accumulate)
    _, result = fit(
        Run(
            name="teacher",
            directory=(ws.folder("teach") / CHECKPOINT).parent,
            state=create_state(params, optimizer),
            frozen=None,
            batches=teacher_batches(rows, config, seed=ws.experiment.seed, share=share),
            step=make_train_step(gradients, optimizer, layout),
            layout=layout,
            evaluate=_validator(ws, data, module, layout),
            monitor="valid/NDCG@10",
            config=config.loop,
            key=prng.key(ws.experiment.seed, "teacher/dropout"),
            share=share,
            identity=ws.identity("teach"),
            watch=ws.watch,
        )
    )
    checkpoint = hashlib.sha256((ws.folder("teach") / CHECKPOINT).read_bytes()).hexdigest()
    on_main(lambda: write_json(path, {"name": config.name, "checkpoint": checkpoint}))
    say(
        f"  {DISPLAY_NAMES[config.name]}: validation NDCG@10 {result['best_value']:.4f} at step {result['best_step']} "
        f"of {result['steps']}"
    )


def teacher_loss(config: TeacherConfig, module: Any) -> LossFn:
    """The loss of a batch of `teacher_batches`, as `mean_loss_gradients` takes it."""

    def loss(params, frozen, batch, key):
        del frozen
        rows = {"items": batch["ids"], "labels": batch["labels"], "segments": batch["segments"]}
        means, counts = sequence_loss(params, module, batch=rows, config=config.loss, key=key)
        return means, counts, {}

    return loss


def teacher_batches(
    rows: TrainingRows, config: TeacherConfig, *, seed: int, share: tuple[int, int] = (0, 1)
) -> Any:
    """Shuffled rows, of which this process reads its share; an epoch ends where all have been read once."""
    return training_iterator(
        lambda index, _: {
            "ids": rows.items[index],
            "labels": rows.labels[index],
            "segments": rows.segments[index],
        },
        len(rows),
        batch_size=config.batch_size,
        buckets=(config.max_length,),
        seed=seed,
        process_index=share[0],
        process_count=share[1],
    )


def _validator(
    ws: Workspace, data: Data, module: Any, layout: Layout
) -> Callable[[Any], dict[str, float]]:
    """params -> HR@1 and NDCG@10 of the validation item over the whole catalogue, seen items excluded and kept."""
    read = RowHistories(data.split, "valid", ws.experiment.teacher.max_length)
    rankers = full_rankers(data.split, "valid")
    scores = EvalStep(lambda params, rows: NetworkTeacher(params, module).scores(rows), layout)

    def score(params: Any, users: np.ndarray) -> jax.Array:
        return scores(params, read(users))

    def evaluate(params: Any) -> dict[str, float]:
        ranks = rank_users(
            partial(score, params),
            rankers,
            num_users=len(read),
            batch_size=min(_BATCH, len(read)),
            order=read.by_length,
        )
        found: dict[str, float] = {}
        for protocol, tag in (("full", ""), ("full_with_seen", "/with_seen")):
            values = metrics_of_ranks(ranks[protocol].rank)
            found |= {f"valid/{m}{tag}": float(values[m].mean()) for m in ("HR@1", "NDCG@10")}
        return found

    return evaluate
