"""AdaLoRA's rank allocation as an optax wrapper: importance, masks and budget live in `opt_state`.

With `peft` the caller must remember `update_and_allocate` after each step, and who forgets trains at full
rank without a word. Here the optimizer itself reallocates: shapes are static, nothing recompiles, and a
checkpoint of the optimizer state holds everything.

Order of one step, as in `peft`: the inner optimizer updates; sensitivity is measured as |w * grad| on the
*updated* weights; when a reallocation is due, entries of E under the budget's threshold are set to zero.
Before the final phase a masked entry may grow back; at its start the pattern is fixed.

Source: Zhang et al., ICLR 2023, eq. 5-8 (importance) and eq. 12 (cubic budget).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import traverse_util
from jaxtyping import Array, Int

from delrec_jax.language.adalora_config import AdaLoRAConfig, Schedule
from delrec_jax.language.layers import unstack_layers

Tree = dict[str, Any]


class RankAllocationState(NamedTuple):
    """What the wrapper remembers between steps.

    Attributes:
      inner: state of the wrapped optimizer.
      steps: taken so far.
      planned_steps: that the schedule was made for; the training loop refuses another number.
      sensitivity: smoothed |w * grad| of A, E and B, in the tree of what trains, without anything else in it.
      uncertainty: smoothed |sensitivity - its mean|, in the same tree.
      masks: the entries in use, bool [R], a tree of the E leaves alone (all with a layer axis where layers are scanned).
    """

    inner: Any
    steps: Int[Array, ""]
    planned_steps: Int[Array, ""]
    sensitivity: Tree
    uncertainty: Tree
    masks: Tree


def budget_table(schedule: Schedule, start: int, end: int) -> Int[np.ndarray, "S"]:
    """Entries of E that may stay in use over all adapters after each step: cubic from `start` to `end`.

    Computed on the host in float64, as `peft` does: a float32 cube would round across integers.

    Args:
      schedule: phases.
      start: adapters x init_rank.
      end: adapters x target_rank.

    Returns:
      One budget for each of the steps 0..total.
    """
    steps = np.arange(schedule.total + 1)
    span = schedule.freeze_at - schedule.warmup
    left = 1 - (steps - schedule.warmup) / span
    cubic = ((start - end) * left**3 + end).astype(int)
    table = np.where(steps > schedule.freeze_at, end, cubic)
    return np.where(steps <= schedule.warmup, start, table)


def triplet_scores(sensitivity: Tree, uncertainty: Tree) -> Tree:
    """Importance of each triplet: that of its E plus the mean over its column of A and row of B.

    Returns:
      Float [R] by the path of each E, in `peft`'s combination of sensitivity x uncertainty (eq. 6).
    """
    product = traverse_util.flatten_dict(jax.tree.map(lambda s, u: s * u, sensitivity, uncertainty))
    return {
        path: product[path]
        + product[(*path[:-1], "A")].mean(-2)
        + product[(*path[:-1], "B")].mean(-1)
        for path in product
        if path[-1] == "E"
    }


def masks_under_budget(scores: Tree, budget: Int[Array, ""]) -> Tree:
    """Keeps the `budget` most important triplets over all adapters; those tied at the threshold go."""
    every = jnp.sort(jnp.concatenate([scores[path].reshape(-1) for path in sorted(scores)]))
    dropped = every.size - budget
    threshold = jnp.where(dropped > 0, every[jnp.maximum(dropped - 1, 0)], -jnp.inf)
    return {path: score > threshold for path, score in scores.items()}


def _apply_masks(adapters: Tree, masks: Tree) -> Tree:
    flat = traverse_util.flatten_dict(adapters)
    for path, mask in traverse_util.flatten_dict(masks).items():
        flat[path] = jnp.where(mask, flat[path], 0.0)
    return traverse_util.unflatten_dict(flat)


def _triplets(tree: Tree) -> Tree:
    """The A, E and B of a tree, at their places; what else trains has no rank."""
    flat = traverse_util.flatten_dict(tree)
    holders = {path[:-1] for path in flat if path[-1] == "E"}
    return traverse_util.unflatten_dict(
        {path: leaf for path, leaf in flat.items() if path[:-1] in holders}
    )


def _with_triplets(tree: Tree, triplets: Tree) -> Tree:
    flat = traverse_util.flatten_dict(tree) | traverse_util.flatten_dict(triplets)
    return traverse_util.unflatten_dict(flat)


def with_rank_allocation(
    inner: optax.GradientTransformation, config: AdaLoRAConfig, total_steps: int
) -> optax.GradientTransformation:
    """Wraps an optimizer of AdaLoRA adapters so that it reallocates their ranks by itself.

    With `target_rank == init_rank` nothing is ever masked: plain LoRA. What trains beside adapters, such as the
    projection of `{"adapters": ..., "projection": ...}`, is left to the inner optimizer.

    Args:
      inner: optimizer of the whole tree.
      config: ranks, phases and smoothing.
      total_steps: planned optimizer steps; the budget reaches its target before the last phase.

    Returns:
      An optax transformation whose `update` needs `params`.
    """
    schedule = Schedule.planned(config, total_steps)

    def init(params: Tree) -> RankAllocationState:
        zeros = jax.tree.map(jnp.zeros_like, _triplets(params))
        entries = traverse_util.flatten_dict(params)
        masks = traverse_util.unflatten_dict(
            {path: jnp.ones(e.shape, bool) for path, e in entries.items() if path[-1] == "E"}
        )
        # Two trees of zeros: one buffer cannot be donated twice.
        return RankAllocationState(
            inner.init(params),
            jnp.zeros([], jnp.int32),
            jnp.array(total_steps, jnp.int32),
            zeros,
            jax.tree.map(jnp.copy, zeros),
            masks,
        )

    def update(grads: Tree, state: RankAllocationState, params: Tree | None = None):
        if params is None:
            raise ValueError(
                "with_rank_allocation needs params: optimizer.update(grads, state, params)"
            )
        updates, inner_state = inner.update(grads, state.inner, params)
        before = _triplets(params)
        updated = optax.apply_updates(before, _triplets(updates))
        step = state.steps + 1
        measured = _measure(updated, _triplets(grads), state, config)
        # From the step that fixes the pattern on, `peft` measures no more: that step uses what it has.
        frozen = step >= schedule.freeze_at
        sensitivity, uncertainty = jax.tree.map(
            lambda old, new: jnp.where(frozen, old, new),
            (state.sensitivity, state.uncertainty),
            measured,
        )
        masks, due = _allocate(sensitivity, uncertainty, state.masks, step, config, schedule)
        masked = _apply_masks(updated, masks)
        final = jax.tree.map(lambda kept, cut: jnp.where(due, cut, kept), updated, masked)
        allocated = jax.tree.map(lambda new, old: new - old, final, before)
        updates = _with_triplets(updates, allocated)
        measures = (sensitivity, uncertainty, masks)
        return updates, RankAllocationState(inner_state, step, state.planned_steps, *measures)

    return optax.GradientTransformation(init, update)


def _measure(params: Tree, grads: Tree, state: RankAllocationState, config: AdaLoRAConfig):
    """Eq. 5 and its uncertainty (eq. 7, 8): exponential means of |w * grad|."""
    now = jax.tree.map(lambda w, g: jnp.abs(w * g), params, grads)
    sensitivity = jax.tree.map(
        lambda old, new: config.beta1 * old + (1 - config.beta1) * new, state.sensitivity, now
    )
    uncertainty = jax.tree.map(
        lambda old, new, mean: config.beta2 * old + (1 - config.beta2) * jnp.abs(new - mean),
        state.uncertainty,
        now,
        sensitivity,
    )
    return sensitivity, uncertainty


def _allocate(sensitivity, uncertainty, masks, step, config: AdaLoRAConfig, schedule: Schedule):
    """The masks after this step, and whether they are to be applied to E now."""
    scores = triplet_scores(sensitivity, uncertainty)
    entries = sum(score.size for score in scores.values())
    kept = entries // config.init_rank * config.target_rank
    budgets = budget_table(schedule, entries, kept)
    # During the warm-up too, where the budget is everything and nothing is masked.
    shrinking = (step < schedule.freeze_at) & (step % config.interval == 0)
    reallocate = shrinking | (step == schedule.freeze_at)
    budget = jnp.asarray(budgets)[jnp.minimum(step, schedule.total)]
    proposed = traverse_util.unflatten_dict(masks_under_budget(scores, budget))
    masks = jax.tree.map(lambda new, old: jnp.where(reallocate, new, old), proposed, masks)
    return masks, reallocate | (step > schedule.freeze_at)


def allocation_state(opt_state: Any) -> RankAllocationState:
    """Finds the wrapper's state inside an optimizer's state.

    Raises:
      ValueError: the optimizer was not built by `with_rank_allocation`.
    """
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, RankAllocationState))
    for leaf in leaves:
        if isinstance(leaf, RankAllocationState):
            return leaf
    raise ValueError("no rank allocation in this optimizer state")


def ranks_in_use(state: RankAllocationState) -> dict[str, Int[Array, ""]]:
    """How many triplets each adapter holds, by its path in the model: the rank pattern."""
    masks = state.masks.get("adapters", state.masks)  # where something trains beside them
    flat = traverse_util.flatten_dict(unstack_layers(masks))
    return {"/".join(path[:-1]): mask.sum() for path, mask in sorted(flat.items())}
