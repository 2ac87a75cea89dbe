"""DELRec with a sentence encoder through the commands: the verbalizer `embedding`, and prompts that know the user."""

import json
import shutil
from dataclasses import replace

import jax
import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file
from same_answers import assert_same_answers
from tiny_bert import RAW, write_bert, write_wordpiece
from tiny_storefront import CONFIG, TINY, delrec, open_workspace

import delrec_jax
from delrec_jax.delrec import files, systems
from delrec_jax.delrec.guides import make_guides
from delrec_jax.stages.inputs import Inputs
from delrec_jax.workdir.language_scorer import LanguageScorer
from delrec_jax.workdir.prepared import load_data

FLAGS = (
    *TINY,
    "--config.lm.family=bert",
    "--config.lm.verbalizer=embedding",
    "--config.prompts.wording=brief",
    "--config.prompts.cut_to_fit=True",
    "--config.prompts.max_tokens=64",
    "--config.distill.loss_over=catalogue",
    "--config.distill.user_rank=4",
    "--config.distill.tasks.ta.share=0.0",
    "--config.tune.adalora.targets=('q', 'encoder/block_1/*/wo')",
    "--config.tune.valid_users=20",
    "--config.baselines.names=('popularity',)",
    "--config.baselines.hybrids=('delrec+teacher',)",
)
SHARED = (
    "--config.tune.controls=()",
    "--config.tune.anchor=0.0",
    "--config.tune.refresh_vectors=2",
    "--config.tune.loop.checkpoint_every=4",
)
GUIDED = ("--config.distill.prompt=both", "--config.tune.controls=('none', 'random')")


