import jax
import jax.numpy as jnp
import numpy as np
import pytest

from delrec_jax.language.adalora import init_adapters
from delrec_jax.language.adalora_config import AdaLoRAConfig
from delrec_jax.language.logical_axes import constrain
from delrec_jax.language.t5 import T5
from delrec_jax.language.t5_config import T5Config
from delrec_jax.language.t5_model import axes_of
from delrec_jax.language.token_table import look_up
from delrec_jax.training.sharding import key_names

ADAPTERS = AdaLoRAConfig(targets=("*/*",))


def trees(scan, gated, tied):
    config = T5Config(
        vocab_size=40,
        d_model=8,
        d_kv=4,
        d_ff=16,
        num_layers=2,
        num_decoder_layers=3,
        num_heads=2,
        scan_layers=scan,
        feed_forward_proj="gated-gelu" if gated else "relu",
        tie_word_embeddings=tied,
    )
    ids = jnp.ones((1, 3), jnp.int32)
    params = jax.eval_shape(T5(config).init, jax.random.key(0), ids, ids)["params"]
    return params, jax.eval_shape(lambda p: init_adapters(p, ADAPTERS, jax.random.key(0)), params)


@pytest.mark.parametrize(("scan", "gated", "tied"), [(0, 1, 0), (1, 1, 0), (0, 0, 1), (1, 0, 1)])
def test_every_array_has_a_name_for_every_axis(scan, gated, tied):
    for tree in trees(scan, gated, tied):
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            axes = axes_of(key_names(path), leaf.shape)
            assert len(axes) == leaf.ndim, path
            assert ("layers" in axes) == (bool(scan) and "blocks" in key_names(path) and any(axes))


# The sizes of the trees above say which axis is which: width 8, heads 2 x 4, hidden 16, words 40.
@pytest.mark.parametrize(
    ("path", "shape", "axes"),
    [
        ("shared/embedding", (40, 8), ("vocab", None)),
        ("lm_head/kernel", (8, 40), (None, "vocab")),
        ("encoder/block_0/SelfAttention/q/kernel", (8, 8), ("embed", "heads")),
        ("encoder/block_0/SelfAttention/o/kernel", (8, 8), ("heads", "embed")),
        ("decoder/block_1/DenseReluDense/wi_1/kernel", (8, 16), ("embed", "mlp")),
        ("decoder/block_1/DenseReluDense/wo/kernel", (16, 8), ("mlp", "embed")),
        ("decoder/blocks/DenseReluDense/wo/kernel", (3, 16, 8), ("layers", "mlp", "embed")),
        ("encoder/block_0/SelfAttention/v/A", (8, 5), ("embed", None)),
        ("encoder/block_0/SelfAttention/v/E", (5,), (None,)),
        ("encoder/block_0/SelfAttention/v/B", (5, 8), (None, "heads")),
        ("encoder/relative_attention_bias/embedding", (32, 2), (None, "heads")),
        ("vectors", (100, 8), ("catalogue", None)),
        ("readout/gamma", (3, 2), (None, None)),  # of a verbalizer that this package does not know
        ("readout/item_bias", (100,), ("items",)),
        ("readout/head/kernel", (3, 2), (None, None)),
        ("encoder/norm/scale", (8,), (None,)),
        ("prompt", (10, 8), (None, None)),
        ("projection/kernel", (8, 20), ("embed", None)),
        ("projection/bias", (20,), (None,)),
        ("readout/item_residual", (100, 8), ("items", None)),
        ("readout/item_bias", (100,), ("items",)),
        ("encoder/block_0/SelfAttention/q/scale", (8,), ("heads",)),
        ("encoder/blocks/SelfAttention/q/scale", (2, 8), ("layers", "heads")),
    ],
)
def test_names_by_hand(path, shape, axes):
    assert axes_of(tuple(path.split("/")), shape) == axes


def test_what_has_no_name_is_refused():
    with pytest.raises(ValueError, match=r"no axes are named for encoder/novelty/kernel \(2, 3\)"):
        axes_of(("encoder", "novelty", "kernel"), (2, 3))
    with pytest.raises(ValueError, match="no axes are named for projection/novelty"):
        axes_of(("projection", "novelty"), (2, 3))


def test_without_a_mesh_nothing_is_constrained_and_looking_up_is_indexing():
    table, ids = np.arange(12.0).reshape(6, 2), np.array([[5, 0, 3]])
    np.testing.assert_array_equal(look_up(jnp.asarray(table), jnp.asarray(ids)), table[ids])
    text = jax.jit(lambda x: constrain(x, "batch", None)).lower(jnp.ones((2, 3))).as_text()
    assert "sharding_constraint" not in text
