"""Directories written by `transformers` through our loader, and ours through theirs: the same logits."""

import json
import shlex
import subprocess
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed here: run `make parity`")
transformers = pytest.importorskip("transformers", reason="transformers is not installed here")

from delrec_jax.errors import UserError  # noqa: E402
from delrec_jax.language.t5 import T5  # noqa: E402
from delrec_jax.language.t5_files import export_model, load, read_config  # noqa: E402
from delrec_jax.language.t5_model import T5Encoder  # noqa: E402

pytestmark = pytest.mark.parity

# Every width differs, so that no transposed or exchanged tensor goes unseen.
SIZES = {
    "vocab_size": 96,
    "d_model": 24,
    "d_kv": 5,
    "d_ff": 40,
    "num_layers": 3,
    "num_decoder_layers": 2,
    "num_heads": 3,
}
KINDS = {"v1.0": ("relu", True), "v1.1": ("gated-gelu", False)}


def torch_model(kind):
    """A random `transformers` T5: v1.0 with a tied head, v1.1 (and Flan) with one of its own."""
    torch.manual_seed(3)
    feed_forward, tied = KINDS[kind]
    config = transformers.T5Config(
        **SIZES,
        feed_forward_proj=feed_forward,
        tie_word_embeddings=tied,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
    )
    model = transformers.T5ForConditionalGeneration(config).eval()
    if not tied:  # transformers 5 ties the head of a fresh model whatever its config says
        head = config.d_model**-0.5 * torch.randn(config.vocab_size, config.d_model)
        model.lm_head.weight = torch.nn.Parameter(head)
        model.config.tie_word_embeddings = False
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "layer_norm" in name or "relative_attention_bias" in name:
                weight += 0.3 * torch.randn_like(weight)
    return model


def texts():
    generator = np.random.default_rng(5)
    ids = generator.integers(2, SIZES["vocab_size"], (3, 12))
    ids[1, 7:] = 0
    decoder_ids = generator.integers(2, SIZES["vocab_size"], (3, 4))
    return ids, decoder_ids


def their_logits(model):
    ids, decoder_ids = texts()
    with torch.no_grad():
        return (
            model(
                input_ids=torch.tensor(ids),
                attention_mask=torch.tensor(ids != 0),
                decoder_input_ids=torch.tensor(decoder_ids),
            )
            .logits.float()
            .numpy()
        )


def our_logits(params, config):
    return jax.jit(T5(config).apply)({"params": params}, *map(jnp.asarray, texts()))


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def model(kind):
    return torch_model(kind)


@pytest.fixture(scope="module", params=["one file", "sharded"])
def saved(request, model, tmp_path_factory):
    directory = tmp_path_factory.mktemp("saved")
    limit = "20KB" if request.param == "sharded" else "5GB"
    model.save_pretrained(directory, max_shard_size=limit)
    files = len(list(directory.glob("*.safetensors")))
    assert (files > 2) == (request.param == "sharded")
    return directory


@pytest.mark.parametrize("scan_layers", [False, True])
def test_their_directory_gives_their_logits(model, kind, saved, scan_layers):
    config = read_config(saved)
    tied = KINDS[kind][1]
    assert (config.tie_word_embeddings, config.scale_decoder_outputs) == (tied, tied)
    config = replace(config, scan_layers=scan_layers)
    theirs = their_logits(model)
    assert np.abs(theirs).max() > 1
    np.testing.assert_allclose(our_logits(load(saved, config), config), theirs, atol=1e-4)


def test_the_hubs_older_config_gives_the_same(model, kind, saved, tmp_path):
    """Files on the hub precede version 5: no key for the scale, and v1.0's has no tying either."""
    for file in saved.iterdir():
        (tmp_path / file.name).symlink_to(file)
    raw = json.loads((saved / "config.json").read_text())
    del raw["scale_decoder_outputs"], raw["tie_word_embeddings"]
    if kind == "v1.1":
        raw["tie_word_embeddings"] = False
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps(raw))
    assert read_config(tmp_path) == read_config(saved)


def loaded_by_transformers(directory):
    found, info = transformers.T5ForConditionalGeneration.from_pretrained(
        directory, output_loading_info=True, dtype="auto"
    )
    for key in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not info[key], (key, info[key])
    return found.eval()


