import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from delrec_jax.errors import UserError
from delrec_jax.training.averaging import parameters_to_use, with_average
from delrec_jax.training.optimizers import OptimizerConfig, make_optimizer, planned_steps

pytestmark = pytest.mark.exact


def test_the_average_by_hand():
    optimizer = with_average(optax.sgd(1.0), 0.5)
    params, path = jnp.array([8.0]), []
    state = optimizer.init(params)
    for _ in range(3):
        updates, state = optimizer.update(jnp.array([1.0]), state, params)
        params = optax.apply_updates(params, updates)
        path.append((float(params[0]), float(parameters_to_use(params, state)[0])))
    # Weights of the past: 2/11, 3/12, 4/13, all below 0.5.
    first = 2 / 11 * 8 + 9 / 11 * 7
    second = 3 / 12 * first + 9 / 12 * 6
    third = 4 / 13 * second + 9 / 13 * 5
    np.testing.assert_allclose(path, [(7, first), (6, second), (5, third)], rtol=1e-6)


def test_the_past_weighs_no_more_than_the_decay():
    optimizer = with_average(optax.sgd(0.0), 0.5)
    params = jnp.array([1.0])
    state = optimizer.init(params)._replace(updates=jnp.array(1000), average=jnp.array([3.0]))
    _, state = optimizer.update(jnp.zeros(1), state, params)
    np.testing.assert_allclose(state.average, [2.0])


def test_training_is_the_same_with_and_without():
    plain, averaged = (make_optimizer(OptimizerConfig(average=a), 5) for a in (0.0, 0.9))
    params = {"a": jnp.array([1.0, -2.0])}
    states, found = [plain.init(params), averaged.init(params)], [params, params]
    for step in range(5):
        for index, optimizer in enumerate((plain, averaged)):
            grads = jax.tree.map(lambda x, s=step: x + s, found[index])
            updates, states[index] = optimizer.update(grads, states[index], found[index])
            found[index] = optax.apply_updates(found[index], updates)
    np.testing.assert_array_equal(found[0]["a"], found[1]["a"])
    assert parameters_to_use(found[0], states[0]) is found[0]
    assert np.abs(parameters_to_use(found[1], states[1])["a"] - found[1]["a"]).max() > 1e-4
    assert planned_steps(states[1]) == {5}


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_is_below_one(decay):
    with pytest.raises(UserError, match=rf"optimizer\.average is {decay}"):
        OptimizerConfig(average=decay)
