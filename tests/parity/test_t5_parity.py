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

torch = pytest.importorskip("torch", reason="torch is not installed here: run `make parity`")
transformers = pytest.importorskip("transformers", reason="transformers is not installed here")

from torch_t5 import TINY, TINY_V10, our_params, torch_t5  # noqa: E402

from delrec_jax.language.attention import relative_position_bucket  # noqa: E402
from delrec_jax.language.layer_stacking import stack_layers  # noqa: E402
from delrec_jax.language.soft_prompt import slot_ids  # noqa: E402
from delrec_jax.language.t5 import T5, head_matrix  # noqa: E402
from delrec_jax.language.t5_answers import hidden_at_masks  # noqa: E402
from delrec_jax.language.t5_config import T5Config  # noqa: E402

pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("compile_quickly")]

CONFIGS = {"tiny-v1.1": TINY, "tiny-v1.0": TINY_V10, "flan-t5-small": T5Config()}
LENGTHS = (7, 128, 129, 300)  # around and beyond the last relative bucket
BATCH, SLOTS = 3, 5


@pytest.fixture(scope="module", params=CONFIGS)
def pair(request):
    config = CONFIGS[request.param]
    model = torch_t5(config)
    params = our_params(model)
    ids = jnp.ones((1, 2), jnp.int32)
    ours = jax.eval_shape(T5(config).init, jax.random.key(0), ids, ids)["params"]
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, ours)
    return replace(config, dropout_rate=0.0), model, params


def texts(config, length, side, generator):
    """Three texts of lengths from `length` down, padded with 0 on one side; the first tokens are words in each."""
    rows = []
    for share in (1, 0.7, 0.3):
        words = generator.integers(2, config.vocab_size, max(1, int(share * length))).tolist()
        pads = [0] * (length - len(words))
        rows.append(pads + words if side == "left" else words + pads)
    return np.array(rows)


def answers(config, length, generator):
    """Decoder inputs that begin with the start token."""
    ids = generator.integers(2, config.vocab_size, (BATCH, length))
    ids[:, 0] = 0
    return ids


def torch_logits(model, ids, decoder_ids):
    with torch.no_grad():
        output = model(
            input_ids=torch.tensor(ids),
            attention_mask=torch.tensor(ids != 0),
            decoder_input_ids=torch.tensor(decoder_ids),
        )
    return output.logits.float().numpy()


@partial(jax.jit, static_argnums=0)
def our_logits(module, params, ids, decoder_ids):
    return module.apply({"params": params}, ids, decoder_ids)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("length", LENGTHS)
def test_logits(pair, length, side):
    config, model, params = pair
    for answer in (1, 8):
        generator = np.random.default_rng(length + answer)
        ids, decoder_ids = (
            texts(config, length, side, generator),
            answers(config, answer, generator),
        )
        theirs = torch_logits(model, ids, decoder_ids)
        assert np.abs(theirs).max() > 1
        ours = our_logits(T5(config), params, ids, decoder_ids)
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


LAYOUTS = {
    "unrolled": {},
    "scanned": {"scan_layers": True},
    "rematerialised": {"remat": "dots"},
    "scanned and rematerialised": {"scan_layers": True, "remat": "full"},
}


def torch_prompt_gradient(model, config, ids, prompt, mask_token, labels):
    """The gradient of the labels' cross-entropy at the second decoder position, with slots found by their ids."""
    leaf = torch.tensor(prompt, requires_grad=True)
    slots = torch.tensor(np.clip(ids - config.vocab_size, 0, SLOTS - 1))
    words = model.shared.weight.detach()[torch.tensor(np.where(ids >= config.vocab_size, 0, ids))]
    is_slot = torch.tensor(ids >= config.vocab_size)[..., None]
    logits = model(
        inputs_embeds=torch.where(is_slot, leaf[slots], words),
        attention_mask=torch.tensor(ids != 0),
        decoder_input_ids=torch.tensor([[0, mask_token]] * BATCH),
    ).logits[:, 1]
    torch.nn.functional.cross_entropy(logits, torch.tensor(labels)).backward()
    return leaf.grad.numpy()


@partial(jax.jit, static_argnums=(0, 4))
def our_prompt_gradient(module, params, ids, prompt, mask_token, labels):
    def loss(prompt):
        asked = jnp.full((BATCH, 1), mask_token)
        hidden = hidden_at_masks(module, params, ids, asked, prompt=prompt)[:, 0]
        logp = jax.nn.log_softmax(hidden @ head_matrix(params, module.config).T)
        return -logp[jnp.arange(BATCH), labels].mean()

    return jax.grad(loss)(prompt)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("length", LENGTHS)
def test_gradient_of_a_soft_prompt_in_every_layout(pair, length, side):
    config, model, params = pair
    generator = np.random.default_rng(length)
    ids = texts(config, length, side, generator)
    place = slice(0, SLOTS) if side == "right" else slice(length - SLOTS, length)
    ids[:, place] = slot_ids(
        config.vocab_size, SLOTS
    )  # one row of length 7 is slots and padding alone
    prompt = generator.normal(size=(SLOTS, config.d_model)).astype(np.float32)
    mask_token, labels = config.vocab_size - 1, np.array([3, 9, 4])
    theirs = torch_prompt_gradient(model, config, ids, prompt, mask_token, labels)
    assert np.abs(theirs).max() > 1e-4
    for layout in LAYOUTS.values() if length == 129 else [{}]:
        module = T5(replace(config, **layout))
        own = stack_layers(params) if module.config.scan_layers else params
        ours = our_prompt_gradient(module, own, jnp.asarray(ids), prompt, mask_token, labels)
        np.testing.assert_allclose(ours, theirs, atol=1e-6, err_msg=str(layout))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_logits_in_every_layout(pair, layout):
    config, model, params = pair
    generator = np.random.default_rng(4)
    ids, decoder_ids = texts(config, 40, "right", generator), answers(config, 8, generator)
    module = T5(replace(config, **LAYOUTS[layout]))
    own = stack_layers(params) if module.config.scan_layers else params
    ours = our_logits(module, own, ids, decoder_ids)
    np.testing.assert_allclose(ours, torch_logits(model, ids, decoder_ids), atol=1e-4)


@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
@pytest.mark.parametrize("length", [129, 300])
def test_bfloat16_within_three_hundredths_of_float32_torch(pair, length, stored):
    """Relative to the whole: the norm of the difference over the norm of torch's float32 logits."""
    config, model, params = pair
    generator = np.random.default_rng(length)
    ids, decoder_ids = texts(config, length, "right", generator), answers(config, 8, generator)
    theirs = torch_logits(model, ids, decoder_ids)
    low = T5(replace(config, dtype="bfloat16", param_dtype=stored))
    own = jax.tree.map(lambda x: x.astype(stored), params)
    ours = our_logits(low, own, ids, decoder_ids)
    assert ours.dtype == jnp.float32
    difference = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
    assert 1e-4 < difference < 3e-2


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
