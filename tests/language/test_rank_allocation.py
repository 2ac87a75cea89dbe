"""Rank allocation: budgets and masks by hand and brute force, a short real run, resuming."""

from dataclasses import replace
from functools import partial
from itertools import pairwise

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import serialization, traverse_util
from hypothesis import given, settings
from hypothesis import strategies as st

from delrec_jax.errors import UserError
from delrec_jax.language.adalora_config import AdaLoRAConfig
from delrec_jax.language.layer_stacking import stack_layers, unstack_layers
from delrec_jax.language.rank_allocation import (
    Schedule,
    allocation_state,
    budget_table,
    masks_under_budget,
    ranks_in_use,
    triplet_scores,
    with_rank_allocation,
)

STEPS, RANK = 50, 4
CONFIG = AdaLoRAConfig(
    init_rank=RANK, target_rank=2, warmup=0.1, final=0.3, interval=3, beta1=0.8, beta2=0.9
)
FREEZE_AT = 35  # 50 - 15


def test_budget_table_by_hand():
    # Span 10 - 3 - 2 = 5; after the warm-up floor(8 left^3 + 4) with left 0.8, 0.6, 0.4, 0.2, 0.
    table = budget_table(Schedule(warmup=2, total=10, final=3), start=12, end=4)
    assert table.tolist() == [12, 12, 12, 8, 5, 4, 4, 4, 4, 4, 4]


@settings(max_examples=100)
@given(st.data())
def test_budget_table_equals_a_loop_over_python_floats(data):
    total = data.draw(st.integers(3, 400))
    warmup = data.draw(st.integers(0, total - 2))
    final = data.draw(st.integers(0, total - warmup - 1))
    start = data.draw(st.integers(1, 2000))
    end = data.draw(st.integers(1, start))

    def budget(step):
        if step <= warmup:
            return start
        if step > total - final:
            return end
        left = 1 - (step - warmup) / (total - final - warmup)
        return int((start - end) * left**3 + end)

    table = budget_table(Schedule(warmup, total, final), start, end)
    assert table.tolist() == [budget(step) for step in range(total + 1)]


def test_phases_are_shares_of_the_run():
    assert Schedule.planned(CONFIG, STEPS) == (5, 50, 15)
    assert Schedule.planned(CONFIG, STEPS).freeze_at == FREEZE_AT


@pytest.mark.parametrize(("steps", "interval"), [(14, 10), (50, 35), (1, 1)])
def test_a_run_without_a_reallocation_before_the_fixed_pattern_is_refused(steps, interval):
    config = replace(CONFIG, interval=interval)
    message = f"^loop.steps is {steps}: .* adalora.interval {interval};"
    with pytest.raises(UserError, match=message):
        Schedule.planned(config, steps)
    with pytest.raises(UserError, match=message):
        with_rank_allocation(optax.adam(0.1), config, steps)
    # Plain LoRA has nothing to reallocate.
    assert Schedule.planned(replace(config, target_rank=RANK), steps).total == steps


def test_the_shortest_run_that_reallocates():
    # Step 10 is the only one between the warm-up (1) and the fixed pattern (11 = 15 - 4).
    assert Schedule.planned(replace(CONFIG, interval=10), 15) == (1, 15, 4)


@settings(max_examples=100)
@given(
    st.lists(st.lists(st.integers(0, 6), min_size=3, max_size=3), min_size=1, max_size=4),
    st.data(),
)
def test_masks_by_brute_force(rows, data):
    budget = data.draw(st.integers(0, 3 * len(rows)))
    scores = {(str(i), "E"): jnp.asarray(row, jnp.float32) for i, row in enumerate(rows)}
    masks = masks_under_budget(scores, jnp.asarray(budget))
    every = [value for row in rows for value in row]
    dropped = len(every) - budget
    # Everything up to the dropped-th smallest goes, ties included.
    threshold = sorted(every)[dropped - 1] if dropped else -1
    for i, row in enumerate(rows):
        assert masks[(str(i), "E")].tolist() == [value > threshold for value in row]
    if len(set(every)) == len(every):
        assert sum(int(mask.sum()) for mask in masks.values()) == budget


def triplet(key, shapes=((5, RANK), (RANK,), (RANK, 3))):
    return {
        name: jax.random.uniform(k, shape)
        for name, k, shape in zip("AEB", jax.random.split(key, 3), shapes, strict=True)
    }


