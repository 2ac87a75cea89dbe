import math

import jax
import jax.numpy as jnp
import numpy as np

from delrec_jax.language.ranking_losses import (
    candidate_cross_entropy,
    catalogue_cross_entropy,
    divergence,
    listed_cross_entropy,
    open_items,
)


def brute(scores, label):
    return math.log(sum(math.exp(x) for x in scores)) - scores[label]


def test_catalogue_loss_by_hand():
    # softmax of log(1, 2, 5) is 1/8, 2/8, 5/8.
    scores = jnp.log(jnp.array([[1.0, 2.0, 5.0]] * 3))
    losses, weights = catalogue_cross_entropy(scores, jnp.array([2, 0, 1]))
    np.testing.assert_allclose(losses, np.log([8 / 5, 8, 4]), rtol=1e-6)
    np.testing.assert_array_equal(weights, [1, 1, 1])


def test_catalogue_loss_of_many_labels_against_brute_force():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(4, 5, 7)).astype(np.float32)
    labels = rng.integers(-1, 7, (4, 5))
    labels[0, 0], labels[0, 1] = -1, 6
    losses, weights = catalogue_cross_entropy(jnp.array(scores), jnp.array(labels))
    for place in np.ndindex(4, 5):
        label = int(labels[place])
        expected = brute([float(x) for x in scores[place]], label) if label >= 0 else 0.0
        np.testing.assert_allclose(losses[place], expected, rtol=1e-5)
        assert weights[place] == (label >= 0)


def test_no_gradient_where_there_is_no_label():
    scores = jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    grads = jax.grad(lambda x: catalogue_cross_entropy(x, jnp.array([-1, 0]))[0].sum())(scores)
    np.testing.assert_array_equal(grads[0], 0)
    assert grads[1, 0] < 0 < grads[1, 1]


def test_catalogue_loss_survives_large_scores():
    losses, _ = catalogue_cross_entropy(jnp.array([[1e4, 0.0]]), jnp.array([1]))
    np.testing.assert_allclose(losses, [1e4])


def test_candidate_loss_by_hand():
    scores = jnp.log(jnp.array([[1.0, 2.0, 5.0], [1.0, 2.0, 5.0]]))
    targets = jnp.array([[0.0, 0.0, 1.0], [0.5, 0.5, 0.0]])
    losses = candidate_cross_entropy(scores, targets)
    np.testing.assert_allclose(
        losses, [math.log(8 / 5), (math.log(8) + math.log(4)) / 2], rtol=1e-6
    )


def test_candidate_loss_is_least_at_the_target():
    targets = jnp.array([[0.2, 0.3, 0.5]])
    at_target = candidate_cross_entropy(jnp.log(targets), targets)
    entropy = -(targets * jnp.log(targets)).sum()
    np.testing.assert_allclose(at_target, [entropy], rtol=1e-6)
    grads = jax.grad(lambda x: candidate_cross_entropy(x, targets).sum())(jnp.log(targets))
    np.testing.assert_allclose(grads, 0, atol=1e-6)


def test_divergence_by_hand():
    before = np.log(np.array([[0.5, 0.5], [0.9, 0.1]], np.float32)) + 3.0
    after = np.log(np.array([[0.25, 0.75], [0.9, 0.1]], np.float32)) - 1.0
    expected = [0.5 * np.log(0.5 / 0.25) + 0.5 * np.log(0.5 / 0.75), 0.0]
    np.testing.assert_allclose(divergence(before, after), expected, atol=1e-6)


KNOWN = np.array([True, True, False, True])


def test_what_is_shown_or_unknown_does_not_compete():
    owners = jnp.array([[0, 1, 1, 0, 3], [0, 0, 0, 0, 0]])  # items 0 and 2, then none
    np.testing.assert_array_equal(open_items(KNOWN, owners), [[0, 1, 0, 1], KNOWN])
    np.testing.assert_array_equal(open_items(KNOWN, None), [KNOWN])


def test_listed_loss_by_hand():
    scores = jnp.log(jnp.array([[1.0, 2.0, 5.0, 8.0]] * 2))
    competing = jnp.array([[True, False, False, True], [False, False, False, False]])
    candidates = jnp.array([[1, 3], [2, 0]])
    targets = jnp.array([[0.25, 0.75], [1.0, 0.0]])
    found = listed_cross_entropy(scores, competing, candidates, targets)
    expected = [-(0.25 * np.log(2 / 11) + 0.75 * np.log(8 / 11)), np.log(6 / 5)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
