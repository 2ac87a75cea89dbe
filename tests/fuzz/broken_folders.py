"""Damaged shared folders: one file changed on its way, or by its maker, whose list then has the hash of the changed file."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from broken_weights import header_lies, larger_vocabulary, tensor_changed, value_of_another_kind
from damaged_bytes import BINARY_DAMAGES, PLACE_DAMAGES, TEXT_DAMAGES
from verdicts import Case, choice, generator

import delrec_jax
from delrec_jax.files import file_hash
from delrec_jax.hub.manifest import CARD, MANIFEST

NOT_READ = "for readers on the hub; nothing is made from it"
OF_ITS_MAKER = "another valid content with its own hash is another model"

HISTORIES = [np.array(items, np.int32) for items in ([0, 1, 2], [5])]


def answers(folder: Path) -> str:
    """What every system of a folder answers."""
    shared = delrec_jax.load(folder)
    found: dict[str, Any] = {}
    for system in shared.systems:
        ranked = shared.ranked(HISTORIES, k=5, system=system)
        found[system] = [np.asarray(part).tolist() for part in ranked]
    return json.dumps(found)


def damaged_folder(seed: int, number: int, whole: Path, folder: Path, expected: str) -> Case:
    """One file of a shared folder, damaged.

    Args:
      seed: of the case.
      number: of the case.
      whole: an undamaged folder.
      folder: where the damaged one is made.
      expected: `answers` of the undamaged one.
    """
    rng = generator(seed, "folders", number)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    name = choice(rng, [*names, MANIFEST, "config.json", "systems.safetensors"])
    path, by_maker = folder / name, rng.random() < 0.5
    how = _damage(path, rng)
    listed = by_maker and name not in (MANIFEST, CARD) and path.is_file() and not path.is_symlink()
    if listed:
        rehashed(folder, name)
    return Case(
        label=f"{name}: {how}{', listed' if listed else ''}",
        attempt=lambda: answers(folder),
        names=[str(folder)],
        same=lambda found: found == expected,
        rule=_rule(name, how, listed=listed),
    )


def rehashed(folder: Path, name: str) -> None:
    """Makes the list's hash of a file that of the file."""
    manifest = json.loads((folder / MANIFEST).read_text())
    if name in manifest["files"]:
        manifest["files"][name] = file_hash(folder / name)
        (folder / MANIFEST).write_text(json.dumps(manifest))


def _rule(name: str, how: str, *, listed: bool) -> str:
    if name == CARD:
        return NOT_READ
    finite = not how.endswith((": nan", ": inf"))
    return OF_ITS_MAKER if (listed or name == MANIFEST) and finite else ""


def _damage(path: Path, rng: np.random.Generator) -> str:
    own: list[Callable[[Path, np.random.Generator], str]] = []
    if path.suffix == ".safetensors":
        own = [header_lies, tensor_changed]
    elif path.name == "tokenizer.json":
        own = [value_of_another_kind, larger_vocabulary]
    elif path.suffix == ".json" and isinstance(json.loads(path.read_text()), dict):
        own = [value_of_another_kind]
    if own and rng.random() < 0.6:
        return choice(rng, own)(path, rng)
    if rng.random() < 0.2:
        change: Callable[[Path], None] = choice(rng, PLACE_DAMAGES)
        change(path)
        return change.__name__
    damage = choice(rng, (*BINARY_DAMAGES, *TEXT_DAMAGES))
    path.write_bytes(damage(path.read_bytes(), rng))
    return str(damage.__name__)
