"""The ranges of a search: for a key of the config, from where to where, or among which values."""

import copy
import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict

from delrec_jax.config import leaf_keys, unknown_key
from delrec_jax.errors import UserError, one_line

if TYPE_CHECKING:
    from optuna import Trial

_STORED = bool | int | float | str | None
"""Choices that optuna stores as they are; others it is given by name."""


@dataclass(frozen=True)
class Range:
    """The values that a search may try for one key: those between two bounds, or some choices.

    Attributes:
      key: dotted key of the config.
      low, high: the bounds, both included; whole numbers where the config has one.
      log: ratios count and not differences: from 0.001 to 0.01 is as far as from 0.01 to 0.1.
      choices: values instead of bounds, in no order.
    """

    key: str
    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        if self.key in ("seed", "method"):
            raise UserError(
                f"range {self.key}: all trials have the same {self.key}; remove this range"
            )
        if self.choices:
            self._check_choices()
        else:
            self._check_bounds()

    def _check_choices(self) -> None:
        bounds = (self.low, self.high)
        if bounds != (None, None) or self.log:
            raise UserError(
                f"range {self.key}: has choices, and also low={self.low}, high={self.high}, log={self.log}: give one of them"
            )
        if len(self.choices) < 2 or any(self.choices.count(one) > 1 for one in self.choices):
            raise UserError(f"range {self.key}: choices are {self.choices}: give different ones")

    def _check_bounds(self) -> None:
        for name in ("low", "high"):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not math.isfinite(value):
                raise UserError(
                    f"range {self.key}: {name} is {value!r}: give two numbers as bounds, or choices"
                )
        assert self.low is not None and self.high is not None
        if self.low >= self.high:
            raise UserError(
                f"range {self.key}: low is {self.low} and high {self.high}: low must be below high"
            )
        if self.log and self.low <= 0:
            raise UserError(
                f"range {self.key}: low is {self.low}, but with log=True it must be above 0"
            )


def fitted(ranges: Sequence[Range], base: ConfigDict) -> tuple[Range, ...]:
    """Checks ranges against the config that they change.

    Args:
      ranges: as a study file states them.
      base: the config.

    Returns:
      The ranges, with bounds of the kind of number that the config has there: whole ones are drawn as whole numbers.

    Raises:
      UserError: a key does not exist, or its values are not of the config's type.
    """
    known = leaf_keys(base.to_dict())
    for one in ranges:
        if one.key not in known:
            raise UserError(f"range {one.key}: {unknown_key(one.key, known)}")
    return tuple(_fitted(one, base) for one in ranges)


def _fitted(one: Range, base: ConfigDict) -> Range:
    value: Any = base
    for name in one.key.split("."):
        value = value[name]
    for choice in one.choices:
        try:
            copy.deepcopy(base).update_from_flattened_dict({one.key: choice})
        except (TypeError, ValueError) as error:
            raise UserError(f"range {one.key}: choice {choice!r}: {one_line(error)}") from error
    if one.choices:
        return one
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(
            f"range {one.key}: has bounds, but the config's value is {value!r}, no number: give choices"
        )
    if isinstance(value, float):
        return dataclasses.replace(one, low=float(one.low or 0), high=float(one.high or 0))
    for name in ("low", "high"):
        if not isinstance(bound := getattr(one, name), int):
            raise UserError(
                f"range {one.key}: {name} is {bound}, but the config's value is the whole number {value}: give whole bounds"
            )
    return one


def suggest(trial: "Trial", ranges: Sequence[Range]) -> dict[str, Any]:
    """The values of a trial, by key: new ones, or those that it has already.

    Args:
      trial: of optuna.
      ranges: as `fitted` returns them.
    """
    for one in ranges:
        if one.choices:
            trial.suggest_categorical(one.key, tuple(_by_name(one)))
        elif isinstance(one.low, int) and isinstance(one.high, int):
            trial.suggest_int(one.key, one.low, one.high, log=one.log)
        else:
            assert one.low is not None and one.high is not None
            trial.suggest_float(one.key, one.low, one.high, log=one.log)
    return drawn(trial.params, ranges)


def drawn(stored: Mapping[str, Any], ranges: Sequence[Range]) -> dict[str, Any]:
    """The values that optuna has stored, as the config takes them.

    Args:
      stored: by key; some may be missing.
      ranges: as `fitted` returns them.
    """
    found = {}
    for one in ranges:
        if one.key in stored:
            value = stored[one.key]
            found[one.key] = _by_name(one)[value] if one.choices else value
    return found


def _by_name(one: Range) -> dict[Any, Any]:
    return {
        choice if isinstance(choice, _STORED) else repr(choice): choice for choice in one.choices
    }
