"""From per-example losses to one gradient; the mean is taken here, except for stage 1's means of its tasks.

A batch that is too large for the memory is computed in parts (`accumulated`). Losses stay sums and weights until the
full batch is added up, so that splitting into parts changes nothing but the memory use and the draws of dropout.
"""

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp

from delrec_jax.errors import UserError

Metrics = dict[str, jax.Array]
GradientFn = Callable[[Any, Any, Any, jax.Array], tuple[Any, Metrics]]
LossFn = Callable[[Any, Any, Any, jax.Array], tuple[jax.Array, jax.Array, Metrics]]
# Like LossFn, but over the full batch: sums of losses (one, or one per task), sums of weights of the same shape, metrics.
SumsFn = Callable[[Any, Any, Any, jax.Array], tuple[jax.Array, jax.Array, Metrics]]


def mean_loss_gradients(loss_fn: LossFn, accumulate: int = 1) -> GradientFn:
    """Returns the gradient function of the weighted mean of per-example losses.

    Args:
      loss_fn: (params, frozen, batch, key) -> (losses, weights of the same shape, metrics). The
        weighted mean is taken here; to add a penalty, return it as metrics["penalty"].
      accumulate: number of parts that the batch is computed in, see `accumulated`.
    """

    def loss_sums(
        params: Any, frozen: Any, batch: Any, key: jax.Array
    ) -> tuple[jax.Array, jax.Array, Metrics]:
        """Sum of the weighted losses, sum of the weights, and metrics."""
        losses, weights, metrics = loss_fn(params, frozen, batch, key)
        chex.assert_equal_shape((losses, weights))  # [B] times [B, 1] would be [B, B]
        return (losses * weights).sum(), weights.sum(), metrics

    sums_fn = accumulated(loss_sums, accumulate)

    def mean_loss(
        params: Any, frozen: Any, batch: Any, key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """The weighted mean loss plus the penalty, and metrics."""
        total, weight, metrics = sums_fn(params, frozen, batch, key)
        loss = total / jnp.maximum(weight, 1.0)
        return loss + metrics.get("penalty", 0.0), {"loss": loss, **metrics}

    return jax.grad(mean_loss, has_aux=True)


def accumulated(sums_fn: SumsFn, parts: int) -> SumsFn:
    """Computes the same sums over the same batch in parts, one after the other, with the memory of one part.

    The values and the gradient to `params` are those of the full batch, whatever is then made of the sums (a mean, or two
    tasks weighted by the norms of their gradients). Each part is differentiated right away, with one backward pass per sum;
    the result is a function with this known value and gradient, and cannot be differentiated twice.

    Args:
      sums_fn: adds over examples; its weights must not depend on `params`, nor metrics["penalty"] on the batch.
      parts: 1 returns `sums_fn` itself; otherwise part i draws from `fold_in(key, i)`.

    Returns:
      A function that returns the sums and weights of the full batch; metrics are means over the parts, and the penalty
      counts once.

    Raises:
      UserError: (when called) the rows of the batch do not divide into this many parts.
    """
    if parts == 1:
        return sums_fn

    def whole(
        params: Any, frozen: Any, batch: Any, key: jax.Array
    ) -> tuple[jax.Array, jax.Array, Metrics]:
        """Sums, weights and metrics of the full batch, added up part by part."""
        split = _strided_parts(batch, parts)
        here = jax.lax.stop_gradient(params)

        def one(
            index: jax.typing.ArrayLike, part: Any
        ) -> tuple[jax.Array, Any, jax.Array, Metrics]:
            """Sums, their Jacobian, weights and metrics of one part."""
            part_key = jax.random.fold_in(key, index)
            return _sums_and_jacobian(lambda p: sums_fn(p, frozen, part, part_key), here)

        first = jax.tree.map(lambda leaf: leaf[0], split)
        zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(one, 0, first))
        (sums, jacobian, weights, metrics), _ = jax.lax.scan(
            lambda total, part: (jax.tree.map(jnp.add, total, one(*part)), None),
            zeros,
            (jnp.arange(parts), split),
        )
        metrics = {name: value / parts for name, value in metrics.items()}
        if "penalty" in metrics:
            # It depends on the parameters alone: the compiler drops the rest of this call, and it is differentiated as usual.
            metrics["penalty"] = sums_fn(params, frozen, first, key)[2]["penalty"]
        return _with_gradient(params, sums, jacobian), weights, metrics

    return whole


def _strided_parts(batch: Any, parts: int) -> Any:
    """Splits leaves [B, ...] into [parts, B / parts, ...]: part i has rows i, i + parts, ...

    If the batch is split over devices, each device thus keeps its own rows, as long as B / parts divides over the devices.
    """

    def split(leaf: jax.Array) -> jax.Array:
        if leaf.shape[0] % parts:
            raise UserError(
                f"optimizer.accumulate is {parts}, but a batch has {leaf.shape[0]} rows: change it or the batch size so that "
                "it divides"
            )
        return jnp.moveaxis(leaf.reshape(-1, parts, *leaf.shape[1:]), 1, 0)

    return jax.tree.map(split, batch)


def _sums_and_jacobian(
    sums_of: Callable[[Any], tuple[jax.Array, jax.Array, Metrics]], params: Any
) -> tuple[jax.Array, Any, jax.Array, Metrics]:
    """Sums of a part, their gradients in float32 (leaves [*sums, *leaf]), weights and metrics."""

    def aside(params: Any) -> tuple[jax.Array, tuple[jax.Array, Metrics]]:
        """The sums to differentiate, and weights and metrics as auxiliary output."""
        sums, weights, metrics = sums_of(params)
        return sums, (weights, jax.tree.map(lambda value: jnp.asarray(value, jnp.float32), metrics))

    sums, pull_back, (weights, metrics) = jax.vjp(aside, params, has_aux=True)
    # One unit cotangent per sum.
    rows = jnp.eye(sums.size, dtype=sums.dtype).reshape(-1, *sums.shape)
    pulled = [pull_back(row)[0] for row in rows]
    jacobian = jax.tree.map(
        lambda *leaves: (
            jnp.stack(leaves).astype(jnp.float32).reshape(*sums.shape, *leaves[0].shape)
        ),
        *pulled,
    )
    return sums, jacobian, weights, metrics


@jax.custom_vjp
def _with_gradient(params: Any, sums: jax.Array, jacobian: Any) -> jax.Array:
    """Returns `sums` as a function of `params` that has this Jacobian."""
    return sums


def _with_gradient_forward(
    params: Any, sums: jax.Array, jacobian: Any
) -> tuple[jax.Array, tuple[Any, Any]]:
    types = jax.tree.map(lambda leaf: jnp.zeros(0, leaf.dtype), params)
    return sums, (jacobian, types)


def _with_gradient_backward(kept: tuple[Any, Any], cotangent: jax.Array) -> tuple[Any, None, None]:
    jacobian, types = kept
    grads = jax.tree.map(
        lambda leaf, like: jnp.tensordot(cotangent, leaf, cotangent.ndim).astype(like.dtype),
        jacobian,
        types,
    )
    return grads, None, None


_with_gradient.defvjp(_with_gradient_forward, _with_gradient_backward)
