"""A recommender that is no network, from a file of the user's: ranked by `baseline`, distilled by `distill`."""

import numpy as np
import polars as pl
import pytest
from forks import HERE, copy_stages, run, write_config
from tiny_storefront import open_workspace

from delrec_jax.workdir.assets import load_data
from delrec_jax.workdir.recommenders import load_teacher

NAME = f"{HERE / 'toy_recommender.py'}:FollowsLast"


@pytest.fixture(scope="module")
def workdir(tiny_run, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("recommender") / "run"
    config = write_config(workdir.parent, f"config.teacher.name = {NAME!r}")
    copy_stages(tiny_run, workdir, "data")
    run("baseline", config, workdir)
    for stage in ("pretrain", "distill"):
        run(stage, config, workdir)
    return workdir


def test_it_is_ranked_as_itself_and_not_as_popularity(workdir):
    data = load_data(open_workspace(workdir))
    records = pl.read_parquet(workdir / "baseline" / "records.parquet")
    found = records.filter(protocol="full_with_seen", system="teacher").sort("user")
    train = data.split.train
    counts = np.zeros((data.num_items, data.num_items))
    for user in range(train.num_users):
        history = train.history(user)
        for before, after in zip(history, history[1:], strict=False):
            counts[before, after] += 1
    wanted = []
    for history, target in zip(
        data.split.histories("test"), data.split.target("test"), strict=True
    ):
        scores = counts[history[-1]]
        own = scores[target]
        wanted.append((scores > own).sum() + 1 + ((scores == own).sum() - 1) / 2)
    np.testing.assert_allclose(found["rank"], wanted)


def test_its_lists_are_what_stage_one_learns(workdir):
    ws = open_workspace(workdir)
    data = load_data(ws)
    with np.load(workdir / "prompt" / "lists_train.npz") as lists:
        items, scores = lists["items"], lists["scores"]
    teacher = load_teacher(ws, data)
    assert type(teacher).__name__ == "Transitions"
    assert len(items) and np.isfinite(scores).all()
    assert (np.diff(scores[:, :4], axis=1) <= 0).all(), "the teacher's best come first"


def test_texts_call_it_by_its_title(workdir, capsys):
    config = write_config(workdir.parent, f"config.teacher.name = {NAME!r}")
    run("prompts", config, workdir, "--n=1")
    assert "what follows model" in " ".join(capsys.readouterr().out.split())


def test_p2rec_needs_item_vectors(tmp_path, capsys):
    config = write_config(tmp_path, f"config.teacher.name = {NAME!r}", "config.method = 'p2rec'")
    with pytest.raises(SystemExit):
        run("prepare", config, tmp_path / "run")
    assert "groups the teacher's item vectors" in capsys.readouterr().err
