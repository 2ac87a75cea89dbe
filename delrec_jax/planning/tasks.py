"""The tasks of an experiment, ready to be compiled from shapes alone: `delrec plan` has no data and no weights.

They are the same tasks that the stages train; what a corpus, a tokenizer or weights would determine is assumed (`shapes`).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from delrec_jax.config import Experiment
from delrec_jax.delrec.distilling_task import distilling_task
from delrec_jax.delrec.prompt_start import PromptStart
from delrec_jax.delrec.tuning_task import tuning_task
from delrec_jax.errors import UserError
from delrec_jax.language.ranker import Ranker
from delrec_jax.p2rec.parsing_task import parsing_task
from delrec_jax.p2rec.preference_parser import preference_parser
from delrec_jax.planning.shapes import Assumed, frozen_of, ranker_of, teacher_of
from delrec_jax.pretraining.pretrain import pretraining_task
from delrec_jax.teachers.network import axes_of as teacher_axes
from delrec_jax.teachers.registry import NETWORKS
from delrec_jax.training.mesh import check_slices, mesh_sizes
from delrec_jax.training.sharding import Layout, check_divides, make_layout
from delrec_jax.training.task import Task
from delrec_jax.workdir.base_model import held_shapes
from delrec_jax.workdir.stage_table import adapting_stages
from delrec_jax.workdir.teacher_training import teaching_task


def planned_tasks(experiment: Experiment, devices: Sequence[Any], assumed: Assumed) -> list[Task]:
    """Returns the tasks of all stages of the config's method that train, the teacher's first; `augment` is not included.

    Raises:
      UserError: the run itself would be refused, because a mesh, a batch or heads do not divide; or the shape of
        `lm.weights` is unknown.
    """
    tasks, config = [], experiment.teacher
    # Fake devices are in one slice.
    mesh = replace(experiment.mesh, dcn_data=-1)
    check_slices(mesh_sizes(mesh, len(devices)), max(1, experiment.mesh.dcn_data))
    if network := config.network:
        layout = make_layout(mesh, teacher_axes, devices)
        module = NETWORKS[network.name](network.shape, assumed.items)
        known = None if config.cold_negatives else np.arange(assumed.items) > 0  # one item is cold
        tasks.append(teaching_task(network, module, layout, known=known))
    ranker = ranker_of(experiment, assumed)
    layout = make_layout(mesh, ranker.model.axes_of, devices)
    ranker.model.check_mesh(layout.mesh.shape["tensor"])
    if not experiment.lm.weights:
        longest = assumed.title_tokens
        tasks.append(pretraining_task(experiment, ranker, layout, answer_tokens=longest))
    tasks += [
        _LATER[stage](experiment, ranker, layout) for stage in adapting_stages(experiment.method)
    ]
    for task in tasks:
        try:
            check_divides(task.layout, task.rows)
        except UserError as error:
            raise UserError(f"{task.stage}: {error}") from None
    return tasks


def _parse(experiment: Experiment, ranker: Ranker, layout: Layout) -> Task:
    """Only the encoder is computed, but all of the model is held in memory, as in a run."""
    parser = preference_parser(ranker, experiment.parse)
    return parsing_task(experiment, parser, layout, held_shapes(experiment, parser.model))


def _distill(experiment: Experiment, ranker: Ranker, layout: Layout) -> Task:
    start = PromptStart(experiment, words=(0,))  # the choice of words does not change a shape
    known = np.arange(len(ranker.title_tokens)) > 0
    return distilling_task(
        experiment, ranker, layout, frozen_of(experiment, ranker, layout), start, known
    )


def _tune(experiment: Experiment, ranker: Ranker, layout: Layout) -> Task:
    items = len(ranker.title_tokens)
    teacher = teacher_of(experiment, items) if experiment.tune.beside else None
    frozen, known = frozen_of(experiment, ranker, layout), np.arange(items) > 0
    return tuning_task(experiment, ranker, layout, frozen, known=known, teacher=teacher)


_LATER: dict[str, Callable[[Experiment, Ranker, Layout], Task]] = {
    "parse": _parse,
    "distill": _distill,
    "tune": _tune,
}
