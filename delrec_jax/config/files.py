"""Config files: reading one with its argument, starting one from another, and ablations.

A config file is code, and is run: Python with a `get_config()` that returns a ConfigDict. `FILE.py:ARGUMENT` calls
`get_config("ARGUMENT")`, as `ml_collections.config_flags` does; each file decides what its argument means, and `ablated` is the
common case.
"""

import importlib.util
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from delrec_jax import ready_configs
from delrec_jax.config.experiment import default_config
from delrec_jax.config.tree import leaf_keys, unknown_key
from delrec_jax.errors import UserError, one_line


def as_config(settings: Mapping[str, Any], place: str) -> ConfigDict:
    """Returns stored settings as a config.

    Args:
      settings: a `config.json`.
      place: where they are from, for the message.

    Raises:
      UserError: a key that no config can have.
    """
    try:
        return ConfigDict(dict(settings), convert_dict=True)
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(
            f"{place}: {one_line(error, most=200)}; put back a copy of it, or give a config"
        ) from error


def read_config(path: Path, argument: str | None = None) -> ConfigDict:
    """Returns what `get_config` of a config file returns.

    Args:
      path: the file.
      argument: argument of `get_config`; None = no argument.

    Raises:
      UserError: there is no such file, it cannot be run, or it does not take the argument.
    """
    module = run_file(path, "config file", "configs/")
    given = () if argument is None else (argument,)
    if not hasattr(module, "get_config"):
        raise UserError(
            f"{path}: defines no get_config(): a config file needs one that returns a ConfigDict"
        )
    with code_of(path):
        _check_takes(module.get_config, path, given)
        config = module.get_config(*given)
    if not isinstance(config, ConfigDict):
        raise UserError(f"{path}: get_config() returns {config!r}: it must return a ConfigDict")
    return config


def run_file(path: Path, kind: str, folder: str) -> ModuleType:
    """Runs a Python file of the user's, and returns what it defines.

    Args:
      path: the file.
      kind: what messages call such a file.
      folder: where ready ones are.

    Raises:
      UserError: there is no such file, or it cannot be run.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such {kind}; the ready ones are in {folder}")
    spec = importlib.util.spec_from_file_location(f"delrec_{kind.partition(' ')[0]}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path}: is not a Python file; a {kind} is called NAME.py")
    module = importlib.util.module_from_spec(spec)
    with code_of(path):
        spec.loader.exec_module(module)
    return module


@contextmanager
def code_of(path: Path) -> Iterator[None]:
    """Runs code of a file of the user's: whatever it raises is theirs to read, in one line that names the file."""
    try:
        yield
    except UserError as error:
        raise error if str(path) in str(error) else UserError(f"{path}: {error}") from error
    except (Exception, SystemExit) as error:  # `exit()` in it would end the command without a word
        said = one_line(error, most=600)
        raise UserError(f"{path}: {type(error).__name__}: {said}; correct the file") from error


def _check_takes(get_config: Any, path: Path, given: Sequence[str]) -> None:
    if not callable(get_config):
        raise UserError(f"{path}: its get_config is {get_config!r}: it must be a function")
    try:
        inspect.signature(get_config).bind(*given)
    except TypeError as error:
        if given:
            raise UserError(
                f"{path}:{given[0]}: get_config() of this file takes no argument: leave :{given[0]} out, or define "
                "get_config(name=None) in the file"
            ) from error
        raise UserError(
            f"{path}: get_config of this file needs an argument: --config={path}:ARGUMENT"
        ) from error


def base_config(
    file: str, path: str, *, argument: str | None = None, only: Sequence[str] = ()
) -> ConfigDict:
    """Returns the config of another file as a start, so that a config file states only what it changes.

    Args:
      file: `__file__` of the file that calls this.
      path: the other file, relative to the folder of `file`, or the name of a ready config, such as `storefront`.
      argument: argument of the other file's `get_config`.
      only: sections to take over, such as `("data", "lm")`; all others keep their defaults. Empty = all sections.

    Raises:
      UserError: the other file cannot be read, or has no such section.
    """
    other = read_config(beside(Path(file), path), argument)
    if not only:
        return other
    config = default_config()
    for section in only:
        if section not in other:
            raise UserError(f"{file}: {path} has no section {section!r}: it has {', '.join(other)}")
        config[section] = other[section]
    return config


def beside(file: Path, path: str) -> Path:
    """Returns the path of a config file that another file names: from that one's folder, or else by a ready config's name."""
    near = file.parent / path
    return near if near.exists() else ready_configs.find(path) or near


def ablated(
    config: ConfigDict, name: str | None, ablations: Mapping[str, Mapping[str, Any]]
) -> ConfigDict:
    """Returns a config with one of its file's ablations: the value that `get_config(name)` should return.

    Args:
      config: the config of the full method; it is changed in place.
      name: the ablation; None = none.
      ablations: for each ablation, its settings by dotted key.

    Raises:
      UserError: there is no such ablation.
    """
    if name is None:
        return config
    if name not in ablations:
        raise UserError(
            f"no ablation {name!r}: use one of {', '.join(ablations)}, or leave :{name} out"
        )
    known = leaf_keys(config.to_dict())
    for key in ablations[name]:
        if key not in known:
            raise UserError(f"ablation {name!r}: {unknown_key(key, known)}")
    config.update_from_flattened_dict(ablations[name])
    return config
