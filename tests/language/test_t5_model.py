"""The whole T5: shapes, a second implementation in NumPy, padding, packed questions, remat."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import usual_compiler
from flax import traverse_util

from delrec_jax.errors import UserError
from delrec_jax.language.adalora import init_adapters
from delrec_jax.language.adalora_config import AdaLoRAConfig
from delrec_jax.language.attention import relative_position_bucket
from delrec_jax.language.layer_stacking import stack_layers, unstack_layers
from delrec_jax.language.soft_prompt import init_prompt
from delrec_jax.language.t5 import T5, head_matrix
from delrec_jax.language.t5_answers import hidden_at_masks
from delrec_jax.language.t5_config import T5Config
from delrec_jax.language.t5_start import init_for_copying

HIDDEN = jax.jit(hidden_at_masks, static_argnums=0)
MASK = 39  # the id that stands for <extra_id_0>
TEXTS = [[5, 9, 39, 7, 1], [3, 8, 39, 1]]


@partial(jax.jit, static_argnums=0)
def logits_of(module, params, ids, decoder_ids):
    return module.apply({"params": params}, ids, decoder_ids)


def shapes(tree):
    return {"/".join(path): x.shape for path, x in traverse_util.flatten_dict(tree).items()}


def expected_shapes(config):
    """The parameter tree as a table, written from the paper and not from the code."""
    d, inner, ff = config.d_model, config.num_heads * config.d_kv, config.d_ff
    attention = {"q": (d, inner), "k": (d, inner), "v": (d, inner), "o": (inner, d)}
    inputs = ("wi_0", "wi_1") if config.feed_forward_proj == "gated-gelu" else ("wi",)
    table = {"shared/embedding": (config.vocab_size, d)}
    if not config.tie_word_embeddings:
        table["lm_head/kernel"] = (d, config.vocab_size)
    for stack, layers, kinds in (
        ("encoder", config.num_layers, {"SelfAttention": "self_norm"}),
        (
            "decoder",
            config.num_decoder_layers,
            {"SelfAttention": "self_norm", "EncDecAttention": "cross_norm"},
        ),
    ):
        bias = (config.relative_attention_num_buckets, config.num_heads)
        table[f"{stack}/relative_attention_bias/embedding"] = bias
        table[f"{stack}/final_layer_norm/weight"] = (d,)
        for block in (f"{stack}/block_{index}" for index in range(layers)):
            for kind, norm in kinds.items():
                table[f"{block}/{norm}/weight"] = (d,)
                table |= {f"{block}/{kind}/{n}/kernel": shape for n, shape in attention.items()}
            table[f"{block}/ff_norm/weight"] = (d,)
            table |= {f"{block}/DenseReluDense/{n}/kernel": (d, ff) for n in inputs}
            table[f"{block}/DenseReluDense/wo/kernel"] = (ff, d)
    return table


def test_tree_of_parameters(either):
    config, params = either
    assert shapes(params) == expected_shapes(config)


def test_tree_of_everything_that_trains(gated):
    config, params = gated
    tree = {
        "adapters": init_adapters(
            params, AdaLoRAConfig(init_rank=4, target_rank=2), jax.random.key(0)
        ),
        "prompt": init_prompt("normal", params["shared"]["embedding"], 7, jax.random.key(1)),
    }
    expected = {"prompt": (7, config.d_model)}
    for path, shape in expected_shapes(config).items():
        if path.endswith(("/q/kernel", "/v/kernel")):
            stem = f"adapters/{path.removesuffix('/kernel')}"
            expected |= {f"{stem}/A": (shape[0], 4), f"{stem}/E": (4,), f"{stem}/B": (4, shape[1])}
    assert shapes(tree) == expected
    assert len(expected) == 1 + 3 * 2 * (1 + 2 + 2)  # 3 leaves, q and v, 8 attentions


# Parameter counts of the published checkpoints.
FLAN_BASE = T5Config(d_model=768, d_ff=2048, num_layers=12, num_decoder_layers=12, num_heads=12)
FLAN_LARGE = T5Config(d_model=1024, d_ff=2816, num_layers=24, num_decoder_layers=24, num_heads=16)
FLAN_XL = replace(FLAN_LARGE, d_model=2048, d_ff=5120, num_heads=32)
FLAN_XXL = replace(FLAN_XL, d_model=4096, d_ff=10240, num_heads=64)
V10_SMALL = T5Config(
    d_ff=2048,
    num_layers=6,
    num_decoder_layers=6,
    num_heads=8,
    feed_forward_proj="relu",
    tie_word_embeddings=True,
)


@pytest.mark.parametrize(
    ("config", "published"),
    [
        (T5Config(), 76_961_152),
        (FLAN_BASE, 247_577_856),
        (FLAN_LARGE, 783_150_080),
        (FLAN_XL, 2_849_757_184),
        (FLAN_XXL, 11_135_332_352),
        (V10_SMALL, 60_506_624),
    ],
    ids=["flan-t5-small", "base", "large", "xl", "xxl", "t5-small"],
)
def test_published_parameter_counts(config, published):
    """By shapes alone: the largest would take 45 GB. Tracing layer by layer takes long, so only the small ones are."""
    ids = jnp.ones((1, 2), jnp.int32)
    for scan_layers in (False, True) if config.num_layers < 12 else (True,):
        module = T5(replace(config, scan_layers=scan_layers))
        tree = jax.eval_shape(module.init, jax.random.key(0), ids, ids)["params"]
        assert sum(x.size for x in jax.tree.leaves(tree)) == published


class Reference:
    """T5 again, in NumPy, one text at a time, no batching, no masks but the causal one."""

    def __init__(self, config, params):
        self.config = config
        self.p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)

    def norm(self, x, weight):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * weight["weight"]

    def bias(self, stack, length):
        distance = np.arange(length)[None] - np.arange(length)[:, None]
        buckets = relative_position_bucket(
            jnp.asarray(distance), bidirectional=stack == "encoder", num_buckets=8, max_distance=16
        )
        return self.p[stack]["relative_attention_bias"]["embedding"][np.asarray(buckets)]

    def attend(self, w, x, y, bias):
        kv = self.config.d_kv
        heads = []
        for h in range(self.config.num_heads):
            own = slice(h * kv, (h + 1) * kv)
            q, k, v = x @ w["q"]["kernel"], y @ w["k"]["kernel"], y @ w["v"]["kernel"]
            scores = q[:, own] @ k[:, own].T + bias[..., h]
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            heads.append(weights / weights.sum(-1, keepdims=True) @ v[:, own])
        return np.concatenate(heads, -1) @ w["o"]["kernel"]

    def feed_forward(self, w, x):
        if "wi" in w:
            return np.maximum(x @ w["wi"]["kernel"], 0) @ w["wo"]["kernel"]
        g = x @ w["wi_0"]["kernel"]
        gelu = 0.5 * g * (1 + np.tanh(np.sqrt(2 / np.pi) * (g + 0.044715 * g**3)))
        return gelu * (x @ w["wi_1"]["kernel"]) @ w["wo"]["kernel"]

    def stack(self, name, ids, encoded=None):
        w, x = self.p[name], self.p["shared"]["embedding"][ids]
        bias = self.bias(name, len(ids))
        if name == "decoder":
            bias = np.where(np.tri(len(ids), dtype=bool)[..., None], bias, -np.inf)
        for index in range(len([key for key in w if key.startswith("block_")])):
            block = w[f"block_{index}"]
            normed = self.norm(x, block["self_norm"])
            x = x + self.attend(block["SelfAttention"], normed, normed, bias)
            if encoded is not None:
                no_bias = np.zeros((len(ids), len(encoded), self.config.num_heads))
                normed = self.norm(x, block["cross_norm"])
                x = x + self.attend(block["EncDecAttention"], normed, encoded, no_bias)
            x = x + self.feed_forward(block["DenseReluDense"], self.norm(x, block["ff_norm"]))
        return self.norm(x, w["final_layer_norm"])

    def logits(self, ids, decoder_ids):
        hidden = self.stack("decoder", decoder_ids, self.stack("encoder", ids))
        if self.config.tie_word_embeddings:
            return hidden * self.config.d_model**-0.5 @ self.p["shared"]["embedding"].T
        return hidden @ self.p["lm_head"]["kernel"]


def test_logits_equal_a_second_implementation(either):
    config, params = either
    ids = np.array([[5, 9, 39, 30, 1]])
    decoder_ids = np.array([[0, 39, 12, 13, 4]])
    ours = logits_of(T5(config), params, ids, decoder_ids)[0]
    theirs = Reference(config, params).logits(ids[0], decoder_ids[0])
    assert np.abs(theirs).max() > 1
    np.testing.assert_allclose(ours, theirs, atol=2e-4, rtol=2e-4)


def test_a_tied_head_scales_and_an_own_head_does_not(v10):
    config, params = v10
    kernel = jnp.zeros((config.d_model, config.vocab_size))
    untied = T5(replace(config, tie_word_embeddings=False))
    untied_params = params | {"lm_head": {"kernel": kernel}}
    ids, asked = jnp.asarray([TEXTS[0]]), jnp.asarray([[MASK]])
    scaled = HIDDEN(T5(config), params, ids, asked)
    plain = HIDDEN(untied, untied_params, ids, asked)
    np.testing.assert_allclose(scaled, plain * 12**-0.5, rtol=1e-5)


def test_head_matrix_is_what_logits_multiply(either):
    config, params = either
    hidden = jax.random.normal(jax.random.key(3), (2, 1, config.d_model))
    logits = T5(config).apply({"params": params}, hidden, method="logits")
    np.testing.assert_allclose(logits, hidden @ head_matrix(params, config).T, rtol=1e-5, atol=1e-5)


def padded(text, left, length):
    return [0] * left + text + [0] * (length - left - len(text))


def test_padding_on_either_side_and_of_any_length_changes_no_answer(either):
    config, params = either
    # 24 tokens are beyond the largest relative distance.
    rows = [padded(text, left, 24) for text in TEXTS for left in (0, 3, 24 - len(text))]
    rows.append([0] * 24)
    together = HIDDEN(T5(config), params, jnp.asarray(rows), jnp.full((7, 1), MASK))
    for index, text in enumerate(TEXTS):
        alone = HIDDEN(T5(config), params, jnp.asarray([text]), jnp.asarray([[MASK]]))
        for row in together[3 * index : 3 * index + 3]:
            np.testing.assert_allclose(row, alone[0], atol=2e-5)
    assert np.abs(together[0] - together[3]).max() > 0.1
    assert np.isfinite(together[6]).all()  # a text of padding alone


def test_packed_questions_do_not_see_each_other(either):
    config, params = either
    ids = jnp.asarray([padded(text, 0, 5) for text in TEXTS])
    asked = jnp.asarray([[39, 38, 37, 39], [36, 39, 0, 0]])
    packed = HIDDEN(T5(config), params, ids, asked)
    assert packed.shape == (2, 4, config.d_model)
    for question in range(4):  # one at a time
        alone = HIDDEN(T5(config), params, ids, asked[:, question : question + 1])[:, 0]
        np.testing.assert_allclose(packed[:, question], alone, atol=2e-5)
    assert np.abs(packed[0, 0] - packed[0, 1]).max() > 0.1


def test_an_answer_is_the_second_position_of_a_plain_decoder(gated):
    config, params = gated
    ids = jnp.asarray([TEXTS[0]])
    logits = logits_of(T5(config), params, ids, jnp.asarray([[0, MASK, 4, 5, 6]]))[:, 1]
    hidden = HIDDEN(T5(config), params, ids, jnp.asarray([[MASK]]))[:, 0]
    np.testing.assert_allclose(logits, hidden @ head_matrix(params, config).T, atol=2e-5)


def test_the_decoder_does_not_see_later_tokens(gated):
    config, params = gated
    ids = jnp.asarray([TEXTS[0]])
    before = logits_of(T5(config), params, ids, jnp.asarray([[0, 39, 4, 5, 6]]))
    after = logits_of(T5(config), params, ids, jnp.asarray([[0, 39, 9, 8, 6]]))
    np.testing.assert_array_equal(before[:, :2], after[:, :2])
    assert np.abs(before[:, 2:] - after[:, 2:]).max() > 1e-2


def test_every_token_of_the_text_counts(gated):
    config, params = gated
    asked = jnp.asarray([[MASK]])
    base = HIDDEN(T5(config), params, jnp.asarray([TEXTS[0]]), asked)
    for place in range(len(TEXTS[0])):
        changed = [*TEXTS[0][:place], 20, *TEXTS[0][place + 1 :]]
        assert np.abs(HIDDEN(T5(config), params, jnp.asarray([changed]), asked) - base).max() > 1e-3
    swapped = jnp.asarray([[9, 5, *TEXTS[0][2:]]])
    assert np.abs(HIDDEN(T5(config), params, swapped, asked) - base).max() > 1e-3


def test_remat_changes_neither_values_nor_gradients(gated):
    config, params = gated
    rematerialised = T5(replace(config, remat="full"))
    ids, asked = jnp.asarray([padded(text, 0, 5) for text in TEXTS]), jnp.full((2, 1), MASK)
    values = [HIDDEN(module, params, ids, asked) for module in (T5(config), rematerialised)]
    np.testing.assert_allclose(*values, atol=1e-5)

    def loss(module, params):
        options = {"dropout_key": jax.random.key(7)}
        return (hidden_at_masks(module, params, ids, asked, **options) ** 2).sum()

    functions = [jax.value_and_grad(partial(loss, m)) for m in (T5(config), rematerialised)]
    products = [str(jax.make_jaxpr(f)(params)).count("dot_general") for f in functions]
    assert products[1] > 1.2 * products[0]  # the forward pass of the blocks is there twice
    (value, grads), (other, other_grads) = (jax.jit(f)(params) for f in functions)
    np.testing.assert_allclose(value, other, rtol=1e-5)
    close = partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4)
    jax.tree.map(close, grads, other_grads)


def test_dropout_follows_its_key_and_is_off_without(gated):
    config, params = gated
    ids, asked = jnp.asarray([TEXTS[0]]), jnp.asarray([[MASK]])

    def run(key):
        return np.asarray(HIDDEN(T5(config), params, ids, asked, dropout_key=key))

    np.testing.assert_array_equal(run(None), run(None))
    np.testing.assert_array_equal(run(jax.random.key(1)), run(jax.random.key(1)))
    assert np.abs(run(jax.random.key(1)) - run(jax.random.key(2))).max() > 1e-2
    assert np.abs(run(jax.random.key(1)) - run(None)).max() > 1e-2


def test_bfloat16_computes_low_and_gives_float32_logits(gated):
    config, params = gated
    low = T5(replace(config, dtype="bfloat16"))
    ids, decoder_ids = jnp.asarray([TEXTS[0]]), jnp.asarray([[0, MASK, 4, 5, 6]])
    logits = logits_of(low, params, ids, decoder_ids)
    exact = logits_of(T5(config), params, ids, decoder_ids)
    assert logits.dtype == jnp.float32
    assert HIDDEN(low, params, ids, jnp.asarray([[MASK]])).dtype == jnp.bfloat16
    assert 1e-3 < np.abs(logits - exact).mean() < 0.05 * exact.std()


def correlation(a, b):
    return np.corrcoef(np.asarray(a).ravel(), np.asarray(b).ravel())[0, 1]


def test_the_start_for_copying_keeps_the_tree(either):
    config, params = either
    tilted = jax.eval_shape(partial(init_for_copying, T5(config)), jax.random.key(0))
    assert shapes(tilted) == shapes(params)


def test_the_start_for_copying_tilts_weights():
    config = replace(T5Config(), vocab_size=50, d_model=32, d_kv=16, d_ff=8, num_heads=2)
    config = replace(config, num_layers=1, num_decoder_layers=1)
    params = jax.jit(init_for_copying, static_argnums=0)(T5(config), jax.random.key(0))
    decoder = params["decoder"]["block_0"]
    for attention in (
        params["encoder"]["block_0"]["SelfAttention"],
        decoder["SelfAttention"],
        decoder["EncDecAttention"],
    ):
        w = {name: attention[name]["kernel"] for name in "qkvo"}
        assert 0.5 < correlation(w["k"], w["q"]) < 0.7  # 0.6 of the query, 0.8 of noise
        assert 0.7 < correlation(w["o"], w["v"].T) < 0.9
        assert abs(correlation(w["q"], w["v"])) < 0.15
    table = params["shared"]["embedding"]
    np.testing.assert_allclose(head_matrix(params, config), table * 32**-0.5, rtol=1e-6)


LAYOUTS = {
    "scanned": {"scan_layers": True},
    "rematerialised": {"remat": "dots"},
    "scanned and rematerialised": {"scan_layers": True, "remat": "full"},
}
LORA = AdaLoRAConfig(init_rank=3, target_rank=2, dropout=0.0)


def tuned(config, params):
    """Adapters away from their start, so that they change the answer."""
    adapters = init_adapters(params, LORA, jax.random.key(5))
    return jax.tree.map(lambda x: x + 0.1, adapters), replace(
        config, adapters=LORA, dropout_rate=0.0
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_answers_and_gradients(either, layout):
    config, params = either
    adapters, config = tuned(config, params)
    ids, asked = jnp.asarray([padded(text, 0, 5) for text in TEXTS]), jnp.full((2, 1), MASK)
    prompt = jax.random.normal(jax.random.key(6), (2, config.d_model))
    ids = ids.at[:, 1:3].set(jnp.asarray([config.vocab_size, config.vocab_size + 1]))

    def answers(module, params):
        def loss(trained):
            options = {"prompt": trained["prompt"], "adapters": trained["adapters"]}
            hidden = hidden_at_masks(module, params, ids, asked, **options)
            return (hidden[..., :5] ** 3).sum(), hidden

        stacked = module.config.scan_layers
        trained = {"prompt": prompt, "adapters": stack_layers(adapters) if stacked else adapters}
        (_, hidden), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(trained)
        return hidden, grads["prompt"], unstack_layers(grads["adapters"])

    other = replace(config, **LAYOUTS[layout])
    same = stack_layers(params) if other.scan_layers else params
    expected, found = answers(T5(config), params), answers(T5(other), same)
    close = partial(np.testing.assert_allclose, rtol=2e-3, atol=2e-4)
    jax.tree.map(close, found, expected)
    assert max(np.abs(x).max() for x in jax.tree.leaves(expected[2])) > 0.01


def test_a_scanned_model_starts_in_its_own_layout_and_drops_out_in_every_layer(gated):
    config, params = gated
    scanned = replace(config, num_decoder_layers=3, scan_layers=True)
    ids = jnp.ones((1, 2), jnp.int32)
    own = jax.eval_shape(T5(scanned).init, jax.random.key(0), ids, ids)["params"]
    copying = jax.eval_shape(partial(init_for_copying, T5(scanned)), jax.random.key(0))
    assert shapes(own) == shapes(copying)
    assert shapes(own)["decoder/blocks/EncDecAttention/q/kernel"] == (3, 12, 15)
    unstacked = jax.eval_shape(unstack_layers, own)
    assert shapes(unstacked) == expected_shapes(replace(config, num_decoder_layers=3))
    one = stack_layers(params)
    asked, text = jnp.asarray([[MASK]]), jnp.asarray([TEXTS[0]])
    module = T5(replace(config, scan_layers=True))
    dropped = HIDDEN(module, one, text, asked, dropout_key=jax.random.key(1))
    again = HIDDEN(module, one, text, asked, dropout_key=jax.random.key(1))
    np.testing.assert_array_equal(dropped, again)
    assert np.abs(dropped - HIDDEN(module, one, text, asked)).max() > 1e-2


def test_stacking_and_its_inverse(either):
    _, params = either
    stacked = stack_layers(params)
    assert not [path for path in shapes(stacked) if "block_" in path]
    jax.tree.map(np.testing.assert_array_equal, unstack_layers(stacked), params)
    assert shapes(unstack_layers(params)) == shapes(params)


def test_blocks_that_differ_cannot_be_stacked():
    tree = {"encoder": {"block_0": {"q": jnp.ones(2)}, "block_1": {"v": jnp.ones(2)}}}
    with pytest.raises(UserError, match="encoder: its blocks hold different weights"):
        stack_layers(tree)


def test_blocks_are_stacked_in_the_order_of_their_numbers():
    tree = {"decoder": {f"block_{i}": {"w": jnp.full(1, i)} for i in (10, 2, 0, *range(3, 10), 1)}}
    assert stack_layers(tree)["decoder"]["blocks"]["w"][:, 0].tolist() == list(range(11))


@pytest.mark.parametrize("scan_layers", [False, True])
@pytest.mark.parametrize("remat", ["none", pytest.param("full", marks=pytest.mark.slow)])
def test_tuning_adapters_never_copies_the_base_weights(scan_layers, remat):
    """The compiled gradient of adapters, on texts so short that its buffers are nothing beside the weights."""
    config = T5Config(
        vocab_size=50,
        d_model=128,
        d_ff=512,
        num_layers=4,
        num_decoder_layers=4,
        num_heads=2,
        scan_layers=scan_layers,
        remat=remat,
        adapters=LORA,
    )
    params = jax.eval_shape(partial(init_for_copying, T5(config)), jax.random.key(0))
    adapters = jax.eval_shape(partial(init_adapters, config=LORA, key=jax.random.key(0)), params)

    def loss(adapters, params):
        text, asked = jnp.ones((1, 8), jnp.int32), jnp.full((1, 1), MASK)
        return hidden_at_masks(T5(config), params, text, asked, adapters=adapters).sum()

    with usual_compiler():
        memory = jax.jit(jax.grad(loss)).lower(adapters, params).compile().memory_analysis()
    blocks = sum(
        x.size * 4 for stack in ("encoder", "decoder") for x in jax.tree.leaves(params[stack])
    )
    assert blocks > 4 * 2**20
    # One block at a time may be sliced out of the stack; a copy of all would be `blocks`.
    assert memory.temp_size_in_bytes < 0.3 * blocks


@pytest.mark.parametrize("form", ["gated-gelu", "relu"])
def test_weights_start_with_mesh_tensorflows_spread(form):
    sizes = {"vocab_size": 300, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_heads": 3}
    layers = {"num_layers": 1, "num_decoder_layers": 1, "feed_forward_proj": form}
    ids = jnp.ones((1, 2), jnp.int32)
    params = jax.jit(T5(T5Config(**sizes, **layers)).init)(jax.random.key(0), ids, ids)["params"]
    wanted = dict.fromkeys(("k", "v", "wi", "wi_0", "wi_1", "lm_head"), 1 / 8)
    wanted |= {"q": (64 * 16) ** -0.5, "o": 48**-0.5, "wo": 128**-0.5, "shared": 1.0}
    wanted |= {"relative_attention_bias": 1 / 8}
    for path, leaf in traverse_util.flatten_dict(params).items():
        if path[-1] == "weight":
            assert (leaf == 1).all()
        else:
            rough = 0.35 if path[-2] == "relative_attention_bias" else 0.1
            np.testing.assert_allclose(leaf.std(), wanted[path[-2]], rtol=rough, err_msg=str(path))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kept", ["float32", "bfloat16"])
def test_logits_of_a_model_in_16_bits_are_not_rounded_to_16_bits(tied, kept):
    sizes = {"vocab_size": 50, "d_model": 16, "d_kv": 8, "d_ff": 16, "num_heads": 2}
    layers = {"num_layers": 1, "num_decoder_layers": 1, "tie_word_embeddings": tied}
    module = T5(T5Config(**sizes, **layers, dtype="bfloat16", param_dtype=kept))
    ids = jnp.arange(1, 9, dtype=jnp.int32)[None]
    variables = jax.jit(module.init)(jax.random.key(0), ids, ids)
    found = jax.jit(module.apply)(variables, ids, ids)
    assert found.dtype == jnp.float32
    assert (found != found.astype(jnp.bfloat16).astype(jnp.float32)).mean() > 0.5
