"""`delrec push`: uploads a shared folder in one commit, so that a repository never holds a part of one.

The token is that of `hf auth login` or HF_TOKEN. A repository that holds something else is refused. One that holds an earlier
model of this kind gets the new one: files that are no longer part of it are removed, and its README.md is replaced.
"""

import re
from pathlib import Path
from typing import Any

from delrec_jax.errors import UserError, one_line
from delrec_jax.hub.card import PLACEHOLDER
from delrec_jax.hub.manifest import CARD, MANIFEST, check_files, read_manifest, remedy
from delrec_jax.hub.refusals import told
from delrec_jax.training.writers import say

_EVERYWHERE = (CARD, ".gitattributes")  # what a repository that was just made may hold


def check_repo(repo: str) -> None:
    """Checks the name of a repository, before anything is made for it.

    Raises:
      UserError: it is missing, or not of the form USER/NAME; or there is no token.
    """
    from huggingface_hub import get_token

    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", repo):
        raise UserError(f"--repo={repo}: give USER/NAME, where the model is put on the hub")
    if get_token() is None:
        raise UserError(
            f"--repo={repo}: no token for the hub: run `hf auth login`, or set HF_TOKEN to one that may write"
        )


def push(folder: Path, repo: str, *, private: bool = False) -> str:
    """Uploads a folder that `delrec export --format=hub` wrote.

    Args:
      folder: the folder.
      repo: USER/NAME; made if there is none.
      private: only its owner may see it; a public one is then refused.

    Returns:
      The address of the commit.

    Raises:
      UserError: the folder is damaged; there is no token, or the hub refuses it; the hub cannot be reached; or the repository
        holds something else.
    """
    check_repo(repo)
    manifest = read_manifest(folder / MANIFEST)
    check_files(folder, manifest)
    card = _card(folder, repo)
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi()
    with told(f"--repo={repo}:"):
        api.create_repo(repo, private=private or None, exist_ok=True)
        info = api.model_info(repo)
        there = _checked(info, repo, private=private)
        files = [MANIFEST, *manifest.files]
        operations: list[Any] = [CommitOperationAdd(CARD, card.encode())]
        operations += [CommitOperationAdd(name, str(folder / name)) for name in files]
        gone = there - {*files, *_EVERYWHERE}
        operations += [CommitOperationDelete(name) for name in sorted(gone)]
        made = api.create_commit(
            repo, operations, commit_message="A run of delrec_jax", parent_commit=info.sha
        )
    say(f"{repo}: {made.commit_url}")
    return str(made.commit_url)


def _card(folder: Path, repo: str) -> str:
    try:
        return (folder / CARD).read_text(encoding="utf-8").replace(PLACEHOLDER, repo)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder / CARD}: cannot be read ({one_line(error)}); {remedy(folder)}"
        ) from error


def _checked(info: Any, repo: str, *, private: bool) -> set[str]:
    """Returns the files of a repository that may be written to."""
    there = {one.rfilename for one in info.siblings or ()}
    if MANIFEST not in there and (others := sorted(there - {*_EVERYWHERE})):
        raise UserError(
            f"--repo={repo}: holds something else already ({', '.join(others[:3])}): give another name"
        )
    if private and not info.private:
        raise UserError(
            f"--repo={repo}: exists and is public, so --private cannot hold: make it private on the hub, or give another name"
        )
    return there
