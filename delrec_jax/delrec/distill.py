"""`delrec distill`, stage 1: distills the teacher's pattern into a soft prompt of the frozen language model."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from delrec_jax import prng
from delrec_jax.config import Experiment
from delrec_jax.data.pipeline import make_buckets, training_iterator
from delrec_jax.data.prompts import NO_PATTERN
from delrec_jax.delrec import files
from delrec_jax.delrec.agreement import Exam, Reader, Reading, agreement_rows, make_exam
from delrec_jax.delrec.material import PromptExample
from delrec_jax.delrec.prompt_examples import (
    PromptExamples,
    list_settings,
    make_examples,
    make_lists,
    source_rows,
)
from delrec_jax.delrec.prompt_tasks import prompt_tasks
from delrec_jax.delrec.rows import user_parts
from delrec_jax.delrec.task_weighting import TaskWeighting, init_weighting, weighted_gradients
from delrec_jax.distributed import as_main_sees, on_main
from delrec_jax.language.ranker import Ranker
from delrec_jax.language.ranking_losses import candidate_cross_entropy
from delrec_jax.language.soft_prompt import init_prompt
from delrec_jax.teachers.listed import ListSource
from delrec_jax.teachers.lists import ListsKey, TeacherLists, inputs_hash, load_lists, save_lists
from delrec_jax.training.checkpoints import save_tree
from delrec_jax.training.gradients import GradientFn, Metrics, accumulated
from delrec_jax.training.optimizers import make_optimizer
from delrec_jax.training.sharding import Layout
from delrec_jax.training.task import Scoring, Task, run_task, shapes_of
from delrec_jax.training.writers import say
from delrec_jax.workdir.language_model import Language
from delrec_jax.workdir.language_scorer import candidate_scores, text_shapes
from delrec_jax.workdir.prepared import Data
from delrec_jax.workdir.recommenders import list_source
from delrec_jax.workdir.workspace import Workspace, write_json

REPORTED = ("none", "random", "shuffled", "distilled")
"""The prompts whose agreement with the teacher is measured on held-out users."""


def distill(ws: Workspace, data: Data, language: Language) -> None:
    """Trains the distilled prompt and its controls, and reports their agreement with the teacher on held-out users."""
    experiment = ws.experiment
    parts = user_parts(data.split.training_users, experiment.distill, experiment.seed)
    make = partial(make_examples, experiment, data, language)
    # The teacher is loaded once, and only if a list is missing.
    source = cache(lambda: list_source(ws, data))
    lists = {name: _teacher_lists(ws, data, users, name, source) for name, users in parts.items()}
    valid = make(parts["valid"], "teacher", lists["valid"])
    training = PromptTraining(ws, language, valid, make=make)
    training.fit("distilled", make(parts["train"], "teacher", lists["train"]))
    training.fit("shuffled", make(parts["train"], "shuffled", lists["train"]))
    training.fit("true", make(parts["train"], "true"))
    save_tree(files.prompt_path(ws, "random"), {"prompt": training.start("random")}, {})
    rows = training.agreement(make(parts["heldout"], "teacher", lists["heldout"]))
    on_main(lambda: write_json(ws.folder("distill") / "agreement.json", rows))


def _teacher_lists(
    ws: Workspace, data: Data, users: np.ndarray, name: str, source: Callable[[], ListSource]
) -> TeacherLists:
    """The teacher's lists for these users' rows, stored under the teacher's fingerprint."""
    experiment = ws.experiment
    rows = source_rows(experiment, data.split, users, "teacher")
    asked = inputs_hash(rows.users, rows.ends)
    key = ListsKey(ws.content("teach"), list_settings(experiment), asked)
    path = ws.folder("distill") / f"lists_{name}.npz"
    if not as_main_sees(path.exists):
        lists = make_lists(experiment, data.split, data.num_items, rows, source())
        on_main(lambda: save_lists(path, lists, key=key))
    return load_lists(path, key=key)


