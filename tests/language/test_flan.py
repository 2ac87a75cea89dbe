"""The shapes of pretrained models: counted, read from disk and cache, and never from a network."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from delrec_jax.errors import UserError
from delrec_jax.language.t5_names import leaves
from delrec_jax.language.t5_shapes import FLAN_T5, pretrained_shape

# Each line by hand: two tables; an encoder's and a decoder's blocks (projections, gated feed-forward, norms); biases and norms.
COUNTS = {
    "small": 2 * 32128 * 512
    + 8 * (4 * 512 * 384 + 3 * 512 * 1024 + 2 * 512)
    + 8 * (8 * 512 * 384 + 3 * 512 * 1024 + 3 * 512)
    + 2 * (32 * 6 + 512),
    "base": 2 * 32128 * 768
    + 12 * (4 * 768 * 768 + 3 * 768 * 2048 + 2 * 768)
    + 12 * (8 * 768 * 768 + 3 * 768 * 2048 + 3 * 768)
    + 2 * (32 * 12 + 768),
    "large": 2 * 32128 * 1024
    + 24 * (4 * 1024 * 1024 + 3 * 1024 * 2816 + 2 * 1024)
    + 24 * (8 * 1024 * 1024 + 3 * 1024 * 2816 + 3 * 1024)
    + 2 * (32 * 16 + 1024),
    "xl": 2 * 32128 * 2048
    + 24 * (4 * 2048 * 2048 + 3 * 2048 * 5120 + 2 * 2048)
    + 24 * (8 * 2048 * 2048 + 3 * 2048 * 5120 + 3 * 2048)
    + 2 * (32 * 32 + 2048),
    "xxl": 2 * 32128 * 4096
    + 24 * (4 * 4096 * 4096 + 3 * 4096 * 10240 + 2 * 4096)
    + 24 * (8 * 4096 * 4096 + 3 * 4096 * 10240 + 3 * 4096)
    + 2 * (32 * 64 + 4096),
}


@pytest.mark.parametrize("size", COUNTS)
def test_parameters_are_as_many_as_published(size):
    shape = FLAN_T5[f"google/flan-t5-{size}"]
    counted = sum(prod(leaf.shape) for leaf in leaves(replace(shape, scan_layers=True)))
    assert counted == COUNTS[size]


def write_model(folder, d_model):
    """A model directory of which only shapes are right enough to be read."""
    folder.mkdir(parents=True)
    sizes = {"vocab_size": 40, "d_model": d_model, "d_kv": 4, "d_ff": 24, "num_heads": 2}
    raw = {**sizes, "num_layers": 3, "feed_forward_proj": "gated-gelu", "model_type": "t5"}
    (folder / "config.json").write_text(json.dumps(raw))
    save_file({"lm_head.weight": np.zeros((40, d_model), np.float32)}, folder / "model.safetensors")


def write_cached(cache, name, d_model):
    """The hub's cache as `huggingface_hub` lays it out."""
    home = cache / f"models--{name.replace('/', '--')}"
    commit = "0123456789abcdef0123456789abcdef01234567"
    write_model(home / "snapshots" / commit, d_model)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(commit)
    return home / "snapshots" / commit


def test_a_directory_is_read(tmp_path):
    write_model(tmp_path / "model", 16)
    shape, source = pretrained_shape(str(tmp_path / "model"))
    assert (shape.d_model, shape.num_layers, shape.tie_word_embeddings) == (16, 3, False)
    assert source == str(tmp_path / "model")


def test_a_directory_without_a_model_is_the_users_mistake(tmp_path):
    with pytest.raises(UserError, match=r"config\.json: not there"):
        pretrained_shape(str(tmp_path))


ASK = """
import json, socket, sys
def connect(*arguments):
    print("CONNECTED", arguments)
    raise OSError("no network")
socket.socket.connect = socket.create_connection = connect
from delrec_jax.errors import UserError
from delrec_jax.language.t5_shapes import pretrained_shape
found = {}
for name in sys.argv[1:]:
    try:
        shape, source = pretrained_shape(name)
        found[name] = [shape.d_model, source]
    except UserError as error:
        found[name] = ["UserError", str(error)]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """What each name leads to in a process with a cache of its own (it is read on import) and no network."""
    cache = tmp_path_factory.mktemp("hub")
    snapshot = write_cached(cache, "some-one/tiny-t5", 24)
    (write_cached(cache, "google/flan-t5-base", 16) / "model.safetensors").unlink()
    names = ("some-one/tiny-t5", "google/flan-t5-xl", "google/flan-t5-base", "google/mt5", "../x")
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    run = subprocess.run(
        [sys.executable, "-c", ASK, *names],
        env={**kept, "HF_HUB_CACHE": str(cache), "JAX_PLATFORMS": "cpu"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    assert "CONNECTED" not in run.stdout
    return snapshot, json.loads(run.stdout.splitlines()[-1])


def test_the_cache_goes_before_the_table_and_nothing_is_fetched(answers):
    snapshot, found = answers
    assert found["some-one/tiny-t5"] == [24, f"the hub's cache ({snapshot})"]
    assert found["google/flan-t5-xl"] == [2048, "the table of published Flan-T5 shapes"]


def test_half_a_model_in_the_cache_does_not_count(answers):
    assert answers[1]["google/flan-t5-base"] == [768, "the table of published Flan-T5 shapes"]


@pytest.mark.parametrize("name", ["google/mt5", "../x"])
def test_an_unknown_model_is_refused_with_what_can_be_done(answers, name):
    kind, text = answers[1][name]
    assert kind == "UserError" and f"lm.weights={name}" in text
    assert "hf download" in text and "google/flan-t5-xxl" in text and "\n" not in text
