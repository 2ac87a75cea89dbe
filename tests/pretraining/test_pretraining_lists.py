"""Pre-training reads the templates of stages 1 and 2 where these list candidates or ranks: there is nothing to list yet."""

import shutil

import numpy as np
import pytest
from tiny_storefront import CONFIG, TINY, delrec, open_workspace

from delrec_jax.data.templates import Field
from delrec_jax.language.tokenizer import Tokenizer
from delrec_jax.pretraining import pretrain
from delrec_jax.pretraining.texts import full_text
from delrec_jax.workdir.language_model import make_pieces
from delrec_jax.workdir.prepared import load_data

LISTS = (
    "--config.distill.loss_over=candidates",
    "--config.tune.loss_over=candidates",
    "--config.tune.anchor=0.0",
    "--config.prompts.max_tokens=256",
)


class Enough(Exception):
    """What training would begin with has been seen."""


@pytest.mark.parametrize(
    "listing",
    [
        ("--config.lm.verbalizer=index",),
        ("--config.prompts.show_candidates=True", "--config.prompts.show_ranks=True"),
    ],
    ids=["codes", "titles"],
)
def test_pre_training_texts_list_nothing(tiny_run, tmp_path, monkeypatch, listing):
    workdir = tmp_path / "run"
    shutil.copytree(tiny_run / "data", workdir / "data")
    caught = []

    def train(ws, data, material, ranker):
        caught.append((ws.experiment, material, ranker))
        raise Enough

    monkeypatch.setattr(pretrain, "_train", train)
    monkeypatch.setattr(pretrain, "make_pieces", lambda *args, **kw: made(caught, *args, **kw))
    with pytest.raises(Enough):
        delrec("pretrain", CONFIG, f"--workdir={workdir}", *TINY, *LISTS, *listing)
    whole, plain, (experiment, material, ranker) = caught

    shown = {Field.CANDIDATES, Field.RANKED}
    assert shown & fields(whole), "the later stages' texts list"
    assert material.pieces is plain and not shown & fields(plain) and not plain.codes
    assert bool(ranker.codes) == (experiment.lm.verbalizer == "index"), "ranking has its codes"
    questions = [full_text(material, np.random.default_rng(seed))[1] for seed in range(20)]
    assert any(questions), "texts are made"


def test_the_catalogue_is_tokenized_once_where_nothing_is_listed(tiny_run, tmp_path, monkeypatch):
    workdir = tmp_path / "run"
    for folder in ("data", "lm/tokenizer"):
        shutil.copytree(tiny_run / folder, workdir / folder)
    shutil.copy(tiny_run / "lm" / "stage.json", workdir / "lm")  # the folder is the run's own
    titles = load_data(open_workspace(tiny_run)).corpus.catalogue.titles
    sizes, encode = [], Tokenizer.encode_many

    def counted(tokenizer, texts):
        sizes.append(len(texts))
        return encode(tokenizer, texts)

    def train(ws, data, material, ranker):
        raise Enough

    monkeypatch.setattr(pretrain, "_train", train)
    monkeypatch.setattr(Tokenizer, "encode_many", counted)
    with pytest.raises(Enough):
        delrec("pretrain", CONFIG, f"--workdir={workdir}", *TINY)
    assert sizes.count(len(titles)) == 1


def made(caught, *args, **options):
    pieces = make_pieces(*args, **options)
    caught.append(pieces)
    return pieces


def fields(pieces):
    return {part for task in pieces.tasks.values() for part in task if isinstance(part, Field)}
