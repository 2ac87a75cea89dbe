"""`delrec distill`, stage 1: distills the teacher's pattern into a soft prompt of the frozen language model.

Its two tasks are in `temporal_analysis` and `pattern_simulating`, its loss in `distilling_task`, the ways to weight the tasks
in `task_weighting`, the prompt itself in `prompt_start` and `language.soft_prompt`.
"""

from collections.abc import Callable, Mapping
from functools import cache, cached_property, partial
from typing import Any

import numpy as np

from delrec_jax import prng
from delrec_jax.data.pipeline import make_buckets, training_iterator
from delrec_jax.data.prompts import NO_PATTERN
from delrec_jax.delrec import files, systems, title_slots
from delrec_jax.delrec.agreement import Exam, Reader, Reading, agreement_rows, make_exam, mean_said
from delrec_jax.delrec.distilling_task import distilling_task
from delrec_jax.delrec.guides import Guides, make_guides
from delrec_jax.delrec.prompt_examples import (
    PromptExamples,
    list_settings,
    make_examples,
    make_lists,
    source_rows,
)
from delrec_jax.delrec.prompt_start import RANDOM, Prompt, PromptStart
from delrec_jax.delrec.rows import user_parts
from delrec_jax.distributed import as_main_sees, on_main
from delrec_jax.teachers.list_files import ListsKey, inputs_hash, load_lists, save_lists
from delrec_jax.teachers.lists import TeacherLists
from delrec_jax.training.checkpoints import save_tree
from delrec_jax.training.selection_cost import warn_of_costly_selection
from delrec_jax.training.task import Task, run_task, shapes_of
from delrec_jax.training.writers import say
from delrec_jax.workdir.fold_teachers import TrainingSource, training_source
from delrec_jax.workdir.json_files import write_json
from delrec_jax.workdir.language_model import Language
from delrec_jax.workdir.prepared import Data
from delrec_jax.workdir.recommenders import PLAIN, distilled_cell
from delrec_jax.workdir.workspace import Workspace

REPORTED = ("random", "shuffled", "distilled")
"""The prompts whose agreement with the teacher is measured on held-out users, those that were made."""


def distill(ws: Workspace, data: Data, language: Language) -> None:
    """Trains the distilled prompt and its controls, and reports their agreement with the teacher on held-out users."""
    experiment = ws.experiment
    parts = user_parts(data.split.training_users, experiment.distill, experiment.seed)
    # The teacher, or those of groups of users, are loaded once, and only if a list or a guide is missing.
    source = cache(lambda: training_source(ws, data))
    guides = make_guides(ws, data, language, source)
    title_slots.make_vectors(ws, data)
    make = partial(make_examples, experiment, data, language, guides=guides)
    lists = {name: teacher_lists(ws, data, users, name, source) for name, users in parts.items()}
    valid = make(parts["valid"], "teacher", lists["valid"])
    warn_of_costly_selection(
        "each prompt",
        len(valid),
        batch_size=experiment.distill.batch_size,
        loop=experiment.distill.loop,
        remedy="distill.exam_users",
    )
    training = PromptTraining(ws, language, valid, make=make, guides=guides)
    texts = make(parts["train"], "teacher", lists["train"])
    for name in texts.unasked():
        say(f"  WARNING: {name} is left out: no user's history is long enough for its texts")
    training.fit("distilled", texts)
    if language.ranker.verbalizer.distilled:
        bare = make(parts["train"], "teacher", lists["train"], slots=NO_PATTERN)
        training.fit(files.READOUT, bare)
    for name in experiment.distill.controls:
        its_lists = None if name == "true" else lists["train"]
        training.fit(name, make(parts["train"], name, its_lists))
    save_tree(files.prompt_path(ws, "random"), {"prompt": training.start("random")}, {})
    rows = training.agreement(make(parts["heldout"], "teacher", lists["heldout"]))
    on_main(lambda: write_json(ws.folder("distill") / "agreement.json", rows))


def teacher_lists(
    ws: Workspace, data: Data, users: np.ndarray, name: str, source: Callable[[], TrainingSource]
) -> TeacherLists:
    """The teacher's lists for these users' rows; stored ones are used if they are of the same teacher, settings and rows."""
    experiment = ws.experiment
    rows = source_rows(experiment, data.split, users, "teacher")
    asked = inputs_hash(rows.users, rows.ends)
    made_by = "teach" if distilled_cell(experiment).system == PLAIN else "augment"
    key = ListsKey(ws.content(made_by), list_settings(experiment), asked)
    path = ws.folder("distill") / f"lists_{name}.npz"
    if not as_main_sees(path.exists):
        lists = make_lists(experiment, data.split, data.num_items, rows, source())
        on_main(lambda: save_lists(path, lists, key=key))
    return load_lists(path, key=key)


