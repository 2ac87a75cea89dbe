import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delrec_jax.config.p2rec import LOSSES as KINDS
from delrec_jax.errors import UserError
from delrec_jax.p2rec.preferences import distribution_error

# softmax of these is 1/8, 1/2, 3/8 and 1/3, 1/3, 1/3.
LOGITS = jnp.asarray([np.log([1.0, 4.0, 3.0]) + 7, np.zeros(3)], jnp.float32)
TARGETS = jnp.asarray([[0, 0.25, 0.75], [0, 1, 0]], jnp.float32)


def test_mse_by_hand():
    errors = distribution_error(LOGITS, TARGETS, "mse")
    expected = [(1 / 64 + 1 / 16 + 9 / 64) / 3, (1 / 9 + 4 / 9 + 1 / 9) / 3]
    np.testing.assert_allclose(errors, expected, rtol=1e-6)


def test_kl_by_hand():
    errors = distribution_error(LOGITS, TARGETS, "kl")
    expected = [0.25 * np.log(0.25 / 0.5) + 0.75 * np.log(0.75 / 0.375), np.log(3)]
    np.testing.assert_allclose(errors, expected, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_target_itself_has_no_error(kind):
    targets = jnp.asarray([[0.1, 0.2, 0.7], [0.5, 0.25, 0.25]])
    np.testing.assert_allclose(distribution_error(jnp.log(targets), targets, kind), 0, atol=1e-6)
    assert (distribution_error(jnp.log(targets[::-1]), targets, kind) > 0.01).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_gradients_are_finite_and_lead_to_the_target(kind, scale):
    logits = scale * jnp.asarray([[1.0, 0.0, -1.0]])
    target = jnp.asarray([[0.0, 0.0, 1.0]])

    def loss(logits, target):
        return distribution_error(logits, target, kind).sum()

    by_logits, by_target = jax.grad(loss, (0, 1))(logits, target)
    chex.assert_tree_all_finite((loss(logits, target), by_logits, by_target))
    if scale < 1e4 or kind == "kl":  # `mse` has no slope where softmax is saturated
        assert by_logits[0, 2] < 0 < by_logits[0, 0]


@settings(max_examples=50)
@given(st.lists(st.floats(-5, 5), min_size=4, max_size=4), st.lists(st.integers(0, 3), min_size=4))
def test_kl_is_never_negative_and_its_slope_is_softmax_minus_target(logits, counts):
    target = np.bincount(counts, minlength=4)[:4] / len(counts)
    logits = jnp.asarray([logits], jnp.float32)
    target = jnp.asarray([target], jnp.float32)
    assert distribution_error(logits, target, "kl")[0] > -1e-5
    slope = jax.grad(lambda x: distribution_error(x, target, "kl")[0])(logits)
    np.testing.assert_allclose(slope, jax.nn.softmax(logits) - target, atol=1e-5)


def test_unknown_kind():
    with pytest.raises(UserError, match=r"^parse\.loss is 'mae': use 'mse' or 'kl'$"):
        distribution_error(LOGITS, TARGETS, "mae")
