"""A recommender that is no network, from a file of the user's: ranked by `baseline`, distilled by `distill`."""

from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from seam_runs import HERE, QUICK, write_config
from tiny_storefront import delrec, open_workspace

from delrec_jax.workdir.prepared import load_data
from delrec_jax.workdir.recommenders import load_teacher

BAG = f"{HERE / 'toy_family.py'}:BAG"
FOLLOWS = f"{HERE / 'toy_recommender.py'}:FOLLOWS_LAST"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A workdir with that teacher up to stage 1, and the flag of its config."""
    folder = tmp_path_factory.mktemp("recommender")
    config = write_config(
        folder / "config.py",
        lm__family=BAG,
        tune__adalora__targets=("mix",),
        teacher__name=FOLLOWS,
    )
    for command in ("baseline", "pretrain", "distill"):
        delrec(command, config, f"--workdir={folder / 'run'}", *QUICK)
    return folder / "run", config


def test_it_is_ranked_as_itself_and_not_as_popularity(run):
    data = load_data(open_workspace(run[0]))
    counts = np.zeros((data.num_items, data.num_items))
    for user in range(data.split.train.num_users):
        for before, after in pairwise(data.split.train.history(user)):
            counts[before, after] += 1
    wanted = []
    for history, target in zip(
        data.split.histories("test"), data.split.target("test"), strict=True
    ):
        scores = counts[history[-1]]
        better, equal = (scores > scores[target]).sum(), (scores == scores[target]).sum()
        wanted.append(better + 1 + (equal - 1) / 2)
    table = pl.read_parquet(run[0] / "baseline" / "records.parquet")
    found = table.filter(protocol="full_with_seen", system="teacher")
    np.testing.assert_allclose(found["rank"], wanted)
    popular = table.filter(protocol="full_with_seen", system="popularity")
    assert (popular["rank"] != found["rank"]).any()


def test_its_lists_are_what_stage_one_learns(run):
    ws = open_workspace(run[0])
    teacher = load_teacher(ws, load_data(ws))
    assert type(teacher).__name__ == "Transitions"
    with np.load(run[0] / "prompt" / "lists_train.npz") as lists:
        scores = lists["scores"]
    assert len(scores) and np.isfinite(scores).all()
    assert (np.diff(scores[:, :4], axis=1) <= 0).all(), "its best come first"
    assert set(np.unique(scores % 1)) == {0}, "numbers of times"


def test_texts_call_it_by_its_title(run, capsys):
    delrec("prompts", run[1], f"--workdir={run[0]}", *QUICK, "--n=1")
    assert "what follows model" in " ".join(capsys.readouterr().out.split())


def test_p2rec_needs_item_vectors(tmp_path, capsys):
    config = write_config(tmp_path / "config.py", teacher__name=FOLLOWS, method="p2rec")
    with pytest.raises(SystemExit):
        delrec("prepare", config, f"--workdir={tmp_path / 'run'}", *QUICK)
    assert "groups the teacher's item vectors" in capsys.readouterr().err


def test_scores_that_cannot_be_compiled_are_refused(tmp_path, capsys):
    own = tmp_path / "plain.py"
    own.write_text(
        "class Plain:\n    title, max_length, grid = 'plain', 1, {}\n\n"
        "    def fit(self, train):\n        return self\n\n\nPLAIN = Plain()\n"
    )
    config = write_config(tmp_path / "config.py", teacher__name=f"{own}:PLAIN")
    delrec("prepare", config, f"--workdir={tmp_path / 'run'}", *QUICK)
    with pytest.raises(SystemExit):
        delrec("teach", config, f"--workdir={tmp_path / 'run'}", *QUICK)
    assert "which is not a pytree; return a flax" in " ".join(capsys.readouterr().err.split())
