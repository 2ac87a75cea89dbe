"""Tiny Hugging Face directories, their names spelled out here, through the loader."""

import hashlib
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import traverse_util
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from safetensors.numpy import save_file

from delrec_jax.errors import UserError
from delrec_jax.language import hub, t5_files, weights
from delrec_jax.language.layer_stacking import stack_layers
from delrec_jax.language.t5 import T5
from delrec_jax.language.t5_config import T5Config
from delrec_jax.language.t5_names import T5_NAMES

# Every width differs: D 16, H*d_kv 15, d_ff 24, V 40.
SIZES = {
    "vocab_size": 40,
    "d_model": 16,
    "d_kv": 5,
    "d_ff": 24,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 3,
    "relative_attention_num_buckets": 8,
}
V11 = {**SIZES, "model_type": "t5", "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
V10 = {**SIZES, "model_type": "t5"}
HALF = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32}


def stack_shapes(stack, layers, dense):
    """Name in the file -> (path in our tree, shape in the file), as `transformers` has them."""
    cross = stack == "decoder"
    last = 2 if cross else 1
    found = {
        f"{stack}.final_layer_norm.weight": (f"{stack}/final_layer_norm/weight", (16,)),
        f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight": (
            f"{stack}/relative_attention_bias/embedding",
            (8, 3),
        ),
    }
    for i in range(layers):
        theirs, ours = f"{stack}.block.{i}.layer", f"{stack}/block_{i}"
        attentions = {0: ("SelfAttention", "self_norm"), 1: ("EncDecAttention", "cross_norm")}
        for place in (0, 1) if cross else (0,):
            kind, norm = attentions[place]
            found[f"{theirs}.{place}.layer_norm.weight"] = (f"{ours}/{norm}/weight", (16,))
            for part in "qkv":
                found[f"{theirs}.{place}.{kind}.{part}.weight"] = (
                    f"{ours}/{kind}/{part}/kernel",
                    (15, 16),
                )
            found[f"{theirs}.{place}.{kind}.o.weight"] = (f"{ours}/{kind}/o/kernel", (16, 15))
        found[f"{theirs}.{last}.layer_norm.weight"] = (f"{ours}/ff_norm/weight", (16,))
        for name in dense:
            shape = (16, 24) if name == "wo" else (24, 16)
            found[f"{theirs}.{last}.DenseReluDense.{name}.weight"] = (
                f"{ours}/DenseReluDense/{name}/kernel",
                shape,
            )
    return found


def expected(raw):
    """All tensors of a model of this config."""
    gated = raw.get("feed_forward_proj") == "gated-gelu"
    dense = ("wi_0", "wi_1", "wo") if gated else ("wi", "wo")
    found = {"shared.weight": ("shared/embedding", (40, 16))}
    found |= stack_shapes("encoder", 2, dense) | stack_shapes("decoder", 3, dense)
    if gated:
        found["lm_head.weight"] = ("lm_head/kernel", (40, 16))
    return found


def random_tensors(raw, dtype=np.float32):
    generator = np.random.default_rng(0)
    shapes = {name: shape for name, (_, shape) in expected(raw).items()}
    return {name: generator.normal(size=s).astype(dtype) for name, s in shapes.items()}


def write(directory, raw, tensors, files=1):
    """A model directory; with several files, tensors go round in turn and an index names them."""
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps(raw))
    if files == 1:
        save_file(tensors, directory / "model.safetensors")
        return directory
    weight_map = {}
    for i in range(files):
        file = f"model-{i + 1:05d}-of-{files:05d}.safetensors"
        part = {name: tensors[name] for name in sorted(tensors)[i::files]}
        save_file(part, directory / file)
        weight_map |= dict.fromkeys(part, file)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return directory


def flat(params):
    return {"/".join(path): leaf for path, leaf in traverse_util.flatten_dict(params).items()}


def loaded(directory, **changes):
    config = replace(t5_files.read_config(directory), **changes)
    return t5_files.load(directory, config)


