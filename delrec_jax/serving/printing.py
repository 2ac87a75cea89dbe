"""`delrec recommend`: takes a history of titles and prints ranked lists of titles."""

import re

from rich.table import Table
from rich.text import Text

from delrec_jax.errors import UserError
from delrec_jax.printable import printable, terminal
from delrec_jax.serving.recommender import Recommender
from delrec_jax.teachers.registry import LISTS, display_name
from delrec_jax.training.writers import say
from delrec_jax.workdir.recommenders import AUGMENTED, PLAIN

_BETWEEN = re.compile(r"(?<!\\);")  # `\;` is a semicolon of a title
_SHOWN = ("delrec", AUGMENTED, PLAIN)


def recommend(recommender: Recommender, history: str, count: int) -> None:
    r"""Prints the best unseen items for a history of titles, by the method's systems and by the plain teacher.

    Args:
      recommender: whom to ask.
      history: titles, separated by `;`, oldest first; `\;` is a semicolon within a title.
      count: length of the lists.

    Raises:
      UserError: the run is not finished, a title is unknown (the nearest ones are named), or the list is too long: longer
        than the unseen items, or, where DELRec ranks stated candidates only, longer than `candidates.rerank`.
    """
    if recommender.main == PLAIN:
        raise UserError(
            f"recommend needs a finished run in {recommender.parts.place}: run `delrec run` with this --workdir first"
        )
    titles = split_history(history)
    if not titles:
        raise UserError('--history is empty: give titles, such as --history="Toy Story; Heat"')
    items = recommender.items(titles, place="--history")
    if recommender.parts.experiment.teacher.name == LISTS:
        say("The teacher has no column: teacher.name=lists knows only the histories of its file.")
    columns = [name for name in _SHOWN if name in recommender.systems]
    table = Table("rank", *(_label(recommender, name) for name in columns))
    lists = [recommender.ranked([items], k=count, system=name)[0][0] for name in columns]
    for rank, best in enumerate(zip(*lists, strict=True)):
        # Text, not str: rich would read the brackets of a title as markup.
        table.add_row(str(rank + 1), *(Text(printable(recommender.titles[item])) for item in best))
    terminal().print(table)


def split_history(history: str) -> list[str]:
    """The titles of `--history`, with the spaces around them."""
    return [title.replace(r"\;", ";") for title in _BETWEEN.split(history) if title.strip()]


def _label(recommender: Recommender, name: str) -> str:
    teacher = display_name(recommender.parts.experiment.teacher.name)
    if name != "delrec":
        return f"{teacher} + P2Rec" if name == AUGMENTED else teacher
    if recommender.listed is None:
        return "DELRec"
    return f"DELRec (among the teacher's best {recommender.listed})"
