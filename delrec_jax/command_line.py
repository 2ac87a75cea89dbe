"""How the words after `delrec COMMAND` are read: flags, overrides of the config, and folders without a flag."""

import re
from typing import TYPE_CHECKING

from absl import flags

from delrec_jax.command_flags import FLAGS, defined
from delrec_jax.errors import UserError, one_line
from delrec_jax.files import expanded

# The config is imported late: it loads JAX, and a typo in a flag should not wait for it.
if TYPE_CHECKING:
    from ml_collections import ConfigDict

_PATHS = ("workdir", "cache", "input", "output", "folder", "from", "titles", "base")
_LONGEST = 600  # characters of what absl says
_OVERRIDE = re.compile(r"--?(?:no)?config\.([^=]*)")
_FLAG = re.compile(r"--?[A-Za-z]")


def _long(argument: str) -> str:
    """Returns `-k` in the form that absl accepts."""
    return "--k" if argument == "-k" else argument


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Returns the overrides of the config, and all other arguments; the VALUE of `--config.KEY VALUE` is an override too."""
    overrides: list[str] = []
    others: list[str] = []
    waits = False
    for argument in arguments:
        begins = _OVERRIDE.match(argument) is not None
        belongs = begins or (waits and not _FLAG.match(argument))
        (overrides if belongs else others).append(argument)
        waits = begins and "=" not in argument
    return overrides, others


def parse(
    command: str, arguments: list[str], *, folders: bool = False
) -> tuple[flags.FlagValues, list[str], list[str]]:
    """Reads flags into a set of their own, without global state, and leaves the config's overrides for `overridden`.

    Args:
      command: what the message of a mistake begins with.
      arguments: the words after it.
      folders: whether words without a flag are allowed, before, between and after the flags.

    Returns:
      The flags; the overrides of the config; the words without a flag.

    Raises:
      UserError: an unknown flag, a bad value, or a word without a flag that is not allowed.
    """
    values = defined()
    values.set_gnu_getopt(folders)
    try:
        words = values.read_flags_from_files(
            [_long(argument) for argument in arguments], force_gnu=False
        )  # --flagfile=FILE
    except (flags.Error, ValueError) as error:  # a file that is not text
        raise UserError(
            f"{command}: {one_line(error, most=_LONGEST)}; give a file with one flag per line"
        ) from error
    overrides, others = _split(words)
    rest = _read_flags(values, others, command)
    if rest and not folders:
        raise UserError(_not_a_flag(command, rest))
    _refuse_unread(command, values)
    for name in _PATHS:
        if str(values[name].value or "").startswith("~"):  # the shell leaves it in --flag=~/x
            values[name].value = str(expanded(str(values[name].value)))
    return values, overrides, rest


def _refuse_unread(command: str, values: flags.FlagValues) -> None:
    """Refuses a flag without effect, which is a misunderstanding."""
    for flag in FLAGS:
        if values[flag.name].present and flag.commands and command not in flag.commands:
            raise UserError(
                f"--{flag.name} is read by {', '.join(flag.commands)} only, so {command} would ignore it: leave it out"
            )


def _read_flags(values: flags.FlagValues, arguments: list[str], place: str) -> list[str]:
    """Sets the flags; returns the words that belong to none."""
    try:
        rest: list[str] = values(["delrec", *arguments])[1:]
    except (flags.Error, TypeError, ValueError) as error:
        said = one_line(error, most=_LONGEST)
        raise UserError(f"{place}: {said}; correct it, or see delrec --help") from error
    return rest


def _not_a_flag(place: str, rest: list[str]) -> str:
    return f"{place}: {rest[0]!r} is not a flag; flags start with --, see delrec --help"


def overridden(config: "ConfigDict", overrides: list[str]) -> "ConfigDict":
    """Returns the config with the values of `--config.KEY=VALUE`; of several for one key, the last is taken.

    Raises:
      UserError: an unknown key, with the nearest one, or a bad value.
    """
    from ml_collections import config_flags

    from delrec_jax.config import leaf_values, unknown_key

    known = leaf_values(config.to_dict())
    given: dict[str, list[str]] = {}  # each with the value that may follow it
    last = ""
    for argument, following in zip(overrides, [*overrides[1:], ""], strict=False):
        key = _OVERRIDE.match(argument)
        if key is None:
            given.setdefault(last, []).append(argument)
            continue
        if key[1] not in known:
            added = key[1].startswith("distill.tasks.")
            hint = "; tasks are added in a config file" if added else ""
            raise UserError(unknown_key(key[1], list(known)) + hint)
        _, stated, value = argument.partition("=")
        _check_value(key[1], value if stated else following, known[key[1]])
        last = key[1]
        given[last] = [argument]
    overrides = [word for words in given.values() for word in words]
    values = flags.FlagValues()
    try:
        config_flags.DEFINE_config_dict(
            "config", config, flag_values=values, sys_argv=["delrec", *overrides]
        )
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{' '.join(overrides)}: {one_line(error, most=_LONGEST)}; correct it"
        ) from error
    if rest := _read_flags(values, overrides, "config"):
        raise UserError(_not_a_flag("config", rest))
    return values.config


def _check_value(key: str, text: str, default: object) -> None:
    """Checks that a number is written as one; digits of other scripts, which Python takes for its own, are not.

    Raises:
      UserError: says what the key wants.
    """
    if isinstance(default, bool) or not isinstance(default, int | float):
        return
    wanted, read = ("a whole number", _whole) if isinstance(default, int) else ("a number", float)
    try:
        if not text.isascii() or "_" in text:
            raise ValueError
        read(text)
    except ValueError as error:
        raise UserError(
            f"config.{key} is {text[:80]!r}, but it must be {wanted}, such as {default}"
        ) from error


def _whole(text: str) -> float:
    return int(text, 16 if text.lower().startswith("0x") else 10)
