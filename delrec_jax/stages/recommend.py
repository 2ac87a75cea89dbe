"""`delrec recommend`: titles typed in, a ranked list of titles out."""

import difflib

import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from delrec_jax.data.splits import PADDING
from delrec_jax.errors import UserError
from delrec_jax.stages import assets, systems
from delrec_jax.stages.workspace import Workspace
from delrec_jax.teachers.registry import DISPLAY_NAMES

_NEAREST = 3


def recommend(ws: Workspace, history: str, count: int) -> None:
    """Prints DELRec's and the teacher's best unseen items for a history of titles.

    Args:
      ws: a finished run.
      history: titles, separated by `;`, oldest first.
      count: length of the lists.

    Raises:
      UserError: the run is not finished, a title is unknown (the nearest are named), or the list too long.
    """
    if not ws.finished("tune"):
        raise UserError(
            f"recommend needs a finished run in {ws.root}: `delrec run` with this --workdir first"
        )
    data = assets.load_data(ws)
    items = find_titles(history, data.corpus.catalogue.titles)
    if not 1 <= count <= data.num_items - len(set(items)):
        raise UserError(
            f"-k {count}: between 1 and the {data.num_items - len(set(items))} items not in the history"
        )
    language = assets.load_language(ws, data)
    system = systems.language_systems(ws, data, language)["delrec", "all"]
    scorer = systems.LanguageScorer(ws, language)
    row = np.full((1, ws.experiment.teacher.max_length), PADDING, np.int32)
    recent = items[-row.shape[1] :]
    row[0, -len(recent) :] = recent
    columns = {
        "DELRec": np.asarray(scorer.catalogue(system, scorer.texts(system, [np.array(items)]))),
        DISPLAY_NAMES[ws.experiment.teacher.name]: np.asarray(
            assets.load_teacher(ws, data)(jnp.asarray(row))
        ),
    }
    table = Table("rank", *columns)
    lists = [_best(scores[0], items, count) for scores in columns.values()]
    for rank, best in enumerate(zip(*lists, strict=True)):
        table.add_row(str(rank + 1), *(data.corpus.catalogue.titles[item] for item in best))
    Console().print(table)


def find_titles(history: str, titles: tuple[str, ...]) -> list[int]:
    """Items of the titles typed in; case and outer spaces do not matter.

    Raises:
      UserError: no title, or an unknown one.
    """
    place = {title.casefold(): item for item, title in enumerate(titles)}
    items = []
    for typed in (part.strip() for part in history.split(";")):
        if not typed:
            continue
        if typed.casefold() not in place:
            near = difflib.get_close_matches(typed.casefold(), place, n=_NEAREST, cutoff=0.3)
            names = "; ".join(titles[place[key]] for key in near)
            hint = (
                f"the nearest are: {names}"
                if near
                else "no title comes near; look at the .item file"
            )
            raise UserError(f"--history: no item is called {typed!r}; {hint}")
        items.append(place[typed.casefold()])
    if not items:
        raise UserError('--history is empty: give titles, such as --history="Toy Story; Heat"')
    return items


def _best(scores: np.ndarray, seen: list[int], count: int) -> np.ndarray:
    scores = scores.copy()
    scores[seen] = -np.inf
    return np.argsort(-scores, kind="stable")[:count]
