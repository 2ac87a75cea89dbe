"""Which histories are asked about: the latest of each user, by a loop."""

import numpy as np
import pytest

from delrec_jax.data.interactions import from_rows
from delrec_jax.delrec.rows import latest_rows


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("positions", [1, 3, 20])
def test_rows_are_those_of_a_loop(positions, labelled):
    rows = [np.arange(length) for length in (5, 1, 0, 2, 9)]
    train = from_rows(list("abcde"), rows, rows)
    users = np.array([4, 0, 1, 2, 3], np.int32)
    expected = []
    for user in users:
        last = int(train.lengths[user]) - labelled
        expected += [(int(user), end) for end in range(1, last + 1)][-positions:]
    found = latest_rows(train, users, positions, labelled=labelled)
    assert list(zip(found.users.tolist(), found.ends.tolist(), strict=True)) == expected
    assert found.users.dtype == found.ends.dtype == np.int32
