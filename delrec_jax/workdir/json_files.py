"""JSON files of a workdir: written whole, and what cannot be read is named."""

import json
from pathlib import Path
from typing import Any

from delrec_jax.errors import UserError, one_line
from delrec_jax.files import write_text


def read_json(path: Path, *, remedy: str = "delete it, and the stage is run again") -> Any:
    """Reads a JSON file of a workdir.

    Args:
      path: the file.
      remedy: what to do where it is damaged.

    Raises:
      UserError: the file is missing, may not be read, or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except PermissionError as error:
        raise UserError(f"{path}: may not be read; correct its permissions") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path}: cannot be read ({one_line(error, most=200)}); {remedy}"
        ) from error


def read_settings(path: Path) -> dict[str, Any]:
    """Reads the `config.json` of a workdir.

    Raises:
      UserError: the file is missing, or is not a JSON object.
    """
    found = read_json(path)
    if not isinstance(found, dict):
        raise UserError(
            f"{path}: holds no settings; put back a copy of it, or delete it and give --config=FILE"
        )
    return found


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file, completely or not at all."""
    write_text(path, json.dumps(content, indent=1, sort_keys=True))
