"""`delrec parse`: P2Rec's information reconstruction.

The item vectors of a trained teacher are grouped into latent categories; the language model learns to tell from a user's
whole training sequence, as text, how it is distributed over them. One example a user.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from delrec_jax import prng
from delrec_jax.config import ParseConfig
from delrec_jax.data import prompts
from delrec_jax.data.pipeline import bucket_length, make_buckets, pad_texts, training_iterator
from delrec_jax.data.splits import partition_users
from delrec_jax.distributed import on_main
from delrec_jax.language.adalora import init_adapters, orthogonality_penalty
from delrec_jax.language.rank_allocation import with_rank_allocation
from delrec_jax.p2rec import files, preferences
from delrec_jax.p2rec.categories import Categories, latent_categories, nearest_items
from delrec_jax.p2rec.preference_parser import PreferenceParser, init_projection
from delrec_jax.p2rec.preferences import distribution_error, preference_targets
from delrec_jax.teachers.registry import NETWORKS
from delrec_jax.training.checkpoints import load_tree, save_tree
from delrec_jax.training.gradients import LossFn, mean_loss_gradients
from delrec_jax.training.loop import Run, fit
from delrec_jax.training.optimizers import make_optimizer
from delrec_jax.training.sharding import own_share
from delrec_jax.training.steps import EvalStep, TrainStep, create_state
from delrec_jax.training.writers import say
from delrec_jax.workdir import assets, recommenders
from delrec_jax.workdir.assets import Data, Language
from delrec_jax.workdir.workspace import Workspace, write_json

_TITLES = 10  # of a category, stored for the reader


def parse(ws: Workspace) -> None:
    """Makes categories and tunes the language model, under each seed."""
    data = assets.load_data(ws)
    language = assets.load_language(ws, data)
    vectors, parsing = teacher_vectors(ws, data), _Parsing(ws, data, language)
    found = []
    for seed in recommenders.seeds(ws.experiment):
        categories = _make_categories(ws, data, vectors, seed)
        result = parsing.fit(categories, seed)
        found.append({"seed": seed, "sizes": categories.sizes.tolist(), **result})
        _tell(found[-1])
    on_main(lambda: write_json(ws.folder("parse") / "parse.json", found))


def teacher_vectors(ws: Workspace, data: Data) -> np.ndarray:
    """The item vectors [I, D] of the teacher that `teach` trained."""
    config = ws.experiment.teacher
    params, _ = load_tree(recommenders.taught_path(ws))
    module = NETWORKS[config.name](config.shape, data.num_items)
    return np.asarray(module.apply({"params": params}, method="table"))


def _make_categories(ws: Workspace, data: Data, vectors: np.ndarray, seed: int) -> Categories:
    counts = data.split.train_counts(data.num_items)
    categories = latent_categories(
        vectors, known=counts > 0, count=ws.experiment.parse.categories, seed=seed
    )
    titles = data.corpus.catalogue.titles
    rows = [
        {
            "category": number,
            "size": int(categories.sizes[number]),
            "share": float(counts[categories.of_item == number].sum() / counts.sum()),
            "titles": [titles[item] for item in items],
        }
        for number, items in enumerate(nearest_items(vectors, categories, _TITLES))
    ]
    folder = files.seed_folder(ws, seed)
    on_main(lambda: folder.mkdir(parents=True, exist_ok=True))
    arrays = {"of_item": categories.of_item, "centres": categories.centres}
    save_tree(folder / "categories.safetensors", arrays, {"categories": rows})
    return categories


class _Parsing:
    """Tunes the language model, as often as there are seeds; compiled once."""

    def __init__(self, ws: Workspace, data: Data, language: Language):
        self.ws, self.data, self.language = ws, data, language
        self.config, self.layout = ws.experiment.parse, language.layout
        self.parser = files.make_parser(ws, language)
        longest = int(data.split.train.lengths.max())
        self.pieces = files.preference_pieces(ws, language, longest)
        self.buckets = make_buckets(self.config.max_tokens)
        self.share = own_share(self.layout, self.config.batch_size)
        self.optimizer = parsing_optimizer(self.config)
        gradients = mean_loss_gradients(
            parsing_loss(self.parser, self.config), self.config.optimizer.accumulate
        )
        self.step = TrainStep(gradients, self.optimizer, self.layout)
        self.distributions = EvalStep(
            lambda held, rows: jax.nn.softmax(self.parser.logits(ids=rows["ids"], **held)),
            self.layout,
        )

    def fit(self, categories: Categories, seed: int) -> dict[str, Any]:
        """Trains under one seed, or resumes, or reads what is finished; says what the held-out users give."""
        targets = preference_targets(self.data.split.train, categories.of_item, categories.count)
        users = self._parts(targets, seed)
        evaluate = self._validator(users, targets)
        trained, result = fit(
            Run(
                name=f"preference/seed-{seed}",
                directory=files.seed_folder(self.ws, seed) / "model",
                state=create_state(self._start(targets[users["train"]], seed), self.optimizer),
                frozen={
                    "params": self.language.params,
                    "unit": _unit(targets[users["train"]], self.config.loss),
                },
                batches=training_iterator(
                    lambda index, _: self._example(int(users["train"][index]), targets),
                    len(users["train"]),
                    batch_size=self.config.batch_size,
                    buckets=self.buckets,
                    seed=seed,
                    process_index=self.share[0],
                    process_count=self.share[1],
                ),
                step=self.step,
                layout=self.layout,
                evaluate=evaluate,
                monitor="valid/selection",
                config=self.config.loop,
                key=prng.key(seed, "parse/dropout"),
                share=self.share,
                identity=self.ws.identity("parse") | {"repetition": seed},
                watch=self.ws.watch,
            )
        )
        measured = evaluate(self.language.put(trained))
        return {
            "step": result["best_step"],
            "steps": result["steps"],
            "train_users": len(users["train"]),
            "valid_users": len(users["valid"]),
            **{name.removeprefix("valid/"): value for name, value in measured.items()},
            "constant": _constant(targets, users),
        }

    def _parts(self, targets: np.ndarray, seed: int) -> dict[str, np.ndarray]:
        """Users who train, and who are held out; nobody without a target."""
        held_out = self.config.valid_users
        asked = np.flatnonzero(targets.sum(1) > 0)
        return partition_users(asked, {"train": 1 - held_out, "valid": held_out}, seed)

    def _start(self, targets: np.ndarray, seed: int) -> dict[str, Any]:
        """Adapters that change nothing, and a projection that begins near the mean target, whatever the text says."""
        width = self.language.model.width
        key = prng.key(seed, "parse/projection")
        projection = init_projection(width, targets.shape[1], key) | {"bias": _mean_logits(targets)}
        trained: dict[str, Any] = {"projection": projection}
        if self.config.lm == "adalora":
            key = prng.key(seed, "parse/adapters")
            closed = self.language.model.closed
            adapters = init_adapters(self.language.params, self.config.adalora, key, closed=closed)
            trained["adapters"] = adapters
        return trained

    def _example(self, user: int, targets: np.ndarray) -> dict[str, np.ndarray]:
        text = prompts.preference(self.pieces, self.data.split.train.history(user))
        return {"ids": text, "targets": targets[user]}

    def _validator(
        self, users: dict[str, np.ndarray], targets: np.ndarray
    ) -> Callable[[Any], dict[str, float]]:
        """trained -> squared error and top-category accuracy of the held-out users."""
        asked, wanted = users["valid"], targets[users["valid"]]
        texts = [self._example(int(user), targets)["ids"] for user in asked]
        ids = pad_texts(texts, bucket_length(max(map(len, texts)), self.buckets))
        batch_size = min(self.ws.experiment.evaluate.batch_size, len(asked))

        def evaluate(trained: Any) -> dict[str, float]:
            held = {"params": self.language.params, "adapters": None, **trained}
            predicted = self.distributions.in_batches(held, {"ids": ids}, batch_size)
            error = float(preferences.squared_errors(predicted, wanted).mean())
            hits = float(preferences.top_category_hits(predicted, wanted).mean())
            selection = -error if self.config.select_by == "squared_error" else hits
            return {
                "valid/squared_error": error,
                "valid/top_category": hits,
                "valid/selection": selection,
            }

        return evaluate


def parsing_loss(parser: PreferenceParser, config: ParseConfig) -> LossFn:
    """The loss of a batch of texts and target distributions, in units of what a constant answer costs.

    A squared error of distributions is of the order of 0.01: left so, AdaLoRA's penalty would drown it. In units of the
    error of the mean target (`frozen["unit"]`), 1 is what is reached without reading the text.
    """

    def loss(trained, frozen, batch, key):
        adapters = trained.get("adapters")
        logits = parser.logits(
            frozen["params"],
            trained["projection"],
            batch["ids"],
            adapters=adapters,
            dropout_key=key,
        )
        errors = distribution_error(logits, batch["targets"], config.loss) / frozen["unit"]
        metrics = {}
        if adapters is not None:
            metrics["penalty"] = config.adalora.orthogonality * orthogonality_penalty(adapters)
        return errors, jnp.ones_like(errors), metrics

    return loss


def parsing_optimizer(config: ParseConfig) -> Any:
    """Of projection and adapters; AdaLoRA's ranks are allotted among the adapters."""
    optimizer = make_optimizer(config.optimizer, config.loop.steps)
    if config.lm == "frozen":
        return optimizer
    return with_rank_allocation(optimizer, config.adalora, config.loop.steps)


def _mean_logits(targets: np.ndarray) -> jax.Array:
    """The logits of the users' mean target."""
    mean = preferences.constant_prediction(targets)
    return jnp.asarray(np.log(np.maximum(mean, 1e-6)), jnp.float32)


def _unit(targets: np.ndarray, kind: str) -> jax.Array:
    """The mean error of the mean target, the same for every user."""
    logits = jnp.broadcast_to(_mean_logits(targets), targets.shape)
    error = distribution_error(logits, jnp.asarray(targets), kind).mean()
    return jnp.maximum(error, 1e-6)  # users who are all alike leave nothing to explain


def _constant(targets: np.ndarray, users: dict[str, np.ndarray]) -> dict[str, float]:
    """What the training users' mean target gives for the held-out users: a parser must do better."""
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
