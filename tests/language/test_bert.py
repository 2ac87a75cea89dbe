"""The BERT family without PyTorch: names and files, texts, shards, and what is refused; tests/parity has the numbers."""

import json
import sys
from dataclasses import replace
from math import prod
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from scipy.special import erf

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # as a script on eight devices
from tiny_bert import RAW, TINY, expected, random_tensors, visible_params, write_bert  # noqa: E402

from delrec_jax.config.language import LMConfig  # noqa: E402
from delrec_jax.errors import UserError  # noqa: E402
from delrec_jax.language.adalora import init_adapters, merge  # noqa: E402
from delrec_jax.language.adalora_config import AdaLoRAConfig  # noqa: E402
from delrec_jax.language.bert import Bert  # noqa: E402
from delrec_jax.language.bert_config import BertConfig  # noqa: E402
from delrec_jax.language.bert_family import PUBLISHED, BertFamily  # noqa: E402
from delrec_jax.language.bert_files import export_model, load, read_config  # noqa: E402
from delrec_jax.language.bert_model import BertModel  # noqa: E402
from delrec_jax.language.bert_names import BERT_NAMES, leaves  # noqa: E402
from delrec_jax.language.families import find_family  # noqa: E402
from delrec_jax.language.family import AnsweringModel, answering  # noqa: E402
from delrec_jax.language.weights import params_hash  # noqa: E402
from delrec_jax.training.sharding import MeshConfig, key_names, make_layout, place  # noqa: E402

ADAPTERS = AdaLoRAConfig(targets=("*/*",), init_rank=3, target_rank=3, dropout=0.0)
IDS = np.array([[5, 9, 30, 7, 1, 0, 0, 0], [3, 40, 41, 2, 30, 6, 1, 11]], np.int32)
PROMPT = np.random.default_rng(1).normal(size=(2, 12)).astype(np.float32)


def flat(params):
    return {"/".join(path): leaf for path, leaf in traverse_util.flatten_dict(params).items()}


def trained(params):
    """Adapters that change the states."""
    tree = init_adapters(params, ADAPTERS, jax.random.key(0))
    return jax.tree.map(lambda leaf: leaf * 10 + (leaf == 0), tree)


# --- names and files


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_every_tensor_at_its_place(tmp_path, prefix):
    tensors = {prefix + name: value for name, value in random_tensors().items()}
    # Heads of other tasks, stored positions, and the names of norms in the oldest files.
    beside = {
        f"{prefix}pooler.dense.weight": np.ones((12, 12), np.float32),
        "cls.predictions.bias": np.ones(40, np.float32),
        f"{prefix}embeddings.position_ids": np.arange(96)[None],
    }
    old = f"{prefix}encoder.layer.1.output.LayerNorm."
    tensors[f"{old}gamma"] = tensors.pop(f"{old}weight")
    tensors[f"{old}beta"] = tensors.pop(f"{old}bias")
    directory = write_bert(tmp_path / "m", tensors=tensors | beside)
    config = read_config(directory)
    assert config == TINY
    found, wanted = flat(load(directory, config)), expected()
    assert (
        {*found}
        == {path for path, _ in wanted.values()}
        == {*flat(BertModel(config).param_shapes())}
    )
    for name, value in random_tensors().items():
        path = wanted[name][0]
        value = value.T if path.endswith("kernel") else value
        np.testing.assert_array_equal(found[path], value, err_msg=name)
        assert BERT_NAMES.hf_name(tuple(path.split("/"))) == (name, path.endswith("kernel"))


