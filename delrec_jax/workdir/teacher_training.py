"""How conventional recommenders are trained, plain or augmented: all with the same data, loss, budget and selection."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from delrec_jax import prng
from delrec_jax.batches import WHOLE, Share
from delrec_jax.config import Experiment, TeacherConfig
from delrec_jax.data.pipeline import row_iterator
from delrec_jax.data.splits import Split
from delrec_jax.errors import UserError
from delrec_jax.evaluation.metrics import metrics_of_ranks
from delrec_jax.evaluation.user_ranks import rank_users
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
from delrec_jax.training.gradients import LossFn, Metrics, mean_loss_gradients
from delrec_jax.training.optimizers import make_optimizer
from delrec_jax.training.row_steps import RowNumbers, RowSteps
from delrec_jax.training.sharding import Layout, make_layout, place
from delrec_jax.training.task import Scoring, Task, run_task
from delrec_jax.training.watching import Watch
from delrec_jax.workdir.protocols import RowHistories, full_rankers
from delrec_jax.workdir.validation import selecting_rows

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
    """Returns the training task of one network, selected by the scores of the whole catalogue.

    Args:
      config: its loss, and how it trains.
      module: the network.
      layout: placement of its parameters and batches.
      known: bool [I], the items that are negatives; None = all of them.
      text: shape of the vectors [I, E] that its item table reads; None if it reads none.
    """
    frozen = None if text is None else {"text": text}
    rows = jax.ShapeDtypeStruct((config.batch_size, config.max_length), np.int32)
    users = jax.ShapeDtypeStruct((layout.rows(SCORED_USERS), config.max_length), np.int32)

    def start(frozen: Any, seed: int) -> Any:
        """Initializes the parameters."""
        text, key = frozen and frozen["text"], prng.key(seed, "teacher/init")
        return init_params(module, key, text, output_bias=config.output_bias)

    def score(held: Any, histories: Any) -> jax.Array:
        """Scores the whole catalogue after each history [B, L]: [B, I]."""
        return NetworkTeacher(held["params"], module, held["text"]).scores(histories)

    held = {"params": jax.eval_shape(partial(start, seed=0), frozen), "text": text}
    return Task(
        stage="teach",
        config=config,
        layout=layout,
        gradients=mean_loss_gradients(
            teacher_loss(config, module, known=known, ways=layout.ways),
            config.optimizer.accumulate,
        ),
        optimizer=make_optimizer(config.optimizer, config.loop.steps),
        start=start,
        frozen=frozen,
        batch=TrainingRows(items=rows, labels=rows, segments=rows),
        scoring=Scoring(score, held, users, layout, ("batch", "items")),
    )


class TeacherTraining:
    """Trains one network any number of times (seeds, text vectors), and compiles it once."""

    def __init__(
        self,
        experiment: Experiment,
        config: TeacherConfig,
        split: Split,
        num_items: int,
        *,
        way: str = "own",
        text_width: int = 0,
        watch: Watch,
        saved: Callable[[], None] | None = None,
    ):
        """Packs the training rows.

        Args:
          experiment: where it runs.
          config: which network, and how it trains.
          split: its training part is trained on, and its validation part selects.
          num_items: size of the catalogue.
          way: how text enters its item table, see `teachers.item_table`.
          text_width: E of the text vectors that the table reads; 0 for `own`.
          watch: as in `training.run.Run`.
          saved: as in `training.run.Run`.

        Raises:
          UserError: there are not two items to tell apart.
        """
        self.config, self._split, self._saved = config, split, saved
        self._watch = watch
        self.module = NETWORKS[config.name](config.shape, num_items, way)
        self._rows = training_rows(split.train.offsets, split.train.items, length=config.max_length)
        known = None if config.cold_negatives else split.known_items(num_items)
        if known is not None:
            check_labels(self._rows.labels, known)
        if (num_items if known is None else int(known.sum())) < 2:
            raise UserError(
                "the training part has fewer than two different items: a network has nothing to tell apart; check data.path "
                "and the filters of data.*"
            )
        text = (num_items, text_width)
        self._task = teaching_task(
            config,
            self.module,
            make_layout(experiment.mesh, axes_of),
            known=known,
            text=jax.ShapeDtypeStruct(text, np.float32) if text_width else None,
        )
        self._step = RowSteps(
            self._task.step,
            self._rows,
            most=config.steps_per_call,
            share=self._task.share,
            all_metrics=bool(config.loop.on_spike),
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
          name: name of the run in logs.
          directory: folder of its checkpoints and result.
          seed: seed of parameters, rows and dropout.
          identity: everything that the result depends on.
          text: vectors [I, E] that the item table reads; None for `own`.
          start: vectors [I, D] that the item table starts with, and their standard deviation.

        Returns:
          Parameters on the host, and the description of the run.
        """
        frozen = None if text is None else {"text": jnp.asarray(text)}
        params = self._task.start(frozen, seed)
        if start is not None:
            params = initialised(params, start[0], start[1])
        params = jax.device_get(params)  # a whole table must not stay on one device
        if frozen is not None:
            frozen = place(frozen, self._task.layout.of(frozen))
        return run_task(
            self._task,
            params,
            name=name,
            directory=directory,
            frozen=frozen,
            step=self._step,
            block=self.config.steps_per_call,
            batches=teacher_batches(
                len(self._rows), self.config, seed=seed, share=self._task.share
            ),
            evaluate=self._validator(frozen),
            monitor="valid/NDCG@10",
            key=prng.key(seed, "teacher/dropout"),
            identity=identity,
            watch=self._watch,
            saved=self._saved,
        )

    def epochs(self, steps: int) -> float:
        """How often so many steps read the training part."""
        return steps * self.config.batch_size / len(self._rows)

    def _validator(self, frozen: Any) -> Callable[[Any], dict[str, float]]:
        """Returns a function of params that gives HR@1 and NDCG@10 of the validation items, without and with seen items."""
        assert self._task.scoring is not None
        read = RowHistories(self._split, "valid", self.config.max_length)
        rankers, scores = full_rankers(self._split, "valid"), self._task.scoring.step
        rows = selecting_rows(read.by_length, self.config.valid_users)
        text = None if frozen is None else frozen["text"]

        def score(params: Any, users: np.ndarray) -> jax.Array:
            """Scores the whole catalogue for rows of users: [B, I]."""
            return scores({"params": params, "text": text}, read(users))

        def evaluate(params: Any) -> dict[str, float]:
            """Ranks the validation items of these users over the whole catalogue."""
            ranks = rank_users(
                partial(score, params),
                rankers,
                num_users=len(read),
                batch_size=min(SCORED_USERS, len(rows)),
                order=rows,
            )
            found: dict[str, float] = {}
            for protocol, tag in (("full", ""), ("full_with_seen", "/with_seen")):
                values = metrics_of_ranks(ranks[protocol].rank)
                found |= {f"valid/{m}{tag}": float(values[m].mean()) for m in ("HR@1", "NDCG@10")}
            return found

        return evaluate


def teacher_loss(
    config: TeacherConfig, module: Any, *, known: np.ndarray | None = None, ways: int = 1
) -> LossFn:
    """Returns the loss of a batch of training rows, in the form that `mean_loss_gradients` takes.

    Args:
      config: the kind of loss.
      module: the network.
      known: bool [I], the items that are negatives; None = all of them.
      ways: over how many devices a batch is divided.
    """

    def loss(
        params: Any, frozen: Any, batch: TrainingRows, key: jax.Array
    ) -> tuple[jax.Array, jax.Array, Metrics]:
        """Returns the mean loss of the batch's labels [1], their number [1], and no metrics."""
        means, counts = sequence_loss(
            params,
            module,
            batch=batch,
            config=config.loss,
            key=key,
            text=None if frozen is None else frozen["text"],
            known=known,
            ways=ways,
        )
        return means, counts, {}

    return loss


def teacher_batches(rows: int, config: TeacherConfig, *, seed: int, share: Share = WHOLE) -> Any:
    """Returns an iterator over this process's share of the shuffled `RowNumbers`; each epoch has every row once."""
    numbers = RowNumbers(numbers=np.arange(rows, dtype=np.int32))
    return row_iterator(numbers, batch_size=config.batch_size, seed=seed, share=share)
