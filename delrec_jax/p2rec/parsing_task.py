"""The training of P2Rec's information reconstruction, without its data: parameters, loss, optimizer, scoring."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from delrec_jax import prng
from delrec_jax.config import Experiment, ParseConfig
from delrec_jax.language.adalora import init_adapters, orthogonality_penalty
from delrec_jax.language.rank_allocation import with_rank_allocation
from delrec_jax.p2rec.preference_examples import PooledTexts, PreferenceText
from delrec_jax.p2rec.preference_parser import PreferenceParser, init_projection
from delrec_jax.p2rec.preferences import distribution_error
from delrec_jax.training.gradients import LossFn, Metrics, mean_loss_gradients
from delrec_jax.training.optimizers import make_optimizer
from delrec_jax.training.sharding import Layout
from delrec_jax.training.task import Scoring, Task
from delrec_jax.workdir.language_scorer import text_shapes


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

    def distributions(held: Any, texts: PooledTexts) -> jax.Array:
        """The predicted distribution [B, K] of each text."""
        return jax.nn.softmax(parser.logits(ids=texts.ids, counted=texts.counted, **held))

    width, closed = parser.model.width, parser.model.closed
    frozen = {"params": params, "unit": jax.ShapeDtypeStruct((), np.float32)}
    begun = jax.eval_shape(lambda frozen: start(frozen, 0), frozen)
    targets = jax.ShapeDtypeStruct((config.batch_size, config.categories), np.float32)
    shown = text_shapes(config.max_tokens, config.batch_size)
    asked = text_shapes(config.max_tokens, layout.rows(experiment.evaluate.batch_size))
    return Task(
        stage="parse",
        config=config,
        layout=layout,
        gradients=mean_loss_gradients(parsing_loss(parser, config), config.optimizer.accumulate),
        optimizer=parsing_optimizer(config),
        start=start,
        frozen=frozen,
        batch=PreferenceText(ids=shown, counted=shown, targets=targets),
        scoring=Scoring(
            distributions,
            {"params": params, "adapters": None, **begun},
            PooledTexts(ids=asked, counted=asked),
            layout,
        ),
    )


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
            batch.counted,
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
    return with_rank_allocation(
        optimizer, config.adalora, config.loop.steps, clip=config.optimizer.clip
    )
