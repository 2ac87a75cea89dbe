"""`delrec parse`: P2Rec's information reconstruction.

The item vectors of a trained teacher are grouped into latent categories. From the text of a user's training sequence, or of a
part of it, the language model learns to predict how its items are distributed over the categories. One example per user.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from delrec_jax import prng
from delrec_jax.data.pipeline import make_buckets, training_iterator
from delrec_jax.data.splits import Split, drawn_users, partition_users
from delrec_jax.distributed import on_main
from delrec_jax.p2rec import files, preferences
from delrec_jax.p2rec.categories import Categories, category_vectors, latent_categories
from delrec_jax.p2rec.category_checks import check_categories
from delrec_jax.p2rec.cells import seeds
from delrec_jax.p2rec.parsing_task import parsing_task
from delrec_jax.p2rec.preference_examples import PreferenceExamples, PreferenceText, pooled
from delrec_jax.p2rec.preference_parser import preference_parser
from delrec_jax.p2rec.preference_text import preference_pieces
from delrec_jax.p2rec.preferences import distribution_error
from delrec_jax.training.task import run_task, shapes_of
from delrec_jax.training.writers import say
from delrec_jax.workdir import recommenders
from delrec_jax.workdir.json_files import write_json
from delrec_jax.workdir.language_model import Language
from delrec_jax.workdir.prepared import Data
from delrec_jax.workdir.workspace import Workspace

Examples = list[PreferenceText]


def parse(ws: Workspace, data: Data, language: Language) -> None:
    """Makes the categories and tunes the language model for each seed."""
    vectors = recommenders.taught_vectors(ws, data.num_items)
    parsing, found = Parsing(ws, data.split, language), []
    for seed in seeds(ws.experiment):
        categories, checks = _make_categories(ws, data, vectors, seed)
        result = parsing.fit(categories, seed)
        sizes = categories.sizes.tolist()
        found.append({"seed": seed, "sizes": sizes, "categories": checks, **result})
        _tell(found[-1])
    on_main(lambda: write_json(ws.folder("parse") / "parse.json", found))


def _make_categories(
    ws: Workspace, data: Data, vectors: np.ndarray, seed: int
) -> tuple[Categories, dict[str, Any]]:
    """Makes and stores the grouping of a seed; also returns what it is a grouping of."""
    counts, catalogue = data.split.train_counts(data.num_items), data.corpus.catalogue
    config = ws.experiment.parse
    grouped = category_vectors(vectors, counts, popularity=config.popularity)
    categories = latent_categories(grouped, known=counts > 0, count=config.categories, seed=seed)
    files.save_categories(ws, seed, categories, grouped, titles=catalogue.titles, counts=counts)
    # Each process has made its own, by sums of its own: all go on with those of the one that stored them.
    categories = files.load_categories(ws, seed)
    return categories, check_categories(categories.of_item, counts, catalogue.attributes)


class Parsing:
    """Tunes the language model for any number of seeds; compiled once."""

    def __init__(self, ws: Workspace, split: Split, language: Language):
        """Compiles nothing yet."""
        self._ws, self._split, self._language = ws, split, language
        self._config = ws.experiment.parse
        parser = preference_parser(language.ranker, self._config)
        longest = int(split.train.lengths.max())
        self._pieces = preference_pieces(language.pieces, self._config, longest)
        self.task = parsing_task(ws.experiment, parser, language.layout, shapes_of(language.params))

    def examples(self, categories: Categories) -> PreferenceExamples:
        """What makes examples under a grouping."""
        return PreferenceExamples(self._pieces, self._config, categories)

    def fit(self, categories: Categories, seed: int) -> dict[str, Any]:
        """Trains or resumes one seed, or reads its finished result; returns it with the metrics of the held-out users."""
        task, history = self.task, self._split.train.history
        make, users = self.examples(categories), self._parts(seed)
        asked = [make.of(history(int(user))) for user in users["valid"]]
        own = np.stack([make.of(history(int(user))).targets for user in users["train"]])
        trained, result = run_task(
            task,
            self._start(own, seed),
            name=f"preference/seed-{seed}",
            directory=files.seed_folder(self._ws, seed) / "model",
            frozen={"params": self._language.params, "unit": _unit(own, self._config.loss)},
            batches=training_iterator(
                lambda index, rng: make.drawn(history(int(users["train"][index])), rng),
                len(users["train"]),
                batch_size=task.rows,
                buckets=make_buckets(self._config.max_tokens),
                seed=seed,
                share=task.share,
                group=self._config.group_by_length,
            ),
            evaluate=self._validator(asked),
            key=prng.key(seed, "parse/dropout"),
            identity=self._ws.identity("parse") | {"repetition": seed},
            watch=self._ws.watch,
            saved=self._ws.saved,
        )
        chosen = self._language.put(trained)
        alone = [make.of([item]) for item in self._items(users["valid"])]
        return {
            "step": result["best_step"],
            "steps": result["steps"],
            "train_users": len(users["train"]),
            "valid_users": len(users["valid"]),
            **self._measured(chosen, asked),
            "constant": _constant(asked, own),
            "one_item": {
                "items": len(alone),
                **self._measured(chosen, alone),
                "constant": _constant(alone, own),
            },
        }

    def _parts(self, seed: int) -> dict[str, np.ndarray]:
        """The users who train, and those (or a draw of those) who are held out, among those with a training part."""
        held_out = self._config.valid_users
        shares = {"train": 1 - held_out, "valid": held_out}
        parts = partition_users(self._split.training_users, shares, seed)
        read = drawn_users(parts["valid"], self._config.exam_users, seed, "parse/exam_users")
        return parts | {"valid": read}

    def _items(self, users: np.ndarray) -> list[int]:
        """The different items of these users' training parts."""
        histories = [self._split.train.history(int(user)) for user in users]
        found: list[int] = np.unique(np.concatenate(histories)).tolist()
        return found

    def _start(self, targets: np.ndarray, seed: int) -> dict[str, Any]:
        """The trained parameters at step 0; whatever the text, the projection starts near the mean target."""
        trained: dict[str, Any] = self.task.start({"params": self._language.params}, seed)
        projection = trained["projection"] | {"bias": _mean_logits(targets)}
        return trained | {"projection": projection}

    def _measured(self, trained: Any, examples: Examples) -> dict[str, float]:
        """Squared error and top-category accuracy of some examples."""
        held = {"params": self._language.params, "adapters": None, **trained}
        assert self.task.scoring is not None
        predicted = pooled(
            partial(self.task.scoring.step, held),
            examples,
            batch_size=self._ws.experiment.evaluate.batch_size,
            longest=self._config.max_tokens,
        )
        return _metrics(predicted, _targets(examples))

    def _validator(self, asked: Examples) -> Callable[[Any], dict[str, float]]:
        """Makes a function from trained parameters to the metrics of the held-out users, complete histories."""

        def evaluate(trained: Any) -> dict[str, float]:
            """Metrics of the held-out users, and the one that selects."""
            found = self._measured(trained, asked)
            by_error = self._config.select_by == "squared_error"
            selection = -found["squared_error"] if by_error else found["top_category"]
            return {f"valid/{name}": value for name, value in found.items()} | {
                "valid/selection": selection
            }

        return evaluate


