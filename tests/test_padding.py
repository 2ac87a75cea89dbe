"""How histories are padded."""

import numpy as np

from delrec_jax.padding import few_lengths, left_padded


def test_the_latest_items_are_kept_and_stand_on_the_right():
    histories = [np.array([4, 5]), np.array([1, 2, 3]), np.zeros(0, int)]
    assert left_padded(histories, 4).tolist() == [[-1, -1, 4, 5], [-1, 1, 2, 3], [-1] * 4]
    assert left_padded(histories, 2).tolist() == [[4, 5], [2, 3], [-1, -1]]
    assert left_padded([], 3).shape == (0, 3) and left_padded(histories, 2).dtype == np.int32


def test_there_are_few_lengths():
    assert [few_lengths(longest) for longest in (0, 1, 8, 9, 16, 17, 2000)] == [
        *(8, 8, 8, 16, 16, 32),
        2048,
    ]
