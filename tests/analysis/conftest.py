"""A made-up run: ranks drawn at random, so that every table and figure has something to show."""

from dataclasses import asdict

import numpy as np
import polars as pl
import pytest

from delrec_jax.analysis.headline import Headline
from delrec_jax.analysis.report import Curve, ReportData, WorkedExample
from delrec_jax.analysis.tables import metrics_rows
from delrec_jax.analysis.user_table import UserTable, user_table
from delrec_jax.evaluation.metrics import expected_metrics
from delrec_jax.evaluation.records import RecordKey, expected_table, record_table
from delrec_jax.evaluation.shown_users import choose_users
from delrec_jax.evaluation.significance import compare_family, standard_pairs
from delrec_jax.evaluation.standings import best_baseline, standings
from delrec_jax.evaluation.systems import SYSTEMS

USERS = 120
DELREC_SYSTEMS = tuple(
    name for name in SYSTEMS if not name.startswith("teacher_augmented") and name != "lm_supervised"
)
HIT_SHARE = dict.fromkeys(DELREC_SYSTEMS, 0.2) | {
    "popularity": 0.04,
    "teacher": 0.3,
    "lm_no_prompt": 0.05,
    "lm_random_prompt": 0.06,
    "lm_shuffled_prompt": 0.03,
    "lm_distilled_prompt": 0.4,
    "lm_true_prompt": 0.43,
    "lm_tuned_random_prompt": 0.28,
    "lm_tuned_true_prompt": 0.42,
    "delrec": 0.45,
    "lm_words": 0.35,
    "oracle": 0.5,
}
STEPS = {"lm_distilled_prompt": 300, "lm_tuned_true_prompt": 0, "delrec": 120}


def _records(system: str, *, protocol: str) -> pl.DataFrame:
    generator = np.random.default_rng([len(system), len(protocol), 3])
    hit = generator.random(USERS) < HIT_SHARE[system]
    ranks = np.where(hit, 1.0, generator.integers(2, 40, USERS))
    if protocol == "rerank-20":
        ranks = np.where(ranks > 20, np.inf, ranks)
    key = RecordKey(
        corpus="storefront",
        split="leave_one_out",
        protocol=protocol,
        system=system,
        teacher="" if system == "popularity" else "sasrec",
        step=STEPS.get(system, -1),
        candidate_hash="" if protocol == "full" else "0123abcd",
    )
    return record_table(
        key,
        users=np.arange(USERS),
        targets=np.arange(USERS) % 40,
        ranks=ranks,
        ties=np.zeros(USERS, int),
        candidates=240 if protocol == "full" else 20,
        cold=np.arange(USERS) % 10 < 3,
        head=np.arange(USERS) % 10 > 6,
    )


@pytest.fixture(scope="session")
def records() -> pl.DataFrame:
    protocols = ("full", "sampled-20", "rerank-20")
    return pl.concat(
        _records(system, protocol=protocol)
        for system in DELREC_SYSTEMS
        if system != "oracle"
        for protocol in protocols
    )


@pytest.fixture(scope="session")
def expected() -> pl.DataFrame:
    probabilities = np.random.default_rng(0).dirichlet(np.full(40, 0.08), USERS)
    return expected_table(
        "full",
        users=np.arange(USERS),
        values=expected_metrics(probabilities),
        cold=np.arange(USERS) % 10 < 3,
    )


@pytest.fixture(scope="session")
def rows(records: pl.DataFrame, expected: pl.DataFrame) -> list[dict]:
    return metrics_rows(records, expected)


TESTED = (
    *("teacher", "lm_tuned_no_prompt", "lm_tuned_random_prompt", "lm_tuned_shuffled_prompt"),
    "lm_tuned_true_prompt",
)


@pytest.fixture(scope="session")
def headline(records: pl.DataFrame, rows: list[dict]) -> Headline:
    found = standings(records, "NDCG@10", protocol="full")
    baseline = best_baseline(found)
    pairs = [("delrec", name) for name in (baseline, *TESTED)]
    (oracle,) = [
        row["value"]
        for row in rows
        if (row["system"], row["protocol"], row["metric"]) == ("oracle", "full", "NDCG@10")
    ]
    return Headline(
        metric="NDCG@10",
        protocol="full",
        standings=[asdict(one) for one in found],
        tests=[asdict(one) for one in compare_family(records, pairs, "NDCG@10")],
        method="delrec",
        baseline=baseline,
        oracle=oracle,
        recommenders={"sasrec": "SASRec"},
    )


TITLES = tuple(f"Title <{number}>" for number in range(40))


@pytest.fixture(scope="session")
def users(records: pl.DataFrame) -> UserTable:
    """Lists that begin with the target where a made-up rank is 1, of all systems but one."""
    own = records.filter(pl.col("system") != "lm_words", protocol="full")
    begun = pl.when(pl.col("rank") == 1).then("target").otherwise((pl.col("target") + 1) % 40)
    items = pl.concat_list(begun, (pl.col("target") + 2) % 40, pl.lit(-1, pl.Int32))
    lists = own.select("system", "teacher", "seed", "user", items.alias("items"))
    chosen = choose_users(own, "delrec", "teacher", protocol="full", most=3)
    histories = {user: range(user % 13 + 1) for own in chosen.users.values() for user in own}
    return user_table(
        records.filter(protocol="full"),
        lists,
        ("delrec", "teacher"),
        titles=TITLES,
        histories=histories,
        groups=chosen.users,
        counts=chosen.counts,
        rule=chosen.rule,
    )


