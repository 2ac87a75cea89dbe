"""What a later stage would fail at, or quietly do without, is told before anything is trained."""

from types import SimpleNamespace

import numpy as np
import pytest
from tiny_bert import RAW, write_bert, write_wordpiece
from tiny_p2rec import P2REC
from tiny_storefront import CONFIG, TINY, delrec, open_workspace

from delrec_jax.errors import UserError
from delrec_jax.stages import pipeline
from delrec_jax.stages.inputs import Inputs
from delrec_jax.stages.pipeline import check_batch_sizes
from delrec_jax.teachers import item_to_item
from delrec_jax.workdir import session

MOST = RAW["max_position_embeddings"] - 2  # beside the first and the last special token


def test_a_long_title_is_cut_and_told(tmp_path, capsys):
    titles = [f"item {number}" for number in range(8)]
    titles[2] = "item " * 200
    titles[5] = "item " * (MOST - 1) + "item"  # as long as can be
    rows = [f"{user},{(user + place) % 8},{place}" for user in range(12) for place in range(5)]
    (tmp_path / "interactions.csv").write_text("\n".join(("user,item,time", *rows, "")))
    lines = [f"{item},{title.strip()}" for item, title in enumerate(titles)]
    (tmp_path / "items.csv").write_text("\n".join(("item,title", *lines, "")))
    size = write_wordpiece(tmp_path / "model", titles)
    model = write_bert(tmp_path / "model", RAW | {"vocab_size": size + 3})
    flags = (
        *("--config=configs/minilm/own.py", f"--config.data.path={tmp_path}"),
        *("--config.candidates.num=2", f"--config.lm.weights={model}"),
        "--config.tune.adalora.targets=('q',)",
        f"--workdir={tmp_path / 'run'}",
    )
    delrec("prepare", *flags)
    capsys.readouterr()
    delrec("pretrain", *flags)
    said = capsys.readouterr().err
    assert (
        f"1 titles have more tokens than the language model can read and are cut to {MOST}" in said
    )
    assert "'item item" in said and "with 200" in said
    vectors = Inputs(open_workspace(tmp_path / "run")).language.title_vectors
    assert np.isfinite(vectors).all() and len(vectors) == 8
    np.testing.assert_allclose(vectors[2], vectors[5], rtol=1e-5)


def test_a_rerank_that_a_test_user_leaves_too_few_items_for(tmp_path, capsys):
    flags = (CONFIG, f"--workdir={tmp_path}", *TINY, "--config.candidates.rerank=30")
    delrec("prepare", *flags)
    data = Inputs(open_workspace(tmp_path)).data
    left = min(data.num_items - len(set(one)) for one in data.split.histories("test"))
    said = capsys.readouterr().err
    assert "`evaluate` will refuse candidates.rerank=30" in said and f"at most {left}" in said


def test_lists_that_a_user_leaves_too_few_items_for(tmp_path, capsys):
    delrec("prepare", CONFIG, f"--workdir={tmp_path}", *TINY, "--config.distill.num_candidates=30")
    said = capsys.readouterr().err
    data = Inputs(open_workspace(tmp_path)).data
    train = data.split.train
    taken = [len(set(train.history(user).tolist())) for user in range(train.num_users)]
    left = len(set(train.items.tolist())) - max(taken)
    assert "the stage distill will refuse this corpus: its lists have 30 items" in said
    assert f"leaves only {left} of the" in said and f"to at most {left}" in said
    name = train.user_ids[int(np.argmax(taken))]
    assert f"user {name!r}" in said
    delrec(
        "prepare",
        CONFIG,
        f"--workdir={tmp_path / 'b'}",
        *TINY,
        f"--config.distill.num_candidates={left}",
    )
    assert "will refuse" not in capsys.readouterr().err


def test_a_catalogue_too_large_for_ease_to_be_augmented(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(item_to_item, "MOST_ITEMS", 30)
    with pytest.raises(SystemExit):
        delrec("prepare", CONFIG, f"--workdir={tmp_path}", *P2REC, "--config.method=p2rec")
    said = capsys.readouterr().err
    assert "EASE: a catalogue of 36 items" in said and "augment.teachers" in said


def test_adapters_that_fit_no_projection(tmp_path, capsys):
    flags = (CONFIG, f"--workdir={tmp_path}", *TINY, "--config.tune.adalora.targets=('query',)")
    delrec("prepare", *flags)
    with pytest.raises(SystemExit):
        delrec("pretrain", *flags)
    assert "adalora.targets ('query',): ['query'] match no projection" in capsys.readouterr().err


def test_adapters_of_an_encoder_that_p2rec_does_not_train(tmp_path, capsys):
    flags = (
        *(CONFIG, f"--workdir={tmp_path}", *P2REC, "--config.method=p2rec"),
        "--config.parse.adalora.targets=('query',)",
    )
    delrec("prepare", *flags)
    with pytest.raises(SystemExit):
        delrec("pretrain", *flags)
    assert "['query'] match no projection" in capsys.readouterr().err
    delrec("pretrain", *flags, "--config.parse.lm=frozen", "--update")


def test_batches_that_do_not_divide_over_the_devices(tiny_run, tmp_path, monkeypatch):
    ws = open_workspace(tiny_run)
    check_batch_sizes(ws)
    monkeypatch.setattr(pipeline, "spread_over", lambda experiment: SimpleNamespace(ways=7))
    check_batch_sizes(ws)  # everything is trained already
    monkeypatch.setattr(type(ws), "finished", lambda ws, stage: False)
    with pytest.raises(
        UserError, match=r"teacher\.batch_size is \d+, which does not divide over 7"
    ):
        check_batch_sizes(ws)


def test_the_host_is_a_device_too(monkeypatch):
    told = []
    settings = SimpleNamespace(jax_platforms="cuda", update=lambda *given: told.append(given))
    monkeypatch.setattr(session.jax, "config", settings)
    session._with_host()
    for settings.jax_platforms in ("cuda,cpu", "cpu", None, ""):
        session._with_host()
    assert told == [("jax_platforms", "cuda,cpu")]
