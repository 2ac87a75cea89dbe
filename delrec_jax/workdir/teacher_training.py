"""How conventional recommenders are trained, plain or augmented: one data, loss, budget and selection for all of them."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from delrec_jax import prng
from delrec_jax.config import TeacherConfig
from delrec_jax.data.pipeline import training_iterator
from delrec_jax.evaluation.metrics import metrics_of_ranks
from delrec_jax.evaluation.ranking import rank_users
from delrec_jax.teachers.network import (
    NetworkTeacher,
    axes_of,
    check_labels,
    init_params,
    initialised,
    sequence_loss,
)
from delrec_jax.teachers.registry import NETWORKS
from delrec_jax.teachers.windows import TrainingRows, training_rows
from delrec_jax.training.gradients import LossFn, mean_loss_gradients
from delrec_jax.training.loop import Run, fit
from delrec_jax.training.optimizers import make_optimizer
from delrec_jax.training.sharding import make_layout, own_share, place
from delrec_jax.training.steps import EvalStep, TrainStep, create_state
from delrec_jax.workdir.assets import Data
from delrec_jax.workdir.protocols import RowHistories, full_rankers
from delrec_jax.workdir.workspace import Workspace

SCORED_USERS = 512
"""Of a validation batch."""


class TeacherTraining:
    """Trains one network as often as asked (seeds, text vectors), and compiles it once.

    Attributes:
      module: the network.
    """

    def __init__(self, ws: Workspace, data: Data, config: TeacherConfig, *, way: str = "own"):
        """Packs the training rows.

        Args:
          ws: the run.
          data: its corpus and split.
          config: which network, and how it trains.
          way: how text enters its item table, see `teachers.item_table`.
        """
        self.ws, self.data, self.config = ws, data, config
        self.module = NETWORKS[config.name](config.shape, data.num_items, way)
        self.layout = make_layout(ws.experiment.mesh, axes_of)
        train = data.split.train
        self._rows = training_rows(train.offsets, train.items, length=config.max_length)
        self._optimizer = make_optimizer(config.optimizer, config.loop.steps)
        known = None if config.cold_negatives else ~data.split.cold_items(data.num_items)
        if known is not None:
            check_labels(self._rows.labels, known)
        loss = teacher_loss(config, self.module, known=known)
        gradients = mean_loss_gradients(loss, config.optimizer.accumulate)
        self._step = TrainStep(gradients, self._optimizer, self.layout)
        self._scores = EvalStep(self._score_rows, self.layout)

    def fit(
        self,
        name: str,
        directory: Path,
        *,
        seed: int,
        identity: Mapping[str, Any],
        text: np.ndarray | None = None,
        start: tuple[np.ndarray, float] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Trains, or resumes, or returns the finished result; selected by validation NDCG@10 in full ranking.

        Args:
          name: of the run, in logs.
          directory: of its checkpoints and result.
          seed: of parameters, rows and dropout.
          identity: what it depends on.
          text: vectors [I, E] that the item table reads; none for `own`.
          start: vectors [I, D] that the item table begins with, and their standard deviation.

        Returns:
          Parameters on the host, and the description of the run.
        """
        vectors = None if text is None else jnp.asarray(text)
        params = init_params(self.module, prng.key(seed, "teacher/init"), vectors)
        if start is not None:
            params = initialised(params, start[0], start[1])
        frozen = None if vectors is None else {"text": vectors}
        if frozen is not None:
            frozen = place(frozen, self.layout.of(frozen))
        share = own_share(self.layout, self.config.batch_size)
        return fit(
            Run(
                name=name,
                directory=directory,
                state=create_state(params, self._optimizer),
                frozen=frozen,
                batches=teacher_batches(self._rows, self.config, seed=seed, share=share),
                step=self._step,
                layout=self.layout,
                evaluate=self._validator(frozen),
                monitor="valid/NDCG@10",
                config=self.config.loop,
                key=prng.key(seed, "teacher/dropout"),
                share=share,
                identity=identity,
                watch=self.ws.watch,
            )
        )

    def _score_rows(self, held: Any, rows: Any) -> jax.Array:
        return NetworkTeacher(held["params"], self.module, held["text"]).scores(rows)

    def _validator(self, frozen: Any) -> Callable[[Any], dict[str, float]]:
        """params -> HR@1 and NDCG@10 of the validation item over the whole catalogue, seen items excluded and kept."""
        split = self.data.split
        read, rankers = (
            RowHistories(split, "valid", self.config.max_length),
            full_rankers(split, "valid"),
        )
        text = None if frozen is None else frozen["text"]

        def score(params: Any, users: np.ndarray) -> jax.Array:
            return self._scores({"params": params, "text": text}, read(users))

        def evaluate(params: Any) -> dict[str, float]:
            ranks = rank_users(
                partial(score, params),
                rankers,
                num_users=len(read),
                batch_size=min(SCORED_USERS, len(read)),
                order=read.by_length,
            )
            found: dict[str, float] = {}
            for protocol, tag in (("full", ""), ("full_with_seen", "/with_seen")):
                values = metrics_of_ranks(ranks[protocol].rank)
                found |= {f"valid/{m}{tag}": float(values[m].mean()) for m in ("HR@1", "NDCG@10")}
            return found

        return evaluate


def teacher_loss(config: TeacherConfig, module: Any, *, known: np.ndarray | None = None) -> LossFn:
    """The loss of a batch of `teacher_batches`, as `mean_loss_gradients` takes it.

    Args:
      config: which loss.
      module: the network.
      known: bool [I], the items that are negatives; None = all of them.
    """

    def loss(params, frozen, batch, key):
        rows = {"items": batch["ids"], "labels": batch["labels"], "segments": batch["segments"]}
        means, counts = sequence_loss(
            params,
            module,
            batch=rows,
            config=config.loss,
            key=key,
            text=None if frozen is None else frozen["text"],
            known=known,
        )
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