def _targets(examples: Examples) -> np.ndarray:
    return np.stack([example.targets for example in examples])


def _mean_logits(targets: np.ndarray) -> jax.Array:
    """The logits [K] of the users' mean target."""
    mean = preferences.constant_prediction(targets)
    return jnp.asarray(np.log(np.maximum(mean, 1e-6)), jnp.float32)


def _unit(targets: np.ndarray, kind: str) -> jax.Array:
    """The mean error when the mean target is predicted for every user."""
    logits = jnp.broadcast_to(_mean_logits(targets), targets.shape)
    error = distribution_error(logits, jnp.asarray(targets), kind).mean()
    return jnp.maximum(error, 1e-6)  # users who are all alike have no error


def _metrics(predicted: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
    return {
        "squared_error": float(preferences.squared_errors(predicted, wanted).mean()),
        "top_category": float(preferences.top_category_hits(predicted, wanted).mean()),
    }


def _constant(asked: Examples, own: np.ndarray) -> dict[str, float]:
    """Metrics of predicting the training users' mean target for these examples; a parser must do better."""
    wanted = _targets(asked)
    mean = preferences.constant_prediction(own)
    return _metrics(np.broadcast_to(mean, wanted.shape), wanted)


def _tell(found: dict[str, Any]) -> None:
    constant, alone, checks = found["constant"], found["one_item"], found["categories"]
    say(
        f"  seed {found['seed']}: categories of {min(found['sizes'])} to {max(found['sizes'])} items, which explain "
        f"{100 * checks['popularity_explained']:.0f} % of log-popularity; held-out users: squared error "
        f"{found['squared_error']:.5f} (mean target {constant['squared_error']:.5f}), top category "
        f"{found['top_category']:.3f} (mean target {constant['top_category']:.3f}), of one item alone "
        f"{alone['top_category']:.3f} ({alone['constant']['top_category']:.3f}), step {found['step']} of {found['steps']}"
    )
