"""The train steps of an experiment, ready to be compiled for shapes alone: `delrec plan` has no data and no weights.

Losses, optimizers and trees are those of the stages; trees are made by `jax.eval_shape`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import jax
import numpy as np

from delrec_jax.config import Experiment
from delrec_jax.errors import UserError
from delrec_jax.language.adalora import init_adapters
from delrec_jax.language.initialise import init_for_copying
from delrec_jax.language.logical_axes import axes_of as language_axes
from delrec_jax.language.rank_allocation import with_rank_allocation
from delrec_jax.language.ranker import Ranker
from delrec_jax.objectives.task_weighting import init_weighting
from delrec_jax.planning.shapes import (
    Assumed,
    Batch,
    frozen_of,
    ints,
    listed_of,
    prompt_of,
    ranker_of,
    texts_of,
)
from delrec_jax.stages import base_model
from delrec_jax.stages.distill import prompt_gradients
from delrec_jax.stages.pretrain import pretrain_loss
from delrec_jax.stages.teacher_training import teacher_loss
from delrec_jax.stages.tune import ranking_loss
from delrec_jax.stages.workspace import Workspace
from delrec_jax.teachers.logical_axes import axes_of as teacher_axes
from delrec_jax.teachers.network import NetworkTeacher, init_params
from delrec_jax.teachers.registry import NETWORKS
from delrec_jax.training.gradients import GradientFn, mean_loss_gradients
from delrec_jax.training.optimizers import make_optimizer
from delrec_jax.training.sharding import Layout, check_divides, make_layout
from delrec_jax.training.steps import (
    EvalStep,
    TrainState,
    TrainStep,
    create_state,
    make_train_step,
)

_SCORED_USERS = 512  # of a validation batch of `teach`


@dataclass(frozen=True)
class Scoring:
    """What a stage computes to select: scores of one batch.

    Attributes:
      function: (held, rows) -> scores.
      held: weights.
      rows: one batch.
      layout: where they lie.
    """

    function: Callable[[Any, Any], jax.Array]
    held: Any
    rows: Batch
    layout: Layout

    def lower(self) -> Any:
        """The scores, ready to be compiled."""
        return EvalStep(self.function, self.layout).lower(self.held, self.rows)


@dataclass(frozen=True)
class PlannedStep:
    """The train step of one stage, and the shapes that it takes.

    Attributes:
      stage: its name.
      step: the step itself; it can be lowered and compiled.
      state: what trains and its optimizer.
      frozen: weights that the step reads; None in `teach` and `pretrain`.
      batch: one batch of all devices together.
      layout: where all of them lie.
      parts: that a batch is computed in (`optimizer.accumulate`).
      scoring: how it selects; None for `pretrain`, whose gate reads short texts.
    """

    stage: str
    step: TrainStep
    state: TrainState
    frozen: Any
    batch: Batch
    layout: Layout
    parts: int
    scoring: Scoring | None = None

    @property
    def rows(self) -> int:
        """Of a batch."""
        return jax.tree.leaves(self.batch)[0].shape[0]

    def lower(self) -> Any:
        """The step, ready to be compiled."""
        key = jax.eval_shape(lambda: jax.random.key(0))
        return self.step.lower(self.state, self.frozen, self.batch, key)


def planned_steps(
    experiment: Experiment, devices: Sequence[Any], assumed: Assumed
) -> list[PlannedStep]:
    """The steps of all stages that train under this config, in the order of a run.

    Raises:
      UserError: what the run itself would refuse: a mesh, a batch or heads that do not divide; or `lm.weights` of an
        unknown shape.
    """
    steps = []
    if experiment.teacher.name in NETWORKS:
        steps.append(
            _teach(experiment, make_layout(experiment.mesh, teacher_axes, devices), assumed)
        )
    layout, ranker = (
        make_layout(experiment.mesh, language_axes, devices),
        ranker_of(experiment, assumed),
    )
    base_model.check_heads(ranker.module.config, layout.mesh.shape["tensor"])
    if not experiment.lm.weights:
        steps.append(_pretrain(experiment, ranker, layout, assumed))
    steps += [_distill(experiment, ranker, layout), _tune(experiment, ranker, layout)]
    for planned in steps:
        try:
            check_divides(planned.layout, planned.rows)
        except UserError as error:
            raise UserError(f"{planned.stage}: {error}") from None
    return steps


def _planned(
    stage: str,
    gradients: GradientFn,
    params: Any,
    optimizer: Any,
    layout: Layout,
    *,
    batch: Batch,
    parts: int,
    frozen: Any = None,
    scoring: Scoring | None = None,
) -> PlannedStep:
    state = jax.eval_shape(lambda tree: create_state(tree, optimizer), params)
    step = make_train_step(gradients, optimizer, layout)
    return PlannedStep(stage, step, state, frozen, batch, layout, parts, scoring)


def _teach(experiment: Experiment, layout: Layout, assumed: Assumed) -> PlannedStep:
    config = experiment.teacher
    module: Any = NETWORKS[config.name](config.shape, assumed.items)
    params = jax.eval_shape(lambda: init_params(module, jax.random.key(0)))
    users = layout.rows(_SCORED_USERS)
    return _planned(
        "teach",
        mean_loss_gradients(teacher_loss(config, module), config.optimizer.accumulate),
        params,
        make_optimizer(config.optimizer, config.loop.steps),
        layout,
        batch={
            name: ints(config.batch_size, config.max_length)
            for name in ("ids", "labels", "segments")
        },
        parts=config.optimizer.accumulate,
        scoring=Scoring(
            lambda held, rows: NetworkTeacher(held, module).scores(rows["histories"]),
            params,
            {"histories": ints(users, config.max_length)},
            layout,
        ),
    )


def _pretrain(
    experiment: Experiment, ranker: Ranker, layout: Layout, assumed: Assumed
) -> PlannedStep:
    """Texts of full length, each with all its questions: the longest of what `pretrain` draws."""
    config = experiment.pretrain
    tokens = texts_of(experiment, 1)["ids"].shape[1]
    rows = max(8, config.text.batch_tokens // tokens // 8 * 8)
    asked = (rows, config.text.queries)
    questions = {"sentinels": ints(*asked), "items": ints(*asked)}
    answers = {"answers": ints(*asked, assumed.title_tokens)}
    holder = cast(Workspace, _Holder(experiment))
    return _planned(
        "pretrain",
        mean_loss_gradients(pretrain_loss(holder, ranker), config.optimizer.accumulate),
        jax.eval_shape(lambda: init_for_copying(ranker.module, jax.random.key(0))),
        make_optimizer(config.optimizer, config.loop.steps),
        layout,
        batch=texts_of(experiment, rows) | questions | answers,
        parts=config.optimizer.accumulate,
    )


@dataclass(frozen=True)
class _Holder:
    """All that `pretrain_loss` reads of a workspace."""

    experiment: Experiment


def _distill(experiment: Experiment, ranker: Ranker, layout: Layout) -> PlannedStep:
    config, rows = experiment.distill, experiment.distill.batch_size
    frozen, prompt = frozen_of(ranker), {"prompt": prompt_of(experiment, ranker)}
    asked = layout.rows(experiment.evaluate.batch_size)
    listed = {"candidates": ints(asked, config.num_candidates)}
    return _planned(
        "distill",
        prompt_gradients(ranker, config.weighting, config.optimizer.accumulate),
        prompt | jax.eval_shape(lambda: init_weighting(config.weighting)),
        make_optimizer(config.optimizer, config.loop.steps),
        layout,
        batch=texts_of(experiment, rows)
        | listed_of(rows, config.num_candidates)
        | {"task": ints(rows)},
        parts=config.optimizer.accumulate,
        frozen=frozen,
        scoring=Scoring(
            lambda held, rows: ranker.candidate_scores(**rows, **held),
            frozen | prompt,
            texts_of(experiment, asked) | listed,
            layout,
        ),
    )


def _tune(experiment: Experiment, ranker: Ranker, layout: Layout) -> PlannedStep:
    config, rows = experiment.tune, experiment.tune.batch_size
    frozen = frozen_of(ranker) | {"prompt": prompt_of(experiment, ranker)}
    known = np.arange(len(ranker.title_tokens)) > 0
    adapters = jax.eval_shape(
        lambda params: init_adapters(params, config.adalora, jax.random.key(0)), frozen["params"]
    )
    inner = make_optimizer(config.optimizer, config.loop.steps)
    over_all = config.loss_over == "catalogue"
    labels = {"label": ints(rows)} if over_all else listed_of(rows, config.num_candidates)
    return _planned(
        "tune",
        mean_loss_gradients(ranking_loss(ranker, known, config), config.optimizer.accumulate),
        adapters,
        with_rank_allocation(inner, config.adalora, config.loop.steps),
        layout,
        batch=texts_of(experiment, rows) | labels,
        parts=config.optimizer.accumulate,
        frozen=frozen,
        scoring=_tuned_scores(experiment, ranker, layout, held=frozen | {"adapters": adapters}),
    )


def _tuned_scores(
    experiment: Experiment, ranker: Ranker, layout: Layout, *, held: dict[str, Any]
) -> Scoring:
    """As `tune` selects and `evaluate` asks: of the catalogue, or of the candidates where texts list them."""
    asked = layout.rows(experiment.evaluate.batch_size)
    texts = texts_of(experiment, asked)
    if ranker.ranks_catalogue and not experiment.prompts.show_candidates:
        return Scoring(
            lambda held, rows: ranker.catalogue_scores(ids=rows["ids"], **held),
            held,
            texts,
            layout,
        )
    return Scoring(
        lambda held, rows: ranker.candidate_scores(**rows, **held),
        held,
        texts | {"candidates": ints(asked, experiment.candidates.num)},
        layout,
    )
