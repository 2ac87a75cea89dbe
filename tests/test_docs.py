"""The documentation's generated parts are what the code and the results say; README.md stays short; the tutorial is true."""

import importlib.util
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from readme_text import ROOT, commands

from delrec_jax.command_flags import FLAGS
from delrec_jax.command_help import COMMANDS, STAGE_NAMES
from delrec_jax.config import default_config, leaf_keys
from delrec_jax.workdir.stage_table import STAGES


def script(path, monkeypatch):
    """A script of the repository as a module, with those beside it importable as when it is run."""
    monkeypatch.syspath_prepend(str(path.parent))
    spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def reference(monkeypatch):
    return script(ROOT / "docs" / "reference" / "write.py", monkeypatch)


@pytest.mark.parametrize("name", ["config.md", "cli.md"])
def test_the_reference_is_what_the_code_says(reference, name):
    assert (reference.FOLDER / name).read_text() == reference.PAGES[name](), (
        "run python docs/reference/write.py"
    )


def test_every_key_of_the_config_has_a_default_and_a_meaning(reference):
    text = reference.config_page()
    rows = dict(re.findall(r"^\| `([\w.]+)` \| (.*) \|$", text, re.M))
    assert {*rows, *reference.SET_IN_CODE} == set(leaf_keys(default_config().to_dict()))
    assert [name for name, cells in rows.items() if cells.split(" | ")[1:] in ([""], [])] == []


@dataclass
class Sized:
    """Something with a size.

    Attributes:
      width, height: in pixels, of
        the whole.
      name: what it is called.

    More text: not an attribute.
    """

    width: int = 1
    height: int = 2
    name: str = ""
    silent: int = 0


def test_meanings_are_read_from_docstrings(reference):
    keys = list(reference.keys(Sized(), "sized."))
    assert [key.name for key in keys] == [
        "sized.width",
        "sized.height",
        "sized.name",
        "sized.silent",
    ]
    assert [key.meaning for key in keys] == [
        "in pixels, of the whole.",
        "in pixels, of the whole.",
        "what it is called.",
        "",
    ]


@pytest.mark.parametrize("name", ["delrec", "p2rec", "results"])
def test_the_figures_are_what_the_script_draws(monkeypatch, name):
    draw = script(ROOT / "benchmarks" / "figures" / "draw.py", monkeypatch)
    assert (draw.FOLDER / f"{name}.svg").read_text() == draw.FIGURES[name]().svg(), (
        "run make results"
    )


def test_the_readme_stays_short():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 120
    assert [line for line in lines if len(line) > 100] == []


def test_the_tutorial_names_the_stages_and_their_folders():
    text = (ROOT / "docs" / "tutorial.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| .* \| `(\w+)/` \|$", text, re.M))
    assert rows == {
        name: stage.folder for name, stage in STAGES["delrec"].items() if name != "baseline"
    }


def test_every_flag_that_is_described_is_of_a_command():
    named = {command for flag in FLAGS for command in flag.commands}
    assert named and named <= set(COMMANDS)
    assert all(flag.meaning for flag in FLAGS)


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in STAGE_NAMES[1:]])
def test_each_command_says_what_it_takes(capsys, command):
    from delrec_jax import cli

    cli.main([command, "--help"])
    shown = capsys.readouterr().out
    own = [flag.name for flag in FLAGS if command in flag.commands]
    assert all(f"--{name} " in shown for name in own) and "--config.KEY=VALUE" in shown
    assert shown.startswith(f"  delrec {'STAGE' if command in STAGE_NAMES else command} ")


def test_the_guides_have_a_page_in_the_site():
    nav = (ROOT / "mkdocs.yml").read_text()
    pages = [one.relative_to(ROOT / "docs") for one in (ROOT / "docs").rglob("*.md")]
    assert [str(page) for page in pages if str(page) not in nav] == []
    assert commands((ROOT / "README.md").read_text())[0].words == ("make", "demo")


def test_nothing_else_lies_beside_the_pages():
    kinds = {path.suffix for path in Path(ROOT / "docs").rglob("*") if path.is_file()}
    assert kinds <= {".md", ".svg", ".py", ".txt", ".ipynb", ".pyc"}
