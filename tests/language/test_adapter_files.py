"""Saved adapters: exact round trip from either layout, the right base alone, no damage unseen."""

import json
import shutil
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from delrec_jax.errors import UserError
from delrec_jax.language.adalora import init_adapters, rank_pattern
from delrec_jax.language.adalora_config import AdaLoRAConfig
from delrec_jax.language.adapter_files import load_adapter, save_adapter
from delrec_jax.language.layer_stacking import stack_layers
from delrec_jax.language.t5 import T5
from delrec_jax.language.t5_answers import hidden_at_masks

HIDDEN = jax.jit(hidden_at_masks, static_argnums=0)
CONFIG = AdaLoRAConfig(targets=("v", "SelfAttention/q"), init_rank=3, target_rank=2, alpha=4.5)
PROMPT = np.random.default_rng(7).normal(size=(2, 12)).astype(np.float32)
FILES = {"adapter.safetensors", "adapter.json"}


def triplets(*, blocks=2, seed=0):
    """Adapters of two projections a block, one triplet of each masked."""
    draw = np.random.default_rng(seed).normal

    def projection():
        e = jnp.asarray(draw(size=3)).at[1].set(0)
        return {"A": jnp.asarray(draw(size=(4, 3))), "E": e, "B": jnp.asarray(draw(size=(3, 5)))}

    def block():
        return {"SelfAttention": {name: projection() for name in "qv"}}

    return {
        stack: {f"block_{index}": block() for index in range(blocks)}
        for stack in ("encoder", "decoder")
    }


def save(path, **changes):
    adapters = changes.get("adapters", triplets())
    values = {
        "adapters": adapters,
        "prompt": PROMPT,
        "config": CONFIG,
        "base_hash": "aaa111",
        "base_name": "mini",
        "rank_pattern": rank_pattern(adapters),
    }
    save_adapter(path, **values | changes)
    return path


def same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def edit(path, change):
    """Rewrites the JSON after `change` has worked on it."""
    description = json.loads((path / "adapter.json").read_text())
    change(description)
    (path / "adapter.json").write_text(json.dumps(description))


def test_what_is_saved_comes_back_exactly(tmp_path):
    path = save(tmp_path / "deep" / "adapter")
    adapters, prompt, config = load_adapter(path, base_hash="aaa111")
    same(adapters, triplets())
    np.testing.assert_array_equal(prompt, PROMPT)
    assert config == CONFIG
    assert {file.name for file in path.iterdir()} == FILES  # nothing temporary stays


def test_views_are_saved_by_their_values_not_their_bytes(tmp_path):
    adapters = jax.tree.map(lambda x: np.asarray(x).T.copy().T, triplets())
    loaded = load_adapter(
        save(tmp_path, adapters=adapters, prompt=PROMPT[:, ::2]), base_hash="aaa111"
    )
    same(loaded.adapters, triplets())
    np.testing.assert_array_equal(loaded.prompt, PROMPT[:, ::2])


def test_scanned_layers_are_saved_unrolled(tmp_path):
    save(tmp_path / "scanned", adapters=stack_layers(triplets()))
    save(tmp_path / "unrolled")
    same(load_adapter(tmp_path / "scanned", base_hash="aaa111").adapters, triplets())
    for name in FILES:
        assert (tmp_path / "scanned" / name).read_bytes() == (
            tmp_path / "unrolled" / name
        ).read_bytes()


def test_without_a_prompt(tmp_path):
    assert load_adapter(save(tmp_path, prompt=None), base_hash="aaa111").prompt is None
    assert json.loads((tmp_path / "adapter.json").read_text())["prompt_length"] == 0


def test_the_files_say_what_they_hold(tmp_path):
    save(tmp_path)
    description = json.loads((tmp_path / "adapter.json").read_text())
    assert description["base"] == {"name": "mini", "hash": "aaa111"}
    assert description["adalora"]["targets"] == ["v", "SelfAttention/q"]
    assert description["adalora"]["alpha"] == 4.5
    assert description["prompt_length"] == 2
    names = [
        f"{stack}/block_{index}/SelfAttention/{name}"
        for stack in ("decoder", "encoder")
        for index in range(2)
        for name in "qv"
    ]
    assert description["rank_pattern"] == dict.fromkeys(names, 2)
    tensors = load_file(tmp_path / "adapter.safetensors")
    of_adapters = {f"adapters/{name}/{letter}" for name in names for letter in "AEB"}
    assert set(tensors) == {"prompt"} | of_adapters


