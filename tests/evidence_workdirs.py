"""The scripts of benchmarks/evidence as modules, and workdirs with made-up ranks for them."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import polars as pl

from delrec_jax.evaluation.metrics import METRICS
from delrec_jax.evaluation.records import (
    RecordKey,
    expected_table,
    record_table,
    write_expected,
    write_records,
)
from delrec_jax.results.summary import collect

ROOT = Path(__file__).parents[1]
COMMAND = "delrec baseline --config=configs/teachers/small.py --workdir=RUNS/one"

sys.path.insert(0, str(ROOT / "benchmarks" / "evidence"))
augmentations, encoders, experiments, run, tables = (
    importlib.import_module(name)
    for name in ("augmentations", "encoders", "experiments", "run", "tables")
)
sys.path.pop(0)

USERS = 12
# NDCG@10 of rank 1 is 1, of rank 3 one half, of rank 99 nothing.
SOME = [1] * 3 + [3] * 3 + [99] * 6  # mean 0.375
HALF = [1] * 6 + [99] * 6  # mean 0.5
THIRD = [3] * 12  # mean 0.5, without a spread


def table(system, ranks, *, protocol="full", head=10, cold=0, **key):
    """Rank records; the first `head` users have head targets, the last `cold` ones cold targets."""
    users = np.arange(len(ranks))
    key = {"corpus": "toy", "split": "leave_one_out", "teacher": "sasrec"} | key
    return record_table(
        RecordKey(protocol=protocol, system=system, **key),
        users=users,
        targets=users + 5,
        ranks=np.asarray(ranks, float),
        ties=np.zeros(len(ranks), int),
        candidates=99,
        cold=users >= len(ranks) - cold,
        head=users < head,
    )


def workdir(root, name, ranks, *, folder="baseline", kind="atomic", expected=None, **key):
    """A workdir with the records of some systems, given as system -> ranks, or (system, protocol) -> ranks."""
    path = root / name / folder
    found = []
    for named, values in ranks.items():
        system, protocol = named if isinstance(named, tuple) else (named, "full")
        found.append(table(system, values, protocol=protocol, **key))
    write_records(path / "records.parquet", pl.concat(found))
    (path / "stage.json").write_text(json.dumps({"finished": True}))
    (root / name / "config.json").write_text(json.dumps({"data": {"corpus": kind}}))
    if expected is not None:
        values = {metric: np.full(USERS, expected) for metric in METRICS}
        one = expected_table("full", users=np.arange(USERS), values=values, cold=np.zeros(USERS))
        write_expected(path / "expected.parquet", one)
    return str(root / name)


def make_two_seeds(root):
    """Workdirs of two seeds: the teacher's mean NDCG@10 is 0.375 and 0.5, popularity's 0.5 in both."""
    return [
        workdir(root / "runs", f"s{seed}", {"teacher": ranks, "popularity": THIRD}, seed=seed)
        for seed, ranks in enumerate((SOME, HALF))
    ]


def collected(root, workdirs, *, compare=(), commands=(COMMAND,), **options):
    """The summary that is collected of workdirs, in `results/toy`."""
    path = collect(
        root / "results" / "toy", workdirs, compare=compare, commands=commands, **options
    )
    return json.loads(path.read_text())
