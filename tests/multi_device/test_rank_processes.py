"""`delrec rank` by two processes: each makes its own parts, which are those of one process, byte for byte."""

import re
import shutil
from pathlib import Path

import polars as pl
import pytest
from rank_in_parts import PART
from tiny_storefront import delrec, open_workspace
from two_processes import DEADLINE, said, start

from delrec_jax.serving import bulk
from delrec_jax.workdir.prepared import load_data

SCRIPT = Path(__file__).with_name("rank_in_parts.py")


@pytest.fixture(scope="module")
def asked(tiny_run, tmp_path_factory):
    """The flags that ask about all 48 users, in three parts."""
    data = load_data(open_workspace(tiny_run))
    names = data.corpus.catalogue.ids
    rows = [[names[item] for item in history] for history in data.split.histories("test")]
    file = tmp_path_factory.mktemp("asked") / "histories.parquet"
    pl.DataFrame({"history": rows}).write_parquet(file)
    return f"--input={file}", "-k", "3", "--system=hybrid(delrec+teacher)"


@pytest.fixture(scope="module")
def alone(tiny_run, asked, tmp_path_factory):
    """The folder that one process writes."""
    output = tmp_path_factory.mktemp("alone") / "lists"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bulk, "PART", PART)
        delrec("rank", f"--workdir={tiny_run}", f"--output={output}", *asked)
    return output


# One part for two processes: one of them has none, and must not wait for what the other loads.
@pytest.mark.parametrize("missing", [(1, 2), pytest.param((1,), marks=pytest.mark.slow)])
def test_two_processes_go_on_with_the_parts_of_one(tiny_run, tmp_path, asked, alone, missing):
    output, log = tmp_path / "lists", tmp_path / "log"
    shutil.copytree(alone, output)
    for number in missing:
        (output / f"part-0000{number}.parquet").unlink()
    both = start("rank", tiny_run, log, f"--output={output}", *asked, script=SCRIPT)
    assert [one.wait(DEADLINE) for one in both] == [0, 0], said(log, 0) + said(log, 1)
    made = [re.findall(r"wrote part-0000(\d)", said(log, number)) for number in (0, 1)]
    assert made == [[str(number) for number in missing[turn::2]] for turn in (0, 1)]
    files = sorted(file.name for file in alone.iterdir())
    assert files == ["asked.json", *(f"part-0000{number}.parquet" for number in range(3))]
    assert files == sorted(file.name for file in output.iterdir())
    assert all((output / name).read_bytes() == (alone / name).read_bytes() for name in files)