@dataclass(frozen=True)
class PromptStart:
    """What an untrained prompt is made from, apart from the token table: the tokens of `distill.init_text`."""

    experiment: Experiment
    words: tuple[int, ...] = ()

    def prompt(self, table: jax.Array, seed: int, stream: str = "prompt/init") -> jax.Array:
        """An untrained prompt [K, D] that resembles rows of the token table [V, D]."""
        config = self.experiment.distill
        key = prng.key(seed, stream)
        return init_prompt(config.init, table, config.length, key, text_ids=list(self.words))


def distilling_task(
    experiment: Experiment, ranker: Ranker, layout: Layout, frozen: Any, start: PromptStart
) -> Task:
    """Stage 1's training: TA, RPS and the config's other tasks share one prompt and one pass.

    Args:
      experiment: the config.
      ranker: scores texts.
      layout: how the language model is placed on the devices.
      frozen: shapes of `params` and `vectors`.
      start: makes the untrained prompt.
    """
    config = experiment.distill
    names = tuple(task.name for task in prompt_tasks(experiment))
    weighting = TaskWeighting.of(config, names)

    def begin(frozen: Any, seed: int) -> dict[str, Any]:
        """The untrained prompt and the parameters of the weighting."""
        table = ranker.model.table(frozen["params"])
        return {"prompt": start.prompt(table, seed), **init_weighting(weighting)}

    def batch(rows: int) -> PromptExample:
        """Shapes of a batch of this many rows."""
        listed = (rows, config.num_candidates)
        return PromptExample(
            ids=text_shapes(experiment.prompts.max_tokens, rows),
            candidates=jax.ShapeDtypeStruct(listed, np.int32),
            targets=jax.ShapeDtypeStruct(listed, np.float32),
            task=jax.ShapeDtypeStruct((rows,), np.int32),
        )

    prompt = jax.eval_shape(lambda frozen: begin(frozen, 0), frozen)["prompt"]
    asked = batch(layout.rows(experiment.evaluate.batch_size))
    return Task(
        stage="distill",
        config=config,
        layout=layout,
        gradients=prompt_gradients(ranker, weighting, config.optimizer.accumulate),
        optimizer=make_optimizer(config.optimizer, config.loop.steps),
        start=begin,
        frozen=frozen,
        batch=batch(config.batch_size),
        scoring=Scoring(candidate_scores(ranker), {**frozen, "prompt": prompt}, asked, layout),
    )


def prompt_gradients(ranker: Ranker, weighting: TaskWeighting, accumulate: int = 1) -> GradientFn:
    """Stage 1's gradient with respect to the prompt only; the language model is an argument and never changes."""
    numbers = np.arange(len(weighting.names))[:, None]

    def task_sums(
        params: Any, frozen: Any, batch: PromptExample, key: jax.Array
    ) -> tuple[jax.Array, jax.Array, Metrics]:
        """The summed loss [N] and the number of texts [N] of each task."""
        options = {"vectors": frozen["vectors"], "prompt": params["prompt"]}
        scores = ranker.candidate_scores(frozen["params"], batch.ids, batch.candidates, **options)
        losses = candidate_cross_entropy(scores, batch.targets)  # [B]
        members = (batch.task[None] == numbers).astype(jnp.float32)  # [N, B]
        return members @ losses, members.sum(1), {}

    sums_fn = accumulated(task_sums, accumulate)

    def gradients(
        params: Any, frozen: Any, batch: PromptExample, key: jax.Array
    ) -> tuple[Any, Metrics]:
        """Gradients in the tree of `params`, and metrics."""

        def task_losses(params: Any) -> tuple[jax.Array, jax.Array]:
            """The mean loss [N] and the number of texts [N] of each task."""
            sums, texts, _ = sums_fn(params, frozen, batch, key)
            return sums / jnp.maximum(texts, 1), texts

        return weighted_gradients(task_losses, params, weighting)

    return gradients


