"""Damaged command lines: every key of the config with values of another type or range, flags that do not exist, and others.

Values are wrong by construction: whatever of them is accepted as another experiment must have a rule below.
"""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

from command import printed
from tiny_storefront import CONFIG
from verdicts import Case, choice, generator

from delrec_jax import cli
from delrec_jax.config import default_config, leaf_values, to_dict

FREE_TEXT = {
    "data.path": "a path, looked up by `prepare`",
    "data.manual_dir": "a path, looked up by `prepare`",
    "data.download_dir": "a path, looked up by `prepare`",
    "data.category": "a name of the corpus, looked up by `prepare`",
    "data.edition": "a name of the corpus, looked up by `prepare`",
    "distill.init_text": "words for the prompt",
    "lm.weights": "a directory or hub name, looked up by `pretrain`",
    "lm.tokenizer": "a directory or hub name, looked up by `pretrain`",
    **{
        f"{stage}.adalora.targets": "globs, compared with the model's paths when it is made"
        for stage in ("tune", "parse")
    },
    **{
        f"distill.tasks.{task}.code": "a part, looked up when texts are made"
        for task in ("ta", "rps")
    },
    "distributed.coordinator": "an address, refused without the two settings that go with it",
}
"""Keys that take any text."""

NO_NUMBERS = (
    "",
    "abc",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "-1e400",
    "1,5",
    "--3",
    "None",
    "1 2",
    "1e",
    "()",
    "\u0661\u0662",
)
NO_WHOLE_NUMBERS = (
    *NO_NUMBERS,
    "1.5",
    "2.0",
    "1e3",
    "True",
    "-7",
    "9" * 30,
    str(2**63),
    "-2147483649",
)
NO_SHARES = (*NO_NUMBERS, "-0.5", "-1e-9", "1e39", "True")
NO_TRUTHS = ("", "maybe", "2", "-1", "None", "yes please", "0.0", "\uff34rue")
NO_NAMES = (
    "no such",
    "",
    " ",
    "None",
    "0",
    "SASREC",
    "\u0455asrec",
    "sasrec ",
    "mean\u200b",
    "x" * 5000,
    "../..",
    "a\tb",
    "\udcff",
)
NO_TUPLES = (
    "no such",
    "(1,",
    "('no such',)",
    "{}",
    "[[1]]",
    "(('a',),)",
    "('teacher+teacher',)",
    "7",
    "(None,)",
    "(nan,)",
)


@cache
def settings() -> Mapping[str, Any]:
    """All keys with their defaults."""
    return leaf_values(default_config().to_dict())


@cache
def base() -> Any:
    """The experiment of the config that is overridden."""
    return accepted(CONFIG)


def accepted(*arguments: str) -> dict[str, Any]:
    """What `delrec plan` would plan, as plain settings."""
    with mock.patch.object(cli, "_plan") as plan:
        printed("plan", *arguments)
    experiment, values = plan.call_args.args
    return to_dict(experiment) | {"flags": values.flag_values_dict()}


def wrong_values(default: Any) -> tuple[str, ...]:
    """Texts that are no value of this setting."""
    if isinstance(default, bool):
        return NO_TRUTHS
    if isinstance(default, int):
        return NO_WHOLE_NUMBERS
    if isinstance(default, float):
        return NO_SHARES
    if isinstance(default, tuple):
        return NO_TUPLES
    return NO_NAMES


def wrong_value(seed: int, number: int) -> Case:
    """One key of the tree with a value that it cannot have."""
    rng = generator(seed, "value", number)
    key = list(settings())[number % len(settings())]
    value = choice(rng, wrong_values(settings()[key]))
    return value_case(key, value)


def value_case(key: str, value: str) -> Case:
    below = key == "lm.embedding.recent_weight" and value in ("-0.5", "-1e-9")
    return Case(
        label=f"--config.{key}={value[:60]!r}",
        attempt=lambda: accepted(CONFIG, f"--config.{key}={value}"),
        names=[key, ".".join(key.split(".")[-2:])],
        same=lambda found: found == base(),
        rule="a trained weight may start below 0" if below else FREE_TEXT.get(key, ""),
    )