class PromptTraining:
    """Trains prompts with one compiled step; runs differ in their batches alone, which hold the labels."""

    def __init__(
        self,
        ws: Workspace,
        language: Language,
        valid: PromptExamples,
        *,
        make: Callable[..., PromptExamples],
        guides: Guides | None,
    ):
        """Compiles nothing yet.

        Args:
          ws: the workdir.
          language: the frozen language model.
          valid: examples of the validation users, of all tasks.
          make: (users, source, lists) -> examples.
          guides: the result of `make_guides`.
        """
        experiment = ws.experiment
        self._ws, self._language, self._make, self._guides = ws, language, make, guides
        self._valid = make_exam(valid, language.slots)
        self._known = np.isin(np.arange(len(language.ranker.title_tokens)), valid.material.known)
        self._valid_examples = valid
        self._valid_users = np.unique(valid.material.rows.users)
        self._valid_lists = valid.material.lists
        words = language.ids(experiment.distill.init_text).tolist()
        self._start = PromptStart(experiment, tuple(words))

    @cached_property
    def _frozen(self) -> dict[str, Any]:
        held = {"params": self._language.params, "vectors": self._language.vectors}
        return held | title_slots.held_vectors(self._ws, self._language)

    @cached_property
    def task(self) -> Task:
        """The training that all prompts share."""
        ranker, layout = self._language.ranker, self._language.layout
        frozen = shapes_of(self._frozen)
        experiment, known = self._ws.experiment, self._known
        return distilling_task(experiment, ranker, layout, frozen, self._start, known)

    @cached_property
    def _reader(self) -> Reader:
        assert self.task.scoring is not None
        return Reader(self._ws.experiment, self._language, self.task.scoring.step)

    def start(self, name: str) -> Prompt:
        """An untrained prompt; `random` and the start of the trained prompts come from different streams."""
        stream = RANDOM if name == "random" else "prompt/init"
        table = self._language.model.table(self._language.params)
        vectors = title_slots.held_vectors(self._ws, self._language).get(title_slots.VECTORS)
        return self._start.prompt(table, self._ws.experiment.seed, stream, vectors=vectors)

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
                lengths_stay=examples.lengths_stay,
                group=experiment.distill.group_by_length,
            ),
            evaluate=self._validator(examples),
            key=prng.key(experiment.seed, "prompt/dropout"),
            identity=self._ws.identity("distill") | {"labels": name},
            watch=self._ws.watch,
            saved=self._ws.saved,
        )
        say(f"  prompt {name}: selected step {result['best_step']} of {result['steps']}")

    def _validator(self, examples: PromptExamples) -> Callable[[Any], dict[str, float]]:
        """Makes a function from parameters to validation metrics; each source is selected by its own labels only."""
        own = self._own_exam(examples.source)
        bare = len(examples.material.slots) == 0
        asked = make_exam(self._valid_examples, NO_PATTERN) if bare else self._valid
        measure = self._ws.experiment.distill.select_by

        def evaluate(params: Any) -> dict[str, float]:
            """Agreement with the teacher on the validation users, and the value that selects."""
            reading = self._read(params, asked)
            measures = ("agreement", "kendall_tau", "likelihood")
            metrics = {f"valid/{name}": mean_said(getattr(reading, name)) for name in measures}
            selected = reading if own is None else self._read(params, own)
            return metrics | {"valid/selection": mean_said(getattr(selected, measure))}

        return evaluate

    def _own_exam(self, source: str) -> Exam | None:
        """The validation users' questions of this source; None for the teacher's, which are asked anyway."""
        if source == "teacher":
            return None
        lists = None if source == "true" else self._valid_lists
        return make_exam(self._make(self._valid_users, source, lists), self._language.slots)

    def _read(self, trained: Mapping[str, Any], exam: Exam) -> Reading:
        """Reads an exam with a prompt as training has it, and parts of a readout; missing parts have their initial values."""
        vectors = self._frozen.get(title_slots.VECTORS)
        prompt = title_slots.slots_of(trained["prompt"], vectors)
        return self._reader.read(prompt, trained.get("readout"), exam)

    def agreement(self, heldout: PromptExamples) -> list[dict[str, Any]]:
        """Agreement with the teacher on held-out users, for none, for the readout alone, and for each of `REPORTED`."""
        rows, made = [], systems.made_prompts(self._ws.experiment)
        bare = ["none", *([files.READOUT] if self._language.ranker.verbalizer.distilled else [])]
        for name in (*bare, *(prompt for prompt in REPORTED if prompt in made)):
            system = systems.prompted(self._ws, self._language, name, self._guides)
            exam = make_exam(heldout, system.pattern)
            reading = self._reader.read(system.prompt, system.readout, exam)
            seed = self._ws.experiment.seed
            found = agreement_rows(name, reading, heldout.material.rows.users, seed=seed)
            for row in found:
                said = f"{row['value']:.3f} [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"
                say(f"  held-out users, {name} prompt, {row['measure']}: {said}")
            rows += found
        return rows
