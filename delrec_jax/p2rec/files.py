"""The files that P2Rec's stages pass to one another through the workdir.

preference/seed-S/     categories.safetensors (and a JSON file with titles), model/ (projection and adapters)
preference/parse.json  what was parsed, and how well
augmented/embeddings/  untuned.safetensors, seed-S/{tuned,shuffled,random}.safetensors
augmented/augment.json the trained recommenders and their validation
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from delrec_jax.distributed import on_main
from delrec_jax.errors import UserError
from delrec_jax.files import whole
from delrec_jax.p2rec.categories import Categories, nearest_items
from delrec_jax.p2rec.cells import RANDOM, SHUFFLED, UNTUNED
from delrec_jax.training.checkpoints import load_tree, save_tree
from delrec_jax.workdir.recommenders import AUGMENTED
from delrec_jax.workdir.workspace import Workspace

_TITLES = 10  # titles per category, stored for readers


def seed_folder(ws: Workspace, seed: int) -> Path:
    """The folder of `parse` for one seed."""
    return ws.folder("parse") / f"seed-{seed}"


def save_categories(
    ws: Workspace,
    seed: int,
    categories: Categories,
    vectors: np.ndarray,
    *,
    titles: tuple[str, ...],
    counts: np.ndarray,
) -> None:
    """Stores the latent categories of one seed and, for readers, their shares and the titles nearest to their centers.

    Args:
      ws: the workdir.
      seed: seed of the grouping.
      categories: the grouping.
      vectors: float [I, D], the vectors that were grouped.
      titles: titles of the catalogue.
      counts: int [I], training interactions of each item.
    """
    rows = [
        {
            "category": number,
            "size": int(categories.sizes[number]),
            "share": float(counts[categories.of_item == number].sum() / counts.sum()),
            "titles": [titles[item] for item in items],
        }
        for number, items in enumerate(nearest_items(vectors, categories, _TITLES))
    ]
    folder = seed_folder(ws, seed)
    on_main(lambda: folder.mkdir(parents=True, exist_ok=True))
    arrays = {"of_item": categories.of_item, "centres": categories.centres}
    save_tree(folder / "categories.safetensors", arrays, {"categories": rows})


def load_categories(ws: Workspace, seed: int) -> Categories:
    """The latent categories of one seed."""
    tree, _ = load_tree(seed_folder(ws, seed) / "categories.safetensors")
    return Categories(tree["of_item"], tree["centres"])


def load_parser(ws: Workspace, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Projection and (if the LM was tuned) adapters of one seed, and the description of their training."""
    return load_tree(seed_folder(ws, seed) / "model" / "result.safetensors")


def embeddings_path(ws: Workspace, system: str, seed: int) -> Path:
    """The file with the embeddings of a system."""
    folder = ws.folder("augment") / "embeddings"
    if system == UNTUNED:  # the base model has no seed
        return folder / "untuned.safetensors"
    names = {AUGMENTED: "tuned", SHUFFLED: "shuffled", RANDOM: "random"}
    return folder / f"seed-{seed}" / f"{names[system]}.safetensors"


def save_embeddings(path: Path, vectors: np.ndarray, *, ids: tuple[str, ...], origin: str) -> None:
    """Writes one vector per item.

    Args:
      path: a `.safetensors` file, written atomically.
      vectors: float32 [I, E].
      ids: the source's item ids, in the order of the rows; stored as JSON in the file's metadata, under `description`.
      origin: how they were made, for readers.
    """
    # A single entry, as safetensors writes several in an order that differs from run to run.
    description = json.dumps({"item_ids": list(ids), "origin": origin})
    embeddings = np.ascontiguousarray(vectors, np.float32)
    with whole(path) as partial:
        save_file({"embeddings": embeddings}, partial, {"description": description})


def load_embeddings(path: Path, *, ids: tuple[str, ...]) -> np.ndarray:
    """Reads a file from `save_embeddings`, which must be of this catalogue.

    Raises:
      UserError: the file is missing or damaged, or is of another catalogue.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            found = json.loads((file.metadata() or {}).get("description", "{}"))
            vectors: np.ndarray = file.get_tensor("embeddings")
    except (OSError, SafetensorError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); delete it and run `delrec augment` again"
        ) from error
    stored = tuple(found.get("item_ids", ()))
    if stored != tuple(ids):
        raise UserError(
            f"{path}: its embeddings are of {len(stored)} items that are not the catalogue's {len(ids)}; run `delrec augment` "
            "with --update to make them for this catalogue"
        )
    return vectors