def test_what_is_written_is_read_again_bit_for_bit(tmp_path):
    params = jax.tree.map(jnp.bfloat16, visible_params())
    config = replace(TINY, param_dtype="bfloat16")
    export_model(params, config, tmp_path / "m", max_shard_bytes=2000)
    assert len(list((tmp_path / "m").glob("*.safetensors"))) > 2
    assert replace(read_config(tmp_path / "m"), param_dtype="bfloat16") == config
    again = load(tmp_path / "m", config)
    jax.tree.map(np.testing.assert_array_equal, again, params)
    assert params_hash(again) == params_hash(params)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"model_type": "mpnet"}, "model_type is 'mpnet'; lm.family=bert reads only bert"),
        ({"model_type": None}, "model_type is None; lm.family=bert reads only bert"),
        ({"hidden_act": "gelu_new"}, "hidden_act is 'gelu_new'; only 'gelu' can be read"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
        ({"is_decoder": True}, "is_decoder is True; only False"),
        ({"intermediate_size": 0}, "intermediate_size is 0; download"),
        ({"num_attention_heads": 5}, "hidden_size is 12, which 5 heads cannot share"),
        ({"vocab_size": 2**31}, "vocab_size is 2147483648; download"),
        ({"vocab_size": "40"}, "vocab_size is '40'; download"),
        ({"num_hidden_layers": 513}, "num_hidden_layers is 513"),
        ({"layer_norm_eps": 0.0}, "layer_norm_eps is 0.0"),
        ({"layer_norm_eps": 0.2}, "layer_norm_eps is 0.2"),
        ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob is 1.0"),
        ({"hidden_dropout_prob": -0.5}, "hidden_dropout_prob is -0.5"),
    ],
)
def test_configs_that_cannot_be_read(tmp_path, keys, message):
    with pytest.raises(UserError, match=rf"m/config\.json: {message}"):
        read_config(write_bert(tmp_path / "m", RAW | keys, {"x": np.ones(1, np.float32)}))


def test_tensors_that_do_not_fit_are_listed(tmp_path):
    tensors = random_tensors()
    del tensors["encoder.layer.0.output.dense.bias"]
    tensors["classifier.weight"] = np.ones((2, 12), np.float32)
    directory = write_bert(tmp_path / "m", tensors=tensors)
    with pytest.raises(
        UserError, match=r"1 missing \(encoder\.layer\.0\.output\.dense\.bias \[12\]\); 1 unused"
    ):
        load(directory, read_config(directory))


# Two norms per block and one before; four square projections and two of the feed-forward with biases; three tables.
@pytest.mark.parametrize(
    ("name", "count"),
    [
        (
            "sentence-transformers/all-MiniLM-L6-v2",
            22_713_216 - 384 * 385,
        ),  # published less the pooler
        ("BAAI/bge-small-en-v1.5", 33_360_000 - 384 * 385),
        ("intfloat/e5-base-v2", 109_482_240 - 768 * 769),
        ("BAAI/bge-large-en-v1.5", 335_141_888 - 1024 * 1025),
    ],
)
def test_parameters_are_as_many_as_published(name, count):
    assert sum(prod(leaf.shape) for leaf in leaves(PUBLISHED[name])) == count


# --- texts


def test_padding_slots_adapters_and_dropout():
    model, params = BertModel(replace(TINY, dropout_rate=0.5)), visible_params()
    states, mask = model.encode(params, IDS, prompt=PROMPT)
    np.testing.assert_array_equal(mask, IDS != 0)
    # More padding changes nothing.
    wider, _ = model.encode(params, np.pad(IDS, ((0, 0), (0, 5))), prompt=PROMPT)
    np.testing.assert_allclose(wider[:, :8][mask], states[mask], atol=1e-5)
    assert np.isnan(np.asarray(model.encode(params, IDS)[0][1])).any()  # a slot without a prompt
    adapters, adapted = trained(params), model.with_adapters(ADAPTERS)
    changed, _ = adapted.encode(params, IDS, prompt=PROMPT, adapters=adapters)
    merged, _ = model.encode(merge(params, adapters, ADAPTERS), IDS, prompt=PROMPT)
    assert np.abs(changed - states)[mask].max() > 0.1
    np.testing.assert_allclose(changed[mask], merged[mask], atol=1e-4)
    first, second = (
        model.encode(params, IDS, prompt=PROMPT, dropout_key=jax.random.key(k))[0] for k in (0, 1)
    )
    assert np.abs(first - second)[mask].max() > 0.1


def test_texts_of_16_bits_stay_near():
    params = visible_params()
    states, mask = BertModel(TINY).encode(params, IDS, prompt=PROMPT)
    half = replace(TINY, dtype="bfloat16", param_dtype="bfloat16", remat="full")
    near, _ = BertModel(half).encode(jax.tree.map(jnp.bfloat16, params), IDS, prompt=PROMPT)
    assert near.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(near[mask]), states[mask], atol=0.1)


