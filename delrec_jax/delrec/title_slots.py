"""A slot after each title that holds the item's vector in the teacher: what texts read with `distill.prompt=titles` (LLaRA).

    slot_i = W2 gelu(W1 t_i + b1) + b2,     t_i: the row of item i in the teacher's item table, standardized

The teacher's table is frozen, the two-layer projector trains: in stage 1 as any prompt does, or, as in LLaRA, together with the
adapters on the next item (`tune.train_prompt`; the control `random` then begins with a projector that nobody has trained).
All items are projected once per step, [I, D]: row i is the soft prompt's row i, and texts refer to it after the title of item
i, in the history and wherever else they name an item.

The vectors come from the training part alone, as the teacher does. An item without a training interaction has a vector of
zeros, which is the mean of the others: what the teacher holds of it was never trained on anybody.

Differences from LLaRA: the language model, the verbalizer that scores its answer, and the form of the text are those of the
config; vectors are standardized, so that one start fits teachers of any scale.

Source: Liao et al., "LLaRA: Large Language-Recommendation Assistant", SIGIR 2024.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from delrec_jax import prng
from delrec_jax.delrec import files
from delrec_jax.distributed import as_main_sees
from delrec_jax.teachers.item_table import GELU_SQUARE
from delrec_jax.teachers.network import NetworkTeacher
from delrec_jax.training.checkpoints import load_tree, save_tree
from delrec_jax.workdir.language_model import Language
from delrec_jax.workdir.prepared import Data
from delrec_jax.workdir.recommenders import load_teacher
from delrec_jax.workdir.workspace import Workspace

VECTORS = "slot_vectors"
"""The key of the items' vectors [I, E] in what training steps read and never change."""


def init_projector(table: Float[Array, "V D"], width: int, key: jax.Array) -> dict[str, Any]:
    """Returns an untrained projector, whose slots are about as large as rows of the token table; float32.

    Args:
      table: the token table of the language model.
      width: E, that of the teacher's vectors.
      key: random key.
    """
    first, second = jax.random.split(key)
    inner = outer = table.shape[1]
    deviation = table.std().astype(jnp.float32) * (GELU_SQUARE * inner) ** -0.5
    return {
        "first": {
            "weight": width**-0.5 * jax.random.normal(first, (width, inner)),
            "bias": jnp.zeros(inner),
        },
        "second": {
            "weight": deviation * jax.random.normal(second, (inner, outer)),
            "bias": jnp.zeros(outer),
        },
    }


def project(projector: Any, vectors: Float[Array, "I E"]) -> Float[Array, "I D"]:
    """Returns the slot of each item."""
    first, second = projector["first"], projector["second"]
    inner = jax.nn.gelu(vectors @ first["weight"] + first["bias"])
    slots: Array = inner @ second["weight"] + second["bias"]
    return slots


def slots_of(prompt: Any, vectors: Float[Array, "I E"] | None) -> Any:
    """Returns a prompt as texts read it: the slot of each item, or, without vectors, the prompt as it is."""
    return prompt if vectors is None else jax.jit(project)(prompt, vectors)


def item_vectors(
    table: Float[np.ndarray, "I E"], known: Bool[np.ndarray, " I"]
) -> Float[np.ndarray, "I E"]:
    """Returns the vectors of known items with mean 0 in each column and variance 1 over all numbers, and zeros for the others.

    Args:
      table: the teacher's item table.
      known: the items that occur in the training part.

    Returns:
      float32 [I, E].
    """
    rows = np.asarray(table, np.float64)[known]
    rows = rows - rows.mean(axis=0)
    found = np.zeros(table.shape, np.float32)
    found[known] = rows / max(float(rows.std()), np.finfo(np.float32).tiny)
    return found


def make_vectors(ws: Workspace, data: Data) -> None:
    """Stores the vectors that slots are made from, the teacher's or (`distill.slot_vectors`) random ones of the same shape.

    Raises:
      UserError: the teacher cannot be read.
    """
    path = files.slot_vectors_path(ws)
    if not ws.experiment.distill.titled or as_main_sees(path.exists):
        return
    teacher = load_teacher(ws, data)
    assert isinstance(teacher, NetworkTeacher)  # the config refuses others
    table = np.asarray(teacher.module.apply({"params": teacher.params}, method="table"))
    if ws.experiment.distill.slot_vectors == "random":
        table = prng.generator(ws.experiment.seed, "prompt/vectors").normal(size=table.shape)
    known = data.split.known_items(data.num_items)
    save_tree(path, {VECTORS: item_vectors(table, known)}, {})


def held_vectors(ws: Workspace, language: Language) -> dict[str, Any]:
    """Returns what `make_vectors` stored under `VECTORS`, on the devices; nothing if no slot follows a title."""
    if not ws.experiment.distill.titled:
        return {}
    tree, _ = load_tree(files.slot_vectors_path(ws))
    found: dict[str, Any] = language.put({VECTORS: tree[VECTORS]})
    return found


def read_prompt(ws: Workspace, language: Language, prompt: Any) -> Any:
    """Returns a stored prompt as texts read it, on the devices."""
    vectors = held_vectors(ws, language).get(VECTORS)
    return slots_of(language.put({"prompt": prompt})["prompt"], vectors)