def test_triplet_scores_by_loops():
    sensitivity = {"x": {"q": triplet(jax.random.key(0))}}
    uncertainty = {"x": {"q": triplet(jax.random.key(1))}}
    scores = triplet_scores(sensitivity, uncertainty)
    assert list(scores) == [("x", "q", "E")]
    s, u = sensitivity["x"]["q"], uncertainty["x"]["q"]
    for r in range(RANK):
        of_a = np.mean([s["A"][i, r] * u["A"][i, r] for i in range(5)])
        of_b = np.mean([s["B"][r, j] * u["B"][r, j] for j in range(3)])
        expected = s["E"][r] * u["E"][r] + of_a + of_b
        np.testing.assert_allclose(scores["x", "q", "E"][r], expected, rtol=1e-5)


class Toy:
    """Two linear maps: `rich` must become a map of rank 4, `poor` one of rank 1."""

    def __init__(self):
        keys = jax.random.split(jax.random.key(0), 4)
        columns = jnp.asarray([4.0, 3.0, 2.5, 2.0])
        self.rich = (jax.random.normal(keys[0], (6, 4)) * columns) @ jax.random.normal(
            keys[1], (4, 5)
        )
        self.poor = jnp.outer(jnp.arange(1.0, 5), jnp.arange(1.0, 4)) / 4
        self.params = {
            "rich": triplet(keys[2], ((6, RANK), (RANK,), (RANK, 5))),
            "poor": triplet(keys[3], ((4, RANK), (RANK,), (RANK, 3))),
        }

    def loss(self, params):
        def far(w, target):
            return (((w["A"] * w["E"]) @ w["B"] - target) ** 2).mean()

        return far(params["rich"], self.rich) + far(params["poor"], self.poor)


def step_with(optimizer, traces=None):
    toy = Toy()

    @jax.jit
    def step(params, state):
        if traces is not None:
            traces.append(1)
        updates, state = optimizer.update(jax.grad(toy.loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    return step


@pytest.fixture(scope="module")
def run():
    """50 steps: [(params, state)] after each, index 0 is the start; and how often jit traced."""
    traces = []
    optimizer = with_rank_allocation(optax.adam(0.05), CONFIG, STEPS)
    step = step_with(optimizer, traces)
    params = Toy().params
    history = [(params, optimizer.init(params))]
    for _ in range(STEPS):
        history.append(step(*history[-1]))
    return history, len(traces)


def ranks(state):
    return {name: int(rank) for name, rank in ranks_in_use(allocation_state(state)).items()}


def test_ranks_really_move_and_meet_the_budget(run):
    history, _ = run
    budgets = budget_table(Schedule(5, 50, 15), 2 * RANK, 2 * 2)
    assert ranks(history[5][1]) == {"rich": 4, "poor": 4}
    for count in range(6, STEPS + 1):
        due = [s for s in range(6, min(count, FREEZE_AT) + 1) if s % 3 == 0 or s == FREEZE_AT]
        assert sum(ranks(history[count][1]).values()) == (budgets[due[-1]] if due else 2 * RANK)
    end = ranks(history[-1][1])
    assert sum(end.values()) == 4
    assert end["rich"] > end["poor"]  # not 2 each: the budget went where it is needed
    assert Toy().loss(history[-1][0]) < 0.5 * Toy().loss(history[0][0])


def zeros_follow_masks(params, state):
    masks = traverse_util.flatten_dict(allocation_state(state).masks)
    entries = traverse_util.flatten_dict(params)
    return all(((np.asarray(entries[path]) != 0) == mask).all() for path, mask in masks.items())


def test_masked_entries_are_zero_when_due_and_may_grow_back_between(run):
    history, _ = run
    for count in (6, 9, 12, 33):
        assert zeros_follow_masks(*history[count])
    first = next(s for s in range(6, 34) if sum(ranks(history[s][1]).values()) < 8)
    assert first % 3 == 0
    assert not zeros_follow_masks(*history[first + 1])


def test_the_last_pattern_is_fixed_and_exact(run):
    history, _ = run
    pattern = allocation_state(history[FREEZE_AT][1]).masks
    frozen = allocation_state(history[FREEZE_AT - 1][1])
    for params, state in history[FREEZE_AT:]:
        allocated = allocation_state(state)
        jax.tree.map(np.testing.assert_array_equal, allocated.masks, pattern)
        jax.tree.map(np.testing.assert_array_equal, allocated.sensitivity, frozen.sensitivity)
        jax.tree.map(np.testing.assert_array_equal, allocated.uncertainty, frozen.uncertainty)
        assert zeros_follow_masks(params, state)
    moved = history[-1][0]["rich"]["B"] - history[FREEZE_AT][0]["rich"]["B"]
    assert np.abs(moved).max() > 1e-3  # what is in use goes on learning


def test_one_compilation_serves_all_phases(run):
    assert run[1] == 1


def test_importance_is_measured_on_updated_weights(run):
    """Both exponential means by hand, over the first steps; nothing is masked during the warm-up."""
    history, _ = run
    gradient = jax.jit(jax.grad(Toy().loss))
    sensitivity = uncertainty = jax.tree.map(np.zeros_like, history[0][0])
    for (before, _), (after, state) in pairwise(history[:6]):
        now = jax.tree.map(lambda w, g: np.abs(w * g), after, gradient(before))
        sensitivity = jax.tree.map(lambda s, n: 0.8 * s + 0.2 * n, sensitivity, now)
        uncertainty = jax.tree.map(
            lambda u, n, s: 0.9 * u + 0.1 * np.abs(n - s), uncertainty, now, sensitivity
        )
        close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
        jax.tree.map(close, allocation_state(state).sensitivity, sensitivity)
        jax.tree.map(close, allocation_state(state).uncertainty, uncertainty)


@pytest.mark.parametrize("stop", [4, 17, 40])
def test_saved_and_resumed_is_never_stopped(run, stop):
    history, _ = run
    optimizer = with_rank_allocation(optax.adam(0.05), CONFIG, STEPS)
    step = step_with(optimizer)
    fresh = (Toy().params, optimizer.init(Toy().params))
    params, state = serialization.from_bytes(fresh, serialization.to_bytes(history[stop]))
    for _ in range(STEPS - stop):
        params, state = step(params, state)
    jax.tree.map(np.testing.assert_array_equal, (params, state), history[-1])


def test_equal_ranks_are_plain_lora():
    config = AdaLoRAConfig(init_rank=RANK, target_rank=RANK, warmup=0.1, final=0.3, interval=1)
    optimizer = with_rank_allocation(optax.adam(0.05), config, STEPS)
    step, plain_step = step_with(optimizer), step_with(optax.adam(0.05))
    params = plain = Toy().params
    # A zero entry scores nothing on its own, yet plain LoRA must keep it.
    params["poor"]["E"] = params["poor"]["E"].at[1].set(0.0)
    state, plain_state = optimizer.init(params), optax.adam(0.05).init(plain)
    for _ in range(STEPS):
        params, state = step(params, state)
        plain, plain_state = plain_step(plain, plain_state)
    assert ranks(state) == {"rich": RANK, "poor": RANK}
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4), params, plain)