@pytest.fixture(params=["v1.0", "v1.1"])
def raw(request):
    return {"v1.0": V10, "v1.1": V11}[request.param]


# --- names


def test_every_name_has_its_path_and_back(raw):
    from hf_paths import our_path  # not found where this file is a script

    for name, (path, _) in expected(raw).items():
        parts = tuple(path.split("/"))
        transposed = path.endswith("kernel")
        assert our_path(T5_NAMES, name) == (parts, transposed), name
        assert T5_NAMES.hf_name(parts) == (name, transposed), path


def test_the_table_covers_the_model_and_no_more(raw, tmp_path):
    directory = write(tmp_path / "m", raw, random_tensors(raw))
    ids = jnp.ones((1, 2), jnp.int32)
    module = T5(t5_files.read_config(directory))
    tree = jax.eval_shape(module.init, jax.random.key(0), ids, ids)["params"]
    assert set(flat(tree)) == {path for path, _ in expected(raw).values()}


def test_names_that_are_not_t5s():
    from hf_paths import our_path

    for alias in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight"):
        assert our_path(T5_NAMES, alias) == (("shared", "embedding"), False)
    for name in (
        "encoder.block.0.layer.1.EncDecAttention.q.weight",
        "encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight",
        "decoder.block.x.layer.0.layer_norm.weight",
        "lm_head.bias",
        "lm_headXweight",
    ):
        assert our_path(T5_NAMES, name) is None, name
    with pytest.raises(KeyError, match="encoder/blocks/self_norm/weight"):
        T5_NAMES.hf_name(("encoder", "blocks", "self_norm", "weight"))


# --- values


@pytest.mark.parametrize("files", [1, 3])
def test_every_tensor_at_its_place(raw, files, tmp_path):
    tensors = random_tensors(raw)
    found = flat(loaded(write(tmp_path / "m", raw, tensors, files)))
    wanted = expected(raw)
    assert set(found) == {path for path, _ in wanted.values()}
    for name, (path, _) in wanted.items():
        value = tensors[name].T if path.endswith("kernel") else tensors[name]
        np.testing.assert_array_equal(found[path], value, err_msg=name)
        assert found[path].dtype == jnp.float32


@pytest.mark.parametrize("stored", HALF)
@pytest.mark.parametrize("held", HALF)
def test_types_on_disk_and_in_memory(stored, held, tmp_path):
    tensors = random_tensors(V11, HALF[stored])
    found = loaded(write(tmp_path / "m", V11, tensors), param_dtype=held)
    for name, (path, _) in expected(V11).items():
        value = tensors[name].T if path.endswith("kernel") else tensors[name]
        assert flat(found)[path].dtype == held
        np.testing.assert_array_equal(flat(found)[path], value.astype(HALF[held]), err_msg=name)


@pytest.mark.parametrize("files", [1, 3])
def test_stacked_layers(raw, files, tmp_path):
    directory = write(tmp_path / "m", raw, random_tensors(raw), files)
    stacked, plain = loaded(directory, scan_layers=True), stack_layers(loaded(directory))
    assert jax.tree.structure(stacked) == jax.tree.structure(plain)
    jax.tree.map(np.testing.assert_array_equal, stacked, plain)
    assert stacked["decoder"]["blocks"]["SelfAttention"]["q"]["kernel"].shape == (3, 16, 15)


def test_the_token_table_under_its_other_names(tmp_path):
    tensors = random_tensors(V10)
    table = tensors["shared.weight"]
    for name in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight"):
        alone = {**tensors, name: table}
        del alone["shared.weight"]
        found = loaded(write(tmp_path / "alone", V10, alone))
        np.testing.assert_array_equal(found["shared"]["embedding"], table)
        loaded(write(tmp_path / "twice", V10, {**tensors, name: table.copy()}))
        other = {**tensors, name: table + np.eye(40, 16, dtype=np.float32)[::-1]}
        with pytest.raises(UserError, match=rf"{name} differs from shared\.weight"):
            loaded(write(tmp_path / "other", V10, other))


