"""AdaLoRA's rank allocation as an optax wrapper: importance, masks and budget live in `opt_state`.

With `peft` the caller must call `update_and_allocate` after each step; forgetting it trains at full rank
without a warning. Here the optimizer itself reallocates: shapes are static, nothing recompiles, and a
checkpoint of the optimizer state holds everything.

Order of one step, as in `peft`: the inner optimizer updates; sensitivity is measured as |w * grad| on the
*updated* weights; when a reallocation is due, entries of E below the budget's threshold are set to zero.
Before the final phase a masked entry may grow back; at the start of the final phase the pattern is fixed.

Source: Zhang et al., ICLR 2023, eq. 5-8 (importance) and eq. 12 (cubic budget).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import traverse_util
from jaxtyping import Array, Bool, Int

from delrec_jax.language.adalora_config import AdaLoRAConfig, Schedule
from delrec_jax.language.layer_stacking import unstack_layers

Tree = dict[str, Any]


class RankAllocationState(NamedTuple):
    """What the wrapper remembers between steps.

    Arrays have a leading layer axis if layers are scanned.

    Attributes:
      inner: state of the wrapped optimizer.
      steps: number of steps taken so far.
      planned_steps: number of steps that the schedule was made for; the training loop rejects any other.
      sensitivity: smoothed |w * grad|, in the tree of what trains, reduced to A, E and B.
      uncertainty: smoothed |sensitivity - its mean|, in the same tree.
      masks: the entries in use, bool [R], in a tree of only the E leaves.
    """

    inner: Any
    steps: Int[Array, ""]
    planned_steps: Int[Array, ""]
    sensitivity: Tree
    uncertainty: Tree
    masks: Tree


def budget_table(schedule: Schedule, start: int, end: int) -> Int[np.ndarray, "S"]:
    """Returns how many entries of E may stay in use over all adapters after each step: cubic from `start` to `end`.

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
    left = 1 - (steps - schedule.warmup) / max(1, span)  # a run of no steps has no span
    cubic = ((start - end) * left**3 + end).astype(int)
    table = np.where(steps > schedule.freeze_at, end, cubic)
    return np.where(steps <= schedule.warmup, start, table)


def triplet_scores(sensitivity: Tree, uncertainty: Tree) -> Tree:
    """Returns the importance of each triplet: that of its E plus the means over its column of A and its row of B.

    Returns:
      Float [R] by the path of each E; the importance of an entry is sensitivity x uncertainty, as in `peft` (eq. 6).
    """
    product = traverse_util.flatten_dict(jax.tree.map(lambda s, u: s * u, sensitivity, uncertainty))
    return {
        path: product[path]
        + product[(*path[:-1], "A")].mean(-2)  # [in, R] -> [R]
        + product[(*path[:-1], "B")].mean(-1)  # [R, out] -> [R]
        for path in product
        if path[-1] == "E"
    }


def masks_under_budget(scores: Tree, budget: Int[Array, ""]) -> Tree:
    """Keeps the `budget` most important triplets over all adapters; those tied at the threshold are dropped."""
    every = jnp.sort(jnp.concatenate([scores[path].reshape(-1) for path in sorted(scores)]))
    dropped = every.size - budget
    threshold = jnp.where(dropped > 0, every[jnp.maximum(dropped - 1, 0)], -jnp.inf)
    return {path: score > threshold for path, score in scores.items()}


def _apply_masks(adapters: Tree, masks: Tree) -> Tree:
    flat = traverse_util.flatten_dict(adapters)
    for path, mask in traverse_util.flatten_dict(masks).items():
        flat[path] = jnp.where(mask, flat[path], 0.0)
    masked: Tree = traverse_util.unflatten_dict(flat)
    return masked


def _triplets(tree: Tree) -> Tree:
    """Returns only the A, E and B of a tree, at their paths; whatever else trains has no rank."""
    flat = traverse_util.flatten_dict(tree)
    holders = {path[:-1] for path in flat if path[-1] == "E"}
    triplets: Tree = traverse_util.unflatten_dict(
        {path: leaf for path, leaf in flat.items() if path[:-1] in holders}
    )
    return triplets


def _with_triplets(tree: Tree, triplets: Tree) -> Tree:
    flat = traverse_util.flatten_dict(tree) | traverse_util.flatten_dict(triplets)
    merged: Tree = traverse_util.unflatten_dict(flat)
    return merged


