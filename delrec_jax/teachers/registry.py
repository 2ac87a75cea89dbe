"""Recommenders by name: networks that are trained, and recommenders that are computed from the training part directly.

`teacher.name` may also be `FILE.py:NAME` of a recommender of the second kind (`ClosedForm`), or `A+B+...` of a hybrid, whose
scores are the weighted sum of the standardized scores of its parts; or `lists`, of a recommender that exists only as lists
that another system made (`teachers.listed`).
"""

from collections.abc import Mapping
from typing import Any, Protocol

from delrec_jax.errors import UserError
from delrec_jax.plugins import find, is_own
from delrec_jax.teachers.caser import Caser
from delrec_jax.teachers.cease import TITLE_CEASE
from delrec_jax.teachers.ease import EASE_WEIGHTED
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
    "ease": EASE_WEIGHTED,
    "tfidf": TITLE_SIMILARITY,
    "cease": TITLE_CEASE,
}
"""Recommenders of the package that are not trained but computed: the baselines of every table."""

LISTS = "lists"
"""The recommender of which only lists are known."""


def closed_form(name: str) -> ClosedForm:
    """The recommender of this name that is not a network.

    Raises:
      UserError: there is none.
    """
    needs = ("title", "max_length", "grid", "fit")
    found = find(name, CLOSED_FORMS, key="teacher.name", needs=needs)
    if found.max_length < 1:
        raise UserError(
            f"teacher.name is {name!r}, whose max_length is {found.max_length}: it must read at least 1 item of a history"
        )
    return found


def parts_of(name: str) -> tuple[str, ...]:
    """The recommenders that `A+B+...` adds up; of any other name, the name alone."""
    return (name,) if is_own(name) else tuple(name.split("+"))


def network_of(name: str) -> str:
    """The network that this recommender is or has as a part; "" if it has none."""
    return next((part for part in parts_of(name) if part in NETWORKS), "")


def check_name(name: str) -> None:
    """Checks that there is such a recommender.

    Raises:
      UserError: an unknown name, or parts that cannot be added up.
    """
    parts, known = parts_of(name), (*NETWORKS, *CLOSED_FORMS)
    if len(parts) == 1:
        if name not in (*known, LISTS) and not is_own(name):
            raise UserError(
                f"teacher.name is {name!r}: use one of {', '.join(known)}, or FILE.py:NAME of your own, or the sum of several "
                "as in ease+markov+sasrec, or lists with teacher.lists=PATH"
            )
        if name not in (*NETWORKS, LISTS):
            closed_form(name)
        return
    unknown = [part for part in parts if part not in known]
    networks = [part for part in parts if part in NETWORKS]
    if unknown or len(set(parts)) < len(parts) or len(networks) > 1:
        raise UserError(
            f"teacher.name is {name!r}: a hybrid adds up different recommenders as A+B, without spaces, at most one of "
            f"{', '.join(NETWORKS)} (the stage `teach` trains one network) and any of {', '.join(CLOSED_FORMS)}"
        )


def max_length(name: str, network_length: int) -> int:
    """The number of a history's latest items that a recommender reads; a hybrid reads as many as any of its parts.

    Args:
      name: a name that `check_name` accepts.
      network_length: that of the network, if it is one or has one.
    """
    return max(
        network_length if part in NETWORKS else closed_form(part).max_length
        for part in parts_of(name)
    )


def display_name(name: str) -> str:
    """The name of a recommender in prompts and tables, such as `SASRec`, or `EASE + Markov` of a hybrid."""
    return " + ".join(map(_title, parts_of(name)))


def _title(part: str) -> str:
    if part == LISTS:
        return "recommender"
    found = NETWORKS.get(part) or closed_form(part)
    title: str = found.title
    return title
