import numpy as np
import pytest

from delrec_jax.errors import UserError
from delrec_jax.teachers.popularity import POPULARITY
from delrec_jax.teachers.training_part import TrainingPart


def popularity(items):
    """Popularity among five items, all of one user."""
    return POPULARITY.fit(TrainingPart(np.array([0, len(items)]), np.array(items), ("a",) * 5))


def test_scores_are_training_counts_for_any_history():
    scores = np.asarray(popularity([2, 0, 2, 2, 3]).scores(np.array([[-1, 2], [4, 1]])))
    assert scores.tolist() == [[1, 0, 3, 1, 0]] * 2
    assert scores.dtype == np.float32


def test_one_history_alone_is_no_batch():
    with pytest.raises(AssertionError, match="rank 1"):
        popularity([2, 0]).scores(np.array([-1, 2]))


@pytest.mark.parametrize("items", [[0, 5], [-1, 2]])
def test_items_outside_the_catalogue_are_errors(items):
    with pytest.raises(UserError, match="do not fit a catalogue of 5 items"):
        popularity(items)
