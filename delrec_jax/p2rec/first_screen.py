"""What a reader of P2Rec's report looks at first: the headline with its tests, and users one by one."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import polars as pl

from delrec_jax.analysis.headline import Headline
from delrec_jax.analysis.tables import oracle_value
from delrec_jax.analysis.user_table import UserTable, user_table
from delrec_jax.evaluation.shown_users import choose_users
from delrec_jax.evaluation.standings import best_baseline, compare_with_baseline, standings
from delrec_jax.evaluation.systems import BASELINES
from delrec_jax.evaluation.top_lists import read_lists
from delrec_jax.teachers.registry import display_name
from delrec_jax.workdir.prepared import Data
from delrec_jax.workdir.recommenders import AUGMENTED, PLAIN
from delrec_jax.workdir.workspace import Workspace

_METRIC, _PROTOCOL = "NDCG@10", "full"


def headline(
    ws: Workspace,
    table: pl.DataFrame,
    rows: Sequence[Mapping[str, Any]],
    compared: Sequence[Mapping[str, Any]],
) -> Headline:
    """Where all systems stand, and the tests of every augmented recommender.

    Args:
      ws: the workdir.
      table: its rank records.
      rows: those of `metrics.json`, for the oracle.
      compared: the report's own family of tests (`compare_augmentations`), to which those against the best simple baseline are
        added as a family of their own.
    """
    config = ws.experiment
    found = standings(table, _METRIC, protocol=_PROTOCOL, seed=config.seed)
    baseline = best_baseline(found)
    tests = [row for row in compared if (row["protocol"], row["metric"]) == (_PROTOCOL, _METRIC)]
    if baseline:
        names = (AUGMENTED, baseline, _METRIC)
        against = compare_with_baseline(table, *names, protocol=_PROTOCOL, seed=config.seed)
        tests += [asdict(one) for one in against]
    return Headline(
        metric=_METRIC,
        protocol=_PROTOCOL,
        standings=[asdict(one) for one in found],
        tests=tests,
        method=AUGMENTED,
        baseline=baseline or "",
        oracle=oracle_value(rows, _PROTOCOL, _METRIC),
        recommenders={name: display_name(name) for name in config.augment.teachers},
        digits=4,
    )


def shown_users(ws: Workspace, data: Data, table: pl.DataFrame) -> UserTable | None:
    """Sampled users, grouped by whether a recommender with P2Rec and without it, one of them or neither found the target.

    They are those of one recommender (that of the categories if it is augmented, else the first) and the first seed.

    Args:
      ws: the workdir.
      data: its corpus.
      table: its rank records.

    Returns:
      None if the evaluation recorded no lists.
    """
    recorded, config = read_lists(ws.folder("evaluate")), ws.experiment
    if recorded is None:
        return None
    teachers = config.augment.teachers
    name = config.teacher.name if config.teacher.name in teachers else teachers[0]
    one_run = (pl.col("seed") == config.seed) & (
        (pl.col("teacher") == name) | pl.col("system").is_in(BASELINES)
    )
    own = table.filter(one_run, protocol=_PROTOCOL)
    pair = (AUGMENTED, PLAIN)
    chosen = choose_users(own, *pair, protocol=_PROTOCOL, seed=config.seed)
    return user_table(
        own,
        recorded[0].filter(one_run),
        pair,
        titles=data.corpus.catalogue.titles,
        histories=chosen.histories(partial(data.split.history, "test")),
        groups=chosen.users,
        counts=chosen.counts,
        rule=f"{chosen.rule} Recommender: {display_name(name)}, seed {config.seed}.",
    )
