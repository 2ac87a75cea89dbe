"""Docstrings and pages name code that exists: a file that was renamed leaves no old name behind."""

import ast
import re
from functools import cache

from readme_text import ROOT

from delrec_jax.config import default_config, leaf_keys

PLACES = ("delrec_jax", "configs", "benchmarks", "launch", "docs")
PACKAGE = ROOT / "delrec_jax"
FILES = {"json", "jsonl", "md", "npz", "parquet", "safetensors", "py", "csv"}


def lines(*suffixes):
    """(place, line) of all text but the results, which name the code of their day."""
    for folder in PLACES:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in suffixes and "results" not in path.relative_to(ROOT).parts[1:2]:
                for number, line in enumerate(path.read_text().splitlines(), start=1):
                    yield f"{path.relative_to(ROOT)}:{number}", line


@cache
def defined():
    """Name of each module and room -> the names in it."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        room = found.setdefault(path.parent.name, set())
        room.add(path.stem)
        names = room if path.stem == "__init__" else found.setdefault(path.stem, set())
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Name | ast.alias):
                names.add(node.id if isinstance(node, ast.Name) else node.name.split(".")[-1])
            elif isinstance(node, ast.Attribute):
                names.add(node.attr)
    return found


def test_a_name_in_a_module_is_there():
    keys = leaf_keys(default_config().to_dict())
    sections = {part for key in keys for part in key.split(".")}
    text = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    libraries = set(re.findall(r"^ *(?:import|from) (?:.* as )?(\w+)", text, re.M))
    missing = []
    for place, line in lines(".py"):
        for module, name in re.findall(r"`([a-z_]+)\.([A-Za-z_]\w*)`", line):
            known = defined().get(module)
            # Of a library, a value or a setting; but classes and constants are those of a module.
            foreign = known is None and (name.islower() or module in libraries)
            there = foreign or name in (known or set()) | FILES | sections | {"KEY"}
            if not there:
                missing.append(f"{place}: {module}.{name}")
    assert missing == []


def test_a_file_of_code_is_there():
    known = {path.name for folder in (*PLACES, "tests") for path in (ROOT / folder).rglob("*.py")}
    missing = []
    for place, line in lines(".py", ".md"):
        prose = line if place.endswith(".md") or "`" in line or "(" in line else ""
        for name in re.findall(r"(?:^|[\s(`/])([a-z][a-z_0-9]*\.py)\b(?!\w)", prose):
            if name not in known:
                missing.append(f"{place}: {name}")
    assert missing == []