def test_a_differing_table_is_found_in_its_last_row(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "_AT_ONCE", 7 * 16)
    tensors = random_tensors(V10)
    other = tensors["shared.weight"].copy()
    other[-1, -1] += 1
    directory = write(tmp_path / "m", V10, {**tensors, "encoder.embed_tokens.weight": other})
    with pytest.raises(UserError, match="differs"):
        loaded(directory)


def test_a_bias_of_2020_is_left_out(tmp_path):
    name = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    tensors = random_tensors(V10) | {name: np.ones((8, 3), np.float32)}
    assert "EncDecAttention/relative" not in str(flat(loaded(write(tmp_path / "m", V10, tensors))))


# --- devices


def pieces_read(directory, shardings_of):
    """What eight devices hold, and the shape of every reading."""
    read, original = {}, weights._read

    def watched(leaf, stored, bounds):
        shape = [stop - start for start, stop in bounds]
        read.setdefault("/".join(leaf.path), []).append(shape)
        return original(leaf, stored, bounds)

    weights._read = watched
    config = replace(t5_files.read_config(directory), scan_layers=True)
    params = t5_files.load(directory, config, shardings_of(config))
    weights._read = original
    whole = t5_files.load(directory, config)
    same = jax.tree.map(lambda a, b: bool((np.asarray(a) == np.asarray(b)).all()), params, whole)
    return {
        "same": jax.tree.all(same),
        "sizes": {path: leaf.size for path, leaf in flat(params).items()},
        "read": read,
        "held": {
            path: [shard.data.shape for shard in leaf.addressable_shards]
            for path, leaf in flat(params).items()
        },
    }


def split(mesh, **specs):
    """Shardings by the last names of a path; the rest replicated."""

    def tree(config):
        ids = jnp.ones((1, 2), jnp.int32)
        shapes = jax.eval_shape(T5(config).init, jax.random.key(0), ids, ids)["params"]
        return traverse_util.path_aware_map(
            lambda path, _: NamedSharding(
                mesh, specs.get(path[-2], specs.get(path[-1], PartitionSpec()))
            ),
            shapes,
        )

    return tree


def report(directory):
    """For the process that started this one."""
    devices = np.array(jax.devices())
    eight, pairs = Mesh(devices, ("x",)), Mesh(devices.reshape(2, 4), ("copy", "x"))
    spec = PartitionSpec
    every = {
        "embedding": spec("x"),
        "kernel": spec(None, "x"),
        "wo": spec(None, "x", None),
        "o": spec(None, None, "x"),
    }
    return {
        "split": pieces_read(directory, split(eight, **every)),
        "two copies": pieces_read(directory, split(pairs, **every)),
        "replicated": pieces_read(directory, lambda _: NamedSharding(eight, spec())),
    }


@pytest.fixture(scope="module")
def eight(tmp_path_factory, on_devices):
    # Every axis that is split divides by eight: V 40, D 16, d_ff 24.
    directory = write(tmp_path_factory.mktemp("eight") / "m", V11, random_tensors(V11), files=3)
    return on_devices(__file__, directory)


@pytest.mark.parametrize("layout", ["split", "two copies", "replicated"])
def test_each_piece_is_read_once_whatever_the_devices(eight, layout):
    found = eight[layout]
    assert found["same"]
    sizes = {path: sum(map(math.prod, shapes)) for path, shapes in found["read"].items()}
    assert sizes == found["sizes"]


def test_no_device_reads_more_than_its_piece(eight):
    found = eight["split"]
    assert found["held"]["shared/embedding"] == [[5, 16]] * 8
    assert found["held"]["decoder/blocks/SelfAttention/q/kernel"] == [[3, 2, 15]] * 8
    assert found["held"]["decoder/blocks/SelfAttention/o/kernel"] == [[3, 15, 2]] * 8
    assert found["held"]["encoder/blocks/DenseReluDense/wo/kernel"] == [[2, 3, 16]] * 8
    for path, shapes in found["held"].items():  # norms alone are whole on every device
        assert found["read"][path] == (shapes[:1] if path.endswith("weight") else shapes), path
    for layout, shapes in {
        "two copies": [[3, 4, 15]] * 4,
        "replicated": [[3, 16, 15]],
    }.items():
        assert eight[layout]["read"]["decoder/blocks/SelfAttention/q/kernel"] == shapes


