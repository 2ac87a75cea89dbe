"""Parts that users add without changing the package: a setting names one of ours, or `FILE.py:NAME` of the user's own.

NAME is an instance, not a class; `package.module:NAME` works too. A file's path is relative to the working directory, as data
paths are, and the file is loaded once per process.
"""

import difflib
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from delrec_jax.errors import UserError, one_line
from delrec_jax.files import expanded, file_hash

Part = TypeVar("Part")
_HASH = "__file_hash__"


def is_own(name: str) -> bool:
    """Returns whether a setting names a part of the user's own (`FILE.py:NAME`, `package.module:NAME`), not one of ours."""
    return ":" in name


def find(name: str, known: Mapping[str, Part], *, key: str, needs: tuple[str, ...] = ()) -> Part:
    """Returns the part that a setting names.

    Args:
      name: one of `known`, or `FILE.py:NAME`, or `package.module:NAME`.
      known: the parts of the package, by name.
      key: the setting's key, for messages.
      needs: attributes that such a part must have.

    Raises:
      UserError: there is no such part, its file cannot be loaded, or an attribute is missing.
    """
    if name in known:
        return known[name]
    if not is_own(name):
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(
            f"{key} is {name!r}: use one of {', '.join(known)}, or FILE.py:NAME of your own{hint}"
        )
    place, _, attribute = name.rpartition(":")
    module = _load(place, key=key, name=name)
    if not hasattr(module, attribute):
        raise UserError(f"{key} is {name!r}: {place} has no {attribute!r}")
    found: Part = getattr(module, attribute)
    if isinstance(found, type):
        raise UserError(f"{key} is {name!r}, a class: name an instance of it")
    if missing := [need for need in needs if not hasattr(found, need)]:
        raise UserError(f"{key} is {name!r}, which lacks {', '.join(missing)}")
    return found


def source_hash(name: str) -> str:
    """Returns the SHA-256 of the file that a part of the user's own comes from, as it was when it was loaded.

    Returns:
      The hash; "" for one of our parts, for an installed module, and for any other text.

    Raises:
      UserError: there is no such file, or it cannot be loaded.
    """
    place = name.rpartition(":")[0]
    if not is_own(name) or not place.endswith(".py"):
        return ""
    return str(vars(_load(place, key="a setting", name=name))[_HASH])


def _load(place: str, *, key: str, name: str) -> ModuleType:
    try:
        return _load_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except UserError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise UserError(
            f"{key} is {name!r}: {place} cannot be loaded ({type(error).__name__}: {one_line(error)})"
        ) from error


def _load_file(path: Path) -> ModuleType:
    """Loads a file once per process: classes of a second copy would not be those of the first."""
    place = expanded(path).resolve()
    title = f"delrec_plugin_{hashlib.sha256(str(place).encode()).hexdigest()[:12]}"
    if title in sys.modules:
        return sys.modules[title]
    spec = importlib.util.spec_from_file_location(title, place)
    if spec is None or spec.loader is None or not place.is_file():
        raise FileNotFoundError(f"there is no file {path} (working directory {Path.cwd()})")
    module = importlib.util.module_from_spec(spec)
    vars(module)[_HASH] = file_hash(place)  # of the code that runs: the file may be edited later
    sys.modules[title] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[title]
        raise
    return module