def test_loaded_on_the_base_the_model_answers_as_before(tmp_path, gated):
    config, params = gated
    module = T5(replace(config, adapters=CONFIG))
    fresh = init_adapters(params, replace(CONFIG, targets=("q", "v")), jax.random.key(0))
    adapters = jax.tree.map(lambda x: x + 0.3, fresh)
    ids, asked = jnp.asarray([[40, 5, 41, 7, 39, 1]]), jnp.full((1, 1), 39)
    before = HIDDEN(module, params, ids, asked, prompt=PROMPT, adapters=adapters)
    saved = load_adapter(save(tmp_path, adapters=adapters), base_hash="aaa111")
    module = T5(replace(config, adapters=saved.config))
    after = HIDDEN(module, params, ids, asked, prompt=saved.prompt, adapters=saved.adapters)
    np.testing.assert_array_equal(after, before)
    base = HIDDEN(module, params, ids, asked, prompt=PROMPT)
    assert np.isfinite(before).all() and np.abs(before - base).max() > 1e-2


def test_another_base_is_refused_with_both_hashes(tmp_path):
    save(tmp_path)
    with pytest.raises(UserError, match=r"adapter\.json: .*'mini' with hash aaa111, .*hash bbb222"):
        load_adapter(tmp_path, base_hash="bbb222")


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_missing_file_is_named(tmp_path, name):
    (save(tmp_path) / name).unlink()
    with pytest.raises(UserError, match=rf"{tmp_path}/{name}: no such file"):
        load_adapter(tmp_path, base_hash="aaa111")


def test_a_directory_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere/adapter\.json: no such file.*saved to"):
        load_adapter(tmp_path / "nowhere", base_hash="aaa111")


@pytest.mark.parametrize("where", [0, 8, 100, -1])
def test_one_wrong_byte_of_the_tensors_is_seen(tmp_path, where):
    file = save(tmp_path) / "adapter.safetensors"
    content = bytearray(file.read_bytes())
    content[where] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"adapter\.safetensors: damaged or from another save"):
        load_adapter(tmp_path, base_hash="aaa111")


def test_files_of_two_saves_are_not_mixed(tmp_path):
    save(tmp_path / "one")
    save(tmp_path / "two", adapters=triplets(seed=1))
    name = "adapter.safetensors"
    shutil.copy(tmp_path / "two" / name, tmp_path / "one" / name)
    with pytest.raises(UserError, match=r"one/adapter\.safetensors: damaged or from another save"):
        load_adapter(tmp_path / "one", base_hash="aaa111")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda d: d.update(format="delrec-adapter-9"),
            "format is 'delrec-adapter-9', and this version of delrec_jax reads 'delrec-adapter-1'",
        ),
        (lambda d: d.pop("tensors_sha256"), r"damaged \(KeyError\('tensors_sha256'\)\)"),
        (lambda d: d["base"].pop("hash"), r"damaged \(KeyError\('hash'\)\)"),
        (lambda d: d.update(base="mini"), "damaged"),
        (lambda d: d["adalora"].update(rank=3), "damaged .*unexpected keyword argument 'rank'"),
        (lambda d: d["adalora"].pop("targets"), "damaged"),
        (lambda d: d["adalora"].update(target_rank=4), r"damaged .*target_rank is 4"),
    ],
)
def test_a_wrong_description_is_refused(tmp_path, change, message):
    edit(save(tmp_path), change)
    with pytest.raises(UserError, match=rf"adapter\.json: .*{message}"):
        load_adapter(tmp_path, base_hash="aaa111")


@pytest.mark.parametrize("text", ["{", "[]", "3", "\udcff"])
def test_a_description_that_is_none_is_refused(tmp_path, text):
    file = save(tmp_path) / "adapter.json"
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=r"adapter\.json: (damaged|its format)"):
        load_adapter(tmp_path, base_hash="aaa111")


def test_a_second_save_replaces_the_first(tmp_path):
    save(tmp_path, prompt=None)
    save(tmp_path, adapters=triplets(blocks=1), base_hash="ccc333")
    loaded = load_adapter(tmp_path, base_hash="ccc333")
    same(loaded.adapters, triplets(blocks=1))
    np.testing.assert_array_equal(loaded.prompt, PROMPT)
    assert {file.name for file in tmp_path.iterdir()} == FILES


@pytest.mark.parametrize("failing", ["save_file", "json.dumps"])
def test_a_save_that_dies_leaves_no_part_and_is_never_taken_for_whole(
    tmp_path, monkeypatch, failing
):
    save(tmp_path)
    before = (tmp_path / "adapter.safetensors").read_bytes()

    def die(*args, **options):
        if failing == "save_file":
            args[1].write_bytes(b"half a file")
        raise OSError("disk full")

    monkeypatch.setattr(f"delrec_jax.language.adapter_files.{failing}", die)
    with pytest.raises(OSError, match="disk full"):
        save(tmp_path, adapters=triplets(seed=1))
    monkeypatch.undo()
    assert {file.name for file in tmp_path.iterdir()} == FILES
    if failing == "save_file":  # nothing was replaced yet: the first save still loads
        assert (tmp_path / "adapter.safetensors").read_bytes() == before
        same(load_adapter(tmp_path, base_hash="aaa111").adapters, triplets())
    else:  # new tensors beside the old description
        with pytest.raises(UserError, match="from another save"):
            load_adapter(tmp_path, base_hash="aaa111")