# --- config


FLAN_SMALL = {
    "model_type": "t5",
    "d_ff": 1024,
    "d_kv": 64,
    "d_model": 512,
    "dense_act_fn": "gelu_new",
    "dropout_rate": 0.1,
    "feed_forward_proj": "gated-gelu",
    "is_gated_act": True,
    "layer_norm_epsilon": 1e-06,
    "num_decoder_layers": 8,
    "num_heads": 6,
    "num_layers": 8,
    "relative_attention_max_distance": 128,
    "relative_attention_num_buckets": 32,
    "tie_word_embeddings": False,
    "vocab_size": 32128,
}


def config_of(tmp_path, raw, head=True):
    """`read_config` of this config.json beside weights with or without a head."""
    tensors = {"lm_head.weight" if head else "shared.weight": np.ones((2, 2), np.float32)}
    return t5_files.read_config(write(tmp_path / "m", raw, tensors))


def test_flan_small_is_our_default(tmp_path):
    assert config_of(tmp_path, FLAN_SMALL) == T5Config(scale_decoder_outputs=False)


def test_a_file_of_v10_leaves_much_out(tmp_path):
    raw = {key: value for key, value in FLAN_SMALL.items() if key in t5_files._SIZES}
    assert config_of(tmp_path, raw | {"num_layers": 6}, head=False) == T5Config(
        num_layers=6,
        num_decoder_layers=6,
        feed_forward_proj="relu",
        tie_word_embeddings=True,
        scale_decoder_outputs=True,
    )


def test_what_is_in_the_file_is_taken(tmp_path):
    raw = FLAN_SMALL | {
        "num_decoder_layers": 5,
        "relative_attention_num_buckets": 16,
        "relative_attention_max_distance": 64,
        "dropout_rate": 0.25,
        "layer_norm_epsilon": 1e-5,
    }
    assert config_of(tmp_path, raw) == T5Config(
        num_decoder_layers=5,
        relative_attention_num_buckets=16,
        relative_attention_max_distance=64,
        dropout_rate=0.25,
        layer_norm_epsilon=1e-5,
        scale_decoder_outputs=False,
    )


@pytest.mark.parametrize(
    ("keys", "form"),
    [
        ({"feed_forward_proj": "gated-gelu"}, "gated-gelu"),
        ({"feed_forward_proj": "relu", "dense_act_fn": "relu", "is_gated_act": False}, "relu"),
        ({"is_gated_act": True, "dense_act_fn": "gelu_new"}, "gated-gelu"),
        ({"dense_act_fn": "relu"}, "relu"),
        ({}, "relu"),
    ],
)
def test_forms_of_the_feed_forward(tmp_path, keys, form):
    assert config_of(tmp_path, V10 | keys).feed_forward_proj == form


@pytest.mark.parametrize(
    "keys",
    [
        {"feed_forward_proj": "gated-silu"},
        {"feed_forward_proj": "relu", "dense_act_fn": "gelu"},
        {"is_gated_act": True, "dense_act_fn": "silu"},
    ],
)
def test_other_feed_forwards_are_refused(tmp_path, keys):
    with pytest.raises(UserError, match=r"config\.json: feed_forward_proj is"):
        config_of(tmp_path, V10 | keys)


