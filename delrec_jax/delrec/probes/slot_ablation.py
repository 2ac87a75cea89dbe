"""Which slots of the prompt matter? Each is taken out in turn, and the change is measured on the same users.

Method: the slot's vector is replaced by the mean of the other slots (what a slot of this prompt says on average; the usual
mean ablation of interpretability) and by zero (a vector that the language model never reads, so that a change may come from
that alone). If no single slot matters though the prompt does, the slots repeat one another.

Prompts that know the user (`distill.prompt=user` or `both`) are linear in what they know, so that the same replacement of
their maps replaces the slot of every user by the mean of the user's own other slots.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from delrec_jax.delrec.probes.ranked_users import changed

REPLACEMENTS = ("mean", "zero")
"""What takes the place of a slot: the mean of the other slots, or a vector of zeros."""


def slot_ablation(
    prompt: Any,
    measures: Mapping[str, Callable[[Any], Float[np.ndarray, " U"]]],
    *,
    seed: int,
) -> list[dict[str, Any]]:
    """Returns how much each slot matters, by each measure.

    Args:
      prompt: the soft prompt on the host, in either form of `language.soft_prompt`.
      measures: by name, functions from a prompt to one value per user, higher is better.
      seed: seed of the bootstrap.

    Returns:
      One row per slot (from 0), replacement and measure, with the fields of `changed` against the whole prompt. A prompt of
      one slot has no others to take the mean of, and is only replaced by zero.
    """
    length = slot_count(prompt)
    rows = []
    for name, measure in measures.items():
        before = measure(prompt)
        for replacement in REPLACEMENTS if length > 1 else ("zero",):
            for slot in range(length):
                after = measure(without_slot(prompt, slot, replacement))
                found = changed(before, after, seed=seed)
                rows.append({"slot": slot, "replaced_by": replacement, "measure": name, **found})
    return rows


def slot_count(prompt: Any) -> int:
    """Returns K, the number of slots."""
    return int(prompt["up"].shape[1] if isinstance(prompt, Mapping) else len(prompt))


def without_slot(prompt: Any, slot: int, replacement: str) -> Any:
    """Returns a copy of the prompt in which one slot is replaced.

    Args:
      prompt: the soft prompt on the host.
      slot: index of the slot, from 0.
      replacement: one of `REPLACEMENTS`.
    """
    if not isinstance(prompt, Mapping):
        return _replaced(prompt, slot, replacement)
    found = jax.tree.map(np.array, dict(prompt))
    found["up"] = np.moveaxis(_replaced(np.moveaxis(found["up"], 1, 0), slot, replacement), 0, 1)
    if "shared" in found:
        found["shared"] = _replaced(found["shared"], slot, replacement)
    return found


def _replaced(
    slots: Float[np.ndarray, "K ..."], slot: int, replacement: str
) -> Float[np.ndarray, "K ..."]:
    found = np.array(slots)
    others = np.delete(found, slot, axis=0)
    found[slot] = others.mean(axis=0) if replacement == "mean" else 0
    return found
