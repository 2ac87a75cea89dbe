import numpy as np
import pytest

from delrec_jax.errors import UserError
from delrec_jax.teachers.popularity import popularity_teacher


def test_scores_are_training_counts_for_any_history():
    teacher = popularity_teacher(np.array([2, 0, 2, 2, 3]), num_items=5)
    scores = np.asarray(teacher.scores(np.array([[-1, 2], [4, 1]])))
    assert scores.tolist() == [[1, 0, 3, 1, 0]] * 2
    assert scores.dtype == np.float32


def test_one_history_alone_is_no_batch():
    with pytest.raises(AssertionError, match="rank 1"):
        popularity_teacher(np.array([2, 0]), num_items=5).scores(np.array([-1, 2]))


@pytest.mark.parametrize("items", [[0, 5], [-1, 2]])
def test_items_outside_the_catalogue_are_errors(items):
    with pytest.raises(UserError, match="do not fit a catalogue of 5 items"):
        popularity_teacher(np.array(items), num_items=5)
