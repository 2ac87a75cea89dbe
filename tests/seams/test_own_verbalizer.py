"""A verbalizer that a config outside of the package names, through the whole of `delrec run`.

The language model is the bag of words of toy_family.py, which compiles quickly.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from seam_runs import HERE, QUICK, check_tuned, watched, write_config
from tiny_storefront import open_workspace

from delrec_jax.errors import UserError
from delrec_jax.language.ranker import Ranker
from delrec_jax.language.verbalizer import title_matrix
from delrec_jax.language.verbalizers import find_verbalizer
from delrec_jax.planning.shapes import Assumed
from delrec_jax.planning.tasks import planned_tasks
from delrec_jax.stages.inputs import Inputs
from delrec_jax.workdir.prepared import load_data

BAG = f"{HERE / 'toy_family.py'}:BAG"
LAST, BEST = (f"{HERE / 'toy_verbalizer.py'}:{name}" for name in ("LAST", "BEST"))
TITLES = [[7, 4], [9, 7, 9], [3, 4, 5, 6], [8, 6]]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run whose titles are scored by their last tokens, the flag of its config, and its steps."""
    folder = tmp_path_factory.mktemp("last")
    config = write_config(
        folder / "config.py", lm__verbalizer=LAST, lm__family=BAG, tune__adalora__targets=("mix",)
    )
    steps = watched("run", config, f"--workdir={folder / 'run'}", *QUICK)
    return folder / "run", config, steps


def test_its_run_trains_and_selects(run):
    folder, _, steps = run
    check_tuned(folder, steps, "scale")


def test_titles_are_scored_by_their_last_tokens_and_tie_by_them(run):
    folder, _, _ = run
    ws = open_workspace(folder)
    data = load_data(ws)
    language = Inputs(ws).language
    last = [language.tokenizer.encode(title)[-1] for title in data.corpus.catalogue.titles]
    model, params, asked = language.model, language.params, language.ranker.sentinel
    ids = jnp.asarray([[5, asked, 1]])
    scores = language.ranker.catalogue_scores(params, ids, vectors=language.vectors)
    expected = model.logits(params, model.answers(params, ids, jnp.asarray([[asked]]))[:, 0])
    np.testing.assert_allclose(scores, expected[:, np.array(last)], rtol=1e-4, atol=1e-5)
    assert len(np.unique(scores)) == len(set(last)) < len(last)
    listed = json.loads((folder / "lm" / "shared_titles.json").read_text())
    assert sum(map(len, listed)) - len(listed) == len(last) - len(set(last))


def test_the_plan_asks_it(run):
    experiment = open_workspace(run[0]).experiment
    steps = planned_tasks(experiment, jax.devices()[:1], Assumed(items=20, title_tokens=3))
    frozen = {planned.stage: planned.frozen for planned in steps}
    assert frozen["tune"]["vectors"].shape == (20, 16)


def test_candidates_are_scored_as_it_says(toy_model):
    model, params = toy_model
    ranker = Ranker(model, *title_matrix(TITLES), 2, find_verbalizer(BEST), ())
    ids, candidates = jnp.asarray([[5, 2], [8, 2]]), jnp.asarray([[3, 0, 1], [2, 1, -1]])
    scores = np.asarray(ranker.candidate_scores(params, ids, candidates))
    logits = model.answers(params, ids, jnp.full((2, 1), 2))[:, 0] @ model.head(params).T
    for row, column in np.ndindex(2, 3):
        item = int(candidates[row, column])
        expected = -np.inf if item < 0 else max(logits[row, token] for token in TITLES[item])
        assert scores[row, column] == pytest.approx(float(expected), rel=1e-5)
    assert not ranker.ranks_catalogue


def test_a_verbalizer_has_a_name(tmp_path):
    (tmp_path / "own.py").write_text(
        "from delrec_jax.language.mean_scoring import Averaging\n"
        "class Own(Averaging):\n    words = key = lambda self, titles: titles\nOWN = Own()\n"
    )
    with pytest.raises(UserError, match="which lacks a name"):
        find_verbalizer(f"{tmp_path / 'own.py'}:OWN")


@pytest.mark.parametrize(
    ("name", "said"),
    [("Last", "a class: name an instance"), ("np", "which is not a verbalizer: name an object")],
)
def test_what_is_no_verbalizer_is_refused(name, said):
    with pytest.raises(UserError, match=rf"lm\.verbalizer is .*{said}"):
        find_verbalizer(f"{HERE / 'toy_verbalizer.py'}:{name}")
