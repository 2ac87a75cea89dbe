"""SASRec: training and full-ranking evaluation, compared with a plain PyTorch SASRec of the same size.

    .venv-parity/bin/python benchmarks/teacher.py [--data=FOLDER] [--quick]
    taskset -c 0 .venv-parity/bin/python benchmarks/teacher.py      one thread for both sides

The corpus is a folder of atomic files (`--data=../shared/data/ml-100k`) or, without one, a generated corpus of
MovieLens-100K's size. Training: d 64, 2 layers, 2 heads, 50 items, cross-entropy over all items at every position, Adam,
clipping, about 1,600 labels per step; in labels per second. Evaluation: the test item of every user over the whole catalogue
without the seen items, from stored interactions to ranks; in users per second. teacher_peer.py says what the peer does. That
both compute the same loss and the same ranks is checked first. Without torch our side runs alone.
"""

import argparse
import os
import statistics
import time
from pathlib import Path
from typing import Any

import harness
import jax
import numpy as np

from delrec_jax import prng
from delrec_jax.config import default_config, from_config
from delrec_jax.data.corpora.atomic import AtomicSettings, read_atomic
from delrec_jax.data.interactions import Interactions, from_rows
from delrec_jax.data.split_kinds import leave_one_out
from delrec_jax.data.splits import Split
from delrec_jax.evaluation.user_ranks import rank_users
from delrec_jax.teachers.network import NetworkTeacher, axes_of, init_params, sequence_loss
from delrec_jax.teachers.sasrec import SASRec, SASRecConfig
from delrec_jax.teachers.windows import training_rows
from delrec_jax.training.gradients import mean_loss_gradients
from delrec_jax.training.optimizers import make_optimizer
from delrec_jax.training.row_steps import RowSteps
from delrec_jax.training.sharding import make_layout
from delrec_jax.training.steps import TrainStep, create_state
from delrec_jax.workdir.protocols import RowHistories, full_rankers
from delrec_jax.workdir.teacher_training import teacher_batches, teacher_loss

try:
    import teacher_peer
    import torch
except ImportError:
    teacher_peer = torch = None

NAME = "teacher"
SHAPE = SASRecConfig(width=64, layers=2, heads=2, max_length=50, dropout=0.3)
ROWS = 32  # of 50 labels each: 1,600 labels per step


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", default="", help="folder NAME with NAME.inter and NAME.item")
    options.add_argument("--quick", action="store_true")
    values = options.parse_args()
    name, split, num_items = corpus(values.data)
    steps, rounds = (5, 2) if values.quick else (40, 5)
    module = SASRec(SHAPE, num_items)
    params = init_params(module, jax.random.key(0))
    ours = {"train": Training(module, split), "evaluate": Evaluation(module, params, split)}
    peers = peer_cases(params, split, num_items) if teacher_peer else {}
    check_same(ours, peers, params)
    measured = measure(ours, peers, steps=steps, rounds=rounds)
    settings = {"corpus": name, "users": len(split.users("test")), "items": num_items}
    settings |= {"steps": steps, "rounds": rounds, "labels_a_step": ROWS * SHAPE.max_length}
    usable = len(os.sched_getaffinity(0))
    name += f"_{usable}core" if usable < (os.cpu_count() or 1) else ""
    harness.save(f"{NAME}_{name}" + (".quick" if values.quick else ""), settings, measured)
    for case, unit in (("train", "labels/s"), ("evaluate", "users/s")):
        medians = {who: statistics.median(rates) for who, rates in measured[case].items()}
        line = harness.ratio_line(
            NAME,
            f"{name} {case}",
            ours=medians["ours"],
            peer=medians.get("peer"),
            unit=unit,
            digits=4,
        )
        print(line)


def corpus(folder: str) -> tuple[str, Split, int]:
    """The corpus' name, split and number of items."""
    if folder:
        read = read_atomic(AtomicSettings(folder))
        return Path(folder).name, leave_one_out(read.interactions), read.catalogue.num_items
    return "generated", leave_one_out(generated()), 1682


def generated() -> Interactions:
    """943 users with lengths and an item popularity like MovieLens-100K's."""
    random = prng.generator(0, "benchmark/teacher")
    lengths = np.clip(random.lognormal(4.2, 0.95, 943).astype(int), 20, 737)
    weights = 1.0 / (np.arange(1682) + 20)
    rows = [
        random.choice(1682, length, replace=False, p=weights / weights.sum()) for length in lengths
    ]
    times = [np.arange(length) for length in lengths]
    return from_rows([f"u{user}" for user in range(943)], rows, times)