def test_what_it_cannot_do_is_said():
    model, params = BertModel(TINY), visible_params()
    with pytest.raises(
        UserError, match=r"padded to 97 tokens, but this BERT, .* has 96 positions: lower"
    ):
        model.encode(params, np.ones((1, 97), np.int32))
    assert not isinstance(model, AnsweringModel)
    with pytest.raises(
        UserError, match="BERT, hidden_size 12, 2 layers only encodes texts: set it"
    ):
        answering(model, "this", remedy="set it")
    with pytest.raises(UserError, match=r"lm\.family=bert cannot be trained from scratch: set lm"):
        BertFamily().begin(model, jax.random.key(0))
    with pytest.raises(UserError, match=r"mesh\.tensor is 4, but the language model has 2 heads"):
        model.check_mesh(4)
    with pytest.raises(UserError, match=r"lm\.bert\.dtype is 'float64': use one of float32"):
        BertConfig(dtype="float64")


# --- the family


def test_the_family_takes_sizes_from_weights_and_running_from_the_config(tmp_path):
    directory = write_bert(tmp_path / "m", RAW | {"hidden_dropout_prob": 0.1})
    settings = LMConfig(
        family="bert", bert=BertConfig(dtype="bfloat16", remat="full"), weights=str(directory)
    )
    family = find_family("bert")
    model = family.model(settings, directory=directory, vocab_size=30)
    assert model.config == replace(TINY, dtype="bfloat16", remat="full")
    assert family.planned(settings) == (model, str(directory))
    named = replace(settings, weights="intfloat/e5-small-v2")
    shape, source = family.planned(named)
    assert (shape.width, shape.sizes.encoder_blocks, shape.sizes.heads) == (384, 12, 12)
    assert "published sentence encoder shapes" in source
    changes = dict(family.smaller(settings))
    assert changes["lm.bert.param_dtype=bfloat16"]["bert"].param_dtype == "bfloat16"
    own = family.model(replace(settings, weights=""), directory=None, vocab_size=77)
    assert own.vocab_size == 77


# --- devices


@pytest.mark.parametrize(
    ("path", "axes"),
    [
        ("words/embedding", ("vocab", None)),
        ("positions/embedding", (None, None)),
        ("encoder/block_0/SelfAttention/q/kernel", ("embed", "heads")),
        ("encoder/block_0/SelfAttention/o/A", ("heads", None)),
        ("encoder/block_0/SelfAttention/q/bias", (None,)),
        ("encoder/block_1/FeedForward/wi/kernel", ("embed", "mlp")),
        ("encoder/block_1/FeedForward/wo/B", (None, "embed")),
        ("encoder/block_1/ff_norm/bias", (None,)),
    ],
)
def test_axes_by_hand(path, axes):
    params = visible_params()
    trees = flat(params) | flat(trained(params))
    assert BertModel(TINY).axes_of(tuple(path.split("/")), trees[path].shape) == axes


def on_mesh(directory, mesh):
    """States, and gradients of prompt and adapters, of weights that were read onto this mesh."""
    model = BertModel(read_config(directory)).with_adapters(ADAPTERS)
    layout = make_layout(MeshConfig(*mesh), model.axes_of)
    params = load(directory, model.config, layout.of(model.param_shapes()))
    learned = {"prompt": PROMPT, "adapters": trained(params)}
    ids = np.tile(IDS, (4, 1))

    def loss(learned, params, ids):
        states, mask = model.encode(params, ids, **learned)
        return jnp.where(mask[..., None], states, 0).sum() + jnp.square(states[:, 0]).sum()

    with layout.active():
        learned = place(learned, layout.of(learned))
        placed = jax.device_put(ids, layout.batch)
        value, gradient = jax.jit(jax.value_and_grad(loss))(learned, params, placed)
    split = {
        "/".join(key_names(path)): leaf.addressable_shards[0].data.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if not leaf.is_fully_replicated
    }
    sums = [float(jnp.abs(leaf).sum()) for leaf in jax.tree.leaves(gradient)]
    return {"loss": float(value), "gradients": sums, "split": split}


def test_eight_devices_compute_what_one_does(tmp_path, on_devices):
    directory = write_bert(tmp_path / "m")
    found = on_devices(__file__, directory)
    alone = on_mesh(directory, (1, 1, 1))
    assert alone["split"] == {}
    for mesh, tables in {"1x8x1": [5, 12], "2x2x2": [10, 12]}.items():
        np.testing.assert_allclose(found[mesh]["loss"], alone["loss"], rtol=1e-4)
        np.testing.assert_allclose(found[mesh]["gradients"], alone["gradients"], rtol=1e-3)
        assert found[mesh]["split"]["words/embedding"] == tables
    assert found["2x2x2"]["split"]["encoder/block_0/SelfAttention/q/kernel"] == [6, 6]
    assert not any(path.endswith(("bias", "weight")) for path in found["2x2x2"]["split"])


