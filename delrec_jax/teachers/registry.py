"""Recommenders by name: networks that are trained, and recommenders that are computed from the training part directly.

`teacher.name` may also be `FILE.py:NAME` of a recommender of the second kind (`ClosedForm`).
"""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from jaxtyping import Int

from delrec_jax.plugins import find
from delrec_jax.teachers.caser import Caser
from delrec_jax.teachers.gru4rec import GRU4Rec
from delrec_jax.teachers.popularity import Popularity
from delrec_jax.teachers.protocol import Teacher
from delrec_jax.teachers.sasrec import SASRec


class ClosedForm(Protocol):
    """A recommender without training steps.

    Attributes:
      title: its name in prompts and tables.
      max_length: number of items of a history that it reads.
    """

    title: str
    max_length: int

    def fit(
        self, offsets: Int[np.ndarray, " U+1"], items: Int[np.ndarray, " N"], *, num_items: int
    ) -> Teacher:
        """Computes the recommender from the training part.

        Args:
          offsets: user u owns items[offsets[u]:offsets[u + 1]], in time order.
          items: the items of the training part, all users one after the other.
          num_items: I, the size of the catalogue.

        Returns:
          A pytree, such as a `flax.struct.PyTreeNode`: `scores` is compiled with this pytree as an argument.
        """


NETWORKS: Mapping[str, type[Any]] = {"sasrec": SASRec, "gru4rec": GRU4Rec, "caser": Caser}
"""Recommenders that are trained."""

CLOSED_FORMS: Mapping[str, ClosedForm] = {"popularity": Popularity()}
"""Recommenders of the package that are not trained but computed."""

_TITLES = {"sasrec": "SASRec", "gru4rec": "GRU4Rec", "caser": "Caser"}


def closed_form(name: str) -> ClosedForm:
    """The recommender of this name that is not a network.

    Raises:
      UserError: there is none.
    """
    needs = ("title", "max_length", "fit")
    return find(name, CLOSED_FORMS, key="teacher.name", needs=needs)


def display_name(name: str) -> str:
    """The name of a recommender in prompts and tables."""
    return _TITLES.get(name, name) if name in NETWORKS else closed_form(name).title
