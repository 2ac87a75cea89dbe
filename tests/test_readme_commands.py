"""README.md, tutorial and guides are true: each command of their code blocks runs as it stands, and does what is promised.

The commands are read from these pages; those that the lists below do not know fail, and so does a list that is too long.
"""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
from readme_place import DEMO, FLAGS, GATE, make_place, run_for, said
from readme_text import (
    GUIDES,
    PROSE,
    ROOT,
    commands,
    listed,
    printed,
    rows_below,
    spans,
    take_apart,
)
from safetensors import safe_open
from safetensors.numpy import load_file
from shared_runs import shared
from tiny_storefront import TINY, open_workspace
from transformers import AutoConfig

from delrec_jax import cli, load
from delrec_jax.command_help import COMMANDS
from delrec_jax.config import (
    BaselinesConfig,
    Experiment,
    default_config,
    from_config,
    leaf_keys,
    read_config,
)
from delrec_jax.data.corpora import DataConfig, amazon, movielens, steam
from delrec_jax.data.corpora.sources import find_source
from delrec_jax.data.corpora.tables import RulesConfig
from delrec_jax.errors import UserError
from delrec_jax.language.verbalizers import VERBALIZERS
from delrec_jax.stages.export import FORMATS
from delrec_jax.teachers.registry import CLOSED_FORMS, display_name
from delrec_jax.workdir.prepared import load_data
from delrec_jax.workdir.stage_table import STAGES

# Each by words that no other command has.
EXEMPT = {
    "make demo": "takes minutes; the command that it runs is run below, on a finished tiny run",
    "make test": "runs this file",
    "python3 -m venv": "installs, as .ci/run does in a fresh environment",
    ".venv/bin/pip install": "installs, as .ci/run does in a fresh environment",
    "app": "serves until it is interrupted; tests/app asks it",
    "push": "uploads; tests/hub pushes to a stand-in for the hub",
}
CHECKS = {}
PROTOCOLS = {"full", "full_with_seen", "sampled-8"}


def check(words):
    """Makes a function the check of the one command that has these words."""

    def take(function):
        CHECKS[words] = function
        return function

    return take


def known_as(command):
    return [words for words in (*EXEMPT, *CHECKS) if command.has(words)]


@pytest.fixture(scope="session")
def place(tiny_run, tmp_path_factory):
    """The folder in which the commands are run."""
    with shared(tmp_path_factory, "readme") as (root, ready):
        if not ready:
            make_place(root, tiny_run)
    return root


@pytest.fixture
def made(place, tmp_path_factory):
    """(workdir) -> what README.md's command that makes it printed; each is run once a session."""

    def text(workdir):
        name = f"readme-{Path(workdir).name}"
        with shared(tmp_path_factory, name) as (path, ready):
            if not ready:
                path.write_text(run_for(workdir))
        return path.read_text()

    return text


def program(*arguments):
    """What the installed program prints, in a process of its own."""
    path = Path(sys.executable).parent / "delrec"
    return subprocess.run([path, *arguments], capture_output=True, text=True, check=True).stdout


def value_of(command, flag):
    """The word of a command that gives this flag."""
    (found,) = [word for word in command.words if word.startswith(f"{flag}=")]
    return found


def systems(workdir, folder="report"):
    """The systems by protocol in a run's results."""
    found = {}
    for row in json.loads(Path(workdir, folder, "metrics.json").read_text()):
        found.setdefault(row["protocol"], set()).add(row["system"])
    return found


def has_report(workdir, *headings):
    """The page is there, and has these headings."""
    page = Path(workdir, "report", "index.html").read_text()
    found = re.findall(r"<h2[^>]*>([^<]+)", page)
    assert set(headings) <= set(found)
    return page


# --- the commands


@check("--help")
def help_names_every_command(command, made):
    text = program(*command.words[1:])
    assert all(re.search(rf"\b{name}\b", text) for name in COMMANDS)


@check("run --workdir=runs/flan")
def weights_are_adopted(command, made):
    text = made("runs/flan")
    base = json.loads(Path("runs/flan/lm/base.json").read_text())
    assert base["weights"] == "google/flan-t5-small" and f"SHA-256 {base['fingerprint']}" in text
    assert re.fullmatch("[0-9a-f]{64}", base["fingerprint"])
    assert not Path("runs/flan/lm/model").exists(), "pretrain trained something"
    found = systems("runs/flan")
    assert "delrec" in found["sampled-8"] & found["rerank-8"], "`sequence` scores stated candidates"
    assert "delrec" not in found["full"] and "teacher" in found["full"]
    has_report("runs/flan", "Results")


