"""What we write: read back bit for bit, whole or not at all."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from delrec_jax.errors import UserError
from delrec_jax.language import export
from delrec_jax.language.adalora import scaling
from delrec_jax.language.adalora_config import AdaLoRAConfig
from delrec_jax.language.layer_stacking import stack_layers
from delrec_jax.language.peft_export import PeftBase, export_peft
from delrec_jax.language.t5_files import export_model, load, read_config
from delrec_jax.language.t5_names import T5_NAMES
from delrec_jax.language.weights import params_hash


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("limit", [10**9, 3000])
def test_the_round_trip_is_exact(either, tmp_path, dtype, limit):
    config, params = either
    config = replace(
        config,
        param_dtype=dtype,
        scale_decoder_outputs=config.tie_word_embeddings,
        dropout_rate=0.25,
        layer_norm_epsilon=1e-5,
    )
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
    export_model(params, config, tmp_path / "m", max_shard_bytes=limit)
    assert replace(read_config(tmp_path / "m"), param_dtype=dtype) == config
    again = load(tmp_path / "m", config)
    jax.tree.map(np.testing.assert_array_equal, again, params)
    assert {leaf.dtype for leaf in jax.tree.leaves(again)} == {jnp.dtype(dtype)}
    assert json.loads((tmp_path / "m" / "config.json").read_text())["dtype"] == dtype
    files = sorted(file.name for file in (tmp_path / "m").glob("*.safetensors"))
    assert (len(files) > 2) == (limit == 3000)


def test_stacked_layers_are_written_apart(gated, tmp_path):
    config, params = gated
    stacked = stack_layers(params)
    export_model(stacked, replace(config, scan_layers=True), tmp_path / "stacked")
    export_model(params, config, tmp_path / "plain")
    names = ("stacked", "plain")
    written = [(tmp_path / name / "model.safetensors").read_bytes() for name in names]
    assert written[0] == written[1]


def test_their_names_their_layout_their_format(gated, tmp_path):
    config, params = gated
    export_model(params, config, tmp_path / "m")
    tensors = load_file(tmp_path / "m" / "model.safetensors")
    kernel = params["decoder"]["block_1"]["EncDecAttention"]["v"]["kernel"]
    theirs = tensors["decoder.block.1.layer.1.EncDecAttention.v.weight"]
    np.testing.assert_array_equal(theirs, kernel.T)
    assert "lm_head.weight" in tensors
    with safe_open(tmp_path / "m" / "model.safetensors", framework="np") as file:
        assert file.metadata() == {"format": "pt"}


def test_a_tied_model_has_no_head(v10, tmp_path):
    config, params = v10
    export_model(params, config, tmp_path / "m")
    assert "lm_head.weight" not in load_file(tmp_path / "m" / "model.safetensors")
    raw = json.loads((tmp_path / "m" / "config.json").read_text())
    assert (raw["tie_word_embeddings"], raw["scale_decoder_outputs"]) == (True, True)


@pytest.mark.parametrize("scaled", [True, False, None])
def test_scale_and_tying_go_their_own_ways(either, tmp_path, scaled):
    config, params = either
    tied = config.tie_word_embeddings
    config = replace(config, scale_decoder_outputs=scaled)
    export_model(params, config, tmp_path / "m")
    again = read_config(tmp_path / "m")
    assert again.tie_word_embeddings is tied
    assert again.scale_decoder_outputs is (tied if scaled is None else scaled)


def test_files_hold_at_most_the_limit(gated, tmp_path):
    config, params = gated
    export_model(params, config, tmp_path / "m", max_shard_bytes=3000)
    index = json.loads((tmp_path / "m" / "model.safetensors.index.json").read_text())
    names = sorted(set(index["weight_map"].values()))
    count = len(names)
    assert names == [f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]
    total = 0
    for name in names:
        tensors = load_file(tmp_path / "m" / name)
        assert {key for key, file in index["weight_map"].items() if file == name} == set(tensors)
        size = sum(tensor.nbytes for tensor in tensors.values())
        assert size <= 3000 or len(tensors) == 1
        total += size
    assert index["metadata"]["total_size"] == total
    assert total == sum(leaf.nbytes for leaf in jax.tree.leaves(params))


def test_shards_are_filled_in_order():
    sizes = {"a": 3, "b": 4, "c": 4, "d": 20, "e": 1, "f": 9}
    assert export._shards(sizes, 10) == [["a", "b"], ["c"], ["d"], ["e", "f"]]
    assert export._shards(sizes, 41) == [list("abcdef")]


# --- the directory


def test_the_tokenizer_comes_along(gated, tmp_path):
    config, params = gated
    source = tmp_path / "tokenizer"
    source.mkdir()
    for name in ("tokenizer.json", "spiece.model", "other.txt"):
        (source / name).write_text(name)
    export_model(params, config, tmp_path / "m", tokenizer_dir=source)
    assert sorted(file.name for file in (tmp_path / "m").iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "spiece.model",
        "tokenizer.json",
    ]
    assert (tmp_path / "m" / "spiece.model").read_text() == "spiece.model"


def test_a_directory_without_a_tokenizer(gated, tmp_path):
    config, params = gated
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: no tokenizer there"):
        export_model(params, config, tmp_path / "m", tokenizer_dir=tmp_path / "empty")
    assert [file.name for file in tmp_path.iterdir()] == ["empty"]


def test_nothing_is_written_over(gated, tmp_path):
    config, params = gated
    (tmp_path / "m").mkdir()
    export_model(params, config, tmp_path / "m")  # an empty directory is no loss
    name = params_hash(load(tmp_path / "m", config))
    with pytest.raises(UserError, match="m: already exists; remove it"):
        export_model(jax.tree.map(jnp.zeros_like, params), config, tmp_path / "m")
    assert params_hash(load(tmp_path / "m", config)) == name
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file: already exists"):
        export_model(params, config, tmp_path / "file")


@pytest.mark.parametrize("fails", ["save_file", "_write_json"])
def test_a_failure_leaves_nothing(gated, tmp_path, monkeypatch, fails):
    config, params = gated
    calls = []
    original = getattr(export, fails)

    def full_disk(*args, **kwargs):
        calls.append(args)
        original(*args, **kwargs)
        if len(calls) == 2:
            raise OSError("no space left")

    monkeypatch.setattr(export, fails, full_disk)
    with pytest.raises(OSError, match="no space"):
        export_model(params, config, tmp_path / "m", max_shard_bytes=3000)
    assert list(tmp_path.iterdir()) == []


def test_the_name_appears_last(gated, tmp_path, monkeypatch):
    config, params = gated
    seen = []
    original = export._write_json

    def watched(*args):
        original(*args)
        seen.append((tmp_path / "m").exists())

    monkeypatch.setattr(export, "_write_json", watched)
    export_model(params, config, tmp_path / "m")
    assert seen == [False, False]


def test_parameters_of_another_config(gated, v10, tmp_path):
    with pytest.raises(ValueError, match=r"not those of the config: .*lm_head\.weight"):
        export_model(v10[1], gated[0], tmp_path / "m")
    wider = replace(gated[0], d_ff=gated[0].d_ff + 1)
    with pytest.raises(ValueError, match=r"DenseReluDense\.wi_0\.weight"):
        export_model(gated[1], wider, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def of_peft(entries, inner, outer):
    draw = np.random.default_rng(inner).normal
    a, b = draw(size=(inner, 3)), draw(size=(3, outer))
    return {"A": a.astype("f4"), "E": np.array(entries, "f4"), "B": b.astype("f4")}


Q, V = of_peft([0.5, 0, -2], 4, 5), of_peft([0, 0, 0], 4, 6)
ADAPTED = {
    "encoder": {"block_0": {"SelfAttention": {"q": Q}}},
    "decoder": {"block_1": {"EncDecAttention": {"v": V}}},
}
MODULES = {
    "decoder.block.1.layer.1.EncDecAttention.v": V,
    "encoder.block.0.layer.0.SelfAttention.q": Q,
}
OF_PEFT = AdaLoRAConfig(init_rank=3, target_rank=2, alpha=6.0, dropout=0.2)


def to_peft(path, form, prompt=None, answers=True):
    base = PeftBase(T5_NAMES, "SomeClass", answers=answers)
    parts = {"adapters": ADAPTED, "config": OF_PEFT, "base_name": "mini"}
    export_peft(path, base, prompt=prompt, form=form, **parts)
    return json.loads((path / "adapter_config.json").read_text())


@pytest.mark.parametrize("form", ["adalora", "lora"])
def test_peft_adds_what_our_adapters_add(tmp_path, form):
    settings = to_peft(tmp_path, form)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    assert settings["target_modules"] == list(MODULES) and settings["inference_mode"] is True
    assert (settings["task_type"], settings["lora_dropout"]) == ("SEQ_2_SEQ_LM", 0.2)
    for module, ours in MODULES.items():
        wanted = (ours["A"] * ours["E"] * scaling(OF_PEFT)) @ ours["B"]
        stem = f"base_model.model.{module}.lora_"
        if form == "adalora":
            a, e, b = (tensors[stem + name] for name in "AEB")
            assert settings["rank_pattern"][f"{module}.lora_E"] == (ours["E"] != 0).tolist()
            found = settings["lora_alpha"] / (settings["init_r"] + 1e-5) * (b @ (a * e))
        else:
            a, b = (tensors[f"{stem}{name}.weight"] for name in "AB")
            rank = max(1, int((ours["E"] != 0).sum()))
            assert settings["rank_pattern"][module] == settings["alpha_pattern"][module] == rank
            found = b @ a
            assert len(a) == rank
        np.testing.assert_allclose(found.T, wanted, atol=1e-6)
    if form == "adalora":
        assert [settings[key] for key in ("tinit", "tfinal", "total_step")] == [0, 0, 1]


@pytest.mark.parametrize("answers", [True, False])
def test_a_prompt_lies_beside_an_adapter_for_peft_and_goes_with_the_next(tmp_path, answers):
    prompt = np.ones((2, 4), np.float32)
    kind = to_peft(tmp_path, "lora", prompt, answers)["task_type"]
    assert kind == ("SEQ_2_SEQ_LM" if answers else "FEATURE_EXTRACTION")
    text = (tmp_path / "README.md").read_text()
    assert "prompt of 2 vectors" in text and ("decoder_input_ids" in text) == answers
    np.testing.assert_array_equal(load_file(tmp_path / export.PROMPT_FILE)["prompt"], prompt)
    to_peft(tmp_path, "lora")
    assert not (tmp_path / export.PROMPT_FILE).exists()
    with pytest.raises(UserError, match="export form 'ia3': use one of adalora, lora"):
        to_peft(tmp_path, "ia3")
