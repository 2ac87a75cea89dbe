"""Builds nested dataclasses strictly from plain dictionaries, such as a config file's.

Nothing is guessed: a key that does not exist or a value of the wrong type is an error that names the key and, for an unknown
key, the nearest one that exists. `config` documents the keys.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any

from delrec_jax.errors import UserError

_LONGEST = 200  # characters of a key or value in a message


def build(cls: type, values: Mapping[str, Any], prefix: str = "") -> Any:
    """Builds a dataclass; keys that are not given keep their defaults.

    Args:
      cls: the dataclass; its fields may be dataclasses, mappings of names to one type, tuples of one type, numbers, strings,
        and any of these or None.
      values: its fields by name, nested dataclasses as dictionaries.
      prefix: text before the keys in messages, such as `tune.`.

    Raises:
      UserError: a key is unknown, a type is wrong, or the dataclass itself refuses a value.
    """
    hints = typing.get_type_hints(cls)
    known = {item.name for item in dataclasses.fields(cls)}
    for key in values:
        if key not in known:
            raise UserError(unknown_key(f"{prefix}{key}", [prefix + name for name in known]))
    return cls(**{key: _value(hints[key], value, prefix + key) for key, value in values.items()})


def _value(hint: Any, value: Any, key: str) -> Any:
    if isinstance(hint, types.UnionType):
        if value is None:
            return None
        hint = next(option for option in typing.get_args(hint) if option is not type(None))
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise UserError(_wrong_type(key, value, "a section of keys"))
        return build(hint, value, key + ".")  # type: ignore[arg-type]
    if typing.get_origin(hint) is Mapping:
        if not isinstance(value, Mapping):
            raise UserError(_wrong_type(key, value, "a section of named parts"))
        inner = typing.get_args(hint)[1]
        return {name: _value(inner, part, f"{key}.{name}") for name, part in value.items()}
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, (list, tuple)):
            raise UserError(_wrong_type(key, value, "of type tuple"))
        inner = typing.get_args(hint)[0]
        return tuple(_value(inner, item, key) for item in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and type(value) is not hint:
        raise UserError(_wrong_type(key, value, f"of type {hint.__name__}"))
    return value


def _wrong_type(key: str, value: Any, wanted: str) -> str:
    shown = repr(value)
    shown = shown if len(shown) <= _LONGEST else shown[:_LONGEST] + " ..."
    return f"config.{key} is {shown} ({type(value).__name__}), but it must be {wanted}"


def unknown_key(key: str, known: list[str]) -> str:
    """Returns the message for a key that does not exist, with the nearest one that does."""
    inside = [name for name in known if name.startswith(f"{key}.")]
    if inside:
        return f"config.{key} is a section: change its keys one by one, such as config.{inside[0]}"
    near = difflib.get_close_matches(key[:_LONGEST], known, n=1, cutoff=0.0)
    return f"config.{key[:_LONGEST]} does not exist; did you mean config.{near[0]}?"


def leaf_values(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns all values of a nested dictionary by their dotted names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        dotted = f"{prefix}{name}"
        inside = isinstance(value, Mapping)
        found |= leaf_values(value, f"{dotted}.") if inside else {dotted: value}
    return found


def leaf_keys(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Returns the dotted names of all values of a nested dictionary."""
    return list(leaf_values(values, prefix))


def at_least(key: str, value: float, least: float) -> None:
    """Checks a setting's lower bound.

    Raises:
      UserError: the value is below it.
    """
    if not value >= least:  # NaN is not
        raise UserError(f"{key} is {value}: it must be at least {least}")
