"""200 damaged model directories and adapters: refused with the file and the remedy, or read as they were."""

import broken_weights
import pytest


@pytest.fixture(scope="module")
def wholes(tmp_path_factory):
    return broken_weights.wholes(tmp_path_factory.mktemp("wholes"))


def maker(folder, wholes):
    return lambda seed, n: broken_weights.damaged_directory(seed, n, folder / "case", wholes)


@pytest.mark.slow
def test_damaged_directories(fuzz, tmp_path, wholes):
    fuzz("weights and adapters", 200, maker(tmp_path, wholes))


def test_a_sample(fuzz, tmp_path, wholes):
    fuzz("weights", 24, maker(tmp_path, wholes), widened=False)
