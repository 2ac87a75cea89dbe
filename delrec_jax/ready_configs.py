"""Which config file is meant: a path, or the name of one that comes with the package (`storefront`, `p2rec/office`)."""

from pathlib import Path

from delrec_jax.errors import UserError

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


def file_and_argument(text: str) -> tuple[Path, str | None]:
    """Returns the path and the argument of `FILE.py:ARGUMENT`, or of the name of a ready config, `NAME:ARGUMENT`.

    A path is split at the first colon after `.py`: a folder may have a colon in its name.
    """
    path, found, argument = text.partition(".py:")
    name, colon, after = text.partition(":")
    ready = None if found or Path(text).exists() else find(name)
    if (found and not argument) or (ready and colon and not after):
        raise UserError(
            f"--config={text}: nothing after the colon; name an ablation, or leave the colon out"
        )
    if ready:
        return ready, after or None
    return (Path(path + ".py"), argument) if found else (Path(text), None)
