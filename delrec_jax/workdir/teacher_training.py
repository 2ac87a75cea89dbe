"""How conventional recommenders are trained, plain or augmented: one data, loss, budget and selection for all of them."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from delrec_jax import prng
from delrec_jax.config import Experiment, TeacherConfig
from delrec_jax.data.pipeline import training_iterator
from delrec_jax.data.splits import Split
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
from delrec_jax.training.optimizers import make_optimizer
from delrec_jax.training.sharding import Layout, make_layout, place
from delrec_jax.training.task import Scoring, Task, run_task
from delrec_jax.workdir.protocols import RowHistories, full_rankers

SCORED_USERS = 512
"""Users per validation batch."""


def teaching_task(
    config: TeacherConfig,
    module: Any,
    layout: Layout,
    *,
    known: np.ndarray | None = None,
    text: jax.ShapeDtypeStruct | None = None,
) -> Task:
    """The training of one network, selected by the scores of the whole catalogue.

    Args:
      config: which loss, and how it trains.
      module: the network.
      layout: where its parameters and batches lie.
      known: bool [I], the items that are negatives; None = all of them.
      text: shape of the vectors [I, E] that its item table reads; None where it reads none.
    """
    frozen = None if text is None else {"text": text}
    rows = jax.ShapeDtypeStruct((config.batch_size, config.max_length), np.int32)
    users = jax.ShapeDtypeStruct((layout.rows(SCORED_USERS), config.max_length), np.int32)

    def start(frozen: Any, seed: int) -> Any:
        return init_params(module, prng.key(seed, "teacher/init"), frozen and frozen["text"])

    def score(held: Any, histories: Any) -> jax.Array:
        return NetworkTeacher(held["params"], module, held["text"]).scores(histories)

    held = {"params": jax.eval_shape(partial(start, seed=0), frozen), "text": text}
    return Task(
        stage="teach",
        config=config,
        layout=layout,
        gradients=mean_loss_gradients(
            teacher_loss(config, module, known=known), config.optimizer.accumulate
        ),
        optimizer=make_optimizer(config.optimizer, config.loop.steps),
        start=start,
        frozen=frozen,
        batch=TrainingRows(items=rows, labels=rows, segments=rows),
        scoring=Scoring(score, held, users, layout),
    )


class TeacherTraining:
    """Trains one network as often as asked (seeds, text vectors), and compiles it once."""

    def __init__(
        self,
        experiment: Experiment,
        config: TeacherConfig,
        split: Split,
        num_items: int,
        *,
        way: str = "own",
        text_width: int = 0,
    ):
        """Packs the training rows.

        Args:
          experiment: where it runs and how it is watched.
          config: which network, and how it trains.
          split: whose training part is learned and whose validation part selects.
          num_items: size of the catalogue.
          way: how text enters its item table, see `teachers.item_table`.
          text_width: E of the text vectors that the table reads; 0 for `own`.
        """
        self.config, self._split = config, split
        self._watch = experiment.watch
        self.module = NETWORKS[config.name](config.shape, num_items, way)
        self._rows = training_rows(split.train.offsets, split.train.items, length=config.max_length)
        known = None if config.cold_negatives else ~split.cold_items(num_items)
        if known is not None:
            check_labels(self._rows.labels, known)
        text = (num_items, text_width)
        self._task = teaching_task(
            config,
            self.module,
            make_layout(experiment.mesh, axes_of),
            known=known,
            text=jax.ShapeDtypeStruct(text, np.float32) if text_width else None,
        )

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
        frozen = None if text is None else {"text": jnp.asarray(text)}
        params = self._task.start(frozen, seed)
        if start is not None:
            params = initialised(params, start[0], start[1])
        if frozen is not None:
            frozen = place(frozen, self._task.layout.of(frozen))
        share = self._task.share
        return run_task(
            self._task,
            params,
            name=name,
            directory=directory,
            frozen=frozen,
            batches=teacher_batches(self._rows, self.config, seed=seed, share=share),
            evaluate=self._validator(frozen),
            monitor="valid/NDCG@10",
            key=prng.key(seed, "teacher/dropout"),
            identity=identity,
            watch=self._watch,
        )

    def _validator(self, frozen: Any) -> Callable[[Any], dict[str, float]]:
        """params -> HR@1 and NDCG@10 of the validation item over the whole catalogue, seen items excluded and kept."""
        assert self._task.scoring is not None
        read = RowHistories(self._split, "valid", self.config.max_length)
        rankers, scores = full_rankers(self._split, "valid"), self._task.scoring.step
        text = None if frozen is None else frozen["text"]

        def score(params: Any, users: np.ndarray) -> jax.Array:
            return scores({"params": params, "text": text}, read(users))

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

    def loss(params: Any, frozen: Any, batch: TrainingRows, key: jax.Array) -> Any:
        """The mean loss of the batch's labels [1], and their number [1]."""
        means, counts = sequence_loss(
            params,
            module,
            batch=batch,
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
        lambda index, _: jax.tree.map(lambda leaf: leaf[index], rows),
        len(rows),
        batch_size=config.batch_size,
        buckets=(config.max_length,),
        seed=seed,
        share=share,
    )
