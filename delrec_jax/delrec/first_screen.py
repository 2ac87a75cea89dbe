"""What a reader of DELRec's report looks at first: the headline and its tests, users one by one, and two worked examples."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import polars as pl

from delrec_jax.analysis.headline import TRUE_ITEMS, TUNED_CONTROLS, Headline
from delrec_jax.analysis.report import WorkedExample
from delrec_jax.analysis.tables import oracle_value
from delrec_jax.analysis.user_table import UserTable, user_table
from delrec_jax.delrec import systems
from delrec_jax.delrec.guides import make_guides
from delrec_jax.distributed import on_host
from delrec_jax.evaluation.shown_users import choose_users
from delrec_jax.evaluation.significance import compare_family
from delrec_jax.evaluation.standings import best_baseline, standings
from delrec_jax.evaluation.top_lists import read_lists
from delrec_jax.teachers.registry import display_name
from delrec_jax.workdir import recommenders
from delrec_jax.workdir.language_model import Language
from delrec_jax.workdir.language_scorer import LanguageScorer
from delrec_jax.workdir.prepared import Data
from delrec_jax.workdir.workspace import Workspace

_METRIC = "NDCG@10"


def headline(
    ws: Workspace, table: pl.DataFrame, rows: Sequence[Mapping[str, Any]], *, protocol: str
) -> Headline:
    """Where all systems stand, and DELRec's tests against the best simple baseline, its teacher and its controls.

    Args:
      ws: the workdir.
      table: its rank records.
      rows: those of `metrics.json`, for the oracle.
      protocol: that of the main table.
    """
    config = ws.experiment
    found = standings(table, _METRIC, protocol=protocol, seed=config.seed)
    baseline, there = best_baseline(found), {one.system for one in found}
    references = (baseline, "teacher_augmented", "teacher", *TUNED_CONTROLS, TRUE_ITEMS)
    pairs = [("delrec", name) for name in references if name in there]
    tests = compare_family(table, pairs, _METRIC, protocol=protocol, seed=config.seed)
    return Headline(
        metric=_METRIC,
        protocol=protocol,
        standings=[asdict(one) for one in found],
        tests=[asdict(one) for one in tests],
        method="delrec",
        baseline=baseline or "",
        oracle=oracle_value(rows, protocol, _METRIC),
        recommenders={config.teacher.name: display_name(config.teacher.name)},
    )


def shown_users(
    ws: Workspace, data: Data, table: pl.DataFrame, *, protocol: str
) -> UserTable | None:
    """Sampled users, grouped by whether DELRec and its teacher, one of them or neither found the target.

    Args:
      ws: the workdir.
      data: its corpus.
      table: its rank records.
      protocol: that of the main table.

    Returns:
      None if the evaluation recorded no lists.
    """
    recorded = read_lists(ws.folder("evaluate"))
    if recorded is None:
        return None
    pair = ("delrec", recommenders.distilled_cell(ws.experiment).system)
    own = table.filter(protocol=protocol)
    chosen = choose_users(own, *pair, protocol=protocol, seed=ws.experiment.seed)
    return user_table(
        own,
        recorded[0],
        pair,
        titles=data.corpus.catalogue.titles,
        histories=chosen.histories(partial(data.split.history, "test")),
        groups=chosen.users,
        counts=chosen.counts,
        rule=chosen.rule,
    )


def examples(ws: Workspace, data: Data, language: Language) -> list[WorkedExample]:
    """Two users: the first with a cold target and the first without (the first two if no target is cold)."""
    if not language.ranker.verbalizer.shows_examples:
        return []
    cold = data.split.cold_items(data.num_items)[data.split.target("test")]
    chosen = [*np.flatnonzero(cold)[:1], *np.flatnonzero(~cold)]
    scorer = LanguageScorer(language)
    system = systems.tuned(ws, language, "distilled", make_guides(ws, data, language))
    teacher = recommenders.taught_system(ws, data)
    titles = data.corpus.catalogue.titles
    shown = []
    for row in chosen[:2]:
        user = int(data.split.users("test")[row])
        history, target = data.split.history("test", user), int(data.split.target("test")[row])
        candidates = data.candidates["test"].items[row]
        ids = scorer.texts(system, [history], [candidates])
        own = on_host(scorer.candidates(system, ids, candidates[None]))[0]
        given = on_host(teacher.scores("test", np.array([row])))[0][candidates]
        ranks = {"teacher": _ranks(given), "delrec": _ranks(own)}
        shown.append(
            WorkedExample(
                user=str(user),
                history=tuple(titles[item] for item in history[-10:]),
                target=titles[target],
                candidates=tuple(titles[item] for item in candidates),
                ranks=ranks,
                cold=bool(cold[row]),
            )
        )
    return shown


def _ranks(scores: np.ndarray) -> list[float]:
    return [float((scores > s).sum() + 1 + ((scores == s).sum() - 1) / 2) for s in scores]