def test_the_state_is_found_inside_a_chain():
    params = Toy().params
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), with_rank_allocation(optax.adam(0.1), CONFIG, STEPS)
    )
    assert ranks(optimizer.init(params)) == {"rich": RANK, "poor": RANK}
    with pytest.raises(ValueError, match="no rank allocation"):
        allocation_state(optax.adam(0.1).init(params))


def test_importance_is_that_of_clipped_gradients():
    """With the clip inside, as `make_optimizer` has it, masks are those of an optimizer that sees clipped gradients alone."""
    clip, found = 0.05, []
    core, outside = optax.adam(0.05), optax.clip_by_global_norm(clip)
    inside = optax.chain(optax.clip_by_global_norm(clip), core)
    for optimizer in (
        optax.chain(outside, with_rank_allocation(core, CONFIG, STEPS)),
        with_rank_allocation(inside, CONFIG, STEPS, clip=clip),
        with_rank_allocation(inside, CONFIG, STEPS),
    ):
        params = Toy().params
        state, step = optimizer.init(params), jax.jit(optimizer.update)
        for number in range(STEPS):  # of very different sizes
            size = 10.0 ** (number % 3)
            grads = jax.tree.map(lambda leaf, s=size: s * leaf, jax.grad(Toy().loss)(params))
            updates, state = step(grads, state, params)
            params = optax.apply_updates(params, updates)
        found.append(allocation_state(state).sensitivity)
    chex.assert_trees_all_close(found[0], found[1], rtol=1e-5)
    with pytest.raises(AssertionError):
        chex.assert_trees_all_close(found[0], found[2], rtol=0.1)


