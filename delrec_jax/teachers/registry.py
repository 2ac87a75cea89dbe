"""Recommenders by name: networks that are trained, and recommenders that are computed from the training part directly.

`teacher.name` may also be `FILE.py:NAME` of a recommender of the second kind (`ClosedForm`).
"""

from collections.abc import Mapping
from typing import Any, Protocol

from delrec_jax.plugins import find
from delrec_jax.teachers.caser import Caser
from delrec_jax.teachers.ease import EASE_WEIGHTS
from delrec_jax.teachers.gru4rec import GRU4Rec
from delrec_jax.teachers.item_knn import ITEM_KNN
from delrec_jax.teachers.markov import MARKOV
from delrec_jax.teachers.popularity import POPULARITY
from delrec_jax.teachers.protocol import Teacher
from delrec_jax.teachers.sasrec import SASRec
from delrec_jax.teachers.title_similarity import TITLE_SIMILARITY
from delrec_jax.teachers.training_part import TrainingPart


class ClosedForm(Protocol):
    """A recommender without training steps.

    Attributes:
      title: its name in prompts and tables.
      max_length: number of items of a history that it reads.
      grid: for each of its settings the values to choose from by validation, the default first; empty = it has none.
    """

    title: str
    max_length: int
    grid: Mapping[str, tuple[float, ...]]

    def fit(self, train: TrainingPart, *args: Any, **settings: Any) -> Teacher:
        """Computes the recommender from the training part.

        Args:
          train: interactions and titles.
          args: not used; it tells the type checker that each recommender has keywords of its own.
          settings: one value, a float, for each key of `grid`.

        Returns:
          A pytree, such as a `flax.struct.PyTreeNode`: `scores` is compiled with this pytree as an argument. If it is a
          `item_to_item.ByRecency`, the weights by age are chosen by validation too.
        """


NETWORKS: Mapping[str, type[Any]] = {"sasrec": SASRec, "gru4rec": GRU4Rec, "caser": Caser}
"""Recommenders that are trained."""

CLOSED_FORMS: Mapping[str, ClosedForm] = {
    "popularity": POPULARITY,
    "itemknn": ITEM_KNN,
    "markov": MARKOV,
    "ease": EASE_WEIGHTS,
    "tfidf": TITLE_SIMILARITY,
}
"""Recommenders of the package that are not trained but computed: the baselines of every table."""

_TITLES = {"sasrec": "SASRec", "gru4rec": "GRU4Rec", "caser": "Caser"}


def closed_form(name: str) -> ClosedForm:
    """The recommender of this name that is not a network.

    Raises:
      UserError: there is none.
    """
    needs = ("title", "max_length", "grid", "fit")
    return find(name, CLOSED_FORMS, key="teacher.name", needs=needs)


def display_name(name: str) -> str:
    """The name of a recommender in prompts and tables."""
    return _TITLES.get(name, name) if name in NETWORKS else closed_form(name).title