class PromptTraining:
    """Trains prompts with one compiled step; runs differ in their batches alone, which hold the labels."""

    def __init__(
        self,
        ws: Workspace,
        language: Language,
        valid: PromptExamples,
        *,
        make: Callable[..., PromptExamples],
    ):
        """Compiles nothing yet.

        Args:
          ws: the workdir.
          language: the frozen language model.
          valid: RPS examples of the validation users.
          make: (users, source, lists) -> examples.
        """
        experiment = ws.experiment
        self._ws, self._language, self._make = ws, language, make
        self._valid = make_exam(valid, language.slots)
        self._valid_users = np.unique(valid.material.rows.users)
        self._valid_lists = valid.material.lists
        words = language.ids(experiment.distill.init_text).tolist()
        self._start = PromptStart(experiment, tuple(words))

    @cached_property
    def _frozen(self) -> dict[str, Any]:
        return {"params": self._language.params, "vectors": self._language.vectors}

    @cached_property
    def task(self) -> Task:
        """The training that all prompts share."""
        ranker, layout = self._language.ranker, self._language.layout
        frozen = shapes_of(self._frozen)
        return distilling_task(self._ws.experiment, ranker, layout, frozen, self._start)

    @cached_property
    def _reader(self) -> Reader:
        config = self._ws.experiment
        assert self.task.scoring is not None
        scores = self.task.scoring.step
        return Reader(scores, config.evaluate.batch_size, config.prompts.max_tokens)

    def start(self, name: str) -> jax.Array:
        """An untrained prompt; `random` and the start of the trained prompts come from different streams."""
        stream = "prompt/random" if name == "random" else "prompt/init"
        table = self._language.model.table(self._language.params)
        return self._start.prompt(table, self._ws.experiment.seed, stream)

    def fit(self, name: str, examples: PromptExamples) -> None:
        """Trains or resumes one prompt unless it is finished; selects on the validation users."""
        experiment, task = self._ws.experiment, self.task
        _, result = run_task(
            task,
            task.start(self._frozen, experiment.seed),
            name=f"prompt/{name}",
            directory=self._ws.folder("distill") / name,
            frozen=self._frozen,
            batches=training_iterator(
                examples.example,
                len(examples),
                batch_size=task.rows,
                buckets=make_buckets(experiment.prompts.max_tokens),
                seed=experiment.seed,
                share=task.share,
            ),
            evaluate=self._validator(examples.source),
            key=prng.key(experiment.seed, "prompt/dropout"),
            identity=self._ws.identity("distill") | {"labels": name},
            watch=experiment.watch,
        )
        say(f"  prompt {name}: selected step {result['best_step']} of {result['steps']}")

    def _validator(self, source: str) -> Callable[[Any], dict[str, float]]:
        """Makes a function from parameters to validation metrics; each source is selected by its own labels only."""
        own = self._own_exam(source)
        measure = self._ws.experiment.distill.select_by

        def evaluate(params: Any) -> dict[str, float]:
            """Agreement with the teacher on the validation users, and the value that selects."""
            reading = self._read(params["prompt"], self._valid)
            metrics = {
                "valid/agreement": float(reading.agreement.mean()),
                "valid/kendall_tau": float(reading.kendall_tau.mean()),
                "valid/likelihood": float(reading.likelihood.mean()),
            }
            selected = reading if own is None else self._read(params["prompt"], own)
            return metrics | {"valid/selection": float(getattr(selected, measure).mean())}

        return evaluate

    def _own_exam(self, source: str) -> Exam | None:
        """The validation users' questions of this source; None for the teacher's, which are asked anyway."""
        if source == "teacher":
            return None
        lists = None if source == "true" else self._valid_lists
        return make_exam(self._make(self._valid_users, source, lists), self._language.slots)

    def _read(self, prompt: jax.Array | None, exam: Exam) -> Reading:
        return self._reader.read({**self._frozen, "prompt": prompt}, exam)

    def agreement(self, heldout: PromptExamples) -> list[dict[str, Any]]:
        """Agreement with the teacher on held-out users, one value per user, for each prompt in `REPORTED`."""
        rows = []
        for name in REPORTED:
            bare = name == "none"
            prompt = None if bare else files.place_prompt(self._ws, self._language, name)
            pattern = NO_PATTERN if bare else self._language.slots
            reading = self._read(prompt, make_exam(heldout, pattern))
            seed = self._ws.experiment.seed
            found = agreement_rows(name, reading, heldout.material.rows.users, seed=seed)
            for row in found:
                said = f"{row['value']:.3f} [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"
                say(f"  held-out users, {name} prompt, {row['measure']}: {said}")
            rows += found
        return rows
