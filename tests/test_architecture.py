"""The arrows between the rooms and the size of things, and that each check can fail."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import delrec_jax

PACKAGE = "delrec_jax"
ROOT = Path(delrec_jax.__file__).parent

# Modules that every room may import.
GROUND = {
    *("errors", "prng", "distributed", "plugins", "batches", "files", "padding", "dropout"),
    *("random_items", "precision", "endings", "ready_configs", "addresses", "printable", "choices"),
}
LOW = {"data", "teachers", "language", "training", "evaluation"}  # never import one another
METHODS = {"delrec", "p2rec", "pretraining"}  # nor do these
ROOMS = {  # room -> what it may import beside itself and the ground
    **{room: set() for room in LOW},
    "analysis": {"evaluation.records", "evaluation.systems"},
    "config": LOW,
    "workdir": LOW | {"config"},
    **{room: LOW | {"analysis", "config", "workdir"} for room in METHODS},
    "stages": LOW | METHODS | {"analysis", "config", "workdir"},
    "serving": LOW | METHODS | {"config", "workdir", "stages"},
    "app": {"analysis", "serving", "teachers", "workdir"},
    "hub": LOW | {"analysis", "config", "delrec", "serving", "stages", "workdir"},
    "planning": LOW | METHODS | {"config", "workdir"},
    "results": {
        *("evaluation", "analysis", "training.writers", "workdir.kept_files"),
        *("workdir.json_files", "workdir.stored_settings", "workdir.workspace"),
    },
    "studies": LOW | METHODS | {"analysis", "config", "workdir", "stages", "planning", "results"},
    "command_flags": {"workdir.stage_table"},
    "command_help": {"command_flags", "workdir.stage_table"},
    "command_line": {"command_flags", "config"},
    "api": {*("data", "config", "hub", "serving", "stages", "workdir")},
    "": {"api", "serving"},  # names that are loaded when first used
    "workdir_commands": {"workdir", "stages", "serving", "app", "hub"},
    "hub_commands": {"hub", "workdir_commands"},
    "cli": {
        *("command_help", "command_line", "config", "hub_commands", "workdir", "workdir_commands"),
        *("planning", "results", "studies"),
    },
    "__main__": {"cli"},
}
NEVER = {"torch", "peft", "tensorflow", "clu", "pandas"}
TFDS_HOME = "data.corpora"
NAMELESS = {"utils.py", "util.py", "common.py", "helpers.py", "misc.py"}
MAX_FILE, MAX_FUNCTION = 300, 60
KNOW_FAMILIES = {"", "language", "config", "pretraining"}  # may name a family of language models


def files(root: Path) -> Iterator[tuple[str, Path]]:
    """Dotted name inside the package ("" for its own __init__) and path of each module."""
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(name: str, path: Path) -> set[str]:
    """Absolute dotted names of all that a module imports, inside functions too."""
    package = [PACKAGE, *name.split(".")] if name else [PACKAGE]
    if path.name != "__init__.py":
        package = package[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            # `from room import module` names the module, `from module import f` does not
            # hurt: "module.f" starts with "module".
            found |= {f"{source}.{alias.name}" for alias in node.names}
    return found


def within(target: str, place: str) -> bool:
    return target == place or target.startswith(place + ".")


def forbidden_inside(name: str, target: str) -> bool:
    """Whether the module `name` may not import `target`, both inside the package."""
    room = name.split(".")[0]
    allowed = GROUND | ROOMS.get(room, set()) | {room}
    return not any(within(target, place) for place in allowed)


def wrong_arrows(root: Path) -> list[str]:
    wrong = []
    for name, path in files(root):
        for target in sorted(imports(name, path)):
            inside = target.removeprefix(PACKAGE + ".")
            if inside != target and forbidden_inside(name, inside):
                wrong.append(f"{name} -> {inside}")
    return wrong


def wrong_libraries(root: Path) -> list[str]:
    wrong = []
    for name, path in files(root):
        for target in sorted(imports(name, path)):
            library = target.split(".")[0]
            stray = library == "tensorflow_datasets" and not within(name, TFDS_HOME)
            if library in NEVER or stray:
                wrong.append(f"{name} -> {library}")
    return wrong


def strangers(root: Path) -> list[str]:
    """Rooms and modules that the table above does not know, so that none escapes it."""
    known = GROUND | set(ROOMS) | {""}
    return sorted({name.split(".")[0] for name, _ in files(root)} - known)


def oversized(root: Path) -> list[str]:
    wrong = []
    for name, path in files(root):
        text = path.read_text()
        if text.count("\n") > MAX_FILE:
            wrong.append(f"{name}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > MAX_FUNCTION:
                    wrong.append(f"{name}.{node.name}: {length} lines")
    return wrong


def nameless(root: Path) -> list[str]:
    return [path.name for _, path in files(root) if path.name in NAMELESS]


def named_families(root: Path) -> list[str]:
    """Lines that name T5 where any family of language models must do."""
    return [
        f"{name}: line {number}"
        for name, path in files(root)
        if name.split(".")[0] not in KNOW_FAMILIES
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if re.search("t5", line, re.IGNORECASE)
    ]


CHECKS = [wrong_arrows, wrong_libraries, strangers, oversized, nameless, named_families]


@pytest.mark.parametrize("check", CHECKS)
def test_the_package_keeps_the_rule(check):
    assert check(ROOT) == []


LONG_FUNCTION = "def long():\n" + "    x = 1\n" * 60
BAD_TREES = [
    (
        wrong_arrows,
        "data/a.py",
        "from delrec_jax.teachers import lists",
        "data.a -> teachers.lists",
    ),
    (wrong_arrows, "data/a.py", "from delrec_jax import training", "data.a -> training"),
    (
        wrong_arrows,
        "data/corpora/a.py",
        "from ...language import t5",
        "data.corpora.a -> language.t5",
    ),
    (wrong_arrows, "teachers/__init__.py", "from ..data import x", "teachers -> data.x"),
    (wrong_arrows, "training/a.py", "def f():\n    import delrec_jax.data", "training.a -> data"),
    (wrong_arrows, "evaluation/a.py", "import delrec_jax.config", "evaluation.a -> config"),
    (wrong_arrows, "data/a.py", "from ..config import tree", "data.a -> config.tree"),
    (wrong_arrows, "delrec/a.py", "from delrec_jax.p2rec import parse", "delrec.a -> p2rec.parse"),
    (wrong_arrows, "p2rec/a.py", "from ..delrec import tune", "p2rec.a -> delrec.tune"),
    (
        wrong_arrows,
        "pretraining/a.py",
        "from delrec_jax.delrec.tune import x",
        "pretraining.a -> delrec.tune.x",
    ),
    (wrong_arrows, "workdir/a.py", "from ..delrec import tune", "workdir.a -> delrec.tune"),
    (wrong_arrows, "workdir/a.py", "from .. import stages", "workdir.a -> stages"),
    (wrong_arrows, "p2rec/a.py", "import delrec_jax.stages", "p2rec.a -> stages"),
    (wrong_arrows, "stages/a.py", "from delrec_jax import planning", "stages.a -> planning"),
    (wrong_arrows, "config/a.py", "from ..workdir import session", "config.a -> workdir.session"),
    (wrong_arrows, "errors.py", "from delrec_jax.data import splits", "errors -> data.splits"),
    (
        wrong_arrows,
        "analysis/a.py",
        "from delrec_jax.evaluation import ranking",
        "analysis.a -> evaluation.ranking",
    ),
    (wrong_arrows, "config/a.py", "import delrec_jax.delrec.tune", "config.a -> delrec.tune"),
    (wrong_arrows, "stages/a.py", "from delrec_jax import cli", "stages.a -> cli"),
    (wrong_arrows, "stages/a.py", "import delrec_jax.results", "stages.a -> results"),
    (wrong_arrows, "results/a.py", "from ..workdir import session", "results.a -> workdir.session"),
    (wrong_arrows, "results/a.py", "from delrec_jax import studies", "results.a -> studies"),
    (wrong_arrows, "studies/a.py", "from delrec_jax import cli", "studies.a -> cli"),
    (wrong_libraries, "language/a.py", "import torch.nn", "language.a -> torch"),
    (wrong_libraries, "stages/a.py", "def f():\n    from peft import x", "stages.a -> peft"),
    (
        wrong_libraries,
        "data/corpora/a.py",
        "import tensorflow as tf",
        "data.corpora.a -> tensorflow",
    ),
    (
        wrong_libraries,
        "data/a.py",
        "import tensorflow_datasets as tfds",
        "data.a -> tensorflow_datasets",
    ),
    (strangers, "attic/a.py", "", "attic"),
    (oversized, "data/a.py", "x = 1\n" * 301, "data.a: 301 lines"),
    (oversized, "data/a.py", LONG_FUNCTION, "data.a.long: 61 lines"),
    (nameless, "data/utils.py", "", "utils.py"),
    (named_families, "workdir/a.py", "x = 1\ny = lm.t5.d_model", "workdir.a: line 2"),
    (named_families, "p2rec/a.py", "from delrec_jax.language.t5 import T5", "p2rec.a: line 1"),
]


@pytest.mark.parametrize(("check", "place", "text", "expected"), BAD_TREES)
def test_the_check_sees_a_bad_tree(tmp_path, check, place, text, expected):
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).write_text(text)
    assert check(tmp_path) == [expected]


GOOD_TREE = {
    "errors.py": "",
    "config/teacher.py": "from delrec_jax.teachers.sasrec import SASRecConfig\nfrom . import tree",
    "config/tree.py": "from delrec_jax.errors import UserError",
    "workdir_commands.py": "from delrec_jax.stages import pipeline",
    "cli.py": "from delrec_jax import workdir_commands\nfrom delrec_jax.planning import plan",
    "stages/pipeline.py": "from delrec_jax.delrec import tune\nfrom delrec_jax.p2rec import parse",
    "delrec/tune.py": "from delrec_jax import config, data\nfrom ..training import loop",
    "workdir/session.py": "from delrec_jax import config\nfrom delrec_jax.distributed import join",
    "data/corpora/a.py": "import tensorflow_datasets as tfds\nfrom delrec_jax.errors import E",
    "data/splits.py": "from delrec_jax.data.interactions import x\nfrom . import candidates",
    "pretraining/a.py": "from delrec_jax.language.t5 import T5",
    "analysis/a.py": "from delrec_jax.evaluation.records import read\n" + "x = 1\n" * 299,
    "training/a.py": LONG_FUNCTION.replace("    x = 1\n", "", 1),
}


@pytest.mark.parametrize("check", CHECKS)
def test_the_check_passes_a_good_tree(tmp_path, check):
    for place, text in GOOD_TREE.items():
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(text)
    assert check(tmp_path) == []


# Hides the blocked libraries from every finder, so that this holds on machines that have them
# (where transformers would import torch) as on those that do not.
IMPORT_ALL = """
import importlib, pkgutil, sys

