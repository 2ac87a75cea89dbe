"""Most benchmarks are run by hand: what they import from the package must still be there."""

import ast
import importlib
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def missing(text: str) -> list[str]:
    """The names that a script imports from the package and that are not there, inside functions too."""
    wrong = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("delrec_jax"):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [one.name for one in node.names if one.name.startswith("delrec_jax")]
        else:
            continue
        wrong += [name for name in names if not exists(name)]
    return wrong


def exists(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    try:
        if not module or hasattr(importlib.import_module(module), attribute):
            return True
        importlib.import_module(name)
    except ModuleNotFoundError:
        return False
    return True


def test_all_that_benchmarks_import_from_the_package_exists():
    scripts = sorted(BENCHMARKS.rglob("*.py"))
    assert len(scripts) > 20
    wrong = {str(path): found for path in scripts if (found := missing(path.read_text()))}
    assert wrong == {}


@pytest.mark.parametrize(
    "line",
    [
        "from delrec_jax.workdir.workspace import stored_settings",
        "from delrec_jax.workdir import no_such_module",
        "def f():\n    import delrec_jax.no_such_module",
    ],
)
def test_the_check_sees_a_name_that_is_gone(line):
    assert len(missing(line)) == 1
