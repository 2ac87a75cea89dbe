"""AdaLoRA: W + (alpha / r) A diag(E) B beside any projection, as a separate tree of parameters.

The adapters live in their own Flax collection, `adapters`, at the path of the projection they change. The
base parameters keep their names and values, so pretrained weights load with no renaming, freezing is the
choice of which collection is differentiated, and a model without the collection is the plain one.

Source: Zhang et al., "Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning", ICLR 2023, eq. 3
(the triplet), eq. 4 (the penalty). The numbers follow `peft`, shown in tests/parity.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util
from jaxtyping import Array, Float

from delrec_jax.errors import UserError
from delrec_jax.language.adalora_config import AdaLoRAConfig, is_target
from delrec_jax.language.layers import unstack_layers

Tree = dict[str, Any]


class Adaptable(Protocol):
    """What a module must know to hold projections with adapters: `T5Config`, or the config of another model."""

    @property
    def adapters(self) -> AdaLoRAConfig | None:
        """The adapters' config; None = plain."""
        ...

    @property
    def stored_dtype(self) -> jnp.dtype:
        """The type of the base weights."""
        ...


class Projection(nn.Module):
    """A linear map without bias that adds its adapter when the `adapters` collection holds one.

    Adapters read a dropped-out copy of the input (`AdapterDropout`), which the owner makes once for all projections of
    one input.
    """

    config: Adaptable
    inputs: int
    features: int
    stddev: float

    def setup(self):
        self.kernel = self.param(
            "kernel",
            nn.initializers.normal(self.stddev),
            (self.inputs, self.features),
            self.config.stored_dtype,
        )

    def __call__(
        self, x: Float[Array, "B T D"], dropped: Float[Array, "B T D"]
    ) -> Float[Array, "B T F"]:
        """Returns x W, plus the update of `dropped` where there is an adapter."""
        y = x @ self.kernel.astype(x.dtype)
        if (triplet := self.adapter(x.dtype)) is None:
            return y
        a, e, b = triplet
        return y + ((dropped @ a) * e) @ b

    def adapter(self, dtype: jnp.dtype) -> tuple[Array, Array, Array] | None:
        """A [D, R], E [R] with the scale in it, and B [R, F]; None where there is none."""
        if self.config.adapters is None or not self.has_variable("adapters", "A"):
            return None
        triplet: list[Array] = [self.get_variable("adapters", name) for name in "AEB"]
        a, e, b = (part.astype(dtype) for part in triplet)
        return a, scaling(self.config.adapters) * e, b


