import jax
import jax.numpy as jnp
import numpy as np

from delrec_jax.pretraining.bag_loss import bag_loss

# softmax over five tokens: 1/16, 2/16, 4/16, 8/16, 1/16.
LOGITS = np.log([1.0, 2.0, 4.0, 8.0, 1.0])


def test_mean_over_the_words_of_each_answer():
    logits = jnp.array(np.tile(LOGITS, (1, 3, 1)))
    answers = jnp.array([[[3, 0, 0], [1, 2, 0], [1, 2, 3]]])
    losses, weights = bag_loss(logits, answers)
    expected = [np.log(2), (np.log(8) + np.log(4)) / 2, (np.log(8) + np.log(4) + np.log(2)) / 3]
    np.testing.assert_allclose(losses, [expected], rtol=1e-6)
    np.testing.assert_array_equal(weights, [[1, 1, 1]])


def test_a_row_of_zeros_is_no_query():
    logits = jnp.array(np.tile(LOGITS, (2, 2, 1)))
    answers = jnp.array([[[3, 4], [0, 0]], [[0, 0], [0, 0]]])
    losses, weights = bag_loss(logits, answers)
    np.testing.assert_allclose(losses, [[(np.log(2) + np.log(16)) / 2, 0], [0, 0]], rtol=1e-6)
    np.testing.assert_array_equal(weights, [[1, 0], [0, 0]])
    grads = jax.grad(lambda x: bag_loss(x, answers)[0].sum())(logits)
    np.testing.assert_array_equal(grads[0, 1], 0)
    np.testing.assert_array_equal(grads[1], 0)


def test_equals_cross_entropy_to_the_uniform_bag():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(3, 4, 11)).astype(np.float32)
    answers = np.zeros((3, 4, 5), np.int32)
    expected = np.zeros((3, 4))
    for place in np.ndindex(3, 4):
        words = rng.choice(np.arange(1, 11), rng.integers(1, 6), replace=False)
        answers[place][: len(words)] = words
        exp = np.exp(logits[place].astype(np.float64))
        expected[place] = -np.log(exp / exp.sum())[words].mean()
    losses, _ = bag_loss(jnp.array(logits), jnp.array(answers))
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


def test_a_word_that_stands_twice_counts_twice():
    losses, _ = bag_loss(jnp.array(LOGITS)[None, None], jnp.array([[[3, 3, 1]]]))
    np.testing.assert_allclose(losses, [[(2 * np.log(2) + np.log(8)) / 3]], rtol=1e-6)