FLAGS: Mapping[str, tuple[str, ...]] = {
    "unknown flag": (
        "--wrokdir=w",
        "--workdirs=w",
        "--work-dir=w",
        "---workdir=w",
        "--w\u043erkdir=w",
        "--=3",
        "--config.=3",
    ),
    "flag of another command": (
        "--k=5",
        "--n=3",
        "--history=a",
        "--shard=0/2",
        "--port=80",
        "--metric=HR@1",
        "--format=hf",
    ),
    "number": (
        "--devices=0",
        "--devices=-4",
        "--devices=1e3",
        "--devices=",
        "--items=many",
        "--items=-1",
        "--items=" + "9" * 40,
    ),
    "word without a flag": ("more", "config=x", "\u2014\u2014workdir=w", "\u2013n=3", "", " "),
    "missing value": ("--config", "--devices", "--flagfile"),
    "path": (
        "--config=",
        "--config=nowhere.py",
        "--config=/",
        "--config=" + "a" * 5000,
        "--config=a/" * 500,
        "--flagfile=/",
        "--flagfile=",
    ),
    "choice": (
        "--chip=none such",
        "--chip=\u04bb100",
        "--compile=maybe",
        "--update=perhaps",
        "--noupdate=3",
    ),
    "key": (
        *(
            "--config.tune=3",
            "--config.tune.optimizer=adam",
            "--config.tune..anchor=1",
            "--config.TUNE.anchor=1",
        ),
        *(
            "--config.tune.anchor.x=1",
            "--config.t\u0443ne.anchor=1",
            "--config.seed",
            "--config.distill.tasks.new.share=1",
        ),
        *(
            "--noconfig.seed",
            "--config.seed=1 --config.seed=2",
            "--config.update=1",
            "--config._fields=1",
            "--config.__class__=1",
        ),
    ),
}
"""Words after `delrec plan --config=FILE`, all of them wrong."""


def wrong_word(seed: int, number: int) -> Case:
    """A flag that does not exist, that the command does not read, or that cannot have this value."""
    kind = list(FLAGS)[number % len(FLAGS)]
    word = choice(generator(seed, "word", number), FLAGS[kind])
    return word_case(word)


def word_case(word: str) -> Case:
    name, _, value = word.partition("=")
    name = name.lstrip("-").removeprefix("no")
    # The plan itself looks these two up.
    looked_up = name in ("chip", "compile")
    return Case(
        label=f"plan {word[:60]!r}",
        attempt=lambda: (printed if looked_up else accepted)(*("plan",) * looked_up, CONFIG, word),
        names=[part[:40] for part in (name, value) if part] or [repr(word)],
        same=lambda found: found == base(),
    )


CONTENTS: Mapping[str, tuple[bytes, ...]] = {
    "no Python": (
        b"seed: 3\n",
        b"{",
        b"def get_config(:\n",
        b"\x00\x01\x02",
        b"import no_such_module\n",
        b"PK\x03\x04" * 50,
    ),
    "no get_config": (b"", b"\n", b"config = 3\n", b"get_config = 3\n", b"def get_confg(): pass\n"),
    "wrong result": (
        *(
            b"def get_config(): return None\n",
            b"def get_config(): return {}\n",
            b"def get_config(a, b): return a\n",
        ),
        b"from ml_collections import ConfigDict\ndef get_config(): return ConfigDict({'sede': 3})\n",
        b"from ml_collections import ConfigDict\ndef get_config(): return ConfigDict({'seed': [3]})\n",
        b"from ml_collections import ConfigDict\ndef get_config(): return ConfigDict({'tune': 3})\n",
        b"from ml_collections import ConfigDict\ndef get_config(): return ConfigDict({3: 3})\n",
        b"from ml_collections import ConfigDict\ndef get_config(): return ConfigDict({'seed': float('nan')})\n",
        b"from ml_collections import ConfigDict\ndef get_config(): return ConfigDict({'lm': {'weights': b'x'}})\n",
    ),
    "raises": (
        *(
            b"raise ValueError('a\\nb')\n",
            b"def get_config(): return 1 / 0\n",
            b"def get_config(): return get_config()\n",
        ),
        *(
            b"import sys\nsys.exit(3)\n",
            b"def get_config(): raise SystemExit\n",
            b"exit()\n",
            b"assert False\n",
        ),
    ),
    "encoding": (
        "seed = '\u00e9'\n".encode("latin-1"),
        "x = 1\n".encode("utf-16"),
        b"# coding: nonsense\n",
        b"\xff\xfe",
    ),
    "deep": (
        b"(" * 300 + b")" * 300,
        b"x = " + b"[" * 150 + b"]" * 150 + b"\n",
        b"x = " + b"-" * 20_000 + b"1\n",
    ),
}
"""What a config file may be instead of a config file."""


def wrong_file(seed: int, number: int, folder: Path) -> Case:
    """A config file that is none, a folder in its place, or a link that leads nowhere."""
    kind = [*CONTENTS, "place"][number % (len(CONTENTS) + 1)]
    rng = generator(seed, "file", number)
    if kind == "place":
        return file_case(choice(rng, (mkdir, loop, dangling)), folder)
    content = choice(rng, CONTENTS[kind])
    return file_case(lambda path: path.write_bytes(content), folder, label=repr(content[:50]))


def mkdir(path: Path) -> None:
    path.mkdir()


def loop(path: Path) -> None:
    path.symlink_to(path)


def dangling(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


def file_case(write: Callable[[Path], Any], folder: Path, label: str = "") -> Case:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "mine.py"
    write(path)
    return Case(
        label=f"config file {label or write.__name__}",
        attempt=lambda: accepted(f"--config={path}"),
        names=[str(path), "config."],
        same=lambda found: False,
    )
