"""What `cost.json` says: its form in a finished run, and which batches count for the time per user."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from delrec_jax.results.beyond import COSTS, read_costs
from delrec_jax.workdir.json_files import read_json
from delrec_jax.workdir.ranking_times import RankingClock, RankingTimes, Stopwatch


def test_batches_that_compile_are_told_apart():
    now, took = [0.0], iter((5.0, 2.0, 7.0, 3.0))
    found = RankingTimes()
    clock = RankingClock(found, lambda: now[0])

    def score(users):
        now[0] += next(took)
        if now[0] == 14:  # the third batch
            jax.jit(lambda x: x - 41.5)(jnp.zeros(3))
        return np.zeros((len(users), 2))

    score = clock.scoring(score)
    rank = clock.ranking(lambda scores, users: (scores[:, 0], scores[:, 1]))
    with clock.running():
        for users in ([0, 1], [2, 3], [4, 5], [6, 6]):
            rank(score(np.array(users)), np.array(users))
    assert (found.first_seconds, found.seconds) == (12, 5)
    assert (found.users, found.timed_users, found.passes) == (7, 3, 1)


def test_a_stopwatch_tells_what_compiles():
    now = [0.0]

    def work(x, seconds):
        now[0] += seconds
        return jax.jit(lambda y: y * 17.25)(x) if seconds > 1 else x

    with Stopwatch(lambda: now[0]).running() as stopwatch:
        found = [stopwatch(work, jnp.ones(5), seconds) for seconds in (1, 2, 1)]
    assert [one.seconds for one in found] == [1, 2, 1]
    assert [one.compiled for one in found] == [False, True, False]
    assert found[1].made.tolist() == [17.25] * 5


def test_a_run_tells_the_costs_of_every_system(tiny_run):
    cost = read_json(tiny_run / "records" / "cost.json")
    systems = {one["system"]: one for one in cost["systems"]}
    assert all(one["first_seconds"] > 0 and one["users"] > 0 for one in systems.values())
    assert systems["delrec"]["trained"] == ["prompt/distilled", "adapter/distilled"]
    assert systems["teacher"]["trained"] == ["teacher/model"]
    hybrid = systems["hybrid(delrec+teacher)"]["trained"]
    assert hybrid == [*systems["delrec"]["trained"], *systems["teacher"]["trained"]]
    untrained = ("popularity", "lm_no_prompt", "lm_random_prompt", "lm_words", "oracle")
    assert not any(systems[name]["trained"] for name in untrained)
    assert cost["memory"]["process_gib"] > 0
    runs = {run["folder"]: run for run in cost["training"]}
    assert (
        runs["prompt/distilled"]["parameters"] == 3 * 16 and runs["prompt/distilled"]["steps"] == 6
    )
    assert all(run["timed_seconds"] > 0 and run["seconds"] > 0 for run in runs.values())


def test_costs_are_read_as_they_are_written(tiny_run):
    found = read_costs(tiny_run / "records")
    delrec = found["delrec", "sasrec", 0]
    assert set(delrec) == set(COSTS)
    assert delrec["seconds_per_example"] > 0 and delrec["train_seconds"] > 0
    together = found["hybrid(delrec+teacher)", "sasrec", 0]
    assert together["trained_parameters"] == sum(
        found[name, "sasrec", 0]["trained_parameters"] for name in ("delrec", "teacher")
    )
    assert found["popularity", "sasrec", 0]["seconds_per_example"] is None
    assert found["popularity", "sasrec", 0]["trained_parameters"] == pytest.approx(0)
