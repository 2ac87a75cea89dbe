"""Recommenders in closed form: their settings chosen by validation, and fitted with them."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import jax

from delrec_jax.config import BaselinesConfig
from delrec_jax.errors import UserError
from delrec_jax.teachers.item_to_item import RECENCY_GRID, ByRecency
from delrec_jax.teachers.protocol import Teacher
from delrec_jax.teachers.registry import ClosedForm, closed_form
from delrec_jax.teachers.training_part import TrainingPart
from delrec_jax.workdir.conventional_system import ConventionalSystem
from delrec_jax.workdir.json_files import read_json
from delrec_jax.workdir.prepared import Data
from delrec_jax.workdir.validation import Validation
from delrec_jax.workdir.workspace import Workspace

Settings = Mapping[str, float]


@dataclass(frozen=True)
class Choice:
    """What validation chose.

    Attributes:
      settings: values of the recommender's own settings.
      by_recency: decay and floor, if items are weighted by age.
      valid_ndcg10: NDCG@10 on the validation users that chose.
      tried: number of combinations that were compared.
    """

    settings: Settings
    by_recency: Settings
    valid_ndcg10: float
    tried: int

    @property
    def told(self) -> str:
        """What was chosen, in words for a message."""
        values = {**self.settings, **self.by_recency}
        return ", ".join(f"{key} {value:g}" for key, value in values.items()) or "no settings"


def training_part(data: Data) -> TrainingPart:
    """Returns the interactions to train on, and the titles."""
    train = data.split.train
    return TrainingPart(train.offsets, train.items, data.corpus.catalogue.titles)


def choose(form: ClosedForm, train: TrainingPart, ndcg: Callable[[Teacher], float]) -> Choice:
    """Chooses settings: first the recommender's own, with the default weights by age, then the weights.

    Args:
      form: the recommender.
      train: what it is fitted on.
      ndcg: validates a fitted recommender.
    """
    fits = _combinations(form.grid)
    own, value, teacher = {}, -1.0, None
    for settings in fits:
        found = _fit(form, train, settings)
        if (its := ndcg(found)) > value:
            own, value, teacher = settings, its, found
        del found  # a matrix that the next fit needs the room of
    if not isinstance(teacher, ByRecency):
        return Choice(own, {}, value, len(fits))
    by_age = _combinations(RECENCY_GRID)
    values = [ndcg(cast(Teacher, teacher.weighted_by(**weights))) for weights in by_age]
    value = max(values)
    return Choice(own, by_age[values.index(value)], value, len(fits) + len(by_age))


def choose_settings(
    form: ClosedForm, data: Data, config: BaselinesConfig, train: TrainingPart | None = None
) -> Choice:
    """Chooses the settings of a recommender in closed form, by the NDCG@10 of validation users.

    Raises:
      UserError: it cannot be fitted to this corpus.
    """
    validation = Validation(data.split, config)

    def ndcg(teacher: Teacher) -> float:
        """Validates one choice."""
        system = ConventionalSystem(teacher, data.split, form.max_length)
        return validation.ndcg(lambda rows: system.scores("valid", rows), form.title)

    return choose(form, train or training_part(data), ndcg)


def fitted(name: str, train: TrainingPart, choice: Choice) -> Teacher:
    """Fits a recommender with chosen settings.

    Raises:
      UserError: it cannot be fitted to this corpus.
    """
    return fitted_form(closed_form(name), train, choice)


def fitted_form(form: ClosedForm, train: TrainingPart, choice: Choice) -> Teacher:
    """Fits a recommender that has no name in the registry, such as one of a language model's vectors.

    Raises:
      UserError: it cannot be fitted to this corpus.
    """
    teacher = _fit(form, train, choice.settings)
    if isinstance(teacher, ByRecency) and choice.by_recency:
        return cast(Teacher, teacher.weighted_by(**choice.by_recency))
    return teacher


def _fit(form: ClosedForm, train: TrainingPart, settings: Settings) -> Teacher:
    found = form.fit(train, **settings)
    if jax.tree_util.all_leaves([found]):
        raise UserError(
            f"the recommender {form.title!r}: its fit returns {found!r}, which is not a pytree; return a "
            "flax.struct.PyTreeNode, so that its scores can be compiled"
        )
    return found


def _combinations(grid: Mapping[str, tuple[float, ...]]) -> list[dict[str, float]]:
    """All combinations of values, the defaults first; one without settings for an empty grid."""
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def left_out(ws: Workspace) -> list[str]:
    """Returns why the stage `fit` left baselines out, a sentence for each: empty if it fitted all."""
    found = read_json(ws.folder("fit") / "settings.json")
    return [
        f"The baseline {closed_form(name).title} was left out: {one['left_out']}."
        for name, one in found.items()
        if "left_out" in one
    ]


def chosen(ws: Workspace) -> dict[str, Choice]:
    """Returns what the stage `fit` chose, by name, without the recommenders that it left out."""
    found = read_json(ws.folder("fit") / "settings.json")
    return {name: Choice(**one) for name, one in found.items() if "left_out" not in one}
