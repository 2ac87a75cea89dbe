"""`delrec parse`: P2Rec's information reconstruction.

The item vectors of a trained teacher are grouped into latent categories. From the text of a user's full training sequence,
the language model learns to predict how the sequence is distributed over the categories. One example per user.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Int

from delrec_jax import prng
from delrec_jax.batches import Arrays, batch_type
from delrec_jax.config import Experiment, ParseConfig
from delrec_jax.data.pipeline import bucket_length, make_buckets, pad_texts, training_iterator
from delrec_jax.data.splits import Split, partition_users
from delrec_jax.distributed import on_main
from delrec_jax.language.adalora import init_adapters, orthogonality_penalty
from delrec_jax.language.rank_allocation import with_rank_allocation
from delrec_jax.p2rec import files, preferences
from delrec_jax.p2rec.categories import Categories, latent_categories
from delrec_jax.p2rec.cells import seeds
from delrec_jax.p2rec.preference_parser import (
    PreferenceParser,
    init_projection,
    preference_parser,
)
from delrec_jax.p2rec.preference_text import preference_pieces, preference_text
from delrec_jax.p2rec.preferences import distribution_error, preference_targets
from delrec_jax.training.gradients import LossFn, Metrics, mean_loss_gradients
from delrec_jax.training.optimizers import make_optimizer
from delrec_jax.training.sharding import Layout
from delrec_jax.training.task import Scoring, Task, run_task, shapes_of
from delrec_jax.training.writers import say
from delrec_jax.workdir import recommenders
from delrec_jax.workdir.language_model import Language
from delrec_jax.workdir.language_scorer import AskedTexts, text_shapes
from delrec_jax.workdir.prepared import Data
from delrec_jax.workdir.workspace import Workspace, write_json


@batch_type
class PreferenceText:
    """A user's text; a batch has a leading axis B.

    Attributes:
      ids: int32 [T].
      targets: float32 [K], the shares of the categories among the user's items.
    """

    ids: Int[Arrays, "*B T"]
    targets: Float[Arrays, "*B K"]


def parse(ws: Workspace, data: Data, language: Language) -> None:
    """Makes the categories and tunes the language model for each seed."""
    vectors = recommenders.taught_vectors(ws, data.num_items)
    parsing, found = Parsing(ws, data.split, language), []
    for seed in seeds(ws.experiment):
        categories = _make_categories(ws, data, vectors, seed)
        result = parsing.fit(categories, seed)
        found.append({"seed": seed, "sizes": categories.sizes.tolist(), **result})
        _tell(found[-1])
    on_main(lambda: write_json(ws.folder("parse") / "parse.json", found))


def _make_categories(ws: Workspace, data: Data, vectors: np.ndarray, seed: int) -> Categories:
    counts = data.split.train_counts(data.num_items)
    categories = latent_categories(
        vectors, known=counts > 0, count=ws.experiment.parse.categories, seed=seed
    )
    files.save_categories(
        ws, seed, categories, vectors, titles=data.corpus.catalogue.titles, counts=counts
    )
    return categories


def parsing_task(
    experiment: Experiment, parser: PreferenceParser, layout: Layout, params: Any
) -> Task:
    """The training of information reconstruction.

    Args:
      experiment: the config.
      parser: the language model's encoder with the adapters of `parse`.
      layout: how it is placed on the devices.
      params: shapes of its parameters.
    """
    config = experiment.parse

    def start(frozen: Any, seed: int) -> dict[str, Any]:
        """Adapters that do not change the model yet, and a projection that is nearly uniform over the categories."""
        key = prng.key(seed, "parse/projection")
        trained: dict[str, Any] = {"projection": init_projection(width, config.categories, key)}
        if config.lm == "adalora":
            key = prng.key(seed, "parse/adapters")
            trained["adapters"] = init_adapters(
                frozen["params"], config.adalora, key, closed=closed
            )
        return trained

    def distributions(held: Any, texts: AskedTexts) -> jax.Array:
        """The predicted distribution [B, K] of each text."""
        return jax.nn.softmax(parser.logits(ids=texts.ids, **held))

    width, closed = parser.model.width, parser.model.closed
    frozen = {"params": params, "unit": jax.ShapeDtypeStruct((), np.float32)}
    begun = jax.eval_shape(lambda frozen: start(frozen, 0), frozen)
    targets = jax.ShapeDtypeStruct((config.batch_size, config.categories), np.float32)
    asked = text_shapes(config.max_tokens, layout.rows(experiment.evaluate.batch_size))
    return Task(
        stage="parse",
        config=config,
        layout=layout,
        gradients=mean_loss_gradients(parsing_loss(parser, config), config.optimizer.accumulate),
        optimizer=parsing_optimizer(config),
        start=start,
        frozen=frozen,
        batch=PreferenceText(
            ids=text_shapes(config.max_tokens, config.batch_size), targets=targets
        ),
        scoring=Scoring(
            distributions,
            {"params": params, "adapters": None, **begun},
            AskedTexts(ids=asked),
            layout,
        ),
    )


class Parsing:
    """Tunes the language model for any number of seeds; compiled once."""

    def __init__(self, ws: Workspace, split: Split, language: Language):
        """Compiles nothing yet."""
        self._ws, self._split, self._language = ws, split, language
        self._config = ws.experiment.parse
        self.parser = preference_parser(language.ranker, self._config)
        longest = int(split.train.lengths.max())
        self._pieces = preference_pieces(language.pieces, self._config, longest)
        self._buckets = make_buckets(self._config.max_tokens)
        self.task = parsing_task(
            ws.experiment, self.parser, language.layout, shapes_of(language.params)
        )

    def fit(self, categories: Categories, seed: int) -> dict[str, Any]:
        """Trains or resumes one seed, or reads its finished result; returns it with the metrics of the held-out users."""
        task, train = self.task, self._split.train
        targets = preference_targets(train, categories.of_item, categories.count)
        users = self._parts(targets, seed)
        own = targets[users["train"]]
        evaluate = self._validator(users, targets)
        trained, result = run_task(
            task,
            self._start(own, seed),
            name=f"preference/seed-{seed}",
            directory=files.seed_folder(self._ws, seed) / "model",
            frozen={"params": self._language.params, "unit": _unit(own, self._config.loss)},
            batches=training_iterator(
                lambda index, _: self._example(int(users["train"][index]), targets),
                len(users["train"]),
                batch_size=task.rows,
                buckets=self._buckets,
                seed=seed,
                share=task.share,
            ),
            evaluate=evaluate,
            key=prng.key(seed, "parse/dropout"),
            identity=self._ws.identity("parse") | {"repetition": seed},
            watch=self._ws.experiment.watch,
        )
        measured = evaluate(self._language.put(trained))
        return {
            "step": result["best_step"],
            "steps": result["steps"],
            "train_users": len(users["train"]),
            "valid_users": len(users["valid"]),
            **{name.removeprefix("valid/"): value for name, value in measured.items()},
            "constant": _constant(targets, users),
        }

    def _parts(self, targets: np.ndarray, seed: int) -> dict[str, np.ndarray]:
        """The users who train and those who are held out, among the users with a target."""
        held_out = self._config.valid_users
        asked = np.flatnonzero(targets.sum(1) > 0)
        return partition_users(asked, {"train": 1 - held_out, "valid": held_out}, seed)

    def _start(self, targets: np.ndarray, seed: int) -> dict[str, Any]:
        """The trained parameters at step 0; whatever the text, the projection starts near the mean target."""
        trained: dict[str, Any] = self.task.start({"params": self._language.params}, seed)
        projection = trained["projection"] | {"bias": _mean_logits(targets)}
        return trained | {"projection": projection}

    def _example(self, user: int, targets: np.ndarray) -> PreferenceText:
        text = preference_text(self._pieces, self._split.train.history(user))
        return PreferenceText(ids=text, targets=targets[user])

    def _validator(
        self, users: dict[str, np.ndarray], targets: np.ndarray
    ) -> Callable[[Any], dict[str, float]]:
        """Makes a function from trained parameters to squared error and top-category accuracy on the held-out users."""
        asked, wanted = users["valid"], targets[users["valid"]]
        texts = [self._example(int(user), targets).ids for user in asked]
        rows = AskedTexts(ids=pad_texts(texts, bucket_length(max(map(len, texts)), self._buckets)))
        batch_size = min(self._ws.experiment.evaluate.batch_size, len(asked))
        assert self.task.scoring is not None
        distributions = self.task.scoring.step

        def evaluate(trained: Any) -> dict[str, float]:
            """Metrics of the held-out users, and the one that selects."""
            held = {"params": self._language.params, "adapters": None, **trained}
            predicted = distributions.in_batches(held, rows, batch_size)
            error = float(preferences.squared_errors(predicted, wanted).mean())
            hits = float(preferences.top_category_hits(predicted, wanted).mean())
            selection = -error if self._config.select_by == "squared_error" else hits
            return {
                "valid/squared_error": error,
                "valid/top_category": hits,
                "valid/selection": selection,
            }

        return evaluate


def parsing_loss(parser: PreferenceParser, config: ParseConfig) -> LossFn:
    """The loss of a batch of texts and target distributions, in units of the error of a constant prediction.

    A squared error of distributions is of the order of 0.01, so AdaLoRA's penalty would dominate it. The error is therefore
    divided by that of predicting the mean target (`frozen["unit"]`): 1 is what is reached without reading the text.
    """

    def loss(
        trained: Any, frozen: Any, batch: PreferenceText, key: jax.Array
    ) -> tuple[jax.Array, jax.Array, Metrics]:
        """Errors [B], weights [B], and the penalty."""
        adapters = trained.get("adapters")
        logits = parser.logits(
            frozen["params"],
            trained["projection"],
            batch.ids,
            adapters=adapters,
            dropout_key=key,
        )
        errors = distribution_error(logits, batch.targets, config.loss) / frozen["unit"]
        metrics: Metrics = {}
        if adapters is not None:
            metrics["penalty"] = config.adalora.orthogonality * orthogonality_penalty(adapters)
        return errors, jnp.ones_like(errors), metrics

    return loss


def parsing_optimizer(config: ParseConfig) -> optax.GradientTransformation:
    """The optimizer of projection and adapters; AdaLoRA distributes its ranks among the adapters."""
    optimizer = make_optimizer(config.optimizer, config.loop.steps)
    if config.lm == "frozen":
        return optimizer
    return with_rank_allocation(optimizer, config.adalora, config.loop.steps)


def _mean_logits(targets: np.ndarray) -> jax.Array:
    """The logits [K] of the users' mean target."""
    mean = preferences.constant_prediction(targets)
    return jnp.asarray(np.log(np.maximum(mean, 1e-6)), jnp.float32)