class Training:
    """The train steps of `delrec teach`, as many per call as by default, on batches drawn as it draws them."""

    def __init__(self, module: SASRec, split: Split):
        """Makes what the stage makes before its loop."""
        config = default_config()
        config.teacher.batch_size = ROWS
        config.teacher.optimizer.update(name="adam", schedule="constant")
        settings = from_config(config).teacher
        rows = training_rows(split.train.offsets, split.train.items, length=SHAPE.max_length)
        optimizer = make_optimizer(settings.optimizer, 10_000)
        layout = make_layout(from_config(config).mesh, axes_of)
        step = TrainStep(mean_loss_gradients(teacher_loss(settings, module)), optimizer, layout)
        self._most = settings.steps_per_call
        self._steps = RowSteps(step, rows, most=self._most)
        self._state = create_state(init_params(module, jax.random.key(0)), optimizer)
        self._batches = teacher_batches(len(rows), settings, seed=0)
        self._key = jax.random.key(1)
        self._module, self._rows, self._loss = module, rows, settings.loss
        self._labels = (rows.labels >= 0).sum(1)  # [R]

    def mean_loss(self, params: Any) -> float:
        """The mean loss over all labels, without dropout."""

        @jax.jit
        def part(batch: Any) -> Any:
            """Mean loss and number of labels of some rows."""
            return sequence_loss(
                params,
                self._module,
                batch=batch,
                config=self._loss,
                key=self._key,
                deterministic=True,
            )

        total = count = 0.0
        for start in range(0, len(self._rows), ROWS):
            rows = jax.tree.map(lambda leaf, at=start: leaf[at : at + ROWS], self._rows)
            (mean,), (labels,) = part(rows)
            total, count = total + float(mean * labels), count + float(labels)
        return total / count

    def run(self, steps: int) -> int:
        """Trains for this many steps; the number of labels seen."""
        seen = 0
        for start in range(0, steps, self._most):
            drawn = [next(self._batches) for _ in range(min(self._most, steps - start))]
            self._state, metrics = self._steps(self._state, None, drawn, self._key)
            seen += sum(int(self._labels[batch.numbers].sum()) for batch in drawn)
        jax.block_until_ready(metrics)
        return seen


class Evaluation:
    """The ranking of `delrec baseline`, under `full` alone."""

    def __init__(self, module: SASRec, params: Any, split: Split):
        """Compiles nothing until the first run."""
        self._split = split
        self._scores = jax.jit(NetworkTeacher(params, module).scores)

    def run(self) -> np.ndarray:
        """The rank of each user's target."""
        read = RowHistories(self._split, "test", SHAPE.max_length)
        found = rank_users(
            lambda rows: self._scores(read(rows)),
            {"full": full_rankers(self._split, "test")["full"]},
            num_users=len(read),
            batch_size=min(256, len(read)),
            order=read.by_length,
        )
        return found["full"].rank


def peer_cases(params: Any, split: Split, num_items: int) -> dict[str, Any]:
    """The peer's trainer, on windows cut in the same way, and its evaluator, with our weights."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))  # as XLA does
    trained = split.train
    windows = []
    for user in range(trained.num_users):
        row = trained.history(user)
        for end in range(len(row), 1, -SHAPE.max_length):
            window = row[max(0, end - SHAPE.max_length - 1) : end]
            windows.append((window[:-1], window[1:]))
    evaluated = teacher_peer.SASRec(SHAPE, num_items)
    teacher_peer.same_weights(evaluated, params)
    labels = ROWS * SHAPE.max_length
    return {
        "train": teacher_peer.Trainer(teacher_peer.SASRec(SHAPE, num_items), windows, labels),
        "evaluate": teacher_peer.Evaluator(
            evaluated, split.histories("test"), split.target("test")
        ),
    }


def check_same(ours: Any, peers: Any, params: Any) -> None:
    """Refuses to time two different functions: the losses over all labels must agree, and nearly all ranks.

    The parameters are random, so scores are close together: a rank may differ by one where two of them agree to rounding.
    """
    found = ours["evaluate"].run()
    if not peers:
        return
    differing = np.mean(np.abs(found - peers["evaluate"].run()) > 1)
    losses = ours["train"].mean_loss(params), peers["train"].mean_loss(peers["evaluate"].model)
    if differing > 0.01 or abs(losses[0] - losses[1]) > 1e-4:
        raise SystemExit(
            f"{NAME}: ours and the peer are not the same function: losses {losses}, {differing:.1%} of the ranks differ"
        )


def measure(ours: Any, peers: Any, *, steps: int, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Rates by case and side, one value per round; both sides run in each round, and the first round is not kept."""
    sides = {"ours": ours, **({"peer": peers} if peers else {})}
    rates: dict[str, dict[str, list[float]]] = {
        case: {side: [] for side in sides} for case in ("train", "evaluate")
    }
    for turn in range(-1, rounds):
        for side in list(sides)[:: 1 if turn % 2 else -1]:
            for case in rates:
                started = time.perf_counter()
                count = (
                    sides[side][case].run(steps)
                    if case == "train"
                    else len(sides[side][case].run())
                )
                if turn >= 0:
                    rates[case][side].append(count / (time.perf_counter() - started))
    return rates


if __name__ == "__main__":
    main()
