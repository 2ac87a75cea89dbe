"""Stage 2's loss and task, LSR in the paper: the prompted language model with adapters ranks the next item of a history."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from delrec_jax import prng
from delrec_jax.config import Experiment, TuneConfig
from delrec_jax.delrec import title_slots
from delrec_jax.delrec.guides import guide_shapes
from delrec_jax.delrec.labelled_texts import LabelledText, ListedText
from delrec_jax.delrec.prompt_start import PromptStart
from delrec_jax.delrec.residual_tuning import ResidualTuning, beside_of, with_teacher
from delrec_jax.evaluation.ranking import gather_candidates
from delrec_jax.language.adalora import init_adapters, orthogonality_penalty
from delrec_jax.language.logical_axes import READOUT_BEFORE
from delrec_jax.language.rank_allocation import with_rank_allocation
from delrec_jax.language.ranker import Ranker
from delrec_jax.language.ranking_losses import (
    candidate_cross_entropy,
    catalogue_cross_entropy,
    divergence,
    open_items,
)
from delrec_jax.language.readout import with_readout
from delrec_jax.training.gradients import LossFn, Metrics, mean_loss_gradients
from delrec_jax.training.optimizers import make_optimizer, with_own_rate
from delrec_jax.training.sharding import Layout
from delrec_jax.training.task import Scoring, Task, shapes_of
from delrec_jax.workdir.language_scorer import (
    CATALOGUE_AXES,
    AskedTexts,
    candidate_scores,
    catalogue_scores,
    ranks_catalogue,
    text_shapes,
)


def tuning_task(
    experiment: Experiment,
    ranker: Ranker,
    layout: Layout,
    frozen: Any,
    *,
    known: Bool[np.ndarray, " I"],
    teacher: Any = None,
) -> Task:
    """Stage 2's training.

    Args:
      experiment: the config.
      ranker: scores texts.
      layout: how the language model is placed on the devices.
      frozen: shapes of `params`, `vectors` and, if slots follow titles, those of `title_slots`.
      known: the items that occur in the training part.
      teacher: shapes of the recommender that the config tunes beside; None if it tunes beside none.
    """
    config, beside = experiment.tune, beside_of(experiment, known)
    untrained = PromptStart(experiment, words=(0,))
    frozen = {**frozen, "prompt": untrained.shapes(ranker)}
    if own := ranker.readout():
        frozen |= {READOUT_BEFORE: shapes_of(own)}

    def start(frozen: Any, seed: int) -> Any:
        """New adapters, which do not change the model's output yet, and what else trains: readout, and perhaps the prompt."""
        key, closed = prng.key(seed, "adapters/init"), ranker.model.closed
        trained: dict[str, Any] = {}
        trained["adapters"] = init_adapters(frozen["params"], config.adalora, key, closed=closed)
        if config.train_prompt:
            table, vectors = ranker.model.table(frozen["params"]), frozen.get(title_slots.VECTORS)
            trained["prompt"] = untrained.prompt(table, seed, vectors=vectors)
        return with_readout(trained, ranker.readout())

    inner = make_optimizer(config.optimizer, config.loop.steps)
    if config.train_prompt:
        inner = with_own_rate(inner, "prompt", config.prompt_rate)
    trained = jax.eval_shape(lambda frozen: start(frozen, 0), frozen)
    held = {name: frozen[name] for name in ("params", "vectors", "prompt")}
    held |= {"adapters": trained["adapters"], "readout": trained.get("readout", {})}
    scoring = _scoring(experiment, ranker, layout, held)
    if beside is not None:
        layout, frozen = with_teacher(layout), {**frozen, "teacher": teacher}
    return Task(
        stage="tune",
        config=config,
        layout=layout,
        gradients=mean_loss_gradients(
            ranking_loss(ranker, known, config, beside), config.optimizer.accumulate
        ),
        optimizer=with_rank_allocation(
            inner, config.adalora, config.loop.steps, clip=config.optimizer.clip
        ),
        start=start,
        frozen=frozen,
        batch=_largest_batch(experiment, ranker),
        scoring=scoring,
    )


