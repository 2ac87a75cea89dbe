"""`delrec tune`, stage 2: tunes the language model with AdaLoRA to rank the next item; the prompt stays frozen.

Its task (LSR in the paper), loss and optimizer are in `tuning_task`, AdaLoRA in `language.adalora` and
`language.rank_allocation`.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from delrec_jax import prng
from delrec_jax.data.pipeline import make_buckets, training_iterator
from delrec_jax.data.splits import drawn_users
from delrec_jax.delrec import files, systems, title_slots
from delrec_jax.delrec.anchor import ScoresBefore, worth_keeping
from delrec_jax.delrec.guides import make_guides
from delrec_jax.delrec.next_item_examples import (
    NextItemExamples,
    next_item_examples,
)
from delrec_jax.delrec.residual_tuning import beside_of
from delrec_jax.delrec.tuning_task import tuning_task
from delrec_jax.distributed import as_main_sees, on_host
from delrec_jax.evaluation.metrics import metrics_of_ranks
from delrec_jax.evaluation.ranking import gather_candidates, rank_full, seen_items
from delrec_jax.evaluation.user_ranks import RankFn, candidate_ranker, rank_users
from delrec_jax.language.adalora import rank_pattern
from delrec_jax.language.logical_axes import READOUT_BEFORE
from delrec_jax.language.rank_allocation import allocation_state, ranks_in_use
from delrec_jax.training.refreshing import Refresh
from delrec_jax.training.selection_cost import warn_of_costly_selection
from delrec_jax.training.sharding import place
from delrec_jax.training.steps import TrainState
from delrec_jax.training.task import Task, run_task, shapes_of
from delrec_jax.training.writers import say
from delrec_jax.workdir.fold_teachers import FoldTeachers, TrainingSource, training_source
from delrec_jax.workdir.language_model import Language
from delrec_jax.workdir.language_scorer import LanguageScorer, LanguageSystem, RowTexts
from delrec_jax.workdir.prepared import Data
from delrec_jax.workdir.protocols import RowHistories
from delrec_jax.workdir.recommenders import load_teacher
from delrec_jax.workdir.workspace import Workspace


def tune(ws: Workspace, data: Data, language: Language) -> None:
    """Tunes with the distilled prompt and with those of `tune.controls`, under the same budget."""
    training, config = Tuning(ws, data, language), ws.experiment.tune
    warn_of_costly_selection(
        "each adapter",
        len(training.asked_rows),
        batch_size=config.batch_size,
        loop=config.loop,
        remedy="tune.valid_users",
    )
    for name in systems.tuned_with(ws.experiment):
        training.fit(name)


class Tuning:
    """Trains several sets of adapters with one compiled step; only their prompts differ."""

    def __init__(self, ws: Workspace, data: Data, language: Language):
        """Compiles nothing yet."""
        self._ws, self._data, self._language = ws, data, language
        self._scorer, self._known = LanguageScorer(language), data.split.known_items(data.num_items)
        self._guides = make_guides(ws, data, language, lambda: self._source)

    @cached_property
    def _held(self) -> dict[str, Any]:
        held = {"params": self._language.params, "vectors": self._language.vectors}
        return held | title_slots.held_vectors(self._ws, self._language)

    @cached_property
    def task(self) -> Task:
        """The training that all sets of adapters share."""
        return tuning_task(
            self._ws.experiment,
            self._language.ranker,
            self._language.layout,
            shapes_of(self._held),
            known=self._known,
            teacher=shapes_of(self._training_teacher),
        )

    @cached_property
    def _teacher(self) -> Any:
        """The recommender that the language model is tuned beside, on the host; None if there is none."""
        if not self._ws.experiment.tune.beside:
            return None
        return jax.tree.map(np.asarray, load_teacher(self._ws, self._data))

    @cached_property
    def _source(self) -> TrainingSource:
        """What guides and residual tuning ask about positions of the training part."""
        return training_source(self._ws, self._data)

    @cached_property
    def _folds(self) -> FoldTeachers | None:
        """The recommenders that are tuned beside, if there is one for each group of users."""
        beside = self._ws.experiment.tune.beside
        return self._source if beside and isinstance(self._source, FoldTeachers) else None

    @cached_property
    def _training_teacher(self) -> Any:
        """What training rows are scored by: the same recommender, or those of all groups of users."""
        if self._folds is None:
            return self._teacher
        return jax.tree.map(np.asarray, self._folds.teachers)

    def fit(self, name: str) -> None:
        """Trains or resumes the adapters of one prompt (`none`: of none); finished ones are left as they are."""
        experiment, task = self._ws.experiment, self.task
        system = systems.prompted(self._ws, self._language, name, self._guides)
        examples = next_item_examples(
            experiment,
            self._data,
            self._language,
            pattern=system.pattern,
            guides=self._guides,
            fold_of=None if self._folds is None else self._folds.fold_of,
        )
        frozen = {**self._held, "prompt": system.prompt}
        started = self._start(frozen, name)
        if "readout" in started:  # a copy: what trains is given away to the step
            begun = {READOUT_BEFORE: jax.tree.map(np.array, started["readout"])}
            frozen |= self._language.put(begun)
        examples = self._with_scores_before(examples, frozen, name)
        if self._training_teacher is not None:
            home = task.layout.of({"teacher": self._training_teacher})["teacher"]
            frozen["teacher"] = place(self._training_teacher, home)
        _, result = run_task(
            task,
            started,
            name=f"adapter/{name}",
            directory=self._ws.folder("tune") / name,
            frozen=frozen,
            batches=training_iterator(
                examples.example,
                len(examples),
                batch_size=task.rows,
                buckets=self._buckets,
                seed=experiment.seed,
                share=task.share,
                steps=experiment.tune.loop.steps if experiment.tune.curriculum else 0,
                lengths_stay=examples.lengths_stay,
                group=experiment.tune.group_by_length,
            ),
            evaluate=self._validator(system),
            key=prng.key(experiment.seed, "adapters/dropout"),
            identity=self._ws.identity("tune") | {"adapters": name},
            watch=self._ws.watch,
            saved=self._ws.saved,
            summary=_ranks,
            refresh=self._refresh(),
        )
        self._tell(name, examples, result)

    @property
    def _buckets(self) -> tuple[int, ...]:
        return make_buckets(self._ws.experiment.prompts.max_tokens)

    @cached_property
    def _scores_before(self) -> ScoresBefore:
        language = self._language
        return ScoresBefore(
            language.ranker, language.layout, batch_size=self.task.rows, buckets=self._buckets
        )

    def _with_scores_before(
        self, examples: NextItemExamples, frozen: Any, name: str
    ) -> NextItemExamples:
        """The examples with the scores that `tune.anchor` holds on to, if these are to be stored."""
        config, items = self._ws.experiment.tune, self._data.num_items
        kept = worth_keeping(config, rows=len(examples), items=items)
        if not kept or as_main_sees(files.adapter_path(self._ws, name).exists):
            return examples  # a finished training computes nothing
        return replace(examples, before=self._scores_before(examples, frozen))

    def _refresh(self) -> Refresh | None:
        """The vectors of titles that the adapters make, from time to time, if the config asks for it."""
        every, language = self._ws.experiment.tune.refresh_vectors, self._language
        if not every:
            return None
        return Refresh(
            every, lambda params: {"vectors": language.tuned_vectors(params["adapters"])}
        )

    def _start(self, frozen: Any, name: str) -> dict[str, Any]:
        """New adapters, and as stage 1 left them the readout and, if it trains too, the prompt (`systems.begins_with`)."""
        params: dict[str, Any] = self.task.start(frozen, self._ws.experiment.seed)
        verbalizer = self._language.ranker.verbalizer
        if verbalizer.distilled and (trained := systems.begins_with(name, verbalizer)):
            params["readout"] |= files.load_distilled(self._ws, trained)["readout"]
        # Without one, what texts do not read stays as it is.
        if "prompt" in params and name != "none":
            params["prompt"] = files.load_distilled(self._ws, name)["prompt"]
        return params

    def _tell(self, name: str, examples: NextItemExamples, result: dict[str, Any]) -> None:
        ranks = " ".join(map(str, result["ranks"].values()))
        say(
            f"  adapter {name}: {len(examples)} labels, selected step {result['best_step']} of {result['steps']}, "
            f"rank pattern {ranks} of {self._ws.experiment.tune.adalora.init_rank} "
            f"(listed by path in adapter/{name}/result.json)"
        )
        if result["best_step"] == result["steps"] == self._ws.experiment.tune.loop.steps:
            say(
                f"  WARNING: adapter {name} was still improving when tune.loop.steps ended: a comparison is fairer with more, "
                "for all"
            )

    def _validator(self, system: LanguageSystem) -> Callable[[Any], dict[str, float]]:
        """Makes a function from adapters to HR@1 and NDCG@10 of the validation items.

        The items are ranked among all unseen items of the training part, or among the stored candidates where texts list
        them; by the sum with the teacher's scores, if the adapters are tuned beside these.
        """
        split, candidates = self._data.split, self._data.candidates["valid"].items
        targets = split.target("valid")
        listed, config = not self._scorer.ranks_catalogue, self._ws.experiment
        asked = self.asked_rows
        stated = candidates if listed else None
        texts = RowTexts(self._scorer, system, split, "valid", candidates=stated, asked=asked)
        order = asked if texts.order is None else texts.order
        ranker = candidate_ranker(targets, candidates) if listed else self._open_ranker(targets)
        added = None
        if (beside := beside_of(config, self._known)) is not None:
            layout = self._language.layout
            added = beside.of_part("valid", split, self._teacher, config.teacher, layout)

        def evaluate(params: Any) -> dict[str, float]:
            """Validation metrics of these parameters, and the one that selects."""
            tuned = replace(system, **params)
            if "prompt" in params:
                vectors = self._held.get(title_slots.VECTORS)
                tuned = replace(tuned, prompt=title_slots.slots_of(params["prompt"], vectors))
            if config.tune.refresh_vectors:
                tuned = replace(tuned, vectors=self._language.tuned_vectors(params["adapters"]))

            def scores(rows: np.ndarray) -> jax.Array:
                """Scores [B, C] of the candidates, or [B, I] of the catalogue."""
                if not listed:
                    found = self._scorer.catalogue(tuned, texts(rows))
                    return found if added is None else found + added(rows)
                found = self._scorer.candidates(tuned, texts(rows), candidates[rows])
                if added is not None:
                    # Scores of candidates are on one device, those of the catalogue on all of the mesh.
                    found = found + on_host(gather_candidates(added(rows), candidates[rows]))
                return found

            ranks = rank_users(
                scores,
                {"valid": ranker},
                num_users=len(targets),
                batch_size=min(config.evaluate.batch_size, len(asked)),
                order=order,
            )
            values = metrics_of_ranks(ranks["valid"].rank)
            found = {f"valid/{name}": float(values[name].mean()) for name in ("HR@1", "NDCG@10")}
            return found | {"valid/selection": found[f"valid/{config.tune.select_by}"]}

        return evaluate

    @cached_property
    def asked_rows(self) -> np.ndarray:
        """The rows of the validation users that select: all, or a draw that is the same for all prompts."""
        config, rows = self._ws.experiment, np.arange(len(self._data.split.target("valid")))
        return drawn_users(rows, config.tune.valid_users, config.seed, "tune/users")

    def _open_ranker(self, targets: np.ndarray) -> RankFn:
        """Makes a function that ranks targets among the items of the training part that each validation row has not seen."""
        split, num_items = self._data.split, self._data.num_items
        histories = RowHistories(split, "valid")
        unknown = jnp.asarray(~self._known)

        def rank(scores: jax.Array, rows: np.ndarray) -> tuple[jax.Array, jax.Array]:
            closed = seen_items(histories(rows), num_items=num_items) | unknown
            ranked: tuple[jax.Array, jax.Array] = rank_full(scores, targets[rows], closed)
            return ranked

        return rank


def _ranks(kept: Any, state: TrainState) -> dict[str, Any]:
    """The ranks in use by the adapters that are kept, and those that the budget left at the end of training."""
    last = ranks_in_use(allocation_state(state.opt_state))
    return {
        "ranks": rank_pattern(kept["adapters"]),
        "ranks_at_the_end": {path: int(rank) for path, rank in last.items()},
    }
