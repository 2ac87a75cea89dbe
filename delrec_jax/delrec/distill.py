"""`delrec distill`: stage 1, the teacher's pattern into a soft prompt of the frozen language model."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from delrec_jax import prng
from delrec_jax.data.pipeline import make_buckets, padded_batches, training_iterator
from delrec_jax.delrec import prompt_examples
from delrec_jax.delrec.prompt_examples import RPS, TA, Texts
from delrec_jax.delrec.task_weighting import WeightingConfig, init_weighting, weighted_gradients
from delrec_jax.distributed import as_main_sees, on_main
from delrec_jax.evaluation.metrics import bootstrap_interval
from delrec_jax.language.ranking_losses import candidate_cross_entropy
from delrec_jax.language.soft_prompt import init_prompt
from delrec_jax.teachers.lists import ListSettings, ListsKey, inputs_hash, load_lists, save_lists
from delrec_jax.training.checkpoints import save_tree
from delrec_jax.training.gradients import accumulated
from delrec_jax.training.loop import Run, fit
from delrec_jax.training.optimizers import make_optimizer
from delrec_jax.training.sharding import own_share
from delrec_jax.training.steps import EvalStep, TrainStep, create_state
from delrec_jax.training.writers import say
from delrec_jax.workdir import assets
from delrec_jax.workdir.workspace import Workspace, write_json

_ONLY_ROWS = WeightingConfig(kind="fixed", ta_weight=0.0)  # `true` has no TA texts
_NO_PATTERN = np.zeros(0, np.int32)


def distill(ws: Workspace) -> None:
    """Trains the distilled prompt and its controls, and reports their agreement with the teacher on held-out users."""
    data = assets.load_data(ws)
    language = assets.load_language(ws, data)
    parts = prompt_examples.user_parts(ws, data)
    trainer = _Trainer(
        ws, language, data, _cached_texts(ws, data, language, parts["valid"], "valid")
    )
    teacher = _cached_texts(ws, data, language, parts["train"], "train")
    shuffled = prompt_examples.make_texts(ws, language, parts["train"], "shuffled", teacher.lists)
    trainer.fit("distilled", teacher)
    trainer.fit("shuffled", shuffled)
    trainer.fit("true", prompt_examples.make_texts(ws, language, parts["train"], "true"))
    few = parts["train"][: ws.experiment.tune.few_users]
    if len(few):
        # The few users' labels are all that this run may know: a fifth of them selects.
        count = max(1, len(few) // 5)
        texts = prompt_examples.make_texts(ws, language, few[count:], "true")
        trainer.fit("true_few", texts, select_on=few[:count])
    save_tree(assets.prompt_path(ws, "random"), {"prompt": trainer.start("random")}, {})
    heldout = _cached_texts(ws, data, language, parts["heldout"], "heldout")
    agreement = _report(ws, trainer, heldout)
    on_main(lambda: write_json(ws.folder("distill") / "agreement.json", agreement))


def _cached_texts(
    ws: Workspace, data: assets.Data, language: assets.Language, users: np.ndarray, name: str
) -> Texts:
    """RPS texts of these users with the teacher's lists, which are kept by the teacher's fingerprint."""
    config = ws.experiment.distill
    rows = prompt_examples.latest_rows(data, users, config.positions, labelled=False)
    settings = ListSettings(config.top_h, config.num_candidates, ws.experiment.seed)
    key = ListsKey(ws.content("teach"), settings, inputs_hash(rows.users, rows.ends))
    path = ws.folder("distill") / f"lists_{name}.npz"
    if not as_main_sees(path.exists):
        lists = prompt_examples.make_lists(ws, data, rows, seed=ws.experiment.seed)
        on_main(lambda: save_lists(path, lists, key=key))
    return prompt_examples.make_texts(ws, language, users, "teacher", load_lists(path, key=key))


@dataclass(frozen=True)
class _Reading:
    """How a prompt answers as the teacher would: one value a text."""

    agreement: np.ndarray
    kendall_tau: np.ndarray
    likelihood: np.ndarray


class _Trainer:
    """Trains prompts under one compiled step; the source of the labels is in the batches alone."""

    def __init__(self, ws: Workspace, language: assets.Language, data: assets.Data, valid: Texts):
        self.ws, self.language = ws, language
        self.valid = make_exam(ws, valid, language.slots)
        self.valid_users, self.valid_lists = np.unique(valid.rows.users), valid.lists
        self.config = ws.experiment.distill
        self.layout = language.layout
        self.share = own_share(self.layout, self.config.batch_size)
        self.buckets = make_buckets(ws.experiment.prompts.max_tokens)
        ranker = language.ranker
        self.optimizer = make_optimizer(self.config.optimizer, self.config.loop.steps)
        self._steps: dict[WeightingConfig, Any] = {}
        self._scores = EvalStep(
            lambda held, rows: ranker.candidate_scores(**rows, **held), self.layout
        )

    def start(self, name: str) -> jax.Array:
        """The untrained prompt of a run; `random` differs from the start of the trained ones."""
        seed = self.ws.experiment.seed
        key = prng.key(seed, "prompt/random" if name == "random" else "prompt/init")
        table = self.language.model.table(self.language.params)
        words = self.language.ids(self.config.init_text).tolist()
        return init_prompt(self.config.init, table, self.config.length, key, text_ids=words)

    def fit(self, name: str, texts: Texts, select_on: np.ndarray | None = None) -> None:
        """Trains one prompt, or resumes it, or leaves a finished one; selects on the validation users, or on others."""
        weighting = self._weighting(texts.source)
        params = {"prompt": self.start(name), **init_weighting(weighting)}
        _, result = fit(
            Run(
                name=f"prompt/{name}",
                directory=self.ws.folder("distill") / name,
                state=create_state(params, self.optimizer),
                frozen={"params": self.language.params, "vectors": self.language.vectors},
                batches=training_iterator(
                    texts.example,
                    len(texts.rows.users),
                    batch_size=self.config.batch_size,
                    buckets=self.buckets,
                    seed=self.ws.experiment.seed,
                    process_index=self.share[0],
                    process_count=self.share[1],
                ),
                step=self._step(weighting),
                layout=self.layout,
                evaluate=self._validator(
                    texts, self.valid_users if select_on is None else select_on
                ),
                monitor="valid/selection",
                config=self.config.loop,
                key=prng.key(self.ws.experiment.seed, "prompt/dropout"),
                share=self.share,
                identity=self.ws.identity("distill") | {"labels": name},
                watch=self.ws.watch,
            )
        )
        say(f"  prompt {name}: selected step {result['best_step']} of {result['steps']}")

    def _weighting(self, source: str) -> WeightingConfig:
        """`true` has no TA texts, which only a fixed weight of theirs can bear."""
        fixed = self.config.weighting.kind == "fixed"
        return _ONLY_ROWS if source == "true" and not fixed else self.config.weighting

    def _step(self, weighting: WeightingConfig) -> Any:
        """The compiled step of a weighting, made once for all sources."""
        if weighting not in self._steps:
            parts = self.config.optimizer.accumulate
            gradients = prompt_gradients(self.language.ranker, weighting, parts)
            self._steps[weighting] = TrainStep(gradients, self.optimizer, self.layout)
        return self._steps[weighting]

    def _validator(self, texts: Texts, users: np.ndarray) -> Any:
        """Agreement on the validation users; each source is selected by its own labels, never by another's."""
        own = self._own_exam(texts, users)

        def evaluate(params: Any) -> dict[str, float]:
            reading = self.read(params["prompt"], self.valid)
            metrics = {
                "valid/agreement": float(reading.agreement.mean()),
                "valid/kendall_tau": float(reading.kendall_tau.mean()),
                "valid/likelihood": float(reading.likelihood.mean()),
            }
            selected = reading if own is None else self.read(params["prompt"], own)
            value = float(getattr(selected, self.config.select_by).mean())
            return metrics | {"valid/selection": value}

        return evaluate

    def _own_exam(self, texts: Texts, users: np.ndarray) -> "_Exam | None":
        """Questions of the texts' own source for the selecting users; None for the teacher's, which are asked anyway."""
        if texts.source == "teacher":
            return None
        valid = prompt_examples.make_texts(
            self.ws, self.language, users, texts.source, self.valid_lists
        )
        return make_exam(self.ws, valid, self.language.slots)

    def load(self, name: str) -> jax.Array:
        """A finished prompt, on the devices."""
        return self.language.put({"prompt": assets.load_prompt(self.ws, name)})["prompt"]

    def read(self, prompt: jax.Array | None, exam: "_Exam") -> _Reading:
        """Compares the LM's order of each list with the labels'."""
        held = {"params": self.language.params, "vectors": self.language.vectors, "prompt": prompt}
        scores = []
        size = self.ws.experiment.evaluate.batch_size
        for batch, real in padded_batches(exam.examples, batch_size=size, buckets=self.buckets):
            rows = {"ids": batch["ids"], "candidates": batch["candidates"]}
            scores.append(np.asarray(self._scores(held, rows))[:real])
        given = np.concatenate(scores)
        log_probabilities = jax.nn.log_softmax(given, axis=-1)
        return _Reading(
            agreement=(given.argmax(1) == exam.labels.argmax(1)).astype(float),
            kendall_tau=np.array(
                [stats.kendalltau(a, b).statistic for a, b in zip(given, exam.labels, strict=True)]
            ),
            likelihood=np.asarray((exam.targets * log_probabilities).sum(1)),
        )