class AdapterDropout(nn.Module):
    """Dropout on what adapters read; nothing without adapters.

    Sixteen random bits decide an element, half of what `nn.Dropout` draws: on CPU, random bits were a fifth of a step of
    stage 2 (benchmarks/lm_step.py). The rate is kept to 1 / 65536.
    """

    config: Adaptable

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"], deterministic: bool) -> Float[Array, "B T D"]:
        """Zeroes elements at the adapters' rate and scales up the rest."""
        rate = 0.0 if self.config.adapters is None else self.config.adapters.dropout
        if deterministic or rate == 0:
            return x
        *rows, width = x.shape
        words = jax.random.bits(self.make_rng("dropout"), (*rows, (width + 1) // 2), jnp.uint32)
        # Halved by hand: `random.bits` in uint16 takes twice the time of uint32 on CPU.
        bits = jnp.concatenate([words & 0xFFFF, words >> 16], axis=-1)[..., :width]
        return jnp.where(bits >= round(rate * 2**16), x / (1 - rate), 0)


def scaling(config: AdaLoRAConfig) -> float:
    """alpha / r; the 1e-5 is `peft`'s guard and is kept so that merged weights agree to the last digit."""
    return config.alpha / (config.init_rank + 1e-5)


def init_adapters(
    params: Tree, config: AdaLoRAConfig, key: jax.Array, *, closed: Sequence[str] = ()
) -> Tree:
    """Makes the adapters of every projection that a rule of `config.targets` meets.

    E starts at zero, so that the adapted model equals the base model; A and B are N(0, 0.02^2).

    Args:
      params: the base parameters; leaves at `.../NAME/kernel` of shape [in, out], or [L, in, out] where layers are
        scanned.
      config: which projections, and the rank R.
      key: random key.
      closed: top-level projections that may not be adapted (`LanguageModel.closed`).

    Returns:
      A tree with `A` [in, R], `E` [R] and `B` [R, out] at each adapted path, with the layer axis of its kernel.

    Raises:
      UserError: a rule that meets no projection, or one that meets a closed one.
    """
    for name in closed:
        if is_target((name,), config.targets):
            raise UserError(
                f"adalora.targets {config.targets}: {name} cannot be adapted, because item scores read the head's own weights "
                "and would not see the adapter; leave it out ('*/*' means all others)"
            )
    every = {
        path[:-1]: kernel
        for path, kernel in traverse_util.flatten_dict(params).items()
        if path[-1] == "kernel"
    }
    kernels = {path: kernel for path, kernel in every.items() if is_target(path, config.targets)}
    unmatched = [
        rule for rule in config.targets if not any(is_target(path, (rule,)) for path in every)
    ]
    if unmatched or not kernels:
        names = sorted({path[-1] for path in every} - {*closed})
        raise UserError(
            f"adalora.targets {config.targets}: {unmatched} match no projection: the model has {', '.join(names)}"
        )
    flat = {}
    for path, path_key in zip(sorted(kernels), jax.random.split(key, len(kernels)), strict=True):
        key_a, key_b = jax.random.split(path_key)
        *layers, inner, outer = kernels[path].shape
        flat[(*path, "A")] = 0.02 * jax.random.normal(key_a, (*layers, inner, config.init_rank))
        flat[(*path, "E")] = jnp.zeros((*layers, config.init_rank))
        flat[(*path, "B")] = 0.02 * jax.random.normal(key_b, (*layers, config.init_rank, outer))
    return traverse_util.unflatten_dict(flat)


def merge(params: Tree, adapters: Tree, config: AdaLoRAConfig) -> Tree:
    """Base parameters with every adapter added into its kernel: the same function without the collection."""
    return _add_updates(params, adapters, scaling(config))


def unmerge(params: Tree, adapters: Tree, config: AdaLoRAConfig) -> Tree:
    """Takes out again what `merge` added; exact up to rounding."""
    return _add_updates(params, adapters, -scaling(config))


def _add_updates(params: Tree, adapters: Tree, factor: float) -> Tree:
    flat = traverse_util.flatten_dict(params)
    triplets = traverse_util.flatten_dict(adapters)
    for path in {path[:-1] for path in triplets}:
        a, e, b = (triplets[(*path, name)] for name in "AEB")
        kernel = flat[(*path, "kernel")]
        # Added in float32: bfloat16 would round the sum twice.
        update = factor * (a * e[..., None, :]) @ b
        flat[(*path, "kernel")] = (kernel.astype(update.dtype) + update).astype(kernel.dtype)
    return traverse_util.unflatten_dict(flat)


def orthogonality_penalty(adapters: Tree) -> Float[Array, ""]:
    """Mean over all A and B of the Frobenius norm of P P^T - I (eq. 4; the mean is `peft`'s)."""
    norms = []
    for path, value in traverse_util.flatten_dict(adapters).items():
        if path[-1] == "E":
            continue
        turned = jnp.swapaxes(value, -1, -2)
        gram = turned @ value if path[-1] == "A" else value @ turned
        difference = gram - jnp.eye(gram.shape[-1])
        norms.append(jnp.linalg.norm(difference, axis=(-2, -1)).reshape(-1))
    return jnp.concatenate(norms).mean()


def rank_pattern(adapters: Tree) -> dict[str, int]:
    """The rank in use of every adapter: how many entries of E are not zero, by path."""
    flat = traverse_util.flatten_dict(unstack_layers(adapters))
    return {
        "/".join(path[:-1]): int((value != 0).sum())
        for path, value in sorted(flat.items())
        if path[-1] == "E"
    }
