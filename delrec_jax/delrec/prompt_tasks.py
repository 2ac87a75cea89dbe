"""The tasks of stage 1: their protocol, the paper's two tasks, and those that a config adds.

A task is one class in one file: its name, its text and its examples. `distill.tasks` gives each its share of the texts and its
weight in the loss; `distill.tasks.NAME.code = "FILE.py:OBJECT"` adds one that is not part of the package.
"""

from collections.abc import Sized
from string import Formatter
from typing import Any, Protocol

import numpy as np

from delrec_jax.config import Experiment
from delrec_jax.data.sequential_recommendation import LSR, LSR_TEMPLATE
from delrec_jax.data.templates import WORDS, Field, Template
from delrec_jax.delrec.material import Material, PromptExample
from delrec_jax.delrec.pattern_simulating import PatternSimulating
from delrec_jax.delrec.temporal_analysis import TemporalAnalysis
from delrec_jax.errors import UserError
from delrec_jax.plugins import find

_NEEDED = (Field.HISTORY, Field.PATTERN, Field.MASK)


class PromptTask(Protocol):
    """A question that the prompt learns to answer: a text with candidates and a distribution over them.

    Attributes:
      name: its name in `distill.tasks`, the logs and `Pieces.tasks`.
      title: its name for readers, above its texts in `delrec prompts`.
      template: the template of its text.
      lengths_stay: optional; whether a row's text has the same length in every epoch, so that it is counted once.
    """

    name: str
    title: str
    template: Template

    def positions(self, material: Material) -> Sized:
        """Where it can be asked; if empty, the task is left out."""

    def example(
        self, material: Material, positions: Any, row: int, rng: np.random.Generator
    ) -> PromptExample:
        """Makes one example.

        Args:
          material: what it is made from.
          positions: the result of `positions`.
          row: the epoch's row, an index into `material.rows`, for tasks that are asked of rows.
          rng: the only source of randomness, so that a resumed run draws the same text.
        """


PROMPT_TASKS: dict[str, PromptTask] = {
    task.name: task for task in (TemporalAnalysis(), PatternSimulating())
}


def prompt_tasks(experiment: Experiment) -> list[PromptTask]:
    """The config's tasks: the built-in ones in the order of the paper, then the others by name.

    Raises:
      UserError: a task is neither built in nor found.
    """
    shares = experiment.distill.tasks
    names = [name for name in PROMPT_TASKS if name in shares]
    names += sorted(name for name in shares if name not in PROMPT_TASKS)
    return [_named(name, shares[name].code) for name in names]


def _named(name: str, code: str) -> PromptTask:
    key = f"distill.tasks.{name}.code" if code else "distill.tasks"
    needs = ("name", "title", "template", "positions", "example")
    found = find(code or name, PROMPT_TASKS, key=key, needs=needs)
    if name == LSR:
        raise UserError(f"distill.tasks.{name}: the text of stage 2 has this name; choose another")
    if found.name != name:
        raise UserError(f"{key} is {code!r}: its task is called {found.name!r}, not {name!r}")
    if code:
        _check_template(key, found.template)
    return found


def _check_template(key: str, template: Template) -> None:
    """Refuses a template that texts cannot be made from, or that asks nothing."""
    for field in _NEEDED:
        if template.count(field) != 1:
            raise UserError(
                f"{key}: its template has {template.count(field)} times {field}: it must be there once, like "
                f"{' and '.join(str(other) for other in _NEEDED if other is not field)}"
            )
    texts = [part for part in template if isinstance(part, str)]
    named = {
        name for text in texts for _, name, _, _ in Formatter().parse(text) if name is not None
    }
    if unknown := sorted(named - {*WORDS}):
        raise UserError(
            f"{key}: its template has {{{unknown[0]}}}: use one of {', '.join(f'{{{word}}}' for word in WORDS)}"
        )


def check_example(task: PromptTask, example: PromptExample, material: Material) -> None:
    """Refuses a task whose examples are not what `PromptTask` says, before it trains a prompt that means nothing.

    Args:
      task: one that is not part of the package.
      example: one of its examples.
      material: what that was made from.

    Raises:
      UserError: other candidates than asked for, no distribution over them, or a text without MASK.
    """
    name, count = f"distill.tasks.{task.name}", material.config.distill.num_candidates
    shapes = np.shape(example.candidates), np.shape(example.targets)
    if shapes != ((count,), (count,)):
        raise UserError(
            f"{name}: an example has candidates {shapes[0]} and targets {shapes[1]}: both are of shape ({count},), by "
            "distill.num_candidates"
        )
    if min(example.targets) < 0 or abs(float(np.sum(example.targets)) - 1) > 1e-3:
        raise UserError(
            f"{name}: the targets of an example sum to {float(np.sum(example.targets)):g}: they are probabilities, of sum 1"
        )
    if material.pieces.sentinel not in example.ids:
        raise UserError(
            f"{name}: the text of an example has no MASK: build it by `data.prompts.assemble`"
        )


def prompt_templates(experiment: Experiment) -> dict[str, Template]:
    """The template of each task by its name in the config, and the one that asks for the next item."""
    named = {task.name: task.template for task in prompt_tasks(experiment)}
    return named | {LSR: LSR_TEMPLATE}
