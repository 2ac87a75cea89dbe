"""Recommenders that were fitted without the users they are asked about."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from tiny_storefront import CONFIG, TINY, delrec, open_workspace

from delrec_jax.config import TeacherConfig
from delrec_jax.delrec.prompt_examples import make_lists, source_rows
from delrec_jax.delrec.residual_tuning import ResidualTuning
from delrec_jax.errors import UserError
from delrec_jax.teachers.training_part import TrainingPart
from delrec_jax.workdir.closed_forms import Choice, fitted, training_part
from delrec_jax.workdir.fold_teachers import FoldTeachers, fold_teachers, training_source
from delrec_jax.workdir.json_files import read_json
from delrec_jax.workdir.prepared import load_data
from delrec_jax.workdir.recommenders import load_teacher

FLAGS = ("--config.teacher.name=cease", "--config.teacher.folds=3")


@pytest.fixture(scope="module")
def ws(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("folds") / "run"
    for stage in ("prepare", "teach"):
        delrec(stage, CONFIG, f"--workdir={workdir}", *TINY, *FLAGS)
    return open_workspace(workdir)


@pytest.fixture(scope="module")
def data(ws):
    return load_data(ws)


def test_each_user_is_asked_about_in_a_recommender_that_never_saw_them(ws, data):
    folds = fold_teachers(ws, data)
    assert np.bincount(folds.fold_of).tolist() == [16, 16, 16]
    whole = training_part(data)
    rows = source_rows(ws.experiment, data.split, data.split.training_users, "teacher")
    lists = make_lists(ws.experiment, data.split, data.num_items, rows, training_source(ws, data))
    everybody = make_lists(
        ws.experiment, data.split, data.num_items, rows, load_teacher(ws, data).scores
    )
    assert (lists.scores != everybody.scores).mean() > 0.9
    facts = Choice(**read_json(ws.folder("teach") / "teacher.json")["choice"])
    for row in range(0, len(rows.users), 7):
        user = rows.users[row]
        others = [
            whole.items[whole.offsets[u] : whole.offsets[u + 1]]
            for u in range(len(whole.offsets) - 1)
            if folds.fold_of[u] != folds.fold_of[user]
        ]
        offsets = np.concatenate([[0], np.cumsum([len(items) for items in others])])
        alone = TrainingPart(offsets, np.concatenate(others), whole.titles)
        history = data.split.train.history(int(user))[: rows.ends[row]]
        scores = np.asarray(fitted("cease", alone, facts).scores(history[None]))[0]
        np.testing.assert_allclose(lists.scores[row], scores[lists.items[row]], atol=1e-4)


def test_rows_of_different_groups_have_negatives_of_their_own(ws, data):
    """And the same as if one recommender were asked about all users, where that has the same best items."""
    rows = source_rows(ws.experiment, data.split, data.split.training_users, "teacher")
    same = FoldTeachers(fold_teachers(ws, data).fold_of, (load_teacher(ws, data),) * 3)
    asked = (ws.experiment, data.split, data.num_items, rows)
    found, alone = make_lists(*asked, same), make_lists(*asked, load_teacher(ws, data).scores)
    np.testing.assert_array_equal(found.items, alone.items)


def test_users_keep_their_numbers_when_others_are_left_out():
    part = TrainingPart(np.array([0, 2, 2, 5]), np.array([4, 1, 0, 3, 2]), tuple("abcde"))
    found = part.without(np.array([True, False, False]))
    assert found.offsets.tolist() == [0, 0, 0, 3] and found.items.tolist() == [0, 3, 2]


def test_rows_come_back_in_their_order():
    folds = FoldTeachers(np.array([1, 0, 2, 0]), ("a", "b", "c"))
    users = np.array([3, 2, 0, 0, 1])
    (found,) = folds.gathered(users, lambda name, rows: (np.array([f"{name}{r}" for r in rows]),))
    assert found.tolist() == ["a0", "c1", "b2", "b3", "a4"]


def test_tuning_beside_groups_asks_each_rows_own():
    class Table:
        def __init__(self, values):
            self.values = jnp.asarray(values)

        def scores(self, histories):
            return jnp.broadcast_to(self.values, (len(histories), 4))

    beside = ResidualTuning(0.5, 2, np.ones(4, bool))
    teachers = [Table([0.0, 1.0, 2.0, 5.0]), Table([3.0, 2.0, 0.0, 1.0])]
    histories, folds = np.array([[-1, 0], [1, 2], [-1, 3]]), np.array([1, 0, 1])
    found = beside.of_folds(teachers, histories, folds)
    for row, fold in enumerate(folds):
        alone = beside.scores(teachers[fold], histories[row : row + 1])[0]
        np.testing.assert_allclose(found[row], alone, rtol=1e-6)
    np.testing.assert_allclose(
        beside.of_folds(teachers[0], histories, None), beside.scores(teachers[0], histories)
    )


@pytest.mark.parametrize(
    "wrong", [{"folds": 1, "name": "ease"}, {"folds": 2}, {"folds": 3, "name": "ease+sasrec"}]
)
def test_networks_are_not_trained_again_for_each_group(wrong):
    with pytest.raises(UserError, match=r"teacher\.folds is"):
        replace(TeacherConfig(), **wrong)
