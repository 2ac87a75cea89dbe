"""The train steps of an experiment, ready to be compiled for shapes alone: `delrec plan` has no data and no weights.

Losses, optimizers and trees are those of the stages; trees are made by `jax.eval_shape`.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from delrec_jax.config import Experiment
from delrec_jax.delrec.distill import prompt_gradients
from delrec_jax.delrec.task_weighting import init_weighting
from delrec_jax.delrec.tune import ranking_loss
from delrec_jax.errors import UserError
from delrec_jax.language.adalora import init_adapters
from delrec_jax.language.families import find_family
from delrec_jax.language.rank_allocation import with_rank_allocation
from delrec_jax.language.ranker import Ranker
from delrec_jax.p2rec.parse import parsing_loss, parsing_optimizer
from delrec_jax.p2rec.preference_parser import PreferenceParser, init_projection
from delrec_jax.planning.planned_step import PlannedStep, Scoring, planned_step
from delrec_jax.planning.shapes import (
    Assumed,
    floats,
    frozen_of,
    ints,
    listed_of,
    prompt_of,
    ranker_of,
    texts_of,
)
from delrec_jax.pretraining.batches import batch_rows
from delrec_jax.pretraining.pretrain import pretrain_loss
from delrec_jax.teachers.network import NetworkTeacher, init_params
from delrec_jax.teachers.network import axes_of as teacher_axes
from delrec_jax.teachers.registry import NETWORKS
from delrec_jax.training.gradients import mean_loss_gradients
from delrec_jax.training.optimizers import make_optimizer
from delrec_jax.training.sharding import Layout, check_divides, make_layout
from delrec_jax.workdir.teacher_training import SCORED_USERS, teacher_loss
from delrec_jax.workdir.workspace import STAGES


def planned_steps(
    experiment: Experiment, devices: Sequence[Any], assumed: Assumed
) -> list[PlannedStep]:
    """The steps of all stages of this config's method that train, in the order of a run; `augment` is not among them.

    Raises:
      UserError: what the run itself would refuse: a mesh, a batch or heads that do not divide; or `lm.weights` of an
        unknown shape.
    """
    steps = []
    if experiment.teacher.name in NETWORKS:
        steps.append(
            _teach(experiment, make_layout(experiment.mesh, teacher_axes, devices), assumed)
        )
    ranker = ranker_of(experiment, assumed)
    layout = make_layout(experiment.mesh, ranker.model.axes_of, devices)
    ranker.model.check_mesh(layout.mesh.shape["tensor"])
    if not experiment.lm.weights:
        steps.append(_pretrain(experiment, ranker, layout, assumed))
    later = {"parse": _parse, "distill": _distill, "tune": _tune}
    steps += [
        later[stage](experiment, ranker, layout)
        for stage in STAGES[experiment.method]
        if stage in later
    ]
    for planned in steps:
        try:
            check_divides(planned.layout, planned.rows)
        except UserError as error:
            raise UserError(f"{planned.stage}: {error}") from None
    return steps


def _teach(experiment: Experiment, layout: Layout, assumed: Assumed) -> PlannedStep:
    config = experiment.teacher
    module: Any = NETWORKS[config.name](config.shape, assumed.items)
    params = jax.eval_shape(lambda: init_params(module, jax.random.key(0)))
    users = layout.rows(SCORED_USERS)
    return planned_step(
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
    config, family = experiment.pretrain, find_family(experiment.lm.family)
    longest = experiment.prompts.max_tokens
    rows = batch_rows(config.text, texts_of(longest, 1)["ids"].shape[1])
    asked = (rows, config.text.queries)
    questions = {"sentinels": ints(*asked), "items": ints(*asked)}
    answers = {"answers": ints(*asked, assumed.title_tokens)}
    return planned_step(
        "pretrain",
        mean_loss_gradients(pretrain_loss(ranker, config), config.optimizer.accumulate),
        jax.eval_shape(lambda: family.begin(ranker.model, jax.random.key(0))),
        make_optimizer(config.optimizer, config.loop.steps),
        layout,
        batch=texts_of(longest, rows) | questions | answers,
        parts=config.optimizer.accumulate,
    )


def _parse(experiment: Experiment, ranker: Ranker, layout: Layout) -> PlannedStep:
    """The encoder alone computes; what else the model has lies there, as the run loads it."""
    config, rows = experiment.parse, experiment.parse.batch_size
    adapted = config.adalora if config.lm == "adalora" else None
    parser = PreferenceParser(ranker.model.with_adapters(adapted))
    params, key = parser.model.param_shapes(), jax.random.key(0)
    width, closed = parser.model.width, parser.model.closed
    trained = {"projection": jax.eval_shape(lambda: init_projection(width, config.categories, key))}
    if adapted is not None:
        trained["adapters"] = jax.eval_shape(
            lambda tree: init_adapters(tree, adapted, key, closed=closed), params
        )
    return planned_step(
        "parse",
        mean_loss_gradients(parsing_loss(parser, config), config.optimizer.accumulate),
        trained,
        parsing_optimizer(config),
        layout,
        batch=texts_of(config.max_tokens, rows) | {"targets": floats(rows, config.categories)},
        parts=config.optimizer.accumulate,
        frozen={"params": params, "unit": floats()},
        scoring=Scoring(
            lambda held, rows: jax.nn.softmax(parser.logits(ids=rows["ids"], **held)),
            {"params": params, "adapters": None} | trained,
            texts_of(config.max_tokens, layout.rows(experiment.evaluate.batch_size)),
            layout,
        ),
    )


def _distill(experiment: Experiment, ranker: Ranker, layout: Layout) -> PlannedStep:
    config, rows = experiment.distill, experiment.distill.batch_size
    frozen, prompt = frozen_of(ranker), {"prompt": prompt_of(experiment, ranker)}
    asked = layout.rows(experiment.evaluate.batch_size)
    listed = {"candidates": ints(asked, config.num_candidates)}
    return planned_step(
        "distill",
        prompt_gradients(ranker, config.weighting, config.optimizer.accumulate),
        prompt | jax.eval_shape(lambda: init_weighting(config.weighting)),
        make_optimizer(config.optimizer, config.loop.steps),
        layout,
        batch=texts_of(experiment.prompts.max_tokens, rows)
        | listed_of(rows, config.num_candidates)
        | {"task": ints(rows)},
        parts=config.optimizer.accumulate,
        frozen=frozen,
        scoring=Scoring(
            lambda held, rows: ranker.candidate_scores(**rows, **held),
            frozen | prompt,
            texts_of(experiment.prompts.max_tokens, asked) | listed,
            layout,
        ),
    )


def _tune(experiment: Experiment, ranker: Ranker, layout: Layout) -> PlannedStep:
    config, rows = experiment.tune, experiment.tune.batch_size
    frozen = frozen_of(ranker) | {"prompt": prompt_of(experiment, ranker)}
    known = np.arange(len(ranker.title_tokens)) > 0
    key, closed = jax.random.key(0), ranker.model.closed
    adapters = jax.eval_shape(
        lambda params: init_adapters(params, config.adalora, key, closed=closed), frozen["params"]
    )
    inner = make_optimizer(config.optimizer, config.loop.steps)
    over_all = config.loss_over == "catalogue"
    labels = {"label": ints(rows)} if over_all else listed_of(rows, config.num_candidates)
    return planned_step(
        "tune",
        mean_loss_gradients(ranking_loss(ranker, known, config), config.optimizer.accumulate),
        adapters,
        with_rank_allocation(inner, config.adalora, config.loop.steps),
        layout,
        batch=texts_of(experiment.prompts.max_tokens, rows) | labels,
        parts=config.optimizer.accumulate,
        frozen=frozen,
        scoring=_tuned_scores(experiment, ranker, layout, held=frozen | {"adapters": adapters}),
    )


def _tuned_scores(
    experiment: Experiment, ranker: Ranker, layout: Layout, *, held: dict[str, Any]
) -> Scoring:
    """As `tune` selects and `evaluate` asks: of the catalogue, or of the candidates where texts list them."""
    asked = layout.rows(experiment.evaluate.batch_size)
    texts = texts_of(experiment.prompts.max_tokens, asked)
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
