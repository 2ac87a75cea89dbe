"""`delrec tune`: stage 2, AdaLoRA on the language model with the prompt frozen, to rank the next item."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from delrec_jax import prng
from delrec_jax.config import TuneConfig
from delrec_jax.data import prompts
from delrec_jax.data.pipeline import make_buckets, training_iterator
from delrec_jax.data.splits import Split, padded_histories
from delrec_jax.delrec import prompt_examples
from delrec_jax.delrec.temporal_analysis import candidate_target
from delrec_jax.evaluation.metrics import metrics_of_ranks
from delrec_jax.evaluation.ranking import (
    RankFn,
    candidate_ranker,
    rank_full,
    rank_users,
    seen_items,
)
from delrec_jax.language.adalora import init_adapters, orthogonality_penalty
from delrec_jax.language.rank_allocation import (
    allocation_state,
    ranks_in_use,
    with_rank_allocation,
)
from delrec_jax.language.ranker import Ranker
from delrec_jax.language.ranking_losses import (
    candidate_cross_entropy,
    catalogue_cross_entropy,
    divergence,
)
from delrec_jax.training.gradients import mean_loss_gradients
from delrec_jax.training.loop import Run, fit
from delrec_jax.training.optimizers import make_optimizer
from delrec_jax.training.sharding import own_share
from delrec_jax.training.steps import TrainState, TrainStep, create_state
from delrec_jax.training.writers import say
from delrec_jax.workdir import assets
from delrec_jax.workdir.language_scorer import LanguageScorer, LanguageSystem
from delrec_jax.workdir.workspace import Workspace


def tune(ws: Workspace) -> None:
    """Tunes with the distilled and with the random prompt, on all labels and on few, under the same budget."""
    data = assets.load_data(ws)
    language = assets.load_language(ws, data)
    users = prompt_examples.user_parts(ws, data)
    trainer = _Trainer(ws, language, data)
    few = ws.experiment.tune.few_users
    for name in ("distilled", "random"):
        trainer.fit(name, name, data.split.training_users)
        if few:
            trainer.fit(f"{name}_few", name, users["train"][:few])


@dataclass(frozen=True)
class Labels:
    """Next items inside the training part: history = the user's first `ends` items, label = the one after."""

    rows: prompt_examples.Rows
    items: np.ndarray


