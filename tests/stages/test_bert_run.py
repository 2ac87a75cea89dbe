"""P2Rec with a BERT encoder from a directory, through the commands; and what the command line refuses about it."""

import json
import shutil
from dataclasses import replace
from unittest import mock

import jax
import numpy as np
import pytest
from tiny_bert import RAW, write_bert, write_wordpiece
from tiny_p2rec import PARSING
from tiny_storefront import CONFIG, TINY, delrec, open_workspace

from delrec_jax.evaluation.top_lists import read_lists
from delrec_jax.language import hub
from delrec_jax.p2rec.preference_text import preference_text
from delrec_jax.planning import plan as plan_module
from delrec_jax.serving.recommender import Recommender
from delrec_jax.stages.inputs import Inputs
from delrec_jax.teachers import item_to_item
from delrec_jax.workdir import closed_forms, title_recommenders
from delrec_jax.workdir.prepared import load_data

FLAGS = (
    *TINY,
    "--config.method=p2rec",
    "--config.lm.family=bert",
    "--config.baselines.names=('popularity', 'cease')",
    "--config.baselines.hybrids=('popularity+lm_cease',)",
    "--config.parse.max_tokens=96",
    "--config.parse.adalora.targets=('q', 'encoder/*/*/wo')",
    "--config.parse.seeds=1",
    *PARSING,
    "--config.augment.teachers=('sasrec',)",
)


@pytest.fixture(scope="module")
def model(tiny_run, tmp_path_factory):
    """A BERT of random weights with a tokenizer of the storefront's words."""
    folder = tmp_path_factory.mktemp("bert") / "model"
    titles = load_data(open_workspace(tiny_run)).corpus.catalogue.titles
    size = write_wordpiece(folder, titles)
    return write_bert(folder, RAW | {"vocab_size": size + 3})