if __name__ == "__main__":
    meshes = {"1x8x1": (1, 8, 1), "2x2x2": (2, 2, 2)}
    print(json.dumps({name: on_mesh(Path(sys.argv[1]), mesh) for name, mesh in meshes.items()}))


def numpy_states(config, params, ids):
    """BERT again in NumPy: one text without padding."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    heads, width = config.num_attention_heads, config.hidden_size // config.num_attention_heads

    def norm(x, w):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + config.layer_norm_eps)
        return x * w["weight"] + w["bias"]

    def dense(x, w):
        return x @ w["kernel"] + w["bias"]

    rows = np.concatenate([p["words"]["embedding"], PROMPT])
    x = rows[ids] + p["positions"]["embedding"][: len(ids)] + p["types"]["embedding"][0]
    x = norm(x, p["embedding_norm"])
    for index in range(config.num_hidden_layers):
        w = p["encoder"][f"block_{index}"]
        attention, forward = w["SelfAttention"], w["FeedForward"]
        q, k, v = (dense(x, attention[n]).reshape(len(ids), heads, width) for n in "qkv")
        logits = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(width)
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        out = np.einsum("hqk,khd->qhd", weights, v).reshape(len(ids), -1)
        x = norm(x + dense(out, attention["o"]), w["attention_norm"])
        hidden = dense(x, forward["wi"])
        hidden = hidden * 0.5 * (1 + erf(hidden / np.sqrt(2)))
        x = norm(x + dense(hidden, forward["wo"]), w["ff_norm"])
    return x


def test_states_equal_a_second_implementation():
    config, params = replace(TINY, layer_norm_eps=0.5), visible_params()
    states, mask = BertModel(config).encode(params, IDS, prompt=PROMPT)
    for row, ids in enumerate(IDS):
        wanted = numpy_states(config, params, ids[ids != 0])
        np.testing.assert_allclose(states[row][mask[row]], wanted, rtol=0, atol=5e-5)


def test_what_a_file_leaves_out_has_berts_own_value(tmp_path):
    raw = {k: v for k, v in RAW.items() if k not in ("layer_norm_eps", "hidden_dropout_prob")}
    found = read_config(write_bert(tmp_path / "m", raw, {"x": np.ones(1, np.float32)}))
    assert (found.layer_norm_eps, found.dropout_rate) == (1e-12, 0.1)
    most = RAW | {"vocab_size": 2**31 - 1, "num_hidden_layers": 512, "layer_norm_eps": 0.1}
    found = read_config(write_bert(tmp_path / "n", most, {"x": np.ones(1, np.float32)}))
    assert (found.vocab_size, found.num_hidden_layers) == (2**31 - 1, 512)


@pytest.mark.parametrize(
    "keys",
    [
        {"dropout_rate": -0.1},
        {"dropout_rate": 1.0},
        {"num_attention_heads": 0},
        {"hidden_size": 10, "num_attention_heads": 4},
    ],
)
def test_a_shape_that_cannot_be_is_refused(keys):
    with pytest.raises(UserError, match=r"lm\.bert\."):
        BertConfig(**keys)
    assert BertConfig(dropout_rate=0.0, num_attention_heads=1).head_width == 384


@pytest.mark.parametrize(("size", "heads"), [("small", 12), ("base", 12), ("large", 16)])
def test_published_heads(size, heads):
    assert PUBLISHED[f"intfloat/e5-{size}-v2"].num_attention_heads == heads


def test_weights_start_with_berts_spread():
    config = replace(TINY, hidden_size=48, intermediate_size=96)
    params = jax.jit(Bert(config).init)(jax.random.key(0), jnp.ones((1, 2), jnp.int32))["params"]
    for path, leaf in flat(params).items():
        if path.endswith("bias"):
            assert (leaf == 0).all(), path
        elif leaf.ndim == 1:
            assert (leaf == 1).all(), path
        else:
            np.testing.assert_allclose(leaf.std(), 0.02, rtol=0.25, err_msg=path)
