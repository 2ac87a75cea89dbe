"""The flags of the command line: what each is called, which commands read it, and what it may be."""

from typing import Any, NamedTuple

from absl import flags

from delrec_jax.workdir import stage_table

_MOST = 2**31 - 1

_RUNNING = ("run", *stage_table.ALL, "study")
_WRITING = ("histories", "rank", "probe", "export", "compare")
_ASKING = ("recommend", "rank")
_SHARING = ("export", "push")
_PLANNING = ("plan", "study")
_OPENING = (*_RUNNING[:-1], *_ASKING, *_SHARING, "histories", "prompts", "probe", "app")


class Flag(NamedTuple):
    """One flag.

    Attributes:
      name: without its dashes.
      default: its value unless it is given; None = there is none. Its type is that of the values.
      meaning: in a few words.
      commands: which ones read it; empty = all.
      least, most: of a whole number.
      choices: the words that it may be; empty = any.
      many: whether it may be given several times.
    """

    name: str
    default: Any
    meaning: str
    commands: tuple[str, ...] = ()
    least: int = 1
    most: int = _MOST
    choices: tuple[str, ...] = ()
    many: bool = False


FLAGS = (
    Flag("config", None, "config file"),
    Flag("workdir", "", "folder of the run"),
    Flag("cache", "", "local copies of workdirs in buckets", _OPENING),
    Flag("update", False, "rerun what a changed config affects", _RUNNING),
    Flag("n", 2, "examples per task", ("prompts",)),
    Flag("history", "", r"titles, separated by ; (\; within one)", ("recommend",)),
    Flag("k", 10, "length of a list", _ASKING),
    Flag("input", "", "a parquet file of histories", ("rank",)),
    Flag("system", "", "which; empty = the run's own", ("rank",)),
    Flag("by", "id", "what names items, id or title", ("rank",), choices=("id", "title")),
    Flag("host", "127.0.0.1", "where to listen", ("app",)),
    Flag("port", 7860, "0 = a free one", ("app",), least=0, most=65535),
    Flag("format", "hf", "hf, peft, lora, adapter, hub", ("export",)),
    Flag("repo", "", "USER/NAME on the hub", ("push",)),
    Flag("folder", "", "what export wrote", ("push",)),
    Flag("private", False, "for its owner only", ("push",)),
    Flag("license", "", "that of the weights", _SHARING),
    Flag("titles", "", "yes or no; to ask: a CSV", (*_SHARING, *_ASKING)),
    Flag("base", "", "the language model", (*_SHARING, *_ASKING)),
    Flag("from", "", "a folder, USER/NAME", _ASKING),
    Flag("revision", "", "branch, tag or commit", _ASKING),
    Flag("devices", 1, "devices over all processes", _PLANNING),
    Flag("chip", "", "the chip; empty = all known ones", _PLANNING),
    Flag("items", 10_000, "assumed number of items", _PLANNING),
    Flag("compile", "cpu", "cpu, chip or no", _PLANNING),
    Flag("output", "", "a directory to write to", _WRITING),
    Flag("prompt_from", [], "other workdirs", ("probe",), many=True),
    Flag("users", 1000, "validation users, at most", ("probe",)),
    Flag("reference", "", "a label or system", ("compare",)),
    Flag("systems", "*", "patterns, by commas", ("compare",)),
    Flag("metric", "NDCG@10", "of the tests", ("compare",)),
    Flag("protocol", "full", "such as full@head", ("compare",)),
    Flag("jobs", 1, "processes", ("study",)),
    Flag("shard", "0/1", "I/N, every Nth run from I", ("study",)),
    Flag("search", 0, "trials", ("study",), least=0),
    Flag("dry", False, "only say what would run", ("study",)),
    Flag("show_test", False, "all arms' test figures", ("study",)),
)
"""All flags, in the order in which they are told."""


def defined() -> flags.FlagValues:
    """Returns all flags of all commands with their defaults, in a set of their own: no state is global."""
    values = flags.FlagValues()
    for flag in FLAGS:
        given = (flag.name, flag.default, flag.meaning)
        if flag.many:
            flags.DEFINE_multi_string(*given, flag_values=values)
        elif flag.choices:
            flags.DEFINE_enum(
                flag.name, flag.default, flag.choices, flag.meaning, flag_values=values
            )
        elif isinstance(flag.default, bool):
            flags.DEFINE_bool(*given, flag_values=values)
        elif isinstance(flag.default, int):
            flags.DEFINE_integer(*given, flag.least, flag.most, flag_values=values)
        else:
            flags.DEFINE_string(*given, flag_values=values)
    return values
