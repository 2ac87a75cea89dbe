"""`delrec.json`, the list of what a shared folder holds: read strictly, before anything else in the folder is opened."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from delrec_jax.config.tree import build
from delrec_jax.errors import UserError, one_line
from delrec_jax.files import file_hash, read_object, write_text

MANIFEST = "delrec.json"
CARD = "README.md"
FORMAT = 1
"""Increased when older versions of the package could not read a folder."""

_NAMES = re.compile(
    r"(config|catalogue|results)\.json|(systems|teachers)\.safetensors"
    r"|tokenizer/\w+\.json|base/[\w-]+(\.safetensors\.index)?\.json|base/[\w-]+\.safetensors"
)
"""The files that a folder may list; no other is ever fetched or read."""

_FOLDERS = ("tokenizer", "base")


@dataclass(frozen=True)
class SharedBase:
    """The language model below prompt and adapters.

    Attributes:
      name: its name on a hub, or that of the folder that it was in; "" if it is part of this folder.
      commit: its commit on the hub; "" if it was not fetched from there.
      sha256: `language.hub.fingerprint` of its files; "" if it is part of this folder.
    """

    name: str
    commit: str
    sha256: str


@dataclass(frozen=True)
class SharedSystem:
    """A system of the language model, whose tensors are in systems.safetensors below its name.

    Attributes:
      parts: those of `prompt`, `adapters` and `readout` that it has; without a prompt, its texts have no slots.
      step: the step of training that validation selected; -1: none.
      beside: `teacher` if it was tuned beside the teacher's scores.
    """

    parts: tuple[str, ...]
    step: int
    beside: str


@dataclass(frozen=True)
class Manifest:
    """What a folder holds.

    Attributes:
      format: `FORMAT` of the version that wrote it.
      version: that version of the package.
      base: the language model.
      systems: systems of the language model, by name.
      teachers: recommenders whose parameters are in teachers.safetensors.
      hybrids: weights of the hybrids of these, by name.
      titles_sha256: hash of the catalogue's titles (`catalogue.titles_hash`).
      files: SHA-256 of each file, by its name in the folder.
    """

    format: int
    version: str
    base: SharedBase
    systems: Mapping[str, SharedSystem]
    teachers: tuple[str, ...]
    hybrids: Mapping[str, Mapping[str, float]]
    titles_sha256: str
    files: Mapping[str, str]


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes `delrec.json`."""
    write_text(folder / MANIFEST, json.dumps(asdict(manifest), indent=1) + "\n")


def read_manifest(file: Path) -> Manifest:
    """Reads `delrec.json`.

    Raises:
      UserError: there is none, it was made by a newer version, a key or a file's name is unknown, or a type is wrong.
    """
    found = read_part(file)
    if type(version := found.get("format")) is not int or version < 1:
        raise UserError(f"{file}: no format number there; {remedy(file)}")
    if version > FORMAT:
        raise UserError(
            f"{file}: of format {version}, and this version of delrec_jax reads formats up to {FORMAT}: upgrade delrec_jax"
        )
    known = {field.name for field in fields(Manifest)}
    for key in sorted(known ^ set(found)):
        what = "an unknown key" if key in found else "a missing key"
        raise UserError(f"{file}: {key!r} is {what}; {remedy(file)}")
    try:
        manifest: Manifest = build(Manifest, found)
    except (UserError, TypeError) as error:
        raise UserError(f"{file}: {one_line(error)}; {remedy(file)}") from error
    for name in manifest.files:
        if not _NAMES.fullmatch(name):
            raise UserError(f"{file}: lists the file {name!r}, which no such folder has")
    return manifest


def check_files(folder: Path, manifest: Manifest) -> None:
    """Checks that every listed file is there, as it was written, and that nothing leads out of the folder.

    Raises:
      UserError: a file is missing or changed, or a link to another place; or a folder below has a file that is not listed.
    """
    for part in _FOLDERS:
        for file in (folder / part).rglob("*"):
            # The libraries that read these folders look for files of their own accord.
            if not file.is_dir() and file.relative_to(folder).as_posix() not in manifest.files:
                raise UserError(
                    f"{file}: {MANIFEST} does not list it; remove it, or {remedy(file)}"
                )
    for name in (MANIFEST, CARD, *manifest.files):
        if not _stays(folder, folder / name):
            raise UserError(
                f"{folder / name}: a link to {os.path.realpath(folder / name)}, outside the folder; {remedy(folder / name)}"
            )
    for name, expected in manifest.files.items():
        file = folder / name
        if not file.is_file():
            raise UserError(f"{file}: not there, although {MANIFEST} lists it; {remedy(file)}")
        if (found := file_hash(file)) != expected:
            raise UserError(
                f"{file}: damaged or changed: its SHA-256 is {found}, {MANIFEST} says {expected}; {remedy(file)}"
            )


def read_part(file: Path) -> dict[str, Any]:
    """Reads the object in a JSON file of a shared folder.

    Raises:
      UserError: no such file, or no JSON object in it.
    """
    what = "give a folder that `delrec export --format=hub` wrote, or the name of one on the hub"
    return read_object(file, missing=what, remedy=remedy(file))


def _stays(folder: Path, file: Path) -> bool:
    """Whether a file's content is in the folder, or where the hub's cache has that of its folders: CACHE/MODEL/blobs."""
    homes = [folder.resolve()]
    if folder.parent.name == "snapshots":
        homes.append(folder.resolve().parents[1] / "blobs")
    place = Path(os.path.realpath(file))  # not resolve(), which fails at a link to itself
    return any(place.is_relative_to(home) for home in homes)


def remedy(file: Path) -> str:
    """Returns what to do about a file that is not as it was written."""
    return f"fetch or export {'it' if file.name == MANIFEST else 'the folder'} again"
