"""200 damaged shared folders: refused with the file and the remedy, or they answer as the undamaged one does."""

import broken_folders
import pytest
from shared_runs import shared
from tiny_storefront import delrec


@pytest.fixture(scope="module")
def whole(tiny_run, tmp_path_factory):
    """A shared folder, and what it answers."""
    with shared(tmp_path_factory, "fuzzed_folder") as (folder, ready):
        if not ready:
            delrec("export", f"--workdir={tiny_run}", "--format=hub", f"--output={folder}")
    return folder, broken_folders.answers(folder)


def maker(whole, place):
    folder, expected = whole
    return lambda seed, n: broken_folders.damaged_folder(seed, n, folder, place / "case", expected)


@pytest.mark.slow
def test_damaged_folders(fuzz, whole, tmp_path):
    fuzz("shared folders", 200, maker(whole, tmp_path))


def test_a_sample(fuzz, whole, tmp_path):
    fuzz("shared folders", 12, maker(whole, tmp_path), widened=False)
