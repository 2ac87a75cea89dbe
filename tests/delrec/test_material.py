import numpy as np
import pytest

from delrec_jax.delrec.material import one_hot


def test_one_hot_at_the_label():
    target = one_hot(np.array([7, 3, 9], np.int32), 3)
    np.testing.assert_array_equal(target, np.array([0, 1, 0], np.float32))
    assert target.dtype == np.float32


@pytest.mark.parametrize(("candidates", "times"), [([7, 8, 9], 0), ([3, 8, 3], 2)])
def test_label_must_be_there_once(candidates, times):
    with pytest.raises(ValueError, match=f"label 3 occurs {times} times"):
        one_hot(np.array(candidates, np.int32), 3)
