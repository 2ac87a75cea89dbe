"""200 damaged workdirs: a command that uses one says which file is damaged, or does what it does with the whole one."""

import broken_workdirs
import pytest
from tiny_storefront import CONFIG, TINY, delrec


@pytest.fixture(scope="module")
def runs(tiny_run, tmp_path_factory):
    """The tiny run, and what another seed makes of its stages without a language model."""
    folder = tmp_path_factory.mktemp("workdirs")
    flags = ("--config.seed=5", "--config.data.seed=5")
    for stage in ("prepare", "teach", "fit"):
        delrec(stage, CONFIG, f"--workdir={folder / 'other'}", *TINY, *flags)
    return broken_workdirs.Runs(tiny_run, folder / "other", folder)


@pytest.mark.slow
def test_damaged_workdirs(fuzz, runs):
    fuzz("workdirs", 200, lambda seed, n: broken_workdirs.damaged_workdir(seed, n, runs))


def test_a_sample(fuzz, runs):
    """Of files that are read, so that most are refused at once."""
    fuzz(
        "workdirs",
        8,
        lambda seed, n: broken_workdirs.damaged_workdir(seed, n, runs, command="export"),
        widened=False,
    )