class Hiding:
    def __init__(self, finder): self.finder = finder
    def __getattr__(self, name): return getattr(self.finder, name)
    def find_spec(self, name, *rest):
        return None if name.split(".")[0] in {blocked!r} else self.finder.find_spec(name, *rest)

sys.meta_path = [Hiding(finder) for finder in sys.meta_path]
package = importlib.import_module({package!r})
early = sorted({{"jax", "numpy", "transformers"}} & set(sys.modules))
assert not early, early
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if not module.name.endswith("__main__"): importlib.import_module(module.name)
"""


def import_all(package: str, folder: Path) -> subprocess.CompletedProcess[str]:
    code = IMPORT_ALL.format(blocked=sorted(NEVER), package=package)
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )


def test_every_module_imports_without_torch_and_tensorflow():
    result = import_all(PACKAGE, ROOT.parent)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("place", "text", "message"),
    [
        ("room.py", "import torch", "No module named 'torch'"),
        ("room.py", "import pandas.core", "No module named 'pandas'"),
        ("__init__.py", "import numpy", "AssertionError: ['numpy']"),
    ],
)
def test_the_import_check_can_fail(tmp_path, place, text, message):
    package = tmp_path / "fake_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / place).write_text(text)
    result = import_all("fake_package", tmp_path)
    assert result.returncode != 0
    assert message in result.stderr
