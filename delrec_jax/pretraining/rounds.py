"""The rounds of pre-training: a small model is trained on, with the whole schedule again, until it passes the gate.

When a tiny T5 makes its jumps depends on the last bits of its sums, and so on the processor and on the number of its cores. A
number of steps that is enough on one machine may be too few on another; what does not depend on it is the gate.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from delrec_jax import prng
from delrec_jax.batches import WHOLE
from delrec_jax.data.pipeline import batch_iterator
from delrec_jax.distributed import on_main
from delrec_jax.errors import UserError
from delrec_jax.pretraining.batches import QuestionText
from delrec_jax.pretraining.gate import Gate
from delrec_jax.training.checkpoints import save_tree
from delrec_jax.training.sharding import place
from delrec_jax.training.task import Task, run_task
from delrec_jax.training.writers import say
from delrec_jax.workdir import base_model
from delrec_jax.workdir.json_files import write_json
from delrec_jax.workdir.workspace import Workspace

MakeBatch = Callable[[int, np.random.Generator], QuestionText]


def train_until_passed(ws: Workspace, task: Task, gate: Gate, make_batch: MakeBatch) -> None:
    """Trains up to `pretrain.rounds` rounds, each resumable, and keeps the parameters of the first that passes the gate.

    Every round is a training run in a folder of its own, `round-1`, `round-2`, ..., with its curve and its marks (`gate.json`).

    Args:
      ws: the workdir.
      task: one round.
      gate: what the model must be able to answer.
      make_batch: (number of the batch, counted through all rounds; its generator) -> the batch.

    Raises:
      UserError: no round passed; the message has the marks of all of them.
    """
    experiment, folder = ws.experiment, ws.folder("pretrain")
    params = jax.device_get(task.start(None, experiment.seed))
    measured: list[dict[str, float]] = []
    for number in range(1, experiment.pretrain.rounds + 1):
        params, result = _train_round(ws, task, gate, make_batch, params=params, number=number)
        measured.append(gate.measure(place(params, task.layout.of(params))))
        _tell(round_folder(folder, number), measured, rounds=experiment.pretrain.rounds)
        if not gate.failed(measured[-1]):
            save_tree(folder / base_model.OWN, params, result | {"round": number})
            return
    raise UserError(_failure(gate, measured, experiment.pretrain.loop.steps))


def round_folder(folder: Path, number: int) -> Path:
    """Returns where a round, counted from 1, is trained within the folder of `pretrain`."""
    return folder / f"round-{number}"


def _train_round(
    ws: Workspace, task: Task, gate: Gate, make_batch: MakeBatch, *, params: Any, number: int
) -> tuple[Any, dict[str, Any]]:
    """Trains one round from given parameters; the first draws what a run of one round would draw."""
    seed, steps, later = ws.experiment.seed, task.config.loop.steps, number > 1
    texts_seed = int(prng.generator(seed, "lm/texts", number).integers(2**31)) if later else seed
    return run_task(
        task,
        params,
        name=f"lm/round-{number}" if later else "lm",
        directory=round_folder(ws.folder("pretrain"), number),
        frozen=None,
        batches=batch_iterator(
            lambda index, rng: make_batch((number - 1) * steps + index, rng), seed=texts_seed
        ),
        share=WHOLE,  # every process draws full batches
        evaluate=gate.measure,
        monitor="gate",
        key=prng.key(seed, "lm/dropout", *([number] if later else [])),
        select="last",
        identity=ws.identity("pretrain") | {"round of pre-training": number},
        watch=ws.watch,
        saved=ws.saved,
    )


def _tell(directory: Path, measured: Sequence[dict[str, float]], *, rounds: int) -> None:
    """Stores and prints the marks of the last round."""
    marks, number = measured[-1], len(measured)
    on_main(lambda: write_json(directory / "gate.json", marks))
    learned = ", ".join(f"{name} {value:.3f}" for name, value in marks.items())
    say(f"  learned{f' in round {number} of {rounds}' if rounds > 1 else ''}: {learned}")


def _failure(gate: Gate, measured: Sequence[dict[str, float]], steps: int) -> str:
    """What to say of a model that failed in every round."""
    exams = []
    for name, least in gate.failed(measured[-1]).items():
        marks = ", then ".join(f"{marks[name]:.3f}" for marks in measured)
        exams.append(f"{name} {marks}, required {least:.3f} (pretrain.gate.{name})")
    count = len(measured)
    return (
        f"the pre-trained LM failed the gate: {'; '.join(exams)} after {count} round{'s' if count > 1 else ''} of {steps} "
        f"steps. Small models learn in jumps: look at lm/round-{count}/metrics.jsonl, allow more rounds (pretrain.rounds) or "
        "longer ones (pretrain.loop.steps), try another seed, or change pretrain.optimizer.learning_rate"
    )