@pytest.mark.parametrize(
    ("keys", "scaled"),
    [
        ({}, True),
        ({"tie_word_embeddings": None}, True),
        ({"tie_word_embeddings": True}, True),
        ({"tie_word_embeddings": False}, False),
        # As transformers 5 saves them: tied always, the scale under a name of its own.
        ({"tie_word_embeddings": True, "scale_decoder_outputs": False}, False),
        ({"tie_word_embeddings": False, "scale_decoder_outputs": True}, True),
    ],
)
@pytest.mark.parametrize("head", [True, False])
def test_tying_follows_the_weights_and_the_scale_the_file(tmp_path, keys, scaled, head):
    config = config_of(tmp_path, V10 | keys, head)
    assert config.tie_word_embeddings is not head
    assert config.scale_decoder_outputs is scaled


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"model_type": "umt5"}, "model_type is 'umt5'; lm.family=t5 reads only t5"),
        ({"d_kv": None}, "d_kv is None"),
        ({"d_ff": "1024"}, "d_ff is '1024'"),
        ({"num_layers": 0}, "num_layers is 0"),
        ({"vocab_size": 2**31}, "vocab_size is 2147483648"),
        ({"num_layers": 513}, "num_layers is 513"),
        ({"num_decoder_layers": 513}, "num_decoder_layers is 513"),
        ({"relative_attention_num_buckets": 3}, "relative_attention_num_buckets is 3"),
        ({"relative_attention_max_distance": 3}, "relative_attention_max_distance is 3"),
        ({"dropout_rate": 1.0}, "dropout_rate is 1.0"),
        ({"dropout_rate": -0.5}, "dropout_rate is -0.5"),
        ({"layer_norm_epsilon": 0.0}, "layer_norm_epsilon is 0.0"),
        ({"layer_norm_epsilon": 0.2}, "layer_norm_epsilon is 0.2"),
    ],
)
def test_configs_that_cannot_be_read(tmp_path, keys, message):
    with pytest.raises(UserError, match=rf"m/config\.json: {message}"):
        config_of(tmp_path, V10 | keys)


# --- tensors that do not fit


def test_all_that_does_not_fit_is_listed_in_one_line(tmp_path):
    tensors = random_tensors(V11)
    for i in range(3):
        del tensors[f"decoder.block.{i}.layer.0.SelfAttention.q.weight"]
    del tensors["shared.weight"]
    tensors["encoder.block.2.layer.0.layer_norm.weight"] = np.ones(16, np.float32)
    tensors["lm_head.weight"] = np.ones((41, 16), np.float32)
    directory = write(tmp_path / "m", V11, tensors)
    with pytest.raises(UserError) as error:
        loaded(directory)
    message = str(error.value)
    assert message.startswith(f"{directory}: the tensors do not fit the config: 4 missing (")
    for i in range(3):
        assert f"decoder.block.{i}.layer.0.SelfAttention.q.weight [15, 16], " in message
    assert "weight [15, 16], ...); 1 unused" in message
    assert "shared.weight" not in message  # the fourth
    assert "; 1 unused (encoder.block.2.layer.0.layer_norm.weight [16]); " in message
    assert "; 1 misshapen (lm_head.weight [41, 16] instead of [40, 16]); use the" in message
    assert "\n" not in message


def test_a_head_that_the_config_does_not_want(tmp_path):
    directory = write(tmp_path / "m", V11, random_tensors(V11))
    with pytest.raises(UserError, match=r"config: 1 unused \(lm_head\.weight \[40, 16\]\);"):
        loaded(directory, tie_word_embeddings=True)


# --- names of weights


def test_the_fingerprint_is_of_every_byte(tmp_path):
    tensors = random_tensors(V11)
    first = hub.fingerprint(write(tmp_path / "a", V11, tensors, files=3))
    assert first == hub.fingerprint(write(tmp_path / "b", V11, tensors, files=3))
    assert len(first) == 64
    (tmp_path / "b" / "README.md").write_text("words")
    assert hub.fingerprint(tmp_path / "b") == first
    for name in ("config.json", "model-00003-of-00003.safetensors"):
        file = tmp_path / "b" / name
        before = file.read_bytes()
        file.write_bytes(
            before.replace(b"}", b" }", 1) if name == "config.json" else before[:-1] + b"x"
        )
        assert hub.fingerprint(tmp_path / "b") != first, name
        file.write_bytes(before)
    with pytest.raises(UserError, match=r"config\.json: not there"):
        (tmp_path / "b" / "config.json").unlink()
        hub.fingerprint(tmp_path / "b")


