"""Stage 1's training: its loss, and the task that the stage trains and `delrec plan` compiles."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from delrec_jax.config import DistillConfig, Experiment
from delrec_jax.delrec import title_slots
from delrec_jax.delrec.guides import guide_shapes
from delrec_jax.delrec.material import PromptExample
from delrec_jax.delrec.prompt_start import PromptStart
from delrec_jax.delrec.prompt_tasks import prompt_tasks
from delrec_jax.delrec.task_weighting import TaskWeighting, init_weighting, weighted_gradients
from delrec_jax.language.ranker import Ranker
from delrec_jax.language.ranking_losses import (
    candidate_cross_entropy,
    listed_cross_entropy,
    open_items,
)
from delrec_jax.language.readout import distilled_part, with_readout
from delrec_jax.training.gradients import GradientFn, Metrics, accumulated
from delrec_jax.training.optimizers import make_optimizer
from delrec_jax.training.sharding import Layout
from delrec_jax.training.task import Scoring, Task, shapes_of
from delrec_jax.workdir.language_scorer import candidate_scores, text_shapes


def distilling_task(
    experiment: Experiment,
    ranker: Ranker,
    layout: Layout,
    frozen: Any,
    start: PromptStart,
    known: Bool[np.ndarray, " I"],
) -> Task:
    """Stage 1's training: TA, RPS and the config's other tasks share one prompt and one pass.

    Args:
      experiment: the config.
      ranker: scores texts.
      layout: how the language model is placed on the devices.
      frozen: shapes of `params`, `vectors` and, if slots follow titles, those of `title_slots`.
      start: makes the untrained prompt.
      known: the items that occur in the training part.
    """
    config = experiment.distill
    names = tuple(task.name for task in prompt_tasks(experiment))
    weighting = TaskWeighting.of(config, names)

    readout = ranker.readout()

    def begin(frozen: Any, seed: int) -> dict[str, Any]:
        """The untrained prompt, what it is trained with of the verbalizer, and the parameters of the weighting."""
        table = ranker.model.table(frozen["params"])
        prompt = start.prompt(table, seed, vectors=frozen.get(title_slots.VECTORS))
        trained = {"prompt": prompt, **init_weighting(weighting)}
        return with_readout(trained, distilled_part(ranker.verbalizer, readout))

    def batch(rows: int) -> PromptExample:
        """Shapes of a batch of this many rows."""
        listed = (rows, config.num_candidates)
        ids = text_shapes(experiment.prompts.max_tokens, rows)
        return PromptExample(
            ids=ids,
            owners=ids if ranker.verbalizer.reads_owners else None,
            guides=guide_shapes(experiment, ranker, rows),
            candidates=jax.ShapeDtypeStruct(listed, np.int32),
            targets=jax.ShapeDtypeStruct(listed, np.float32),
            task=jax.ShapeDtypeStruct((rows,), np.int32),
        )

    held = {name: frozen[name] for name in ("params", "vectors")}
    held |= {"prompt": start.shapes(ranker), "readout": shapes_of(readout)}
    asked = batch(layout.rows(experiment.evaluate.batch_size))
    return Task(
        stage="distill",
        config=config,
        layout=layout,
        gradients=prompt_gradients(ranker, weighting, config, known),
        optimizer=make_optimizer(config.optimizer, config.loop.steps),
        start=begin,
        frozen=frozen,
        batch=batch(config.batch_size),
        scoring=Scoring(candidate_scores(ranker), held, asked, layout),
    )


def prompt_gradients(
    ranker: Ranker, weighting: TaskWeighting, config: DistillConfig, known: Bool[np.ndarray, " I"]
) -> GradientFn:
    """Stage 1's gradient with respect to the prompt and the verbalizer's scalars; the language model never changes.

    Args:
      ranker: scores texts.
      weighting: how the tasks' losses are combined.
      config: what the target distribution is compared over, and the number of parts of a batch.
      known: the items that occur in the training part.
    """
    numbers = np.arange(len(weighting.names))[:, None]

    def losses_of(params: Any, frozen: Any, batch: PromptExample) -> jax.Array:
        """The loss of each text [B]."""
        readout = {**ranker.readout(), **params.get("readout", {})}
        prompt = title_slots.slots_of(params["prompt"], frozen.get(title_slots.VECTORS))
        options = {"vectors": frozen["vectors"], "prompt": prompt, "readout": readout}
        options |= {"owners": batch.owners, "guides": batch.guides}
        asked = (frozen["params"], batch.ids)
        if config.loss_over == "candidates":
            scores = ranker.candidate_scores(*asked, batch.candidates, **options)
            return candidate_cross_entropy(scores, batch.targets)
        scores = ranker.catalogue_scores(*asked, **options)
        competing = open_items(known, batch.owners)
        return listed_cross_entropy(scores, competing, batch.candidates, batch.targets)

    def task_sums(
        params: Any, frozen: Any, batch: PromptExample, key: jax.Array
    ) -> tuple[jax.Array, jax.Array, Metrics]:
        """The summed loss [N] and the number of texts [N] of each task."""
        losses = losses_of(params, frozen, batch)  # [B]
        members = (batch.task[None] == numbers).astype(jnp.float32)  # [N, B]
        return members @ losses, members.sum(1), {}

    sums_fn = accumulated(task_sums, config.optimizer.accumulate)

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
