"""AdaLoRA: W + (alpha / r) A diag(E) B for any projection, with A, E and B in a separate parameter tree.

The adapters live in their own Flax collection, `adapters`, at the path of the projection they change. Base parameters
keep their names and values, so pretrained weights load without renaming, freezing is a matter of which collection is
differentiated, and a model without the collection is the plain model.

Source: Zhang et al., "Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning", ICLR 2023, eq. 3
(the triplet) and eq. 4 (the penalty). The numbers match those of `peft` (tests/parity).
"""

from collections.abc import Sequence
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util
from jaxtyping import Array, Float

from delrec_jax.dropout import dropped
from delrec_jax.errors import UserError
from delrec_jax.language.adalora_config import AdaLoRAConfig, is_target
from delrec_jax.language.layer_stacking import unstack_layers
from delrec_jax.language.quantised import scaled_product
from delrec_jax.precision import EXACT

Tree = dict[str, Any]


class Adaptable(Protocol):
    """What a model's config must provide for its projections to have adapters; `T5Config` and `BertConfig` do."""

    @property
    def adapters(self) -> AdaLoRAConfig | None:
        """The adapters' config; None for a plain model."""
        ...

    @property
    def stored_dtype(self) -> jnp.dtype:
        """The type of the base weights."""
        ...


class Projection(nn.Module):
    """A linear map that adds its adapter when the `adapters` collection holds one.

    Its kernel is int8 if there is a scale beside it (quantised.py).

    Adapters read a dropped-out copy of the input (`AdapterDropout`), which the parent module makes once for all
    projections of the same input.
    """

    config: Adaptable
    inputs: int
    features: int
    stddev: float
    use_bias: bool = False

    def setup(self) -> None:
        dtype = self.config.stored_dtype
        initial = nn.initializers.normal(self.stddev)
        self.kernel = self.param("kernel", initial, (self.inputs, self.features), dtype)
        if self.use_bias:
            self.bias = self.param("bias", nn.initializers.zeros, (self.features,), dtype)

    def __call__(
        self, x: Float[Array, "B T D"], dropped: Float[Array, "B T D"]
    ) -> Float[Array, "B T F"]:
        """Returns x W and the bias, plus the adapter's update computed from `dropped` if there is an adapter."""
        scale = self.scale
        plain = scale is None
        y = x @ self.kernel.astype(x.dtype) if plain else scaled_product(x, self.kernel, scale)
        if self.use_bias:
            y = y + self.bias.astype(x.dtype)
        if (triplet := self.adapter(x.dtype)) is None:
            return y
        a, e, b = triplet
        return y + ((dropped @ a) * e) @ b  # [B, T, R] -> [B, T, F]

    @property
    def scale(self) -> Float[Array, " F"] | None:
        """One factor per output channel of a quantized kernel; None if it is not quantized."""
        if not self.has_variable("params", "scale"):
            return None
        found: Array = self.get_variable("params", "scale")
        return found

    def weights(self, dtype: jnp.dtype) -> Float[Array, "D F"]:
        """Returns the base weights, for those who multiply by them in another order."""
        scale = self.scale
        plain = self.kernel if scale is None else self.kernel * scale
        return plain.astype(dtype)

    def adapter(self, dtype: jnp.dtype) -> tuple[Array, Array, Array] | None:
        """Returns A [D, R], E [R] multiplied by the scale, and B [R, F]; None if there is no adapter."""
        if self.config.adapters is None or not self.has_variable("adapters", "A"):
            return None
        triplet: list[Array] = [self.get_variable("adapters", name) for name in "AEB"]
        a, e, b = (part.astype(dtype) for part in triplet)
        return a, scaling(self.config.adapters) * e, b


class AdapterDropout(nn.Module):
    """Dropout on the input of adapters; without adapters, the input is returned as it is."""

    config: Adaptable

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"], deterministic: bool) -> Float[Array, "B T D"]:
        """Zeroes elements at the adapters' dropout rate and scales up the rest."""
        rate = 0.0 if self.config.adapters is None else self.config.adapters.dropout
        if deterministic or rate == 0:
            return x
        return dropped(x, rate, self.make_rng("dropout"))


