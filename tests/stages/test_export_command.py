"""`delrec export`: what each format holds is what the run tuned, and what is refused leaves nothing behind."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import load_file, save_file
from tiny_storefront import delrec, mark_again, open_workspace
from watching import same, stored

from delrec_jax.files import file_hash
from delrec_jax.language import t5_files, weights
from delrec_jax.language.adapter_files import load_adapter
from delrec_jax.language.mean_scoring import MEAN
from delrec_jax.language.ranker import Ranker
from delrec_jax.language.t5_model import T5Model
from delrec_jax.language.tokenizer import Tokenizer
from delrec_jax.stages.inputs import Inputs

REMOVED = 5  # triplets that an allocation took away, in every adapter


@pytest.fixture(scope="module")
def tuned(tiny_run, tmp_path_factory):
    """The tiny run with adapters large enough to be seen in every score."""
    workdir = shutil.copytree(tiny_run, tmp_path_factory.mktemp("export") / "run")
    file, generator = (
        workdir / "adapter" / "distilled" / "result.safetensors",
        np.random.default_rng(0),
    )
    tensors = {}
    for name, value in sorted(load_file(file).items()):
        drawn = generator.normal(size=value.shape).astype(np.float32)
        tensors[name] = drawn * (1 if name.endswith("E") else 0.3)
        if name.endswith("E"):
            tensors[name][:REMOVED] = 0
    save_file(tensors, file)
    told = file.with_suffix(".json")
    about = json.loads(told.read_text()) | {"sha256": file_hash(file)}
    told.write_text(json.dumps(about))
    mark_again(workdir, "tune")
    return workdir


@pytest.fixture(scope="module")
def language(tuned):
    ws = open_workspace(tuned)
    return Inputs(ws).language


@pytest.fixture(scope="module")
def exported(tuned, tmp_path_factory):
    """The directory of each format."""
    root = tmp_path_factory.mktemp("exported")
    (root / "peft").mkdir()  # an empty directory is no obstacle
    for kind in ("adapter", "peft", "lora", "hf"):
        delrec("export", f"--workdir={tuned}", f"--format={kind}", f"--output={root / kind}")
    return root


@pytest.fixture(scope="module")
def trained(tuned):
    adapters = stored(tuned / "adapter" / "distilled" / "result.safetensors")["adapters"]
    return adapters, stored(tuned / "prompt" / "distilled" / "result.safetensors")["prompt"]


def test_the_adapter_comes_back_for_its_own_base(exported, tuned, language, trained):
    saved = load_adapter(exported / "adapter", base_hash=weights.params_hash(language.params))
    assert same(saved.adapters, trained[0]) and saved.prompt.tobytes() == trained[1].tobytes()
    assert saved.config == open_workspace(tuned).experiment.tune.adalora
    described = json.loads((exported / "adapter" / "adapter.json").read_text())
    assert described["base"]["name"] == str(tuned) and described["prompt_length"] == 3
    assert set(described["rank_pattern"].values()) == {12 - REMOVED}


def test_the_merged_model_scores_as_base_and_adapter(exported, language, trained):
    adapters, prompt = trained
    config = t5_files.read_config(exported / "hf")
    merged = t5_files.load(exported / "hf", config)
    written = load_file(exported / "hf" / "soft_prompt.safetensors")
    assert list(written) == ["prompt"] and written["prompt"].tobytes() == prompt.tobytes()
    tokenizer = Tokenizer(exported / "hf")
    text = "Tangled Stone Mystery Book One"
    assert tokenizer.encode(text) == language.tokenizer.encode(text)
    ours = language.ranker
    theirs = Ranker(
        T5Model(config), ours.title_tokens, ours.title_weights, tokenizer.sentinel(0), MEAN, ()
    )
    words = [*tokenizer.encode(text), *language.slots, *tokenizer.encode("is"), ours.sentinel]
    ids = np.array([words, [*words[3:], 0, 0, 0]], np.int32)

    def scores(ranker, params, adapters=None):
        found = jax.jit(
            lambda params, adapters: ranker.catalogue_scores(
                params, ids, prompt=jnp.asarray(prompt), adapters=adapters
            )
        )(params, adapters)
        return np.asarray(found - found.mean(1, keepdims=True))

    expected = scores(ours, language.params, adapters)
    assert np.abs(expected - scores(ours, language.params)).max() > 0.1, "the adapter adds nothing"
    np.testing.assert_allclose(scores(theirs, merged), expected, atol=1e-4)


@pytest.mark.parametrize(("kind", "kept"), [("peft", 12 - REMOVED), ("lora", 12 - REMOVED)])
def test_peft_finds_its_config_and_the_triplets_in_use(exported, tuned, trained, kind, kept):
    folder = exported / kind
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["peft_type"] == {"peft": "ADALORA", "lora": "LORA"}[kind]
    assert config["base_model_name_or_path"] == "base"  # nobody else has it: it is written too
    own = open_workspace(tuned).folder("pretrain") / "model" / "result.safetensors"
    base = t5_files.load(folder / "base", t5_files.read_config(folder / "base"))
    assert same(base, stored(own)) and (folder / "base" / "tokenizer.json").is_file()
    count = len(traverse_util.flatten_dict(trained[0])) // 3
    assert len(config["target_modules"]) == count
    tensors = load_file(folder / "adapter_model.safetensors")
    lora_a = [value for name, value in tensors.items() if ".lora_A" in name]
    assert len(lora_a) == count and {len(value) for value in lora_a} == {kept}
    prompt = load_file(folder / "soft_prompt.safetensors")["prompt"]
    assert prompt.tobytes() == trained[1].tobytes()
    assert (folder / "README.md").is_file()


def test_an_adapter_on_pretrained_weights_names_them(first_run, pretrained, tmp_path):
    delrec("export", f"--workdir={first_run}", "--format=lora", f"--output={tmp_path / 'a'}")
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(pretrained)
    delrec("export", f"--workdir={first_run}", "--format=adapter", f"--output={tmp_path / 'b'}")
    described = json.loads((tmp_path / "b" / "adapter.json").read_text())
    assert described["base"]["name"] == str(pretrained)


def test_scanned_layers_are_exported_apart(sequence_run, tmp_path):
    delrec("export", f"--workdir={sequence_run}", "--format=adapter", f"--output={tmp_path / 'a'}")
    tensors = load_file(tmp_path / "a" / "adapter.safetensors")
    assert "adapters/encoder/block_0/SelfAttention/q/A" in tensors
    delrec("export", f"--workdir={sequence_run}", "--format=hf", f"--output={tmp_path / 'b'}")
    tensors = load_file(tmp_path / "b" / "model.safetensors")
    assert "encoder.block.0.layer.0.SelfAttention.q.weight" in tensors


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        delrec("export", *arguments)
    assert ended.value.code == 2
    err = capsys.readouterr().err.strip()
    assert len(err.splitlines()) == 1
    return err


def test_an_unknown_format(tiny_run, tmp_path, capsys):
    flags = (f"--workdir={tiny_run}", f"--output={tmp_path / 'new'}", "--format=onnx")
    line = refused(capsys, *flags)
    assert "--format=onnx" in line and all(
        kind in line for kind in ("adapter", "peft", "lora", "hf")
    )
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("kind", ["adapter", "peft", "lora", "hf"])
def test_nothing_is_written_over(tiny_run, tmp_path, capsys, kind):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("five years")
    for output in (tmp_path / "mine", tmp_path / "mine" / "thesis.txt"):
        line = refused(capsys, f"--workdir={tiny_run}", f"--output={output}", f"--format={kind}")
        assert f"--output={output}" in line and "empty" in line
    assert [file.read_text() for file in tmp_path.glob("*/*")] == ["five years"]


@pytest.mark.parametrize("flags", [[], ["--output="]])
def test_no_output_is_not_the_current_directory(tiny_run, tmp_path, capsys, monkeypatch, flags):
    monkeypatch.chdir(tmp_path)
    assert "--output" in refused(capsys, f"--workdir={tiny_run}", "--format=adapter", *flags)
    assert not list(tmp_path.iterdir())


def test_a_run_that_is_not_finished(tiny_run, tmp_path, capsys):
    workdir = tmp_path / "run"
    line = refused(capsys, f"--workdir={workdir}", f"--output={tmp_path / 'new'}")
    assert f"{workdir / 'config.json'} is not there" in line
    workdir.mkdir()
    shutil.copy(tiny_run / "config.json", workdir)
    line = refused(capsys, f"--workdir={workdir}", f"--output={tmp_path / 'new'}")
    assert "`delrec tune`" in line and str(workdir) in line
    assert not (tmp_path / "new").exists()
