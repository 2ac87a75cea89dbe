"""Our T5 against `transformers` on PyTorch, with random weights copied across.

Run with `make parity`: it makes an environment of its own with torch and peft (CPU), because
`transformers` imports torch wherever it is installed. Where torch is absent these tests skip.
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

torch = pytest.importorskip("torch", reason="torch is not installed here: run `make parity`")
transformers = pytest.importorskip("transformers", reason="transformers is not installed here")

from delrec_jax.language.answering import hidden_at_masks  # noqa: E402
from delrec_jax.language.attention import relative_position_bucket  # noqa: E402
from delrec_jax.language.soft_prompt import slot_ids  # noqa: E402
from delrec_jax.language.t5 import T5, head_matrix  # noqa: E402
from delrec_jax.language.t5_config import T5Config  # noqa: E402

pytestmark = pytest.mark.parity

TINY = T5Config(
    vocab_size=96,
    d_model=24,
    d_kv=5,
    d_ff=40,
    num_layers=2,
    num_decoder_layers=3,
    num_heads=3,
)
CONFIGS = {
    "tiny-v1.1": TINY,
    "tiny-v1.0": replace(
        TINY,
        num_layers=3,
        num_decoder_layers=2,
        feed_forward_proj="relu",
        tie_word_embeddings=True,
    ),
    "flan-t5-small": T5Config(),
}
# Names that our config shares with theirs.
SHAPE = (
    "vocab_size",
    "d_model",
    "d_kv",
    "d_ff",
    "num_layers",
    "num_decoder_layers",
    "num_heads",
    "feed_forward_proj",
    "relative_attention_num_buckets",
    "relative_attention_max_distance",
    "layer_norm_epsilon",
)


def torch_model(config):
    """A `transformers` T5 of this shape, in float32, norms and biases off their initial values."""
    torch.manual_seed(0)
    values = {name: getattr(config, name) for name in SHAPE}
    hf_config = transformers.T5Config(
        **values,
        dropout_rate=0.0,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=config.tie_word_embeddings,
    )
    model = transformers.T5ForConditionalGeneration(hf_config).eval()
    if not config.tie_word_embeddings:
        # transformers 5 ties the head in a fresh model whatever the config says.
        weight = config.d_model**-0.5 * torch.randn(config.vocab_size, config.d_model)
        model.lm_head.weight = torch.nn.Parameter(weight)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "layer_norm" in name:
                weight += 0.1 * torch.randn_like(weight)
            elif "relative_attention_bias" in name:
                weight += 0.5 * torch.randn_like(weight)
    assert (model.lm_head.weight is model.shared.weight) == config.tie_word_embeddings
    assert model.config.scale_decoder_outputs == config.tie_word_embeddings
    return model


def our_path(name):
    """Path in our tree and whether the tensor is transposed, of a `transformers` tensor."""
    parts = name.removesuffix(".weight").split(".")
    if parts[0] == "shared":
        return ("shared", "embedding"), False
    if parts[0] == "lm_head":
        return ("lm_head", "kernel"), True
    stack = parts[0]
    if parts[1] == "final_layer_norm":
        return (stack, "final_layer_norm", "weight"), False
    if parts[-1] == "relative_attention_bias":
        return (stack, "relative_attention_bias", "embedding"), False
    _, _, block, _, layer, *rest = parts  # encoder.block.0.layer.1.DenseReluDense.wo
    if rest == ["layer_norm"]:
        norms = ["self_norm", "cross_norm", "ff_norm"]
        if stack == "encoder":
            norms.remove("cross_norm")
        return (stack, f"block_{block}", norms[int(layer)], "weight"), False
    return (stack, f"block_{block}", *rest, "kernel"), True


def our_params(model):
    """The torch model's weights as our tree; shared tensors once."""
    flat = {}
    for name, weight in model.named_parameters():  # names a shared tensor once
        path, transposed = our_path(name)
        value = weight.detach().numpy()
        flat[path] = jnp.asarray(value.T if transposed else value)
    return traverse_util.unflatten_dict(flat)