def scaling(config: AdaLoRAConfig) -> float:
    """Returns alpha / r; the 1e-5 is `peft`'s guard, kept so that merged weights agree to the last digit."""
    return config.alpha / (config.init_rank + 1e-5)


def init_adapters(
    params: Tree, config: AdaLoRAConfig, key: jax.Array, *, closed: Sequence[str] = ()
) -> Tree:
    """Makes an adapter for every projection that a rule of `config.targets` matches.

    E starts at zero, so that the adapted model equals the base model; A and B are drawn from N(0, 0.02^2).

    Args:
      params: the base parameters; projections are leaves `.../NAME/kernel` of shape [in, out], or [L, in, out] where
        layers are scanned.
      config: which projections to adapt, and the rank R.
      key: random key.
      closed: top-level projections that may not be adapted (`LanguageModel.closed`).

    Returns:
      A tree with `A` [in, R], `E` [R] and `B` [R, out] at each adapted path; each has a leading layer axis if its kernel
      does.

    Raises:
      UserError: a rule matches no projection, or matches a closed one.
    """
    kernels = adapted_kernels(params, config, closed)
    flat = {}
    for path, path_key in zip(sorted(kernels), jax.random.split(key, len(kernels)), strict=True):
        key_a, key_b = jax.random.split(path_key)
        *layers, inner, outer = kernels[path].shape
        flat[(*path, "A")] = 0.02 * jax.random.normal(key_a, (*layers, inner, config.init_rank))
        flat[(*path, "E")] = jnp.zeros((*layers, config.init_rank))
        flat[(*path, "B")] = 0.02 * jax.random.normal(key_b, (*layers, config.init_rank, outer))
    tree: Tree = traverse_util.unflatten_dict(flat)
    return tree


def adapted_kernels(
    params: Tree, config: AdaLoRAConfig, closed: Sequence[str]
) -> dict[tuple[str, ...], Any]:
    """Returns the kernels that adapters belong to, by the paths of their projections; all three as `init_adapters` has them.

    Raises:
      UserError: a rule matches no projection, or matches a closed one.
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
    return kernels


def merge(params: Tree, adapters: Tree, config: AdaLoRAConfig) -> Tree:
    """Returns base parameters with every adapter added to its kernel, which compute the same without the collection.

    Raises:
      ValueError: a kernel is quantized; `quantised.dequantised` makes it plain.
    """
    flat, factor = traverse_util.flatten_dict(params), scaling(config)
    triplets = traverse_util.flatten_dict(adapters)
    for path in {path[:-1] for path in triplets}:
        a, e, b = (triplets[(*path, name)] for name in "AEB")
        kernel = flat[(*path, "kernel")]
        if (*path, "scale") in flat:
            raise ValueError(f"{'/'.join(path)} is quantized, and int8 cannot hold an update")
        # Added in float32: bfloat16 would round the sum twice.
        update = jnp.matmul(factor * (a * e[..., None, :]), b, precision=EXACT)  # [(L,) in, out]
        flat[(*path, "kernel")] = (kernel.astype(update.dtype) + update).astype(kernel.dtype)
    tree: Tree = traverse_util.unflatten_dict(flat)
    return tree


def orthogonality_penalty(adapters: Tree) -> Float[Array, ""]:
    """Returns the mean over all A and B of the Frobenius norm of P P^T - I (eq. 4; the mean is that of `peft`)."""
    norms = []
    for path, value in traverse_util.flatten_dict(adapters).items():
        if path[-1] == "E":
            continue
        turned = jnp.swapaxes(value, -1, -2)
        pair = (turned, value) if path[-1] == "A" else (value, turned)
        gram = jnp.matmul(*pair, precision=EXACT)  # [R, R], or [L, R, R]
        difference = gram - jnp.eye(gram.shape[-1])
        norms.append(jnp.linalg.norm(difference, axis=(-2, -1)).reshape(-1))
    return jnp.concatenate(norms).mean()


def rank_pattern(adapters: Tree) -> dict[str, int]:
    """Returns the rank in use of each adapter by its path: the number of nonzero entries of E."""
    flat = traverse_util.flatten_dict(unstack_layers(adapters))
    return {
        "/".join(path[:-1]): int((value != 0).sum())
        for path, value in sorted(flat.items())
        if path[-1] == "E"
    }