P2REC_SHARE = {
    "popularity": 0.05,
    "teacher": 0.2,
    "teacher_augmented": 0.5,
    "teacher_augmented_untuned_lm": 0.22,
    "teacher_augmented_shuffled_text": 0.18,
    "teacher_augmented_random_vectors": 0.19,
}


def _augmented(system: str, *, teacher: str, seed: int) -> pl.DataFrame:
    own = [0] if system == "popularity" else [len(teacher), seed]
    generator = np.random.default_rng([len(system), *own])
    users = np.arange(USERS)
    hit = generator.random(USERS) < P2REC_SHARE[system]
    return record_table(
        RecordKey("toys", "leave_one_out", "full", system, teacher=teacher, seed=seed),
        users=users,
        targets=users % 40,
        ranks=np.where(hit, 1.0, generator.integers(2, 40, USERS)),
        ties=np.zeros(USERS, int),
        candidates=40,
        cold=users % 10 < 1,
        head=users % 10 > 6,
    )


@pytest.fixture(scope="session")
def p2rec_records() -> pl.DataFrame:
    """Three teachers, three seeds, and popularity with each of them as a run writes it."""
    return pl.concat(
        _augmented(system, teacher=teacher, seed=seed)
        for system in P2REC_SHARE
        for teacher in ("sasrec", "gru4rec", "caser")
        for seed in (0, 1, 2)
    )


@pytest.fixture(scope="session")
def p2rec_rows(p2rec_records: pl.DataFrame) -> list[dict]:
    return metrics_rows(p2rec_records, by_popularity=True)


@pytest.fixture(scope="session")
def agreement() -> list[dict]:
    shares = {
        "no prompt": (0.12, 0.05),
        "random prompt": (0.10, 0.02),
        "shuffled teacher": (0.15, -0.08),
        "distilled": (0.61, 0.47),
    }
    return [
        {
            "prompt": prompt,
            "measure": measure,
            "value": value,
            "ci_low": value - 0.05,
            "ci_high": value + 0.05,
            "users": 200,
        }
        for prompt, values in shares.items()
        for measure, value in zip(("top-1 agreement", "Kendall tau"), values, strict=True)
    ]


@pytest.fixture(scope="session")
def log() -> list[dict]:
    rows = []
    for run, end in (("prompt/distilled", 0.6), ("prompt/shuffled", 0.15), ("prompt/true", 0.5)):
        for step in range(0, 801, 50):
            rise = end * (1 - np.exp(-step / 200))
            rows.append({"run": run, "step": step, "loss": 3.0 - 2 * rise})
            rows.append({"run": run, "step": step, "valid/agreement": rise})
    return rows


@pytest.fixture(scope="session")
def report_data(records, rows, agreement, log, headline, users) -> ReportData:
    systems = [system for system in DELREC_SYSTEMS if system != "oracle"]
    family = compare_family(records, standard_pairs(systems), "HR@1", resamples=999)
    titles = tuple(f"Silver Harbor Mystery Book {number}" for number in ("One", "Two", "Three"))
    example = WorkedExample(
        user="u17",
        history=titles[:2],
        target=titles[2],
        candidates=(*titles[2:], "Quiet Orchard: A Romance, Part Four", "A <b>bold</b> & title"),
        ranks={"teacher": (2.5, 1, 2.5), "delrec": (1, 2, 3)},
        cold=True,
    )
    absent = WorkedExample(
        user="u18",
        history=titles,
        target="Never Listed",
        candidates=titles,
        ranks={"teacher": (3, 2, 1), "delrec": (1, 2, 3)},
    )
    return ReportData(
        title="DELRec on the embedded storefront",
        summary={
            "Corpus": "storefront: 600 users, 240 items, 5,731 interactions",
            "Split": "leave-one-out, 600 test users, 30 % cold targets",
            "Language model": "mini T5, width 96, 2 + 1 layers, 0.7 M parameters",
            "Teacher": "SASRec, width 64, 2 blocks",
            "Soft prompt": "20 slots",
            "Seed": "0",
        },
        metrics=rows,
        command="delrec run --config=configs/storefront.py --workdir=runs/storefront",
        config={"data": {"corpus": "storefront", "seed": 0}, "distill": {"learning_rate": 0.1}},
        comparisons=[asdict(one) for one in family],
        agreement=agreement,
        log=log,
        curves=(
            Curve("loss", "Stage 1: training loss"),
            Curve("valid/agreement", "Stage 1: agreement, validation users"),
        ),
        headline=headline,
        users=users,
        adapter_ranks=[
            {"layer": f"encoder {layer}", "projection": projection, "rank": rank}
            for layer, projection, rank in ((0, "q", 2), (0, "v", 8), (1, "q", 5), (1, "v", 0))
        ],
        examples=(example, absent),
        notes=(
            "The storefront is a generated corpus: no result on it is a result on real data.",
            "The demonstration is built so that a prompt can express the pattern.",
        ),
    )