def with_rank_allocation(
    inner: optax.GradientTransformation,
    config: AdaLoRAConfig,
    total_steps: int,
    *,
    clip: float = 0.0,
) -> optax.GradientTransformation:
    """Wraps an optimizer of AdaLoRA adapters so that it also reallocates their ranks.

    With `target_rank == init_rank` nothing is ever masked. What trains alongside the adapters, such as the
    projection in `{"adapters": ..., "projection": ...}`, is left to the inner optimizer.

    Args:
      inner: optimizer of the entire tree.
      config: ranks, phases and smoothing.
      total_steps: planned optimizer steps; the budget reaches its target before the last phase.
      clip: the norm to which the inner optimizer clips; importance is measured on what is left, as by `peft`, which reads
        gradients after they were clipped in place; 0 = it does not clip.

    Returns:
      An optax transformation whose `update` requires `params`.
    """
    schedule = Schedule.planned(config, total_steps)

    def init(params: Tree) -> RankAllocationState:
        """Returns the state before the first step: nothing measured, every entry of E in use."""
        return _start(inner.init(params), params, total_steps)

    def update(
        grads: Tree, state: RankAllocationState, params: Tree | None = None
    ) -> tuple[Tree, RankAllocationState]:
        """Applies the inner optimizer, then masks entries of E when a reallocation is due."""
        if params is None:
            raise ValueError(
                "with_rank_allocation needs params: optimizer.update(grads, state, params)"
            )
        updates, inner_state = inner.update(grads, state.inner, params)
        before = _triplets(params)
        updated = optax.apply_updates(before, _triplets(updates))
        step = state.steps + 1
        if clip:  # by all gradients, as the inner optimizer does
            grads, _ = optax.clip_by_global_norm(clip).update(grads, optax.EmptyState())
        measured = _measure(updated, _triplets(grads), state, config)
        # `peft` stops measuring at the step that fixes the pattern, which uses the previous measures.
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


def _start(inner_state: optax.OptState, params: Tree, total_steps: int) -> RankAllocationState:
    zeros = jax.tree.map(jnp.zeros_like, _triplets(params))
    entries = traverse_util.flatten_dict(params)
    masks = traverse_util.unflatten_dict(
        {path: jnp.ones(e.shape, bool) for path, e in entries.items() if path[-1] == "E"}
    )
    # Two trees of zeros: one buffer cannot be donated twice.
    again = jax.tree.map(jnp.copy, zeros)
    steps = jnp.zeros([], jnp.int32)
    return RankAllocationState(
        inner_state, steps, jnp.array(total_steps, jnp.int32), zeros, again, masks
    )


def _measure(
    params: Tree, grads: Tree, state: RankAllocationState, config: AdaLoRAConfig
) -> tuple[Tree, Tree]:
    """Returns the sensitivity (eq. 5) and its uncertainty (eq. 7, 8): exponential means of |w * grad|."""
    now: Tree = jax.tree.map(lambda w, g: jnp.abs(w * g), params, grads)
    sensitivity: Tree = jax.tree.map(
        lambda old, new: config.beta1 * old + (1 - config.beta1) * new, state.sensitivity, now
    )
    uncertainty: Tree = jax.tree.map(
        lambda old, new, mean: config.beta2 * old + (1 - config.beta2) * jnp.abs(new - mean),
        state.uncertainty,
        now,
        sensitivity,
    )
    return sensitivity, uncertainty


def _allocate(
    sensitivity: Tree,
    uncertainty: Tree,
    masks: Tree,
    step: Int[Array, ""],
    config: AdaLoRAConfig,
    schedule: Schedule,
) -> tuple[Tree, Bool[Array, ""]]:
    """Returns the masks after this step, and whether to apply them to E now."""
    scores = triplet_scores(sensitivity, uncertainty)
    entries = sum(score.size for score in scores.values())
    kept = entries // config.init_rank * config.target_rank
    budgets = budget_table(schedule, entries, kept)
    # Also during the warm-up, when the budget covers all entries and nothing is masked.
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
    """Returns the rank pattern: how many triplets each adapter uses, by its path in the model."""
    masks = state.masks.get("adapters", state.masks)  # a nested tree if something else trains too
    flat = traverse_util.flatten_dict(unstack_layers(masks))
    return {"/".join(path[:-1]): mask.sum() for path, mask in sorted(flat.items())}