def _largest_batch(experiment: Experiment, ranker: Ranker) -> LabelledText | ListedText:
    config, rows = experiment.tune, experiment.tune.batch_size
    ids = text_shapes(experiment.prompts.max_tokens, rows)
    read = jax.ShapeDtypeStruct((rows, experiment.teacher.max_length), np.int32)
    more = {
        "history": read if config.beside else None,
        "owners": ids if ranker.verbalizer.reads_owners else None,
        "guides": guide_shapes(experiment, ranker, rows),
    }
    if config.loss_over == "catalogue":
        label = jax.ShapeDtypeStruct((rows,), np.int32)
        return LabelledText(ids=ids, label=label, **more)
    listed = (rows, config.num_candidates)
    return ListedText(
        ids=ids,
        candidates=jax.ShapeDtypeStruct(listed, np.int32),
        targets=jax.ShapeDtypeStruct(listed, np.float32),
        **more,
    )


def _scoring(experiment: Experiment, ranker: Ranker, layout: Layout, held: Any) -> Scoring:
    """The scores that `tune` and `evaluate` rank by: over the catalogue, or over the candidates where texts list them."""
    asked = layout.rows(experiment.evaluate.batch_size)
    ids = text_shapes(experiment.prompts.max_tokens, asked)
    texts = AskedTexts(
        ids=ids,
        owners=ids if ranker.verbalizer.reads_owners else None,
        guides=guide_shapes(experiment, ranker, asked),
    )
    if ranks_catalogue(ranker, experiment.prompts):
        return Scoring(catalogue_scores(ranker), held, texts, layout, CATALOGUE_AXES)
    listed = jax.ShapeDtypeStruct((asked, experiment.candidates.num), np.int32)
    return Scoring(candidate_scores(ranker), held, replace(texts, candidates=listed), layout)


def ranking_loss(
    ranker: Ranker,
    known: Bool[np.ndarray, " I"],
    config: TuneConfig,
    beside: ResidualTuning | None = None,
) -> LossFn:
    """Stage 2's loss: cross-entropy of the next item, and AdaLoRA's orthogonality penalty.

    With `beside`, it is the cross-entropy of the sum of both scores, and items of the history are no negatives either, as
    they are not ranked.

    Items whose titles the text shows are no negatives where the verbalizer knows of them (`reads_owners`): a cosine would put
    them first, and they are never ranked.

    Items that do not occur in the training part (False in `known`, bool [I]) are not negatives: nobody could choose them
    yet, and pushing them down would unlearn what their titles say about them. For the same reason, `anchor` keeps the
    tuned model's distribution over the full catalogue close to that of the model before stage 2.
    """

    def loss(
        params: Any, frozen: Any, batch: LabelledText | ListedText, key: jax.Array
    ) -> tuple[jax.Array, jax.Array, Metrics]:
        """Losses [B], weights [B], and the penalty."""
        fixed = {name: frozen[name] for name in ("prompt", "vectors")}
        fixed |= {"owners": batch.owners, "guides": batch.guides}
        options = {**fixed, **params, "dropout_key": key}
        if "prompt" in params:
            vectors = frozen.get(title_slots.VECTORS)
            options["prompt"] = title_slots.slots_of(params["prompt"], vectors)
        off = orthogonality_penalty(params["adapters"])
        penalty = {"penalty": config.adalora.orthogonality * off}
        if isinstance(batch, LabelledText):
            scores = ranker.catalogue_scores(frozen["params"], batch.ids, **options)  # [B, I]
            total, competing = scores, open_items(known, batch.owners)
            if beside is not None and batch.history is not None:
                total = scores + beside.of_folds(frozen["teacher"], batch.history, batch.folds)
                competing = competing & beside.open_items(batch.history)
            is_label = jnp.arange(len(known)) == batch.label[:, None]  # it may be a repeat
            open_scores = jnp.where(competing | is_label, total, -jnp.inf)
            losses, weights = catalogue_cross_entropy(open_scores, batch.label)
            if config.anchor:
                before = batch.before
                if before is None:
                    fixed["readout"] = frozen.get(READOUT_BEFORE)
                    before = ranker.catalogue_scores(frozen["params"], batch.ids, **fixed)
                losses = losses + config.anchor * divergence(before, scores)
            return losses, weights, penalty
        scores = ranker.candidate_scores(frozen["params"], batch.ids, batch.candidates, **options)
        if beside is not None and batch.history is not None:
            added = beside.of_folds(frozen["teacher"], batch.history, batch.folds)
            scores = scores + gather_candidates(added, batch.candidates)
        losses = candidate_cross_entropy(scores, batch.targets)
        return losses, jnp.ones_like(losses), penalty

    return loss
