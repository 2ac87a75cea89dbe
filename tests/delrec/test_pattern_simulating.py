import numpy as np
import pytest

from delrec_jax.delrec.pattern_simulating import teacher_target
from delrec_jax.errors import UserError

SCORES = np.log(np.array([1.0, 4.0, 2.0], np.float32))


def test_top1_is_one_hot_at_the_best():
    np.testing.assert_array_equal(teacher_target(SCORES, kind="top1", temperature=1.0), [0, 1, 0])


@pytest.mark.parametrize(
    ("temperature", "weights"), [(1.0, [1, 4, 2]), (0.5, [1, 16, 4]), (2.0, [1, 2, 2**0.5])]
)
def test_listwise_is_the_tempered_softmax(temperature, weights):
    target = teacher_target(SCORES, kind="listwise", temperature=temperature)
    np.testing.assert_allclose(target, np.array(weights) / sum(weights), rtol=1e-6)


def test_listwise_survives_large_scores_and_small_temperature():
    target = teacher_target(
        np.array([1e4, 1e4 - 1, -1e4], np.float32), kind="listwise", temperature=1e-3
    )
    np.testing.assert_allclose(target, [1, 0, 0])


def test_unknown_kind():
    with pytest.raises(UserError, match=r"distill\.rps_label is 'best'.*'top1' or 'listwise'"):
        teacher_target(SCORES, kind="best", temperature=1.0)
