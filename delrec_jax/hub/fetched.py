"""Fetches a shared folder by its name: only the files that its `delrec.json` lists, all from one commit."""

import re
from collections.abc import Mapping
from pathlib import Path

from delrec_jax.errors import UserError
from delrec_jax.files import expanded
from delrec_jax.hub.manifest import MANIFEST, read_manifest
from delrec_jax.hub.opened import FolderParts
from delrec_jax.hub.refusals import told
from delrec_jax.serving.recommender import Recommender

_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def is_shared(place: str) -> bool:
    """Returns whether this names a shared folder, here or on the hub, and not a workdir.

    On the hub it is USER/NAME, unless there is a folder USER here.
    """
    path = expanded(place)
    if path.exists():
        return (path / MANIFEST).is_file()
    # A run that is misspelled must not become a stranger's model: runs/nope is none where there is a folder runs.
    return _NAME.fullmatch(place) is not None and not path.parent.is_dir()


def open_shared(
    place: str,
    *,
    revision: str | None = None,
    base: str = "",
    titles: Mapping[str, str] | None = None,
) -> Recommender:
    """Opens a shared folder; nothing in it is changed, and no code or pickle is read.

    Args:
      place: a folder that `delrec export --format=hub` wrote, or USER/NAME of one on the hub.
      revision: a branch, tag or commit on the hub; None = its main branch.
      base: a folder or hub name of the language model, where it is not where the folder says.
      titles: titles by item id, for a folder without titles.

    Raises:
      UserError: there is none, it cannot be fetched, or it is damaged or of another version.
    """
    path = expanded(place)
    if path.exists() and revision:
        raise UserError(f"{place}: a folder on this machine, which has no revision={revision}")
    folder = path if path.exists() else fetch(place, revision)
    return Recommender(FolderParts(folder, place=place, base=base, titles=titles))


def fetch(name: str, revision: str | None = None) -> Path:
    """Returns the folder of the hub's cache that holds a shared folder; HF_ENDPOINT and HF_HUB_OFFLINE are respected.

    Raises:
      UserError: it cannot be fetched, or is not such a folder.
    """
    if not _NAME.fullmatch(name):
        raise UserError(f"{name}: no such folder, and not USER/NAME of a model on the hub either")
    # Imported late, because the import is slow.
    from huggingface_hub import hf_hub_download, snapshot_download

    with told(f"{name}: no such folder here, and"):
        first = Path(hf_hub_download(name, MANIFEST, revision=revision))
        listed = [MANIFEST, *read_manifest(first).files]
        commit = first.parent.name  # both from one commit
        return Path(snapshot_download(name, revision=commit, allow_patterns=listed))
