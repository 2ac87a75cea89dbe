"""A fake hub, and what the tiny run exports for it."""

import pytest
from hub_fake import hub
from shared_runs import shared
from tiny_storefront import delrec

__all__ = ["hub"]


@pytest.fixture(scope="session")
def shared_folder(tiny_run, tmp_path_factory):
    """The tiny run as a folder to share; tests that change it make a copy."""
    with shared(tmp_path_factory, "shared_folder") as (folder, ready):
        if not ready:
            flags = ("--format=hub", "--license=apache-2.0", f"--output={folder}")
            delrec("export", f"--workdir={tiny_run}", *flags)
    return folder
