"""The config files that come with the package, which are asked for by their names alone: `storefront`, `p2rec/office`."""

from pathlib import Path

_INSTALLED = Path(__file__).parent / "configs"
_CHECKOUT = Path(__file__).parents[1] / "configs"


def folder() -> Path:
    """Returns the folder of the ready configs: inside an installed package, or at the top of a checkout."""
    return _INSTALLED if _INSTALLED.is_dir() else _CHECKOUT


def find(name: str) -> Path | None:
    """Returns the path of a ready config; None if there is none of this name.

    Args:
      name: its path in the folder, without `.py`.
    """
    path = folder() / f"{name}.py"
    return path if path.is_file() else None
