"""Stage 1's training: its loss, and the task that the stage trains and `delrec plan` compiles."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from delrec_jax import prng
from delrec_jax.config import DistillConfig, Experiment
from delrec_jax.delrec import title_slots
from delrec_jax.delrec.material import PromptExample
from delrec_jax.delrec.prompt_tasks import prompt_tasks
from delrec_jax.delrec.task_weighting import TaskWeighting, init_weighting, weighted_gradients
from delrec_jax.language.ranker import Ranker
from delrec_jax.language.ranking_losses import (
    candidate_cross_entropy,
    listed_cross_entropy,
    open_items,
)
from delrec_jax.language.readout import distilled_part, with_readout
from delrec_jax.language.soft_prompt import init_guided, init_prompt
from delrec_jax.training.gradients import GradientFn, Metrics, accumulated
from delrec_jax.training.optimizers import make_optimizer
from delrec_jax.training.sharding import Layout
from delrec_jax.training.task import Scoring, Task, shapes_of
from delrec_jax.workdir.language_scorer import candidate_scores, text_shapes

Prompt = jax.Array | dict[str, Any]
"""What trains of a prompt: one of the forms of `language.soft_prompt`, or the projector of `title_slots`."""


RANDOM = "prompt/random"
"""The stream of the control that is never trained."""


@dataclass(frozen=True)
class PromptStart:
    """What an untrained prompt is made from, apart from the token table: the tokens of `distill.init_text`."""

    experiment: Experiment
    words: tuple[int, ...] = ()

    def prompt(
        self, table: jax.Array, seed: int, stream: str = "prompt/init", *, vectors: Any = None
    ) -> Prompt:
        """An untrained prompt of the config's kind, whose slots resemble rows of the token table [V, D].

        Args:
          table: the token table.
          seed: the experiment's seed.
          stream: name of its random stream.
          vectors: those of `title_slots`, if slots follow titles.
        """
        config, key = self.experiment.distill, prng.key(seed, stream)
        if config.titled:
            return title_slots.init_projector(table, vectors.shape[1], key)
        if not config.guided:
            return self._shared(table, key, stream)
        guided = init_guided(table, config.length, config.user_rank, jax.random.fold_in(key, 1))
        return guided | (
            {"shared": self._shared(table, key, stream)} if config.prompt == "both" else {}
        )

    def _shared(self, table: jax.Array, key: jax.Array, stream: str) -> jax.Array:
        config = self.experiment.distill
        # Words are the same in every stream: the random prompt would be no control, but the start of the trained ones.
        kind = "normal" if (config.init, stream) == ("text", RANDOM) else config.init
        return init_prompt(kind, table, config.length, key, text_ids=list(self.words))

    def shapes(self, ranker: Ranker) -> Any:
        """The shapes of a prompt as the texts of this language model read it (`title_slots.readable`)."""
        model = ranker.model
        if self.experiment.distill.titled:
            return jax.ShapeDtypeStruct((len(ranker.title_tokens), model.width), np.float32)
        table = jax.ShapeDtypeStruct((model.vocab_size, model.width), np.float32)
        return jax.eval_shape(lambda table: self.prompt(table, 0), table)


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
        prompt = title_slots.readable(params["prompt"], frozen.get(title_slots.VECTORS))
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


def guide_shapes(experiment: Experiment, ranker: Ranker, rows: int) -> jax.ShapeDtypeStruct | None:
    """The shape of the guides of a batch; None if prompts read none."""
    if not experiment.distill.guided:
        return None
    return jax.ShapeDtypeStruct((rows, ranker.model.width), np.float32)
