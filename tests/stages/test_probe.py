"""`delrec probe` on finished runs: its figures are those of the stages, and what it refuses."""

import json
import shutil

import pytest
from safetensors.numpy import load_file
from tiny_storefront import delrec, mark_again, open_workspace

from delrec_jax.config import BaselinesConfig
from delrec_jax.delrec import systems
from delrec_jax.stages.inputs import Inputs
from delrec_jax.workdir.language_scorer import CatalogueSystem, LanguageScorer
from delrec_jax.workdir.recommenders import taught_system
from delrec_jax.workdir.validation import Validation

ORDERS = ["true", "shuffled", "reversed", "shuffled_read"]
FIGURES = ("value", "ci_low", "ci_high", "change", "change_low", "change_high")


@pytest.fixture(scope="module")
def other(tiny_run, tmp_path_factory):
    """A run like the tiny one, whose distilled prompt is its random one."""
    workdir = shutil.copytree(tiny_run, tmp_path_factory.mktemp("other") / "run")
    for file in ("result.safetensors", "result.json"):
        shutil.copyfile(*(workdir / "prompt" / name / file for name in ("random", "distilled")))
    mark_again(workdir, "distill")
    return workdir


@pytest.fixture(scope="module")
def probed(tiny_run, other, tmp_path_factory):
    """What is written about the tiny run, with its own prompt and another one carried into it."""
    output = tmp_path_factory.mktemp("probed") / "probes"
    before = (other / "config.json").stat().st_mtime_ns
    delrec(
        "probe", f"--workdir={tiny_run}", f"--output={output}",
        f"--prompt_from={tiny_run}", f"--prompt_from={other}",
    )  # fmt: skip
    assert (other / "config.json").stat().st_mtime_ns == before, "the other run was written to"
    return output


@pytest.fixture(scope="module")
def found(probed):
    return json.loads((probed / "probes.json").read_text())


def test_agreement_is_that_of_the_stage_and_of_one_more_prompt(tiny_run, found):
    stored = json.loads((tiny_run / "prompt" / "agreement.json").read_text())
    assert found["agreement"][:-2] == stored
    assert [row["prompt"] for row in found["agreement"][-2:]] == ["true", "true"]
    # The texts that are asked again are the stage's own.
    (told,) = (
        row for row in stored if (row["prompt"], row["measure"]) == ("distilled", "top-1 agreement")
    )
    (asked,) = (
        row
        for row in found["transfer"]["rows"]
        if (row["prompt"], row["measure"]) == ("own", "top-1 agreement")
    )
    for name in ("value", "ci_low", "ci_high", "users"):
        assert asked[name] == told[name]


def test_true_histories_give_the_figures_of_validation(tiny_run, found):
    """As another part of the project computes them, for teacher, prompted model and DELRec."""
    rows = found["order"]
    names = ["teacher", "lm_no_prompt", "lm_distilled_prompt", "delrec"]
    assert [(row["system"], row["order"]) for row in rows] == [
        (name, order) for name in names for order in ORDERS
    ]
    true = {row["system"]: row["value"] for row in rows if row["order"] == "true"}
    ws = open_workspace(tiny_run)
    inputs = Inputs(ws)
    split, language = inputs.data.split, inputs.language
    scorer, everyone = LanguageScorer(language), Validation(split, BaselinesConfig())
    assert found["users"]["valid"] == len(everyone) == 48
    parts = {
        "lm_distilled_prompt": systems.prompted(ws, language, "distilled", None),
        "delrec": systems.tuned(ws, language, "distilled", None),
    }
    ranked = {name: CatalogueSystem(scorer, one, split) for name, one in parts.items()}
    for name, system in {"teacher": taught_system(ws, inputs.data), **ranked}.items():
        value = everyone.ndcg(lambda rows, system=system: system.scores("valid", rows), name)
        assert true[name] == pytest.approx(value, abs=1e-12)


def test_a_carried_prompt_gives_the_figures_of_the_prompt_that_it_is(tiny_run, other, found):
    rows = {}
    for row in found["transfer"]["rows"]:
        figures = tuple(row[name] for name in FIGURES)
        rows.setdefault(row["prompt"], {})[row["measure"]] = figures
    assert set(rows) == {"own", "random", "shuffled", f"from {tiny_run}", f"from {other}"}
    assert set(rows["own"]) == {
        "NDCG@10 of lm_distilled_prompt", "NDCG@10 of delrec", "top-1 agreement",
    }  # fmt: skip
    assert rows[f"from {tiny_run}"] == rows["own"]
    assert rows[f"from {other}"] == rows["random"] != rows["own"]
    cosines = found["transfer"]["cosines"]
    assert cosines[f"from {tiny_run}"]["same"] == pytest.approx(1)
    assert cosines[f"from {other}"]["same"] < 0.9


def test_slots_words_and_tables(tiny_run, probed, found):
    length = len(load_file(tiny_run / "prompt" / "distilled" / "result.safetensors")["prompt"])
    assert {row["slot"] for row in found["slots"]} == set(range(length))
    assert len(found["slots"]) == 2 * 2 * length
    assert len(found["words"]["slots"]) == length
    text = (probed / "tables.md").read_text()
    assert text.count("\n**") == 5 and "DELRec: reversed" in text
    result = json.loads((tiny_run / "prompt" / "distilled" / "result.json").read_text())
    step = result["best_step"]
    assert text.startswith(f"The distilled prompt of step {step}" + ", untrained" * (step == 0))
    assert f"from {tiny_run} (storefront, sasrec, seed 0)" in text


def test_where_candidates_are_stated_these_are_ranked(sequence_run, tmp_path, capsys):
    delrec("probe", f"--workdir={sequence_run}", "--users=5", f"--output={tmp_path / 'p'}")
    found = json.loads((tmp_path / "p" / "probes.json").read_text())
    assert found["protocol"] == "sampled-8" and found["transfer"] is None
    assert {row["users"] for row in found["order"]} == {5}
    assert found["users"] == {"valid": 5, "slots": 2}
    # Eight candidates: no target is lower than 8th.
    assert all(row["value"] > 0.2 for row in found["order"])
    assert "5 validation users, sampled-8" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--users=0"], "--users=0: 0 is not an integer in the range"),
        (["--prompt_from={nowhere}"], "no config.json there"),
        (["--prompt_from={first_run}"], "belongs to another language model (SHA-256 "),
        (["--prompt_from={p2rec_run}"], "no finished `delrec distill` there"),
    ],
)
def test_what_cannot_be_probed_is_one_clear_line(
    tiny_run, first_run, p2rec_run, tmp_path, capsys, arguments, words
):
    places = {"first_run": first_run, "p2rec_run": p2rec_run, "nowhere": tmp_path}
    with pytest.raises(SystemExit) as ended:
        delrec("probe", f"--workdir={tiny_run}", *(text.format(**places) for text in arguments))
    assert ended.value.code == 2
    err = capsys.readouterr().err.strip()
    assert words in err and len(err.splitlines()) == 1
    assert not (tiny_run / "probes").exists()


def test_a_run_without_a_prompt_is_told(p2rec_run, capsys):
    with pytest.raises(SystemExit):
        delrec("probe", f"--workdir={p2rec_run}")
    assert "probe needs a finished `delrec distill`" in capsys.readouterr().err