@pytest.fixture(scope="module")
def model(tiny_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder") / "model"
    titles = load_data(open_workspace(tiny_run)).corpus.catalogue.titles
    size = write_wordpiece(folder, titles)
    return write_bert(folder, RAW | {"vocab_size": size + 3})


def run(tiny_run, model, workdir, command, *flags):
    for name in ("data", "teacher"):
        if not (workdir / name).exists():
            shutil.copytree(tiny_run / name, workdir / name)
    delrec(command, CONFIG, f"--workdir={workdir}", *FLAGS, f"--config.lm.weights={model}", *flags)


@pytest.fixture(scope="module")
def guided_run(tiny_run, model, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("encoder_run") / "run"
    run(tiny_run, model, workdir, "run", *GUIDED)
    return workdir


def test_all_systems_of_an_encoder_are_ranked(guided_run):
    found = set(pl.read_parquet(guided_run / "records" / "records.parquet")["system"])
    assert found >= {
        *("lm_no_prompt", "lm_readout", "lm_random_prompt", "lm_distilled_prompt", "lm_embeddings"),
        *("lm_tuned_no_prompt", "lm_tuned_random_prompt", "delrec", "hybrid(delrec+teacher)"),
    }
    agreement = json.loads((guided_run / "prompt" / "agreement.json").read_text())
    assert {row["prompt"] for row in agreement} >= {"none", "readout", "distilled"}


def test_the_control_without_a_prompt_trains_scalars_alone(guided_run):
    ws = open_workspace(guided_run)
    start = files.load_distilled(ws, "random")["prompt"]
    bare, full = (files.load_distilled(ws, name) for name in (files.READOUT, "distilled"))
    assert set(bare["readout"]) == set(full["readout"]) == {"log_scale", "recent_weight"}
    assert set(start) == set(full["prompt"]) == {"shared", "down", "up"}
    language = Inputs(ws).language
    system = systems.prompted(
        ws, language, files.READOUT, make_guides(ws, Inputs(ws).data, language)
    )
    assert len(system.pattern) == 0 and not np.asarray(system.prompt["shared"]).any()
    # The tuned readout has all parts, and began with what stage 1 left.
    tuned = files.load_tuned(ws, "none")["readout"]
    assert set(tuned) == {"log_scale", "recent_weight", "map"}
    assert abs(tuned["log_scale"] - bare["readout"]["log_scale"]) < 0.3


def test_slots_follow_what_the_teacher_expects(guided_run):
    ws = open_workspace(guided_run)
    inputs = Inputs(ws)
    guides = make_guides(ws, inputs.data, inputs.language)
    system = systems.prompted(ws, inputs.language, "distilled", guides)
    scorer = LanguageScorer(inputs.language)
    texts = scorer.texts(system, [np.array([1, 5]), np.array([9, 2])])
    assert texts.guides.shape == (2, 12) and texts.owners.shape == texts.ids.shape
    scores = np.asarray(scorer.catalogue(system, texts))
    swapped = scorer.catalogue(system, texts.rows(np.array([1, 0])))
    np.testing.assert_allclose(np.asarray(swapped)[::-1], scores, atol=1e-5)


def test_it_recommends_and_refuses_to_export_a_prompt_that_needs_the_teacher(
    guided_run, model, tmp_path, capsys
):
    where = (CONFIG, f"--workdir={guided_run}", *FLAGS, f"--config.lm.weights={model}", *GUIDED)
    titles = load_data(open_workspace(guided_run)).corpus.catalogue.titles
    delrec("recommend", *where, f"--history={titles[1]}; {titles[5]}", "-k", "3")
    assert "DELRec" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        delrec("export", *where, "--format=adapter", f"--output={tmp_path / 'out'}")
    assert "distill.prompt=both" in capsys.readouterr().err


@pytest.fixture(scope="module")
def shared_run(tiny_run, guided_run, model, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("encoder_shared") / "run"
    shutil.copytree(guided_run / "lm", workdir / "lm")
    for stage in ("distill", "tune"):
        run(tiny_run, model, workdir, stage, *SHARED)
    return workdir


def test_slots_that_depend_on_the_user_are_probed(guided_run, shared_run, tmp_path, capsys):
    delrec("probe", f"--workdir={guided_run}", "--users=8", f"--output={tmp_path / 'p'}")
    found = json.loads((tmp_path / "p" / "probes.json").read_text())
    assert (
        found["words"] is None
        and "distill.prompt=both depend on the user" in capsys.readouterr().err
    )
    assert {row["prompt"] for row in found["agreement"]} >= {"readout", "true"}
    slots = {row["slot"] for row in found["slots"]}
    assert (
        len(found["slots"])
        == 4 * len(slots)
        == 4 * open_workspace(guided_run).experiment.distill.length
    )
    with pytest.raises(SystemExit):
        delrec("probe", f"--workdir={guided_run}", f"--prompt_from={shared_run}")
    assert "distill.prompt is shared there and both here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("form", "file"),
    [
        ("adapter", "adapter.safetensors"),
        ("peft", "adapter_model.safetensors"),
        ("hf", "model.safetensors"),
    ],
)
def test_exports_hold_the_readout(shared_run, model, tmp_path, form, file):
    where = (CONFIG, f"--workdir={shared_run}", *FLAGS, f"--config.lm.weights={model}")
    output = tmp_path / "out"
    delrec("export", *where, *SHARED, f"--format={form}", f"--output={output}")
    tuned = files.load_tuned(open_workspace(shared_run), "distilled")["readout"]
    stored = load_file(output / "readout.safetensors")
    assert (output / file).is_file() and set(stored) == set(tuned)
    for name, value in tuned.items():
        np.testing.assert_array_equal(stored[name], value)


def test_tuned_title_vectors_are_what_the_adapters_read(shared_run):
    ws = open_workspace(shared_run)
    language = Inputs(ws).language
    tuned = systems.tuned(ws, language, "distilled", None)
    assert (shared_run / "adapter" / "distilled" / "title_vectors.npz").is_file()
    adapters = jax.tree.map(
        lambda leaf: leaf + 0.3, tuned.adapters
    )  # those of step 0 change nothing
    vectors = language.tuned_vectors(adapters)
    title = np.array([language.pieces.framed(language.pieces.titles[0])])
    states, _ = language.model.encode(language.params, title, adapters=adapters)
    np.testing.assert_allclose(vectors[0], states[0].mean(0), atol=1e-5)
    assert np.abs(vectors - tuned.vectors).max() > 1e-3
    scorer = LanguageScorer(language)
    texts = scorer.texts(tuned, [np.array([1, 5]), np.array([9, 2])])
    ours = scorer.catalogue(replace(tuned, adapters=adapters, vectors=vectors), texts)
    frozen = scorer.catalogue(replace(tuned, adapters=adapters), texts)
    assert np.abs(ours - frozen).max() > 1e-3


def test_a_shared_folder_answers_as_the_run(shared_run, model, tmp_path):
    delrec("export", f"--workdir={shared_run}", "--format=hub", f"--output={tmp_path / 'out'}")
    found = delrec_jax.load(tmp_path / "out", base=model)
    assert_same_answers(delrec_jax.load(shared_run), found)
    assert found.systems[-1] == "delrec" and "lm_readout" in found.systems