def _unit(targets: np.ndarray, kind: str) -> jax.Array:
    """The mean error when the mean target is predicted for every user."""
    logits = jnp.broadcast_to(_mean_logits(targets), targets.shape)
    error = distribution_error(logits, jnp.asarray(targets), kind).mean()
    return jnp.maximum(error, 1e-6)  # users who are all alike have no error


def _constant(targets: np.ndarray, users: dict[str, np.ndarray]) -> dict[str, float]:
    """Metrics of predicting the training users' mean target for the held-out users; a parser must do better."""
    wanted = targets[users["valid"]]
    mean = preferences.constant_prediction(targets[users["train"]])
    predicted = np.broadcast_to(mean, wanted.shape)
    return {
        "squared_error": float(preferences.squared_errors(predicted, wanted).mean()),
        "top_category": float(preferences.top_category_hits(predicted, wanted).mean()),
    }


def _tell(found: dict[str, Any]) -> None:
    constant = found["constant"]
    say(
        f"  seed {found['seed']}: categories of {min(found['sizes'])} to {max(found['sizes'])} items; held-out users: squared "
        f"error {found['squared_error']:.5f} (mean target {constant['squared_error']:.5f}), top category "
        f"{found['top_category']:.3f} (mean target {constant['top_category']:.3f}), step {found['step']} of {found['steps']}"
    )
