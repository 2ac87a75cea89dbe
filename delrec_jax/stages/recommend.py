"""`delrec recommend`: takes a history of titles and prints ranked lists of titles."""

import difflib
from dataclasses import replace

import numpy as np
from rich.console import Console
from rich.table import Table

from delrec_jax.delrec import systems
from delrec_jax.delrec.guides import make_guides
from delrec_jax.distributed import on_host
from delrec_jax.errors import UserError
from delrec_jax.p2rec.cells import cells
from delrec_jax.padding import PAD_ITEM
from delrec_jax.stages.inputs import Inputs
from delrec_jax.teachers.protocol import Teacher
from delrec_jax.teachers.registry import LISTS, display_name
from delrec_jax.training.writers import say
from delrec_jax.workdir.language_scorer import LanguageScorer
from delrec_jax.workdir.prepared import Data
from delrec_jax.workdir.protocols import drawn_order
from delrec_jax.workdir.recommenders import (
    AUGMENTED,
    first_cell,
    load_cell,
    load_teacher,
)
from delrec_jax.workdir.spread_scores import compiled_scores
from delrec_jax.workdir.workspace import Workspace

_NEAREST = 3


def recommend(ws: Workspace, inputs: Inputs, history: str, count: int) -> None:
    """Prints the best unseen items for a history of titles, by the method's systems and by the plain teacher.

    Args:
      ws: a finished run.
      inputs: its corpus and language model.
      history: titles, separated by `;`, oldest first.
      count: length of the lists.

    Raises:
      UserError: the run is not finished, a title is unknown (the nearest ones are named), or the list is too long: longer
        than the unseen items, or, where DELRec ranks stated candidates only, longer than `candidates.rerank`.
    """
    last = "augment" if ws.experiment.method == "p2rec" else "tune"
    if not ws.finished(last):
        raise UserError(
            f"recommend needs a finished run in {ws.root}: run `delrec run` with this --workdir first"
        )
    data = inputs.data
    items = find_titles(history, data.corpus.catalogue.titles)
    if not 1 <= count <= data.num_items - len(set(items)):
        raise UserError(
            f"-k {count}: use 1 to {data.num_items - len(set(items))}, the number of items not in the history"
        )
    columns = _language_scores(ws, inputs, items, count) | _teacher_scores(ws, data, items)
    table = Table("rank", *columns)
    lists = [_best(scores, items, count) for scores in columns.values()]
    for rank, best in enumerate(zip(*lists, strict=True)):
        table.add_row(str(rank + 1), *(data.corpus.catalogue.titles[item] for item in best))
    Console().print(table)


def _language_scores(
    ws: Workspace, inputs: Inputs, items: list[int], count: int
) -> dict[str, np.ndarray]:
    """Returns DELRec's scores, if it is part of the method: of all items, or, with -inf elsewhere, of the teacher's best.

    Texts that list candidates, and verbalizers that decode them one by one, are given those of `rerank-m`.
    """
    if ws.experiment.method == "p2rec":
        return {}
    language = inputs.language
    guides = make_guides(ws, inputs.data, language)
    system, scorer = systems.tuned(ws, language, "distilled", guides), LanguageScorer(language)
    asked = [np.array(items)]
    if scorer.ranks_catalogue:
        texts = scorer.texts(system, asked)
        return {"DELRec": on_host(scorer.catalogue(system, texts))[0]}
    most = min(ws.experiment.candidates.rerank, inputs.data.num_items - len(set(items)))
    if count > most:
        raise UserError(
            f"-k {count}: lm.verbalizer={ws.experiment.lm.verbalizer} with prompts.show_candidates="
            f"{ws.experiment.prompts.show_candidates} ranks stated candidates only, here the teacher's best "
            f"candidates.rerank = {most}: use -k {most} or less, or a run with a higher candidates.rerank"
        )
    best = _best(_scores(ws, load_teacher(ws, inputs.data), items), items, most)
    listed = drawn_order(best[None], ["recommend"], seed=ws.experiment.candidates.seed)
    texts = scorer.texts(system, asked, listed)
    scores = np.full(inputs.data.num_items, -np.inf, np.float32)
    scores[listed[0]] = np.asarray(scorer.candidates(system, texts, listed))[0]
    return {f"DELRec (among the teacher's best {most})": scores}


def _teacher_scores(ws: Workspace, data: Data, items: list[int]) -> dict[str, np.ndarray]:
    """Returns the teacher's scores, augmented (if the method augments it) and plain; none if it exists only as lists."""
    if ws.experiment.teacher.name == LISTS:
        say("The teacher has no column: teacher.name=lists knows only the histories of its file.")
        return {}
    first, name = first_cell(ws.experiment), display_name(ws.experiment.teacher.name)
    found = {name: first}
    twin = replace(first, system=AUGMENTED)
    if ws.experiment.method != "delrec" and twin in cells(ws.experiment):
        found = {f"{name} + P2Rec": twin, name: first}
    return {label: _scores(ws, load_cell(ws, data, cell), items) for label, cell in found.items()}


def _scores(ws: Workspace, teacher: Teacher, items: list[int]) -> np.ndarray:
    """Returns a recommender's scores [I] after these items."""
    row = np.full((1, ws.experiment.teacher.max_length), PAD_ITEM, np.int32)
    recent = items[-row.shape[1] :]
    row[0, -len(recent) :] = recent
    scores: np.ndarray = np.asarray(compiled_scores(teacher, row))[0]
    return scores


def find_titles(history: str, titles: tuple[str, ...]) -> list[int]:
    """Returns the items of the given titles; case and surrounding spaces do not matter.

    Raises:
      UserError: there is no title, or an unknown one.
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
                else "no title is similar; look at the .item file"
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
