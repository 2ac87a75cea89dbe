"""`delrec compare`: finished runs side by side, from their rank records alone."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from evidence_workdirs import HALF, SOME, THIRD, USERS, make_two_seeds, workdir

from delrec_jax.cli import main
from delrec_jax.evaluation.significance import holm, sign_flip_p_value
from delrec_jax.files import file_hash
from delrec_jax.results.comparing import Asked, blocks, summarized
from delrec_jax.results.sources import gather, sources

GAINS = {1: 1.0, 3: 0.5, 99: 0.0}
BEST = [1] * 9 + [99] * 3


@pytest.fixture
def arms(tmp_path):
    """Two arms of two seeds, whose teacher is shared, and a third of one seed, whose DELRec is that of the first."""
    ranks = {"full": (BEST, HALF), "no_ta": (SOME, THIRD), "same": (BEST,)}
    found = []
    for label, seeds in ranks.items():
        for seed, own in enumerate(seeds):
            systems = {"popularity": THIRD, "teacher": (SOME, HALF)[seed], "delrec": own}
            path = workdir(tmp_path / label, str(seed), systems, folder="records", seed=seed)
            found.append(f"{label}={path}")
    return found


def rows_of(summary):
    return [(row["system"], row["reference"]) for row in summary["comparisons"]]


def gains(ranks):
    return np.array([GAINS[rank] for rank in ranks])


def test_each_arm_is_tested_against_the_same_system_of_the_reference(arms):
    asked = Asked(systems="delrec", reference="full")
    summary = summarized(sources(arms[:4]), asked)
    assert rows_of(summary) == [("delrec/no_ta", "delrec/full")]
    (row,) = summary["comparisons"]
    difference = (gains(SOME) + gains(THIRD) - gains(BEST) - gains(HALF)) / 2
    assert row["difference"] == pytest.approx(difference.mean(), abs=1e-6)
    assert row["d_z"] == pytest.approx(difference.mean() / difference.std(ddof=1), abs=1e-6)
    assert row["percent"] == pytest.approx(100 * difference.mean() / 0.625, abs=1e-4)
    assert row["by_seed"] == [-0.375, 0.0] and row["low_seeds"] <= row["low"]
    assert row["p"] == round(sign_flip_p_value(difference, seed=0), 6)
    shown = {line.label: line.cells for line in blocks(summary, asked)["intervals"].lines}
    cells = shown["DELRec, full (sasrec)"]
    assert [cell.text for cell in cells[:3]] == ["2", "0.6250", f"{0.25 / np.sqrt(2):.4f}"]


def test_what_all_arms_share_is_one_system_and_what_two_share_is_not_tested(arms):
    asked = Asked(reference="full")
    summary = summarized(sources([arms[0], arms[2], arms[4]]), asked)
    assert [row["system"] for row in summary["systems"]] == [
        *("popularity", "teacher", "delrec/full", "delrec/no_ta", "delrec/same"),
    ]
    assert rows_of(summary) == [("delrec/no_ta", "delrec/full")]
    assert "Not tested: 1 pairs with the same ranks" in blocks(summary, asked)["tests"].note
    # With a second seed, the teacher of the third arm is no longer that of the others.
    several = [row["system"] for row in summarized(sources(arms), asked)["systems"]]
    assert several[1:4] == ["teacher/full", "teacher/no_ta", "teacher/same"]


@pytest.mark.parametrize("first", ["full", "few"])
def test_arms_may_differ_in_what_is_trained_on_and_share_the_first_ones_groups(tmp_path, first):
    """With fewer training users more targets are cold: the same users are compared all the same."""
    paths = {
        "full": workdir(tmp_path / "full", "0", {"delrec": BEST}, folder="records"),
        "few": workdir(tmp_path / "few", "0", {"delrec": HALF}, folder="records", cold=1),
    }
    named = [f"{label}={paths[label]}" for label in sorted(paths, key=lambda label: label != first)]
    found = sources(named)
    cells = gather(found)
    groups = [cell.users.select("cold", "head") for cell in cells.values()]
    assert len(groups) == 2 and groups[0].equals(groups[1])
    assert groups[0]["cold"].sum() == (1 if first == "few" else 0)
    summary = summarized(found, Asked(reference=first))
    (row,) = summary["comparisons"]
    assert abs(row["difference"]) == pytest.approx(abs(gains(BEST) - gains(HALF)).mean(), abs=1e-6)


def test_a_system_as_reference_is_that_of_the_same_arm(arms):
    summary = summarized(sources(arms), Asked(systems="delrec,popularity", reference="teacher"))
    assert rows_of(summary) == [
        *(("popularity", f"teacher/{arm}") for arm in ("full", "no_ta", "same")),
        *((f"delrec/{arm}", f"teacher/{arm}") for arm in ("full", "no_ta", "same")),
    ]
    rows = summary["comparisons"]
    assert [row["p_holm"] for row in rows] == pytest.approx(holm([row["p"] for row in rows]))
    one = summarized(sources(arms), Asked(systems="delrec", reference="delrec/no_ta"))
    assert rows_of(one) == [(f"delrec/{arm}", "delrec/no_ta") for arm in ("full", "same")]
    assert one["comparisons"][1]["seeds"] == [0]  # the only one that both have


def test_without_a_reference_it_is_the_first_label_or_the_teacher(arms, tmp_path):
    assert summarized(sources(arms[2:4] + arms[:2]), Asked())["reference"] == "no_ta"
    unlabeled = make_two_seeds(tmp_path)  # of `delrec baseline`
    assert rows_of(summarized(sources(unlabeled), Asked())) == [("popularity", "teacher")]
    alone = summarized(sources(unlabeled), Asked(systems="popularity"))
    assert alone["comparisons"] == [] and list(blocks(alone, Asked())) == ["intervals", "systems"]


def test_the_command_prints_and_writes_tables_and_a_page(arms, tmp_path, capsys):
    out = tmp_path / "out"
    main(["compare", *arms[:2], f"--output={out}", *arms[2:], "--systems=delrec"])
    printed = capsys.readouterr().out
    assert (out / "tables.md").read_text() in printed
    assert printed.endswith(f"comparison: {out / 'index.html'}\n")
    assert sorted(path.name for path in out.iterdir()) == [
        *("index.html", "intervals.csv", "intervals.tex", "summary.json"),
        *("systems.csv", "systems.tex", "tables.md", "tests.csv", "tests.tex"),
    ]
    rows = list(csv.DictReader((out / "tests.csv").open()))
    assert [row["Comparison"] for row in rows] == [
        "DELRec, no_ta (sasrec) vs DELRec, full (sasrec)",
        "DELRec, same (sasrec) vs DELRec, full (sasrec)",
    ]
    summary = json.loads((out / "summary.json").read_text())
    assert summary["users"] == USERS and len(summary["runs"]) == len(arms)
    assert str(tmp_path) not in json.dumps(summary)
    page = (out / "index.html").read_text()
    assert 'href="../no_ta/1"' in page and "delrec compare full=" in page
    main(["compare", *arms, f"--output={out}"])  # what it wrote itself is replaced


@pytest.mark.parametrize(
    "names", [["index.html"], ["config.json", "data"], ["summary.json", "study.json"]]
)
def test_files_of_others_are_not_replaced(arms, tmp_path, capsys, names):
    out = tmp_path / "mine"
    out.mkdir()
    for name in names:
        (out / name).write_text("my own")
    with pytest.raises(SystemExit):
        main(["compare", *arms, f"--output={out}"])
    assert "did not write, such as" in capsys.readouterr().err
    assert {path.name: path.read_text() for path in out.iterdir()} == dict.fromkeys(names, "my own")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--reference=fulll"], "--reference=fulll: neither a label nor a system; labels: full"),
        (["--systems=delrecc"], "no system is called 'delrecc'"),
        (["--systems=delrec/full", "--reference=full"], "nothing of --systems=delrec/full can be"),
        (["--metric=HR@2"], "--metric=HR@2: unknown"),
        (["--protocol=rerank-20"], "the runs were not ranked so; they have full"),
        (["--protocol=full@warm"], "no group of users 'warm'"),
        (["--protocol=full@tail"], "'tail' has 2 users, fewer than 10"),
        (["--workdir=w"], "compare needs finished runs and no config"),
        (["--config.seed=1"], "compare needs finished runs and no config"),
        (["--output=gs://b/x"], "--output=gs://b/x: give a folder"),
        (["a/b=c"], "a/b=c: there is no such folder, and 'a/b' is no label"),
        (["teacher=c"], "'teacher' is no label"),
        (["nowhere"], "nowhere: neither records/ nor baseline/"),
    ],
)
def test_mistakes_are_told_in_one_line(arms, capsys, words, message):
    with pytest.raises(SystemExit, match="2"):
        main(["compare", *arms, *words])
    err = capsys.readouterr().err.strip()
    assert message in err and len(err.splitlines()) == 1


def test_runs_of_other_users_are_refused(arms, tmp_path, capsys):
    other = workdir(tmp_path, "other", {"delrec": SOME[:-1]}, folder="records")
    with pytest.raises(SystemExit, match="2"):
        main(["compare", *arms, f"other={other}"])
    assert "has other test users" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["{", "[]", "null"])
def test_a_damaged_marker_is_named(arms, capsys, content):
    (Path(arms[0].partition("=")[2]) / "records" / "stage.json").write_text(content)
    with pytest.raises(SystemExit, match="2"):
        main(["compare", *arms])
    assert "stage.json: " in (err := capsys.readouterr().err) and "put back a copy" in err


def test_records_that_were_exchanged_are_named(arms, capsys):
    folder = Path(arms[0].partition("=")[2]) / "records"
    files = {"records.parquet": file_hash(folder / "records.parquet")}
    (folder / "stage.json").write_text(json.dumps({"finished": True, "files": files}))
    main(["compare", *arms])
    capsys.readouterr()
    other = Path(arms[1].partition("=")[2]) / "records" / "records.parquet"
    (folder / "records.parquet").write_bytes(other.read_bytes())
    with pytest.raises(SystemExit, match="2"):
        main(["compare", *arms])
    err = capsys.readouterr().err
    assert "records.parquet: damaged or changed" in err and "`delrec evaluate` again" in err


def test_a_folder_may_have_an_equals_sign_in_its_name(tmp_path):
    path = workdir(tmp_path, "lr=0.1", {"delrec": SOME}, folder="records")
    assert [(one.label, one.workdir.name) for one in sources([path, f"a={path}"])] == [
        *(("", "lr=0.1"), ("a", "lr=0.1")),
    ]
