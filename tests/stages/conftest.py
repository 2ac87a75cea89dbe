"""Tiny storefront runs, shared by the tests of this folder: every stage, a few steps each."""

import pytest
from shared_runs import shared
from tiny_p2rec import make_p2rec_run
from tiny_pretrained import (
    EXTRA_ROWS,
    FIRST,
    SEQUENCE,
    copy_beginning,
    watched_run,
    write_pretrained,
)


@pytest.fixture(scope="session")
def pretrained(tiny_run, tmp_path_factory):
    """The tiny run's language model as Hugging Face would store it, its table longer than its tokenizer."""
    with shared(tmp_path_factory, "pretrained") as (directory, ready):
        if not ready:
            write_pretrained(tiny_run, directory, extra_rows=EXTRA_ROWS)
    return directory


@pytest.fixture(scope="session")
def first_run(tiny_run, pretrained, tmp_path_factory):
    """A finished run on pretrained weights with the verbalizer `first`."""
    with shared(tmp_path_factory, "first_run") as (workdir, ready):
        if not ready:
            copy_beginning(tiny_run, workdir)
            watched_run(workdir, *FIRST, f"--config.lm.weights={pretrained}")
    return workdir


@pytest.fixture(scope="session")
def sequence_run(tiny_run, pretrained, tmp_path_factory):
    """A finished run on pretrained weights, layers scanned, with the verbalizer `sequence`."""
    with shared(tmp_path_factory, "sequence_run") as (workdir, ready):
        if not ready:
            copy_beginning(tiny_run, workdir)
            watched_run(workdir, *SEQUENCE, f"--config.lm.weights={pretrained}")
    return workdir


@pytest.fixture(scope="session")
def p2rec_run(tiny_run, tmp_path_factory):
    """A finished P2Rec run: two recommenders, two seeds, all four systems, frozen text through an adapter."""
    with shared(tmp_path_factory, "p2rec_run") as (workdir, ready):
        if not ready:
            beginning = ("data", "lm", "teacher")
            make_p2rec_run(tiny_run, workdir, "--config.method=p2rec", stages=beginning)
    return workdir


BESIDE = "--config.tune.beside=teacher"


@pytest.fixture(scope="session")
def both_run(tiny_run, tmp_path_factory):
    """A finished DELRec run whose teacher P2Rec augmented, tuned beside that teacher."""
    with shared(tmp_path_factory, "both_run") as (workdir, ready):
        if not ready:
            beginning = ("data", "lm", "teacher")
            flags = ("--config.method=delrec_p2rec", "--config.tune.controls=()", BESIDE)
            make_p2rec_run(tiny_run, workdir, *flags, stages=beginning)
    return workdir