@dataclass(frozen=True)
class _Exam:
    """Texts of all rows of a source, in one fixed order of the candidates.

    Attributes:
      labels: float [N, m], higher is better: the teacher's scores, or 1 at the true next item.
      targets: float [N, m], the distribution to be reproduced.
    """

    examples: list[dict[str, np.ndarray]]
    labels: np.ndarray
    targets: np.ndarray


def make_exam(ws: Workspace, texts: Texts, pattern: np.ndarray) -> _Exam:
    """Asks every row once; the order of the candidates is drawn by (seed, row), so that a place tells nothing."""
    examples, labels = [], []
    for index in range(len(texts.rows.users)):
        rng = prng.generator(ws.experiment.seed, "distill/order", index)
        if texts.source == "true":
            example = texts.row(index, rng)
            labels.append(example["targets"])
        else:
            order = rng.permutation(texts.lists.items.shape[1])
            example = texts.listed(index, order, pattern)
            labels.append(texts.lists.scores[index][order])
        examples.append(example)
    return _Exam(examples, np.stack(labels), np.stack([e["targets"] for e in examples]))


def prompt_gradients(ranker: Any, weighting: WeightingConfig, accumulate: int = 1):
    """Stage 1's gradient: TA and RPS share one prompt and one pass; the LM is an argument and never changes."""

    def task_sums(params, frozen, batch, key):
        scores = ranker.candidate_scores(
            frozen["params"],
            batch["ids"],
            batch["candidates"],
            vectors=frozen["vectors"],
            prompt=params["prompt"],
        )
        losses = candidate_cross_entropy(scores, batch["targets"])
        members = jnp.stack([batch["task"] == TA, batch["task"] == RPS]).astype(jnp.float32)
        return members @ losses, members.sum(1), {}

    sums_fn = accumulated(task_sums, accumulate)

    def gradients(params, frozen, batch, key):
        def task_losses(params):
            sums, weights, _ = sums_fn(params, frozen, batch, key)
            return sums / jnp.maximum(weights, 1)

        return weighted_gradients(task_losses, params, weighting)

    return gradients


def _report(ws: Workspace, trainer: _Trainer, heldout: Texts) -> list[dict[str, Any]]:
    """Agreement with the teacher of held-out users, a value a user, for four prompts."""
    users, place = np.unique(heldout.rows.users, return_inverse=True)
    rows = []
    for name in ("none", "random", "shuffled", "distilled"):
        prompt = None if name == "none" else trainer.load(name)
        pattern = _NO_PATTERN if name == "none" else trainer.language.slots
        reading = trainer.read(prompt, make_exam(ws, heldout, pattern))
        for measure in ("agreement", "kendall_tau"):
            sums = np.bincount(place, getattr(reading, measure))
            value = bootstrap_interval(sums / np.bincount(place), seed=ws.experiment.seed)
            rows.append(
                {
                    "prompt": name,
                    "measure": {"agreement": "top-1 agreement", "kendall_tau": "Kendall tau"}[
                        measure
                    ],
                    "value": value.value,
                    "ci_low": value.low,
                    "ci_high": value.high,
                    "users": len(users),
                }
            )
            say(
                f"  held-out users, {name} prompt, {measure}: {value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"
            )
    return rows