def test_the_hash_of_parameters_by_hand():
    params = {
        "shared": {"embedding": jnp.array([[1.0, -2.0]])},
        "encoder": {"block_0": {"x": {"weight": jnp.array([0.5])}}},
    }
    numbers = np.array([0.5], "<f4").tobytes(), np.array([1, -2], "<f4").tobytes()
    text = (
        b"encoder/block_0/x/weight [1]\n" + numbers[0] + b"shared/embedding [1, 2]\n" + numbers[1]
    )
    assert weights.params_hash(params) == hashlib.sha256(text).hexdigest()


def test_the_hash_of_parameters_knows_values_alone(tmp_path, monkeypatch):
    directory = write(tmp_path / "m", V11, random_tensors(V11, ml_dtypes.bfloat16), files=3)
    plain = loaded(directory)
    name = weights.params_hash(plain)
    assert weights.params_hash(loaded(directory, scan_layers=True)) == name
    assert weights.params_hash(loaded(directory, param_dtype="bfloat16")) == name
    assert weights.params_hash(dict(reversed(plain.items()))) == name
    assert weights.params_hash(jax.tree.map(np.asarray, plain)) == name
    monkeypatch.setattr(weights, "_AT_ONCE", 7)
    assert weights.params_hash(plain) == name


def test_the_hash_of_parameters_sees_a_change(tmp_path):
    plain = loaded(write(tmp_path / "m", V11, random_tensors(V11)))
    names = {weights.params_hash(plain), weights.params_hash(jax.tree.map(jnp.bfloat16, plain))}
    other = jax.tree.map(lambda leaf: leaf, plain)
    kernel = other["decoder"]["block_2"]["DenseReluDense"]["wo"]["kernel"]
    other["decoder"]["block_2"]["DenseReluDense"]["wo"]["kernel"] = kernel.at[-1, -1].add(1e-6)
    names.add(weights.params_hash(other))
    other["decoder"]["block_2"]["DenseReluDense"]["wo"]["kernel"] = kernel.reshape(16, 24)
    names.add(weights.params_hash(other))
    other = {**plain, "decoder": {**plain["decoder"], "block_3": plain["decoder"]["block_2"]}}
    del other["decoder"]["block_2"]
    names.add(weights.params_hash(other))
    assert len(names) == 5


if __name__ == "__main__":
    print(json.dumps(report(Path(sys.argv[1]))))


def test_configs_at_their_limits_are_read(tmp_path):
    keys = {"vocab_size": 2**31 - 1, "num_layers": 512, "num_decoder_layers": 512}
    keys |= {"relative_attention_num_buckets": 4, "relative_attention_max_distance": 4}
    found = config_of(tmp_path, V10 | keys | {"dropout_rate": 0, "layer_norm_epsilon": 0.1})
    assert {name: getattr(found, name) for name in keys} == keys and found.dropout_rate == 0


@pytest.mark.parametrize("place", [(0, 0), (-1, -1)])
@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_values_that_are_not_finite_name_their_tensor(tmp_path, monkeypatch, bad, place):
    monkeypatch.setattr(weights, "_AT_ONCE", 7)
    tensors = random_tensors(V10)
    tensors["shared.weight"][place] = bad
    with pytest.raises(UserError, match=r"shared\.weight has values that are not finite"):
        loaded(write(tmp_path / "m", V10, tensors))


def test_a_table_of_another_shape_differs(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "_AT_ONCE", 1)  # fewer than a row has
    tensors = random_tensors(V10)
    name = "encoder.embed_tokens.weight"
    loaded(write(tmp_path / "same", V10, tensors | {name: tensors["shared.weight"].copy()}))
    longer = np.concatenate([tensors["shared.weight"], np.zeros((1, 16), np.float32)])
    with pytest.raises(UserError, match=r"differs from shared\.weight"):
        loaded(write(tmp_path / "other", V10, tensors | {name: longer}))