@pytest.mark.parametrize("scan_layers", [False, True])
@pytest.mark.parametrize("limit", [10**9, 20_000])
def test_our_directory_gives_our_logits(kind, saved, tmp_path, scan_layers, limit):
    config = replace(read_config(saved), scan_layers=scan_layers)
    # Not the weights that they wrote: what is read must be what we wrote.
    params = jax.tree.map(lambda leaf: leaf * 1.25, load(saved, config))
    export_model(params, config, tmp_path / "ours", max_shard_bytes=limit)
    again = loaded_by_transformers(tmp_path / "ours")
    assert (again.lm_head.weight is again.shared.weight) == KINDS[kind][1]
    assert again.config.scale_decoder_outputs == KINDS[kind][1]
    theirs = their_logits(again)
    largest = np.abs(theirs).max()
    assert largest > 1
    # All weights are 1.25 times as large, and so is rounding: it was 1.2e-5 on an Intel Xeon, where logits reach 2 and more.
    np.testing.assert_allclose(our_logits(params, config), theirs, atol=1e-5 * largest)


def test_loaded_and_saved_again_by_transformers_5(kind, model, tmp_path):
    """It keeps v1.1's head apart, but writes `tie_word_embeddings: true` and the scale as a key of its own."""
    model.save_pretrained(tmp_path / "first")
    loaded_by_transformers(tmp_path / "first").save_pretrained(tmp_path / "again")
    raw = json.loads((tmp_path / "again" / "config.json").read_text())
    tied = KINDS[kind][1]
    assert (raw["tie_word_embeddings"], raw["scale_decoder_outputs"]) == (True, tied)
    config = read_config(tmp_path / "again")
    logits = our_logits(load(tmp_path / "again", config), config)
    np.testing.assert_allclose(logits, their_logits(model), atol=1e-4)


def test_a_head_of_its_own_with_a_scaled_output(tmp_path):
    """What `transformers` 5 makes of v1.0 weights whose head was trained apart."""
    model = torch_model("v1.1")
    model.config.scale_decoder_outputs = True
    model.save_pretrained(tmp_path / "theirs")
    config = read_config(tmp_path / "theirs")
    assert (config.tie_word_embeddings, config.scale_decoder_outputs) == (False, True)
    params = load(tmp_path / "theirs", config)
    np.testing.assert_allclose(our_logits(params, config), their_logits(model), atol=1e-4)
    export_model(params, config, tmp_path / "ours")
    again = their_logits(loaded_by_transformers(tmp_path / "ours"))
    np.testing.assert_allclose(our_logits(params, config), again, atol=1e-5)


def test_the_encoder_alone_is_theirs(kind, saved, model, tmp_path):
    """From a whole model's directory, and from ours as `T5EncoderModel`."""
    config = replace(read_config(saved), num_decoder_layers=0)
    params = load(saved, config)
    export_model(params, config, tmp_path / "ours")
    again, said = transformers.T5EncoderModel.from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert not any(said[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    ids, _ = texts()
    states, mask = T5Encoder(config).encode(params, jnp.asarray(ids))
    for theirs in (model.encoder, again.eval()):
        with torch.no_grad():
            found = theirs(input_ids=torch.tensor(ids), attention_mask=torch.tensor(ids != 0))
        np.testing.assert_allclose(states[mask], found[0].numpy()[ids != 0], atol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_goes_both_ways_bit_for_bit(dtype, tmp_path):
    model = torch_model("v1.1").to(getattr(torch, dtype))
    model.save_pretrained(tmp_path / "theirs")
    config = replace(read_config(tmp_path / "theirs"), param_dtype=dtype)
    params = load(tmp_path / "theirs", config)
    table = model.shared.weight.detach().float().numpy()
    np.testing.assert_array_equal(np.float32(params["shared"]["embedding"]), table)
    export_model(params, config, tmp_path / "ours")
    again = loaded_by_transformers(tmp_path / "ours")
    assert again.dtype == getattr(torch, dtype)
    theirs = dict(model.named_parameters())
    for name, weight in again.named_parameters():
        assert torch.equal(weight, theirs[name]), name


def test_the_command_for_a_pickle_makes_what_we_read(kind, model, tmp_path):
    directory = tmp_path / "a model"
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(directory)
    torch.save(model.state_dict(), directory / "pytorch_model.bin")
    with pytest.raises(UserError, match="a pickle") as refusal:
        read_config(directory)
    command = str(refusal.value).split("next to it: ")[1]
    python, *arguments = shlex.split(command)
    assert python == "python"
    run = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    config = read_config(directory)
    logits = our_logits(load(directory, config), config)
    np.testing.assert_allclose(logits, their_logits(model), atol=1e-4)