@pytest.fixture(scope="module", params=CONFIGS)
def pair(request):
    config = CONFIGS[request.param]
    model = torch_model(config)
    params = our_params(model)
    ids = jnp.ones((1, 2), jnp.int32)
    ours = jax.eval_shape(T5(config).init, jax.random.key(0), ids, ids)["params"]
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, ours)
    return config, model, params


def texts(config, length, side, generator):
    """Four texts of lengths from `length` down, padded with 0 on one side."""
    rows = []
    for share in (1, 0.75, 0.5, 0.2):
        words = generator.integers(2, config.vocab_size, max(1, int(share * length))).tolist()
        pads = [0] * (length - len(words))
        rows.append(pads + words if side == "left" else words + pads)
    return np.array(rows)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("length", [7, 129])
def test_logits(pair, length, side):
    config, model, params = pair
    generator = np.random.default_rng(length)
    ids = texts(config, length, side, generator)
    decoder_ids = generator.integers(2, config.vocab_size, (4, 6))
    decoder_ids[:, 0] = 0
    with torch.no_grad():
        theirs = model(
            input_ids=torch.tensor(ids),
            attention_mask=torch.tensor(ids != 0),
            decoder_input_ids=torch.tensor(decoder_ids),
        ).logits.numpy()
    ours = jax.jit(T5(config).apply)({"params": params}, ids, decoder_ids)
    assert np.abs(theirs).max() > 1
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_gradient_of_a_soft_prompt(pair):
    config, model, params = pair
    generator = np.random.default_rng(3)
    slots = 5
    ids = texts(config, 21, "right", generator)
    ids[:, :slots] = slot_ids(config.vocab_size, slots)
    prompt = generator.normal(size=(slots, config.d_model)).astype(np.float32)
    mask_token, answers = config.vocab_size - 1, np.array([3, 9, 4, 3])

    table = model.shared.weight.detach()
    leaf = torch.tensor(prompt, requires_grad=True)
    words = table[torch.tensor(np.where(ids >= config.vocab_size, 0, ids))[:, slots:]]
    logits = model(
        inputs_embeds=torch.cat([leaf.expand(4, -1, -1), words], dim=1),
        attention_mask=torch.tensor(ids != 0),
        decoder_input_ids=torch.tensor([[0, mask_token]] * 4),
    ).logits[:, 1]
    torch.nn.functional.cross_entropy(logits, torch.tensor(answers)).backward()

    @partial(jax.jit, static_argnums=0)
    def gradient(module, prompt):
        def loss(prompt):
            hidden = hidden_at_masks(
                module, params, jnp.asarray(ids), jnp.full((4, 1), mask_token), prompt=prompt
            )[:, 0]
            logp = jax.nn.log_softmax(hidden @ head_matrix(params, config).T)
            return -logp[jnp.arange(4), answers].mean()

        return jax.grad(loss)(prompt)

    theirs = leaf.grad.numpy()
    assert np.abs(theirs).max() > 1e-4
    np.testing.assert_allclose(gradient(T5(config), jnp.asarray(prompt)), theirs, atol=1e-6)


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("num_buckets", "max_distance"), [(32, 128), (8, 20)])
def test_buckets_of_every_distance(bidirectional, num_buckets, max_distance):
    from transformers.models.t5.modeling_t5 import T5Attention

    distance = np.arange(-700, 701)
    options = {
        "bidirectional": bidirectional,
        "num_buckets": num_buckets,
        "max_distance": max_distance,
    }
    theirs = T5Attention._relative_position_bucket(torch.tensor(distance), **options).numpy()
    ours = relative_position_bucket(jnp.asarray(distance), **options)
    np.testing.assert_array_equal(ours, theirs)