def test_no_buffer_of_the_state_is_shared():
    params = Toy().params
    state = with_rank_allocation(optax.adam(0.1), CONFIG, STEPS).init(params)
    donating = jax.jit(lambda s: jax.tree.map(lambda x: x, s), donate_argnums=0)
    kept = donating(state)  # one buffer given twice would raise
    assert jax.tree.structure(kept) == jax.tree.structure(state)


def test_an_update_without_params_says_what_it_needs():
    params = Toy().params
    optimizer = with_rank_allocation(optax.adam(0.1), CONFIG, STEPS)
    with pytest.raises(ValueError, match="needs params"):
        optimizer.update(params, optimizer.init(params))


def beside_a_projection(adapters):
    return {"adapters": adapters, "projection": {"kernel": jnp.ones((5, 3)), "bias": jnp.zeros(3)}}


def test_what_trains_beside_adapters_is_left_to_the_inner_optimizer(run):
    """50 steps on the toy with a projection of its own loss: the same ranks, and Adam's own 50 steps."""
    history, _ = run

    def loss(params):
        kernel, bias = params["projection"]["kernel"], params["projection"]["bias"]
        return Toy().loss(params["adapters"]) + ((kernel.sum(0) + bias - jnp.arange(3)) ** 2).sum()

    def fifty_steps(optimizer):
        @jax.jit
        def step(params, state):
            updates, state = optimizer.update(jax.grad(loss)(params), state, params)
            return optax.apply_updates(params, updates), state

        params = beside_a_projection(Toy().params)
        state = optimizer.init(params)
        for _ in range(STEPS):
            params, state = step(params, state)
        return params, state

    params, state = fifty_steps(with_rank_allocation(optax.adam(0.05), CONFIG, STEPS))
    alone, state_alone = history[-1]
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, params["adapters"], alone)
    assert ranks(state) == ranks(state_alone) and sum(ranks(state).values()) == 4
    assert set(state.sensitivity) == set(state.masks) == {"adapters"}
    plain, _ = fifty_steps(optax.adam(0.05))
    jax.tree.map(np.testing.assert_array_equal, params["projection"], plain["projection"])
    assert np.abs(plain["projection"]["kernel"] - 1).max() > 0.1


def test_updates_of_what_has_no_rank_are_the_inner_optimizer_s_to_the_last_bit():
    # (1e4 + 1e-4) - 1e4 is 0 in float32: an update that went through the sum would be lost.
    inner = optax.sgd(1.0)
    optimizer = with_rank_allocation(inner, CONFIG, STEPS)
    params = beside_a_projection(Toy().params)
    params["projection"]["kernel"] = jnp.full((5, 3), 1e4)
    grads = jax.tree.map(lambda x: jnp.full_like(x, 1e-4), params)
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    np.testing.assert_array_equal(updates["projection"]["kernel"], np.float32(-1e-4))


def test_scanned_ranks_beside_a_projection_are_told_block_by_block():
    blocks = {f"block_{i}": {"q": triplet(jax.random.key(i))} for i in range(3)}
    optimizer = with_rank_allocation(optax.adam(0.1), CONFIG, STEPS)
    params = beside_a_projection(stack_layers({"encoder": blocks}))
    assert ranks(optimizer.init(params)) == {f"encoder/block_{i}/q": RANK for i in range(3)}


def test_scanned_layers_are_allotted_the_ranks_of_unrolled_ones():
    """The same 50 steps on three blocks, apart and stacked: one budget over all of them."""
    generator = np.random.default_rng(8)

    def block():
        shapes = {"A": (5, RANK), "E": (RANK,), "B": (RANK, 6)}
        return {"q": {n: jnp.asarray(generator.normal(size=s)) for n, s in shapes.items()}}

    def stack():
        return {"encoder": {f"block_{index}": block() for index in range(3)}}

    params, grads = stack(), [stack() for _ in range(STEPS)]

    def run(params, layout):
        optimizer = with_rank_allocation(optax.adam(0.05), CONFIG, STEPS)
        state, update = optimizer.init(params), jax.jit(optimizer.update)
        patterns = []
        for grad in grads:
            updates, state = update(layout(grad), state, params)
            params = optax.apply_updates(params, updates)
            patterns.append({path: int(rank) for path, rank in ranks_in_use(state).items()})
        return params, patterns

    apart, patterns = run(params, lambda tree: tree)
    together, same_patterns = run(stack_layers(params), stack_layers)
    assert patterns == same_patterns
    assert sum(patterns[-1].values()) == 3 * 2 and len(set(patterns[-1].values())) > 1
    close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, unstack_layers(together), apart)