@pytest.fixture(scope="module")
def run(tiny_run, model, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("bert_run") / "run"
    for name in ("data", "teacher"):
        shutil.copytree(tiny_run / name, workdir / name)
    delrec("run", CONFIG, f"--workdir={workdir}", *FLAGS, f"--config.lm.weights={model}")
    return workdir


def test_preferences_are_parsed_and_titles_compared(run):
    (parsed,) = json.loads((run / "preference" / "parse.json").read_text())
    assert np.isfinite(parsed["squared_error"])
    metrics = (run / "report" / "metrics.json").read_text()
    assert all(name in metrics for name in ("lm_embeddings", "hybrid(popularity+lm_cease)"))
    assert (
        "BERT, hidden_size 12, 2 layers, pretrained weights"
        in (run / "report" / "index.html").read_text()
    )


def test_what_the_title_vectors_recommend_is_asked_as_it_was_chosen(run, monkeypatch):
    """The served lists are those of the evaluation, and nothing is chosen again."""
    ws = open_workspace(run)
    kept = json.loads((run / "records" / "title_vectors.json").read_text())
    assert set(kept) == {"lm_embeddings", "lm_cease"}
    monkeypatch.setattr(closed_forms, "choose", None)
    recorded, _ = read_lists(ws.folder("evaluate"))
    data = load_data(ws)
    users = data.split.users("test")
    recommender = Recommender(ws)
    for name in kept:
        rows = recorded.filter(system=name)
        for user, items in rows.select("user", "items").head(5).iter_rows():
            history = data.split.history("test", int(np.flatnonzero(users == user)[0]))
            ((found, _),) = recommender.ranked([history], k=3, system=name)
            assert found.tolist() == list(items[:3])


def test_title_vectors_of_a_catalogue_too_large_for_a_matrix_are_only_compared(
    run, monkeypatch, capsys
):
    ws, written = open_workspace(run), []
    monkeypatch.setattr(item_to_item, "MOST_ITEMS", 5)
    monkeypatch.setattr(title_recommenders, "write_json", lambda path, kept: written.append(kept))
    data = load_data(ws)
    vectors = np.random.default_rng(0).normal(size=(data.num_items, 4)).astype(np.float32)
    found = title_recommenders.title_vector_systems(ws, vectors, data)
    assert set(found) == set(written[0]) == {"lm_embeddings"}
    assert "CEASE with LM's title vectors is left out: " in capsys.readouterr().err


def test_a_title_is_read_between_its_special_tokens(run):
    language = Inputs(open_workspace(run)).language
    title = [2, *language.pieces.titles[0], 3]
    states, _ = language.model.with_adapters(None).encode(language.params, np.array([title]))
    np.testing.assert_allclose(language.title_vectors[0], states[0].mean(0), atol=1e-5)


def test_the_words_of_a_prefix_open_texts_and_titles(run):
    ws, prefixed = open_workspace(run), open_workspace(run)
    settings = replace(ws.experiment.lm, prefix="the next")
    prefixed.experiment = replace(ws.experiment, lm=settings)
    language, plain = Inputs(prefixed).language, Inputs(ws).language
    words = language.tokenizer.encode("the next")
    assert len(words) >= 2
    title = plain.pieces.titles[0]
    assert language.pieces.framed(title).tolist() == [2, *words, *title, 3]
    states, _ = language.model.with_adapters(None).encode(
        language.params, np.array([[2, *words, *title, 3]])
    )
    vector = language._title_encoder(language.params)[0]
    np.testing.assert_allclose(vector, states[0].mean(0), atol=1e-5)
    text = preference_text(language.pieces, np.array([0]))
    assert text.ids[: 1 + len(words)].tolist() == [2, *words]
    read = [token for token, inside in zip(text.ids, text.in_title, strict=True) if inside]
    assert read == title.tolist()


def test_an_encoder_that_is_read_otherwise_than_it_was_trained_is_told(
    run, model, tmp_path, capsys
):
    pooled = shutil.copytree(model, tmp_path / "model")
    (pooled / hub.POOLING_FILE).parent.mkdir()
    (pooled / hub.POOLING_FILE).write_text(json.dumps({"pooling_mode_cls_token": True}))
    told = []
    for number, pooling in enumerate(("mean", "first")):
        shutil.copytree(run / "data", tmp_path / str(number) / "data")
        where = f"--workdir={tmp_path / str(number)}"
        more = (f"--config.lm.weights={pooled}", f"--config.lm.bert.pooling={pooling}")
        delrec("pretrain", CONFIG, where, *FLAGS, *more)
        told.append("set lm.bert.pooling=first" in capsys.readouterr().err)
    assert told == [True, False]


@pytest.mark.parametrize(
    ("lm", "shown"),
    [
        (
            {"weights": "sentence-transformers/all-MiniLM-L6-v2"},
            "22.6 million parameters, 6 + 0 blocks of width 384, from the table of published sentence encoder shapes; kept "
            "in float32",
        ),
        (
            {"family": "t5", "weights": "google/flan-t5-small", "read": "encoder"},
            "35.3 million parameters, 8 + 0 blocks of width 512, from the table of published Flan-T5 shapes",
        ),
    ],
)
def test_a_plan_has_encoders_alone(run, lm, shown):
    experiment = open_workspace(run).experiment
    experiment = replace(experiment, lm=replace(experiment.lm, **lm))
    with mock.patch.object(plan_module, "fake_devices", lambda count: jax.devices()[:count]):
        text = plan_module.plan(experiment, devices=1, items=40, compile_for="no")
    assert shown in text
    assert "decoder/" not in text and "lm_head" not in text
    assert "SHARDINGS  parse" in text and "SHARDINGS  pretrain" not in text


def refusal(capsys, *flags):
    capsys.readouterr()
    with pytest.raises(SystemExit):
        delrec(*flags)
    said = capsys.readouterr().err
    return said[said.index("delrec: ") :].strip()


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        (
            "prompts.max_tokens=97",
            "prompts.max_tokens is 97, but this BERT, hidden_size 12, 2 layers reads at most 96 tokens",
        ),
        ("parse.max_tokens=200", "parse.max_tokens is 200, but this BERT"),
        ("lm.weights=", "pretrain asks the language model for answers, but BERT, hidden_size 384"),
        (
            "method=delrec",
            "lm.verbalizer=mean asks the language model for answers, but BERT, hidden",
        ),
    ],
)
def test_what_cannot_run_is_refused_before_anything_is_trained(
    run, model, tmp_path, capsys, flag, message
):
    shutil.copytree(run / "data", tmp_path / "run" / "data")
    where = f"--workdir={tmp_path / 'run'}"
    weights = f"--config.lm.weights={model}"
    line = refusal(capsys, "pretrain", CONFIG, where, *FLAGS, weights, f"--config.{flag}")
    assert message in line


def test_weights_that_are_not_there_cost_no_results(run, model, tmp_path, capsys):
    workdir = tmp_path / "run"
    for name in ("data", "lm"):
        shutil.copytree(run / name, workdir / name)
    shutil.copy(run / "config.json", workdir)
    before = {path: path.read_bytes() for path in (workdir / "lm").rglob("*") if path.is_file()}
    weights = f"--config.lm.weights={tmp_path / 'nowhere'}"
    where = f"--workdir={workdir}"
    refusal(capsys, "pretrain", CONFIG, where, *FLAGS, weights, "--update")
    assert before == {p: p.read_bytes() for p in (workdir / "lm").rglob("*") if p.is_file()}
    delrec("pretrain", CONFIG, where, *FLAGS, f"--config.lm.weights={model}", "--update")
    assert "pretrain: finished before, skipped" in capsys.readouterr().err
