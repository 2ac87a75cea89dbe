import numpy as np
import pytest

from delrec_jax.delrec.material import one_hot
from delrec_jax.delrec.rows import of_other_users
from delrec_jax.errors import UserError


def test_one_hot_at_the_label():
    target = one_hot(np.array([7, 3, 9], np.int32), 3)
    np.testing.assert_array_equal(target, np.array([0, 1, 0], np.float32))
    assert target.dtype == np.float32


@pytest.mark.parametrize(("candidates", "times"), [([7, 8, 9], 0), ([3, 8, 3], 2)])
def test_label_must_be_there_once(candidates, times):
    with pytest.raises(ValueError, match=f"label 3 occurs {times} times"):
        one_hot(np.array(candidates, np.int32), 3)


@pytest.mark.parametrize("rows", [[7] * 4 + [1, 2, 3, 3], [1, 1, 1, 2, 2, 2], [0, 1]])
def test_every_row_is_dealt_a_row_of_another_user(rows):
    users = np.array(rows)
    for seed in range(20):
        order = of_other_users(users, np.random.default_rng(seed))
        assert sorted(order) == list(range(len(users))) and (users[order] != users).all()


@pytest.mark.parametrize("rows", [[7] * 6 + [1, 2, 3], [4]])
def test_a_user_with_more_than_half_of_the_rows_is_refused(rows):
    with pytest.raises(UserError, match=rf"user number {rows[0]} has .* rows.*distill\.positions"):
        of_other_users(np.array(rows), np.random.default_rng(0))
