"""`delrec teach`: trains the conventional recommender on the training part alone."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from delrec_jax import prng
from delrec_jax.data.pipeline import training_iterator
from delrec_jax.data.splits import padded_histories
from delrec_jax.evaluation.metrics import metrics_of_ranks
from delrec_jax.evaluation.ranking import full_ranker, rank_users
from delrec_jax.stages.assets import Data, load_data, teacher_length
from delrec_jax.stages.workspace import Workspace
from delrec_jax.teachers.sasrec import SASRec, init_params, sequence_loss, training_windows
from delrec_jax.training.loop import Run, fit
from delrec_jax.training.optimizers import make_optimizer
from delrec_jax.training.sharding import make_mesh
from delrec_jax.training.steps import create_state, make_train_step, mean_loss_gradients
from delrec_jax.training.writers import say


def teach(ws: Workspace) -> None:
    """Trains SASRec, selected by validation NDCG@10 in full ranking; popularity needs no training."""
    config = ws.experiment.teacher
    if config.name == "popularity":
        return
    data = load_data(ws)
    module = SASRec(config.sasrec, data.num_items)
    inputs, labels = training_windows(
        data.split.train.offsets, data.split.train.items, length=config.sasrec.max_length
    )

    def loss(params, frozen, batch, key):
        losses, weights = sequence_loss(
            params, module, batch={"inputs": batch["ids"], "labels": batch["labels"]}, key=key
        )
        return losses, weights, {}

    optimizer = make_optimizer(config.optimizer, config.loop.steps)
    mesh = make_mesh(ws.experiment.mesh)
    _, result = fit(
        Run(
            name="teacher",
            directory=ws.folder("teach") / "model",
            state=create_state(
                init_params(module, prng.key(ws.experiment.seed, "teacher/init")), optimizer
            ),
            frozen=None,
            batches=training_iterator(
                lambda index, _: {"ids": inputs[index], "labels": labels[index]},
                len(inputs),
                batch_size=config.batch_size,
                buckets=(config.sasrec.max_length,),
                seed=ws.experiment.seed,
            ),
            step=make_train_step(
                mean_loss_gradients(loss, config.optimizer.accumulate), optimizer, mesh
            ),
            evaluate=_validator(ws, data, module),
            monitor="valid/NDCG@10",
            config=config.loop,
            key=prng.key(ws.experiment.seed, "teacher/dropout"),
            mesh=mesh,
        )
    )
    say(f"  SASRec: validation NDCG@10 {result['best_value']:.4f} at step {result['best_step']}")


def _validator(ws: Workspace, data: Data, module: SASRec) -> Callable[..., dict[str, float]]:
    """params -> HR@1 and NDCG@10 of the validation item over the whole catalogue, seen items excluded."""
    histories = padded_histories(data.split, "valid", teacher_length(ws))
    complete = padded_histories(data.split, "valid", int(data.split.train.lengths.max()))
    rankers = {"full": full_ranker(data.split.valid_target, complete)}
    scores = jax.jit(lambda params, rows: module.apply({"params": params}, rows, method="scores"))

    def evaluate(params) -> dict[str, float]:
        ranks = rank_users(
            lambda users: scores(params, jnp.asarray(histories[users])),
            rankers,
            num_users=len(histories),
            batch_size=256,
        )
        values = metrics_of_ranks(ranks["full"].rank)
        return {f"valid/{name}": float(np.mean(values[name])) for name in ("HR@1", "NDCG@10")}

    return evaluate