class _Trainer:
    def __init__(self, ws: Workspace, language: assets.Language, data: assets.Data):
        self.ws, self.language, self.data = ws, language, data
        self.config = ws.experiment.tune
        self.buckets = make_buckets(ws.experiment.prompts.max_tokens)
        self.layout = language.layout
        self.share = own_share(self.layout, self.config.batch_size)
        inner = make_optimizer(self.config.optimizer, self.config.loop.steps)
        self.optimizer = with_rank_allocation(inner, self.config.adalora, self.config.loop.steps)
        known = ~data.split.cold_items(data.num_items)
        loss = ranking_loss(language.ranker, known, self.config)
        gradients = mean_loss_gradients(loss, self.config.optimizer.accumulate)
        self.step = TrainStep(gradients, self.optimizer, self.layout)
        self.known = np.flatnonzero(known)
        self.scorer = LanguageScorer(ws, language)

    def fit(self, name: str, prompt_name: str, users: np.ndarray) -> None:
        """Trains one set of adapters, or resumes it, or leaves a finished one."""
        seed = self.ws.experiment.seed
        prompt = self.language.put({"prompt": assets.load_prompt(self.ws, prompt_name)})["prompt"]
        labels = self._labels(users)
        params = init_adapters(
            self.language.params,
            self.config.adalora,
            prng.key(seed, "adapters/init"),
            closed=self.language.model.closed,
        )
        _, result = fit(
            Run(
                name=f"adapter/{name}",
                directory=self.ws.folder("tune") / name,
                state=create_state(params, self.optimizer),
                frozen={
                    "params": self.language.params,
                    "prompt": prompt,
                    "vectors": self.language.vectors,
                },
                batches=training_iterator(
                    lambda index, rng: self._example(labels, index, rng),
                    len(labels.items),
                    batch_size=self.config.batch_size,
                    buckets=self.buckets,
                    seed=seed,
                    process_index=self.share[0],
                    process_count=self.share[1],
                ),
                step=self.step,
                layout=self.layout,
                evaluate=self._validator(prompt, users),
                monitor="valid/selection",
                config=self.config.loop,
                key=prng.key(seed, "adapters/dropout"),
                share=self.share,
                identity=self.ws.identity("tune") | {"adapters": name},
                watch=self.ws.watch,
                summary=_ranks,
            )
        )
        ranks = list(result["ranks"].values())
        say(
            f"  adapter {name}: {len(labels.items)} labels, selected step {result['best_step']} of {result['steps']}, "
            f"rank pattern {' '.join(map(str, ranks))} of {self.config.adalora.init_rank} (by path in "
            f"adapter/{name}/result.json)"
        )

    def _labels(self, users: np.ndarray) -> Labels:
        rows = prompt_examples.latest_rows(self.data, users, self.config.positions, labelled=True)
        train = self.data.split.train
        return Labels(rows, train.items[train.offsets[rows.users] + rows.ends])

    def _example(self, labels: Labels, index: int, rng: np.random.Generator) -> dict[str, Any]:
        history = self.data.split.train.history(int(labels.rows.users[index]))
        shown, label = history[: labels.rows.ends[index]], int(labels.items[index])
        if self.config.loss_over == "catalogue":
            text = prompts.recommendation(self.language.pieces, shown, pattern=self.language.slots)
            return {"ids": text, "label": np.int32(label)}
        count = self.config.num_candidates
        candidates = prompt_examples.among_negatives(label, self.known, history, count, rng)
        text = prompts.recommendation(
            self.language.pieces, shown, pattern=self.language.slots, candidates=candidates
        )
        return {
            "ids": text,
            "candidates": candidates,
            "targets": candidate_target(candidates, label),
        }

    def _validator(self, prompt: jax.Array, users: np.ndarray) -> Callable[[Any], dict[str, float]]:
        """adapters -> HR@1 and NDCG@10 of these users' validation items (few labels: of the few users alone).

        Over the whole catalogue that is open then (unseen items that the training part knows); over the stored
        candidates where texts list them.
        """
        split, sets = self.data.split, self.data.candidates["valid"]
        asked = _selecting_rows(split, users)
        everybody = split.histories("valid")
        histories = [everybody[row] for row in asked]
        targets, candidates = split.target("valid")[asked], sets.items[asked]
        listed = not self.scorer.ranks_catalogue
        system = LanguageSystem(self.language.slots, prompt)
        ids = self.scorer.texts(system, histories, candidates)
        ranker = (
            candidate_ranker(targets, candidates)
            if listed
            else self._open_ranker(
                padded_histories(
                    split, "valid", int(split.history_lengths("valid").max()), rows=asked
                ),
                targets,
            )
        )

        def evaluate(adapters: Any) -> dict[str, float]:
            tuned = replace(system, adapters=adapters)

            def scores(rows: np.ndarray) -> jax.Array:
                if listed:
                    return self.scorer.candidates(tuned, ids[rows], candidates[rows])
                return self.scorer.catalogue(tuned, ids[rows])

            ranks = rank_users(
                scores,
                {"valid": ranker},
                num_users=len(ids),
                batch_size=min(self.ws.experiment.evaluate.batch_size, len(ids)),
            )
            values = metrics_of_ranks(ranks["valid"].rank)
            found = {f"valid/{name}": float(values[name].mean()) for name in ("HR@1", "NDCG@10")}
            return found | {"valid/selection": found[f"valid/{self.config.select_by}"]}

        return evaluate

    def _open_ranker(self, histories: np.ndarray, targets: np.ndarray) -> RankFn:
        unknown = jnp.asarray(self.data.split.cold_items(self.data.num_items))

        def rank(scores: jax.Array, rows: np.ndarray) -> tuple[jax.Array, jax.Array]:
            closed = seen_items(histories[rows], num_items=self.data.num_items) | unknown
            return rank_full(scores, targets[rows], closed)

        return rank


def _selecting_rows(split: Split, users: np.ndarray) -> np.ndarray:
    """Rows of the validation part whose labels a run on these training users may use.

    Under leave-one-out their own; the other splits ask other users or few of these, and know no runs on few users.
    """
    valid = split.users("valid")
    return np.flatnonzero(np.isin(valid, users) | (split.kind != "leave_one_out"))


def ranking_loss(ranker: Ranker, known: np.ndarray, config: TuneConfig):
    """Stage 2's loss: cross-entropy of the next item, and AdaLoRA's orthogonality penalty.

    Items that the training part does not know (`known` bool [I]) are no negatives: nobody could choose them yet, and
    pushing them down would unlearn what the titles say of them. For the same reason `anchor` holds the tuned model
    near the one before stage 2 over the whole catalogue.
    """

    def loss(adapters, frozen, batch, key):
        fixed = {"prompt": frozen["prompt"], "vectors": frozen["vectors"]}
        options = {**fixed, "adapters": adapters, "dropout_key": key}
        penalty = {"penalty": config.adalora.orthogonality * orthogonality_penalty(adapters)}
        if "label" in batch:
            scores = ranker.catalogue_scores(frozen["params"], batch["ids"], **options)
            open_scores = jnp.where(known, scores, -jnp.inf)
            losses, weights = catalogue_cross_entropy(open_scores, batch["label"])
            if config.anchor:
                before = ranker.catalogue_scores(frozen["params"], batch["ids"], **fixed)
                losses = losses + config.anchor * divergence(before, scores)
            return losses, weights, penalty
        scores = ranker.candidate_scores(
            frozen["params"], batch["ids"], batch["candidates"], **options
        )
        losses = candidate_cross_entropy(scores, batch["targets"])
        return losses, jnp.ones_like(losses), penalty

    return loss


def _ranks(state: TrainState) -> dict[str, Any]:
    """The rank pattern at the end of training, stored beside the adapters."""
    ranks = ranks_in_use(allocation_state(state.opt_state))
    return {"ranks": {path: int(rank) for path, rank in ranks.items()}}
