"""benchmarks/evidence: the tables of the docs, and the script that runs all experiments."""

import json

import pytest
from evidence_workdirs import (
    COMMAND,
    SOME,
    THIRD,
    collected,
    experiments,
    make_two_seeds,
    run,
    tables,
    workdir,
)

from delrec_jax.analysis.blocks import to_markdown
from delrec_jax.errors import UserError
from delrec_jax.results import layouts, names
from delrec_jax.results.pages import refresh, render
from delrec_jax.results.provenance import RESULTS, ROOT, commit


def test_names_of_hybrids_and_of_labeled_systems():
    name = names.labeled("hybrid(teacher+popularity)", "beside")
    assert names.title(name, "sasrec") == "Teacher + Popularity, beside (sasrec)"
    assert names.untrained("hybrid(ease+markov)/x") and not names.untrained(name)
    ordered = sorted([name, "oracle", "delrec", "new", "teacher"], key=names.order)
    assert ordered == ["teacher", "delrec", "new", name, "oracle"]
    assert names.matches(name, "sasrec", "hybrid*") and not names.matches(name, "x", "*@sasrec")


def test_a_row_says_its_selected_steps_and_how_many_seeds_it_has_where_rows_differ():
    number = {"mean": 0.5, "sd_seeds": None, "low": 0.4, "high": 0.6}
    shared = {"protocol": "full", "group": "all", "teacher": "sasrec", "users": 50}
    rows = [
        shared | {"system": "delrec", "seeds": [0, 1], "step": [300, 0], "MRR": number},
        shared | {"system": "delrec/x", "seeds": [0], "step": [0], "MRR": number},
        shared | {"system": "teacher", "seeds": [0], "beside": ["teacher"], "MRR": number},
    ]
    summary = {"corpus": "toy", "split": "by_user", "systems": rows}
    shown = to_markdown(layouts.systems_block({"toy": summary}, {"metrics": "MRR"}))
    assert "| DELRec (sasrec) (step 300/0), 2 seeds | 0.5000 |" in shown
    assert "| DELRec, x (sasrec) (not tuned: step 0), 1 seed |" in shown
    assert "| Teacher (sasrec), beside the teacher, 1 seed |" in shown


PAGE = "# Page\n\n<!-- table: {} -->\n<!-- end -->\n\nText.\n"


@pytest.fixture
def page(tmp_path):
    collected(tmp_path, make_two_seeds(tmp_path), compare=["teacher,popularity"])

    def write(spec):
        path = tmp_path / "page.md"
        path.write_text(PAGE.format(spec))
        return path

    return write


@pytest.mark.parametrize(
    ("spec", "shown"),
    [
        ("toy metrics=HR@1", "| Teacher (sasrec) | 0.3750 ± 0.1768 |"),
        ("toy systems=teacher* metrics=MRR,HR@1", "| System | MRR | HR@1 |"),
        ("toy interval= metrics=NDCG@10 systems=pop*", "| Popularity | 0.5000 |"),
        ("toy group=head metrics=HR@1", "toy · leave_one_out · full@head"),
        ('"toy" group="head" metrics=HR@1', "toy · leave_one_out · full@head"),
        ("toy comparisons", "| Teacher (sasrec) vs Popularity | NDCG@10 | -0.0625 [-0."),
        ("toy comparisons", "| -0.1250, +0.0000 | -12.5 | -0.134 |"),
        ("toy intervals", "| Popularity | – | 0.5000 | – | [0.5000, 0.5000] | – |"),
        ("toy intervals", "| Teacher (sasrec) | 2 | 0.4375 | 0.0884 | [0.2"),
        ("toy,toy side systems=teacher", "| Teacher (sasrec) | 0.4375 ± 0.0884 |"),
        ("toy origin", f"```\n{COMMAND}\n```"),
    ],
)
def test_tables_are_filled_and_a_stale_one_is_found(tmp_path, page, spec, shown):
    path, results = page(spec), tmp_path / "results"
    flags = [str(path), f"--results={results}"]
    with pytest.raises(SystemExit, match="1"):
        tables.main([*flags, "--check"])
    assert path.read_text() == PAGE.format(spec)
    tables.main(flags)
    assert shown in path.read_text() and path.read_text().endswith("<!-- end -->\n\nText.\n")
    tables.main([*flags, "--check"])
    summary = results / "toy" / "summary.json"
    summary.write_text(summary.read_text().replace("0.", "1."))
    with pytest.raises(SystemExit, match="1"):
        tables.main([*flags, "--check"])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nothing", "no such summary"),
        ("toy pie", "no kind 'pie'"),
        ("toy color=red", "has no key 'color'"),
        ("toy metrics=HR@2", "unknown 'HR@2'"),
        ("toy protocol=sampled-20", "no system for .*protocol=full group=all"),
        ("toy comparisons systems=ease", "no comparison"),
        ("toy,toys", "no such summary"),
        ("metrics=HR@1", r"write NAME \[KIND\]"),
        ('toy group="history 5-9"', "no system for .*'history 5-9'"),
        ('toy group="history 5-9', "No closing quotation"),
        ("toy -->\n<!-- table: toy", "line 3: the table has no end"),
    ],
)
def test_a_wrong_marker_is_an_error_with_its_line(tmp_path, page, spec, message):
    with pytest.raises(UserError, match=f"page.md, line 3: .*{message}|{message}"):
        refresh(page(spec), tmp_path / "results", write=True)


