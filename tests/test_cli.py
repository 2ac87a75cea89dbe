"""The command line before anything runs: how arguments are read, what a mistake is told, and what is not loaded for it."""

import json
import subprocess
import sys
from unittest import mock

import pytest
from tiny_storefront import CONFIG

from delrec_jax import cli
from delrec_jax.command_line import overridden, parse
from delrec_jax.config import default_config

HEAVY = ("jax", "numpy", "flax", "transformers", "ml_collections")
FILE = """
from delrec_jax.config import ablated, default_config
ABLATIONS = {"short": {"distill.length": 3, "seed": 4}}
def get_config(ablation=None):
    return ablated(default_config(), ablation, ABLATIONS)
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "of: mine" / "a.py"
    path.parent.mkdir()
    path.write_text(FILE)
    return path


def asked_for(*arguments):
    """The experiment and the flags that `delrec plan` is called with."""
    with mock.patch.object(cli, "_plan") as plan:
        cli.main(["plan", *arguments])
    return plan.call_args.args


def mistake(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    assert ended.value.code == 2
    err = capsys.readouterr().err.strip()
    assert err.startswith("delrec: ") and len(err.splitlines()) == 1
    return err


def test_an_ablation_is_a_name_behind_the_file(file):
    """Also where a folder has a colon in its name."""
    assert asked_for(f"--config={file}")[0].distill.length == 8
    experiment, _ = asked_for(f"--config={file}:short")
    assert (experiment.distill.length, experiment.seed) == (3, 4)


def test_overrides_come_after_the_ablation(file):
    experiment, values = asked_for(
        "--config.seed=9", "--config", f"{file}:short", "--config.prompts.pattern_first", "--devices", "4",
        "--config.distill.top_h", "5", "--noconfig.teacher.cold_negatives", "--config.prompts.max_history=2",
        "--config.prompts.max_history=3",
    )  # fmt: skip
    assert (experiment.seed, experiment.distill.length, experiment.distill.top_h) == (9, 3, 5)
    assert experiment.prompts.pattern_first and not experiment.teacher.cold_negatives
    assert (experiment.prompts.max_history, values.devices) == (3, 4)


def test_a_home_directory_in_a_flag_is_the_users(monkeypatch):
    """The shell replaces ~ only at the beginning of a word."""
    monkeypatch.setenv("HOME", "/home/ann")
    flags, _, _ = parse("export", ["--workdir=~/runs/a", "--output=~/out"])
    assert (flags.workdir, flags.output) == ("/home/ann/runs/a", "/home/ann/out")


def test_a_file_of_flags_that_is_no_text_is_told(capsys, tmp_path):
    (tmp_path / "flags").write_bytes(b"\x7fELF\xff\xfe")
    assert "give a file with one flag per line" in mistake(
        capsys, "run", f"--flagfile={tmp_path / 'flags'}"
    )


def test_a_key_with_a_dot_in_a_workdir_is_told(capsys, tmp_path):
    (tmp_path / "config.json").write_text('{"data.corpus": "csv"}')
    said = mistake(capsys, "recommend", f"--workdir={tmp_path}", "--history=A")
    assert f"{tmp_path}/config.json: " in said and "put back a copy" in said


@pytest.mark.parametrize("settings", [{"seeed": 1}, {"tune": {"loop": {"steps": -1}}}])
def test_a_wrong_key_or_value_in_a_workdir_names_its_file(capsys, tmp_path, settings):
    (tmp_path / "config.json").write_text(json.dumps(settings))
    said = mistake(capsys, "recommend", f"--workdir={tmp_path}", "--history=A")
    assert f"{tmp_path}/config.json: " in said and next(iter(settings)) in said


def test_flags_from_a_file(file, tmp_path):
    (tmp_path / "flags").write_text(f"--config={file}:short\n--config.seed=2\n--devices=3\n")
    experiment, values = asked_for(f"--flagfile={tmp_path / 'flags'}")
    assert (experiment.seed, values.devices) == (2, 3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config={file}:long"], ["no ablation 'long'", "use one of short"]),
        (["--config={file}:"], ["nothing after the colon"]),
        (["--config={file}s"], ["--config=", "there is no such file", "configs/"]),
        (["--config=configs:short"], ["there is no such file"]),
        (["--config={file}", "--config.distill.lenght=2"], ["did you mean config.distill.length?"]),
        (
            ["--config={file}:short", "--noconfig.prompts.show_candidats"],
            ["did you mean config.prompts.show_candidates?"],
        ),
        (
            ["--config={file}", "--config.distill.length=many"],
            ["config.distill.length is 'many'", "a whole number"],
        ),
        (
            ["--config={file}", "--config.distill.length"],
            ["distill.length is ''", "a whole number"],
        ),
        (["--config={file}", "more"], ["'more' is not a flag"]),
        (["--config={file}", "--config.prompts.show_candidates", "more"], ["'more' is not a flag"]),
        (["--flagfile=nowhere"], ["nowhere"]),
        ([], ["--config is missing"]),
    ],
)
def test_mistakes_about_the_config(file, capsys, arguments, words):
    err = mistake(capsys, "plan", *(argument.format(file=file) for argument in arguments))
    for word in words:
        assert word in err


MISTAKES = [
    (
        ["run", CONFIG, "--workdir=s3://b/run"],
        "--workdir=s3://b/run: give a folder, or a folder in a bucket as gs://",
    ),
    (["run", CONFIG, "--workdir=gs://bucket"], "--workdir=gs://bucket: give a folder"),
    (["study", CONFIG, "--workdir=gs://bkt/a"], "--workdir=gs://bkt/a: study works in folders"),
    (["compare", "gs://bkt/a"], "gs://bkt/a: give a folder; only --workdir"),
    (["probe", "--workdir=gs://bkt/a"], "probe leaves nothing in a bucket: give --output=DIR"),
    (
        ["probe", "--workdir=w", "--prompt_from=gs://bkt/a"],
        "--prompt_from=gs://bkt/a: give a folder",
    ),
    (["export", "--workdir=w", "--output=s3://b/x"], "--output=s3://b/x: give a folder"),
    (["recommend", "--workdir=w", "--titles=x.csv"], "--titles and --base are for models that"),
    (["fly"], "no command 'fly'"),
    (["compare", "--output=x"], "compare needs finished runs"),
    (["run", CONFIG], "--workdir is missing"),
    (["run", "--workdir=w"], "--config is missing"),
    (["run", CONFIG, "--wrokdir=w"], "Did you mean: workdir"),
    (["run", "--config=configs/none.py", "--workdir=w"], "no such file"),
    (["recommend", "--workdir=w", "--config.seed=1"], "give --config=FILE too"),
    (["recommend", "--workdir=w", "--update"], "so recommend would ignore it: leave it out"),
    (["recommend", "--workdir=w", "--output=x"], "--output is read by histories, rank, probe"),
    (["compare", "a", "--update"], "so compare would ignore it"),
    (["rank", "--workdir=w", "--cache=x"], "--cache=x: only a workdir in a bucket has a copy"),
    (["rank", "--from=a/b", "--cache=x"], "--from=a/b: give no --workdir, --cache and --config"),
    (["prompts", CONFIG, "--workdir=w", "--n=two"], "--n=two"),
]


@pytest.mark.parametrize(
    "given",
    [
        ["--config.tune.controls=('random',)", "--config.tune.controls=('none',)"],
        ["--config.tune.controls", "('random',)", "--config.tune.controls", "('none',)"],
        ["--config.tune.controls=()", "--config.seed=3", "--config.tune.controls=('none',)"],
    ],
)
def test_of_several_values_for_one_key_the_last_is_taken(given):
    config = overridden(default_config(), ["--config.seed", "2", *given])
    assert config.tune.controls == ("none",) and config.seed in (2, 3)
    flagged = ["--config.prompts.cut_to_fit", "--noconfig.prompts.cut_to_fit", "--config.seed=1"]
    config = overridden(default_config(), flagged)
    assert (config.prompts.cut_to_fit, config.seed) == (False, 1)


@pytest.mark.parametrize(("arguments", "words"), MISTAKES)
def test_mistakes_are_told(capsys, arguments, words):
    assert words in mistake(capsys, *arguments)


def loaded(calls):
    """Which heavy packages a fresh process has after these calls of the command line, and what it printed."""
    code = (
        "import sys\n"
        "from delrec_jax.cli import main\n"
        f"for call in {calls!r}:\n"
        "    try: main(call)\n"
        "    except SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stderr.splitlines()[-1], done.stdout


def test_help_loads_nothing_heavy():
    heavy, out = loaded([["--help"], ["help"], []])
    assert heavy == "[]" and out.count("--config=configs/storefront.py") == 3


def test_mistakes_in_flags_load_nothing_heavy():
    assert loaded([arguments for arguments, _ in MISTAKES])[0] == "[]"


def test_the_check_of_what_is_loaded_can_fail(file):
    heavy, _ = loaded([["plan", f"--config={file}", "--config.sede=1"]])
    assert "jax" in heavy and "numpy" in heavy