@check("run --workdir=runs/minilm")
def an_encoder_ranks_the_whole_catalogue(command, made):
    text = made("runs/minilm")
    base = json.loads(Path("runs/minilm/lm/base.json").read_text())
    assert base["weights"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert "prompt readout" in text, "the control that distills scalars alone"
    found = systems("runs/minilm")["full"]
    assert {"delrec", "lm_readout", "lm_embeddings", "hybrid(delrec+teacher)"} <= found


@check("study --workdir=runs/components")
def a_study_says_what_it_would_run(command, made):
    text = said(*command.words[1:], *TINY, command.comment.partition(":")[0])
    assert "6 arms x 3 seeds = 18 runs" in text and "pretrain, teach: once for 6 runs" in text
    assert not Path("runs/components").exists()
    for word in ("components", "prompt length", "few labels", "rivals"):
        assert word in PROSE and Path(f"configs/studies/{word.replace(' ', '_')}.py").is_file()


@check("compare runs/storefront")
def finished_runs_are_compared(command, made):
    assert "DELRec" in said(*command.words[1:])
    output = Path(value_of(command, "--output").partition("=")[2])
    names = {"summary.json", "tables.md", "tests.csv", "tests.tex", "index.html"}
    assert names <= {path.name for path in output.iterdir()}


@check("probe --workdir=runs/storefront")
def the_prompt_is_probed(command, made):
    assert "slot" in said(*command.words[1:], "--users=8")
    assert Path("runs/storefront/probes/probes.json").is_file()


@check("export --workdir=runs/flan")
def every_format_is_exported(command, made):
    made("runs/flan")
    first, output = (value_of(command, flag) for flag in ("--format", "--output"))
    formats = {first.partition("=")[2], *re.findall(r"\w+", command.comment.removeprefix("or"))}
    assert formats == set(FORMATS)
    files = {}
    for kind in formats:
        chosen = {first: f"--format={kind}", output: f"{output}-{kind}"}
        said(*(chosen.get(word, word) for word in command.words[1:]))
        files[kind] = Path(f"{output.partition('=')[2]}-{kind}")
    assert AutoConfig.from_pretrained(files["hf"]).model_type == "t5"
    assert {"model.safetensors", "tokenizer.json"} <= {path.name for path in files["hf"].iterdir()}
    for kind in ("peft", "lora"):
        config = json.loads((files[kind] / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == "google/flan-t5-small"
        assert len(load_file(files[kind] / "adapter_model.safetensors")) > 1
    tensors = load_file(files["adapter"] / "adapter.safetensors")
    assert {name.partition("/")[0] for name in tensors} == {"adapters", "prompt"}


@check("export --format=hub")
def a_folder_to_share_is_written(command, made):
    said(*command.words[1:])
    folder = Path(value_of(command, "--output").partition("=")[2])
    opened, own = load(folder), load(DEMO)
    history = [own.titles[0], own.titles[1]]
    assert opened.recommend(history).equals(own.recommend(history))
    assert "model-index" in (folder / "README.md").read_text()


@check("run --workdir=runs/mine")
def own_data_stops_at_the_gate_or_goes_on(command, made):
    failed, _, went_on = made("runs/mine").partition("failed the gate: next_item")
    assert "pretrain ..." in failed and "teach ..." not in failed
    assert f"required 1.000 ({GATE.removeprefix('--config.')})" in went_on
    required = from_config(read_config(Path("configs/ml100k_mini.py"))).pretrain.gate.next_item
    assert f"HR@10 of the next item stays below {required};" in PROSE
    facts = json.loads(Path("runs/mine/data/statistics.json").read_text())
    (reason,) = {reason for reason, count in facts["dropped"].items() if count}
    assert f"left out or changed: {reason}: 1" in failed and re.search(r"users +48\n", failed)
    assert "delrec" in systems("runs/mine")["full"]
    has_report("runs/mine", "Results")


@check("baseline")
def popularity_and_the_teacher_are_ranked(command, made):
    text = made("runs/ml100k_sasrec")
    found = systems("runs/ml100k_sasrec", "baseline")
    found = {name: value for name, value in found.items() if "@" not in name}
    hybrids = {name for name in BaselinesConfig().hybrid_parts if "delrec" not in name}
    wanted = {*CLOSED_FORMS, "teacher", *hybrids}
    assert found == {name: wanted for name in (*PROTOCOLS, "rerank-8")}
    named = {form.title.lower() for form in CLOSED_FORMS.values()}
    assert all(name in PROSE.lower() for name in named), "every baseline is named"
    named = listed(r"Protocols: (.*?)\.")
    assert {re.sub(r"-m$", "-8", name) for name in named} == set(found)
    assert "Teacher (sasrec)" in text and not Path("runs/ml100k_sasrec/lm").exists()


def is_as_promised(path):
    """The config trains what the tiny run of it has not the time for."""
    config = from_config(read_config(Path(path)))
    names = [display_name(name) for name in config.augment.teachers]
    assert f"These train {', '.join(names[:-1])} and {names[-1]} plain" in PROSE
    assert config.augment.controls and "three controls" in PROSE
    assert config.parse.seeds == 3 and "under three seeds" in PROSE


@check("run --workdir=runs/p2rec_storefront")
def recommenders_get_the_embeddings(command, made):
    made("runs/p2rec_storefront")
    is_as_promised("configs/p2rec/storefront.py")
    found = systems("runs/p2rec_storefront")
    assert {name for name in found if "@" not in name} == PROTOCOLS, "P2Rec has no rerank-m"
    assert {f"full@{part}" for part in ("head", "tail", "cold")} <= set(found)
    controls = ("_untuned_lm", "_shuffled_text", "_random_vectors")
    added = ("", "_augmented", *(f"_augmented{control}" for control in controls))
    assert found["full"] >= {f"teacher{name}" for name in added}
    page = has_report("runs/p2rec_storefront", "Results", "Paired tests", "Latent categories")
    assert "nearest neighbors share its category" in page and "titles nearest to each" in page
    ids = load_data(open_workspace(Path("runs/p2rec_storefront"))).corpus.catalogue.ids
    for name in ("untuned", "seed-0/tuned", "seed-0/shuffled"):
        path = Path("runs/p2rec_storefront/augmented/embeddings", f"{name}.safetensors")
        with safe_open(path, framework="numpy") as file:
            assert json.loads(file.metadata()["description"])["item_ids"] == list(ids)


@check("run --workdir=runs/p2rec_ml100k")
def a_recommender_starts_from_the_embeddings(command, made):
    made("runs/p2rec_ml100k")
    is_as_promised("configs/p2rec/ml100k_mini.py")
    found = systems("runs/p2rec_ml100k")["full"]
    assert found >= {"popularity", "tfidf", "teacher", "teacher_augmented", "lm_embeddings"}
    assert "hybrid(teacher+tfidf)" in found and "teacher_augmented_untuned_lm" not in found
    has_report("runs/p2rec_ml100k", "Results", "Latent categories")


@check("STAGE")
def every_stage_is_a_command(command, made):
    made("runs/p2rec_storefront")
    delrec, p2rec = listed(r"stages of DELRec are (.*?);"), listed(r"those of P2Rec are (.*?)\.")
    run_stages(command, "delrec", delrec, "configs/storefront.py", DEMO, TINY, again="prepare")
    workdir = "runs/p2rec_storefront"
    flags = FLAGS[workdir]
    config = "configs/p2rec/storefront.py"
    run_stages(command, "p2rec", p2rec, config, workdir, flags, again="evaluate")


def run_stages(command, method, named, config, workdir, flags, *, again):
    """Runs each stage by its command in a copy of a finished run; only the lost one, and the report, are made again."""
    assert named == [stage for stage in STAGES[method] if stage != "baseline"]
    lost = shutil.ignore_patterns(STAGES[method][again].folder, "report")
    workdir = shutil.copytree(workdir, Path("runs", f"stages_{method}"), ignore=lost)
    for stage in named:
        text = said(*filled(command, STAGE=stage, FILE=config, DIR=workdir), *flags)
        done = "done in" if stage in (again, "report") else "finished before, skipped"
        assert f"{stage}: {done}" in text
    assert f"report: {workdir}/report/index.html" in text
    has_report(workdir, "Results")


def filled(command, **values):
    """The arguments of a command, with values for the words of it that a user has to fill in."""
    words = "|".join(values)
    return [
        re.sub(rf"\b({words})\b", lambda found: str(values[found[0]]), word)
        for word in command.words[1:]
    ]


@check("prompts")
def prompts_of_each_task_are_printed(command, made):
    text = said(*filled(command, FILE="configs/storefront.py", DIR=DEMO), *TINY)
    count = int(value_of(command, "--n").partition("=")[2])
    examples = text.split("\n== ")
    for task in ("Temporal Analysis", "Recommendation Pattern Simulating", "Next item"):
        assert sum(task in example.partition("\n")[0] for example in examples) == count
    assert len(examples) == 3 * count
    for example in examples:
        assert example.count("\nlabel: ") == 1 and "The user has purchased" in example


@check("recommend")
def a_list_of_titles_is_printed(command, made):
    titles = load_data(open_workspace(DEMO)).corpus.catalogue.titles
    some = iter(titles)  # in place of the word Title
    words = [re.sub(r"\bTitle\b", lambda _: next(some), word) for word in filled(command, DIR=DEMO)]
    text = said(*words)
    count = int(words[words.index("-k") + 1])
    assert re.findall(r"│ (\d+) ", text) == [str(rank + 1) for rank in range(count)]
    (history,) = [word for word in words if word.startswith("--history=")]
    known = [title.strip() for title in history.partition("=")[2].split(";")]
    assert len(known) > 1 and set(known) <= set(titles)
    assert not any(title in text for title in known)
    rest = set(titles) - set(known)
    assert sum(title in text for title in rest) >= count and "DELRec" in text


@check("plan")
def shardings_and_memory_are_printed(command, made):
    text = program(*command.words[1:], "--compile=no")
    for part in ("SHARDINGS  tune", "BYTES PER DEVICE", "ON 1 OF THESE CHIPS\n  h100"):
        assert f"\n{part}" in text


# --- that is all of them


def label(command):
    return " ".join(known_as(command)) or str(command)


TO_RUN = [command for command in commands(GUIDES) if not any(map(command.has, EXEMPT))]


@pytest.mark.parametrize("command", TO_RUN, ids=label)
def test_a_command_does_what_the_readme_promises(command, made, place, monkeypatch):
    names = known_as(command)
    assert names, f"no check for this command: {command}"
    assert command.words[0] == ".venv/bin/delrec"
    monkeypatch.chdir(place)
    CHECKS[names[0]](command, made)


def test_every_command_is_known_and_everything_known_is_a_command():
    names = [known_as(command) for command in commands(GUIDES)]
    assert [len(one) for one in names] == [1] * len(names)
    assert {name for (name,) in names} == {*EXEMPT, *CHECKS}


def test_what_make_demo_runs_prints_the_table_of_the_readme(place, monkeypatch):
    (recipe,) = re.findall(r"^demo:.*\n\t(.*)\n", (ROOT / "Makefile").read_text(), re.MULTILINE)
    _, *words = recipe.split()
    assert f"--workdir={DEMO}" in words
    monkeypatch.chdir(place)
    (DEMO / "report" / "index.html").unlink()
    text = said(*words, *TINY)
    (sample,) = printed(GUIDES)
    title = sample.partition("\n")[0]
    assert take_apart(text, title) == take_apart(sample, title)
    assert text.splitlines()[-2] == f"report: {DEMO}/report/index.html"
    headings = ("Results", "Paired tests", "Agreement with the teacher", "Training")
    page = has_report(DEMO, *headings, "Worked examples")
    assert page.count("<h3>User ") == 2


# --- what the text says about settings


def refusal(capsys, *flags):
    """What is said to flags that cannot be, before anything runs."""
    with pytest.raises(SystemExit):
        cli.main(["plan", f"--config={ROOT / 'configs' / 'storefront.py'}", *flags])
    return capsys.readouterr().err.strip()


def names_in(error):
    """The choices that an error offers."""
    (found,) = re.findall(r"(?:use one of|is none of) ([\w, ]*\w)", error)
    return [name for name in found.split(", ") if name != "or FILE"]


LIST = r"((?:`(?:--config\.split\.kind=)?\w[\w.]*`(?: \(default\))?(?:, | or | and )?)+)"


@pytest.mark.parametrize(
    ("key", "before"),
    [
        ("teacher.name", "`--config.teacher.name=` is "),
        ("teacher.loss.name", "`--config.teacher.loss.name=` is "),
        ("augment.way", "`--config.augment.way=` is "),
        ("split.kind", "Splits: "),
        ("lm.verbalizer", "verbalizers "),
    ],
)
def test_a_choice_is_listed_whole(capsys, key, before):
    named = [name.removeprefix(f"--config.{key}=") for name in listed(re.escape(before) + LIST)]
    assert named == names_in(refusal(capsys, f"--config.{key}=?"))


def test_the_split_named_as_the_default_is_it():
    assert f"--config.split.kind={Experiment().split.kind}` (default)" in PROSE


def test_verbalizers_that_need_candidates():
    named = listed(rf"with the verbalizer {LIST} have only the last two")
    assert set(named) == {name for name, one in VERBALIZERS.items() if not one.ranks_catalogue}


def test_the_table_of_corpora():
    rows = {
        cells[0].strip("`"): cells[1] for cells in rows_below("`data.corpus` | settings | files")
    }
    assert set(rows) == set(names_in(error_of(find_source, DataConfig(corpus="?"))))
    sources = {"movielens": movielens, "steam": steam, "amazon": amazon}
    for name, settings in rows.items():
        named = {}
        for part in settings.split(";"):
            first, *more = re.findall(r"`([^`]+)`", part)
            key, _, value = first.removesuffix(".*").partition("=")
            named[key] = [value, *more]
        assert all(hasattr(DataConfig(), key) for key in named)
        if name in sources:
            find, categories = sources[name].resources, named.get("category", [])
            assert named["edition"] == names_in(error_of(find, "?", *categories))
            assert all(find(edition, *categories) for edition in named["edition"])


def error_of(function, *arguments):
    with pytest.raises(UserError) as error:
        function(*arguments)
    return str(error.value)


def test_the_rules_of_a_corpus():
    named = listed(rf"by the rules {LIST}")
    of_the_sample = "seed"  # which max_users draws
    known = {one.name for one in fields(RulesConfig)} - {of_the_sample}
    assert {name.removeprefix("data.") for name in named} == known


def test_every_setting_exists():
    known = leaf_keys(default_config().to_dict())
    named = set(re.findall(r"--config\.([a-z_][\w.]*\w)", GUIDES))
    sections = "|".join({key.partition(".")[0] for key in known if "." in key})
    named |= {span for span in spans() if re.fullmatch(rf"(?:{sections})(?:\.\w+)+", span)}
    named |= {f"mesh{name}" for name in listed(r"`--config\.mesh\.data`, (.*?) say")}
    assert len(named) > 12 and named <= set(known)


def test_a_key_that_does_not_exist_names_the_nearest(capsys):
    (flag,) = spans("--config.distill.loop")
    key, _, value = flag.partition("=")
    assert f"did you mean {key.removeprefix('--')}?" in refusal(capsys, f"{key[:-1]}={value}")


def test_the_workdir_of_another_config_is_refused(place, monkeypatch):
    monkeypatch.chdir(place)
    flags = ("--config=configs/storefront.py", f"--workdir={DEMO}", *TINY)
    text = said("run", *flags, *spans("--config.distill.loop"), status=2)
    assert "belongs to another config" in text and spans("--update")[0] in text


def test_the_ablations_are_these():
    (found,) = re.findall(
        rf"An ablation is a name after the config file: `--config=([\w/.]+):(\w+)` \(or {LIST}",
        PROSE,
    )
    path, *named = ROOT / found[0], found[1], *re.findall(r"\w+", found[2])
    assert set(named) <= set(names_in(error_of(read_config, path, "?")))
    for name in named:
        assert from_config(read_config(path, name)) != from_config(read_config(path))


def test_the_parts_that_can_be_installed_and_made():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(re.findall(r"\.\[(\w+)\]", GUIDES)) <= set(project["optional-dependencies"])
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {span.split()[1] for span in spans("make ")} <= set(targets)
    assert {span.split()[1] for span in spans("delrec ")} <= set(COMMANDS)


# --- that it can fail

TEXT = """Text with a `span`.
```
.venv/bin/delrec fly --to="the moon; mars" \\
  --now      # or later, never
# a line of words alone
make demo      # all of it
```
```
shop · split · full
a printed line
```
"""


def test_what_counts_as_a_command():
    flight, demo = commands(TEXT)
    assert flight.words == (".venv/bin/delrec", "fly", "--to=the moon; mars", "--now")
    assert flight.comment == "or later, never"
    assert known_as(demo) == ["make demo"] and known_as(flight) == []
    assert [text.splitlines()[0] for text in printed(TEXT)] == ["shop · split · full"]
    with pytest.raises(ValueError, match="not closed"):
        commands(TEXT + "```\n")