def test_the_tables_of_the_docs_are_what_the_results_say():
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    assert [page for page in pages if refresh(page, RESULTS, write=False, kinds=tables.KINDS)] == []


def test_the_list_names_every_command_without_a_path_of_this_machine(capsys):
    run.main(["--list"])
    printed = capsys.readouterr().out
    told, _, left_out = printed.partition("Left out:")
    assert "delrec baseline --config=configs/teachers/ml_100k.py --config.data.path=DATA/ml" in told
    assert "--config.split.kind=global_temporal" in told and left_out.strip()
    listed = experiments.commands()
    assert told.split("\n")[: len(listed)] == [one.text for one in listed]
    assert len({one.workdir for one in listed}) == len(listed) and "=/" not in printed
    for one in experiments.EXPERIMENTS:
        assert (ROOT / one.config).is_file()


def test_runs_are_journaled_skipped_when_done_and_collected_with_their_commit(tmp_path):
    experiment = experiments.Experiment(
        "toy", "toy", "c.py", teachers=("sasrec",), seeds=(0, 1), compare=("teacher,popularity",)
    )
    commands, runs = experiments.commands([experiment]), tmp_path / "runs"
    started = []

    def start(words, log):
        started.append(words[-1])
        assert words[2] == f"--config.data.path={tmp_path}/data/toy"
        seed = int(words[-1][-1])
        if seed == 1 and len(started) == 2:
            return 75
        workdir(runs, f"toy-sasrec-{seed}", {"teacher": SOME, "popularity": THIRD}, seed=seed)
        return 0

    first = run.run_all(commands, tmp_path / "data", runs, start=start)
    assert first == ["toy-sasrec-1"]
    assert [run.done(one, runs) for one in commands] == [True, False]
    assert run.run_all(commands, tmp_path / "data", runs, start=start) == []
    assert started == [f"--workdir={runs}/toy-sasrec-{seed}" for seed in (0, 1, 1)]
    lines = [json.loads(one) for one in (runs / "journal.jsonl").read_text().splitlines()]
    assert [(one["workdir"], one["rc"]) for one in lines] == [
        *(("toy-sasrec-0", 0), ("toy-sasrec-1", 75), ("toy-sasrec-1", 0)),
    ]
    assert run.collect_one(experiment, runs, tmp_path / "results") == []
    told = json.loads((tmp_path / "results" / "toy" / "summary.json").read_text())["provenance"]
    assert told["commands"] == [one.text for one in commands]
    assert told["commits"] == [{name: lines[0][name] for name in ("commit", "dirty")}]
    assert told["commit_of_collection_for"] == []


def test_a_package_in_the_repository_of_something_else_has_no_commit(tmp_path):
    nothing = {"commit": "unknown", "dirty": False}
    assert commit(tmp_path) == nothing and commit(ROOT / "delrec_jax") == nothing


def test_ways_stand_side_by_side_and_the_best_is_marked(tmp_path):
    for name, values in (("a", (0.1, 0.3)), ("b", (0.25, 0.2))):
        ways = [
            {"way": way, "valid_ndcg10": value} for way, value in zip("xy", values, strict=True)
        ]
        categories = {"popularity_explained": 0.05, "popularity_deciles": 0.02}
        found = {"plain_valid_ndcg10": 0.15, "ways": ways, "parse": [{"categories": categories}]}
        (tmp_path / name).mkdir()
        (tmp_path / name / "ways.json").write_text(json.dumps(found))
    text = render("a,b ways", tmp_path, tables.KINDS)
    assert "| plain | 0.1500 | 0.1500 |" in text
    assert "| x | 0.1000 | **0.2500** |\n| y | **0.3000** | 0.2000 |" in text
    assert "explain | 5 % | 5 % |" in text
