"""How the words after `delrec COMMAND` are read: flags, overrides of the config, and folders without a flag."""

import re
from typing import TYPE_CHECKING, NamedTuple

from absl import flags

from delrec_jax.errors import UserError, one_line
from delrec_jax.files import expanded

# The config is imported late: it loads JAX, and a typo in a flag should not wait for it.
if TYPE_CHECKING:
    from ml_collections import ConfigDict

_MOST = 2**31 - 1
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
    values = _defined()
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
    for flag in described():
        if values[flag.name].present and flag.commands and command not in flag.commands:
            raise UserError(
                f"--{flag.name} is read by {', '.join(flag.commands)} only, so {command} would ignore it: leave it out"
            )


def _defined() -> flags.FlagValues:
    """All flags of all commands with their defaults."""
    values = flags.FlagValues()
    flags.DEFINE_string("config", None, "config file", flag_values=values)
    flags.DEFINE_string("workdir", "", "folder of the run", flag_values=values)
    flags.DEFINE_string("cache", "", "local copies of workdirs in buckets", flag_values=values)
    flags.DEFINE_bool("update", False, "rerun what a changed config affects", flag_values=values)
    flags.DEFINE_integer("n", 2, "prompts: examples per task", 1, _MOST, flag_values=values)
    flags.DEFINE_string(
        "history", "", r"recommend: titles, separated by ; (\; within one)", flag_values=values
    )
    flags.DEFINE_integer("k", 10, "recommend, rank: length of a list", 1, _MOST, flag_values=values)
    flags.DEFINE_string("input", "", "rank: a parquet file of histories", flag_values=values)
    flags.DEFINE_string("system", "", "rank: which; empty = the run's own", flag_values=values)
    flags.DEFINE_enum(
        "by", "id", ["id", "title"], "rank: what names items, id or title", flag_values=values
    )
    flags.DEFINE_string("host", "127.0.0.1", "app: where to listen", flag_values=values)
    flags.DEFINE_integer("port", 7860, "app: 0 = a free one", 0, 65535, flag_values=values)
    flags.DEFINE_string("format", "hf", "export: hf, peft, lora, adapter, hub", flag_values=values)
    flags.DEFINE_string("repo", "", "push: USER/NAME on the hub", flag_values=values)
    flags.DEFINE_string("folder", "", "push: what export wrote", flag_values=values)
    flags.DEFINE_bool("private", False, "push: for its owner only", flag_values=values)
    flags.DEFINE_string("license", "", "export, push: that of the weights", flag_values=values)
    flags.DEFINE_string(
        "titles", "", "export, push, recommend, rank: yes or no; to ask: a CSV", flag_values=values
    )
    flags.DEFINE_string(
        "base", "", "export, push, recommend, rank: the language model", flag_values=values
    )
    flags.DEFINE_string("from", "", "recommend, rank: a folder, USER/NAME", flag_values=values)
    flags.DEFINE_string(
        "revision", "", "recommend, rank: branch, tag or commit", flag_values=values
    )
    flags.DEFINE_integer(
        "devices", 1, "plan, study: devices over all processes", 1, _MOST, flag_values=values
    )
    flags.DEFINE_string(
        "chip", "", "plan, study: the chip; empty = all known ones", flag_values=values
    )
    flags.DEFINE_integer(
        "items", 10_000, "plan, study: assumed number of items", 1, _MOST, flag_values=values
    )
    flags.DEFINE_string("compile", "cpu", "plan, study: cpu, chip or no", flag_values=values)
    flags.DEFINE_string("output", "", "a directory to write to", flag_values=values)
    flags.DEFINE_multi_string("prompt_from", [], "probe: other workdirs", flag_values=values)
    flags.DEFINE_integer(
        "users", 1000, "probe: validation users, at most", 1, _MOST, flag_values=values
    )
    flags.DEFINE_string("reference", "", "compare: a label or system", flag_values=values)
    flags.DEFINE_string("systems", "*", "compare: patterns, by commas", flag_values=values)
    flags.DEFINE_string("metric", "NDCG@10", "compare: of the tests", flag_values=values)
    flags.DEFINE_string("protocol", "full", "compare: such as full@head", flag_values=values)
    flags.DEFINE_integer("jobs", 1, "study: processes", 1, _MOST, flag_values=values)
    flags.DEFINE_string("shard", "0/1", "study: I/N, every Nth run from I", flag_values=values)
    flags.DEFINE_integer("search", 0, "study: trials", 0, _MOST, flag_values=values)
    flags.DEFINE_bool("dry", False, "study: only say what would run", flag_values=values)
    flags.DEFINE_bool("show_test", False, "study: all arms' test figures", flag_values=values)
    return values


class Flag(NamedTuple):
    """A flag for those who read about it.

    Attributes:
      name: without its dashes.
      default: its value unless it is given; None = there is none.
      commands: which ones read it; empty = all.
      meaning: what it says.
    """

    name: str
    default: object
    commands: tuple[str, ...]
    meaning: str


def described() -> list[Flag]:
    """Returns all flags in their order."""
    values = _defined()
    found = []
    for name in values:
        # absl puts an enum's choices first, and a note on repeating last.
        text = re.sub(r"^<.*?>: |;\n.*", "", values[name].help)
        of, colon, meaning = text.partition(": ")
        commands = tuple(of.split(", ")) if colon else ()
        found.append(Flag(name, values[name].default, commands, meaning if colon else of))
    return found


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
    """Returns the config with the values of `--config.KEY=VALUE`.

    Raises:
      UserError: an unknown key, with the nearest one, or a bad value.
    """
    from ml_collections import config_flags

    from delrec_jax.config import leaf_values, unknown_key

    known = leaf_values(config.to_dict())
    for argument, following in zip(overrides, [*overrides[1:], ""], strict=False):
        key = _OVERRIDE.match(argument)
        if key is None:
            continue
        if key[1] not in known:
            added = key[1].startswith("distill.tasks.")
            hint = "; tasks are added in a config file" if added else ""
            raise UserError(unknown_key(key[1], list(known)) + hint)
        _, stated, value = argument.partition("=")
        _check_value(key[1], value if stated else following, known[key[1]])
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
