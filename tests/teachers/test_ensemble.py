"""Recommenders that were trained apart, as one: the sum of z-scores."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array

from delrec_jax.teachers.ensemble import Ensemble


class Fixed(struct.PyTreeNode):
    """Scores that depend on the latest item alone."""

    table: Array

    def scores(self, histories):
        return self.table[histories[:, -1]]


ONE = np.array([[1.0, 2, 3, 6], [0, 0, 0, 0], [-4, 4, 0, 0]], np.float32)
OTHER = np.array([[100.0, 300, 100, 300], [5, 1, 1, 1], [0, 0, 0, 8]], np.float32)


def test_scores_are_the_sum_of_z_scores_by_hand():
    both = Ensemble((Fixed(jnp.asarray(ONE)), Fixed(jnp.asarray(OTHER))))
    found = jax.jit(lambda teacher, rows: teacher.scores(rows))(
        both, np.array([[-1, 0], [2, 1], [0, 2]])
    )
    # Row 0: mean 3, variance (4 + 1 + 0 + 9) / 4 = 3.5; mean 200, deviation 100.
    first = (np.array([1, 2, 3, 6]) - 3) / 3.5**0.5 + np.array([-1, 1, -1, 1])
    # Row 1: equal scores say nothing; mean 2, variance (9 + 3) / 4 = 3.
    second = np.array([3, -1, -1, -1]) / 3**0.5
    third = np.array([-4, 4, 0, 0]) / 8**0.5 + np.array([-2, -2, -2, 6]) / 12**0.5
    np.testing.assert_allclose(found, np.stack([first, second, third]), rtol=1e-5, atol=1e-6)


def test_the_scale_of_a_part_does_not_matter():
    rows = np.array([[0], [1], [2]])
    parts = [Fixed(jnp.asarray(ONE)), Fixed(jnp.asarray(OTHER))]
    scaled = [parts[0], Fixed(jnp.asarray(7 * OTHER - 3))]
    found, other = (np.asarray(Ensemble(tuple(one)).scores(rows)) for one in (parts, scaled))
    np.testing.assert_allclose(found, other, rtol=1e-4, atol=1e-5)
