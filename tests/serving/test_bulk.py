"""`delrec rank`: the same lists as one by one, in parts that are kept when the command is given again."""

import json

import numpy as np
import polars as pl
import pytest
from tiny_storefront import delrec, open_workspace

from delrec_jax.serving import bulk
from delrec_jax.serving.recommender import Recommender
from delrec_jax.workdir.prepared import load_data


@pytest.fixture(scope="module")
def asked(tiny_run):
    """Histories of ids, with the users that they belong to."""
    data = load_data(open_workspace(tiny_run))
    names = data.corpus.catalogue.ids
    rows = [[names[item] for item in history] for history in data.split.histories("test")]
    return pl.DataFrame({"user": [f"u{row}" for row in range(len(rows))], "history": rows})


@pytest.fixture
def rank(tiny_run, tmp_path, asked, monkeypatch):
    """(*flags, table) -> the lists in the output folder, after the command."""
    monkeypatch.setattr(bulk, "PART", 20)

    def run(*flags, table=asked, to="lists"):
        table.write_parquet(tmp_path / "asked.parquet")
        given = f"--input={tmp_path / 'asked.parquet'}", f"--output={tmp_path / to}"
        delrec("rank", f"--workdir={tiny_run}", *given, *flags)
        parts = sorted((tmp_path / to).glob("*.parquet"))
        return pl.concat([pl.read_parquet(part) for part in parts]), parts

    return run


def test_parts_together_are_the_lists_of_all_histories(rank, asked, tiny_run):
    found, parts = rank("-k", "3", "--system=hybrid(markov+ease)")
    assert [part.name for part in parts] == [f"part-0000{n}.parquet" for n in range(3)]
    whole = Recommender(open_workspace(tiny_run)).rank(
        asked["history"].to_list(), k=3, system="hybrid(markov+ease)", by="id"
    )
    assert found["user"].to_list() == [f"u{row}" for row in whole["history"]]
    same = ["rank", "item", "title"]
    assert found[same].equals(whole[same])
    np.testing.assert_allclose(found["score"], whole["score"], rtol=1e-5)
    numbered, _ = rank("-k", "3", "--system=ease", table=asked.drop("user"), to="numbered")
    assert numbered["history"].to_list() == whole["history"].to_list()


def test_an_interrupted_command_makes_only_what_is_missing(rank, monkeypatch, capsys):
    whole, parts = rank("-k", "2", "--system=ease")
    parts[1].unlink()
    parts[2].write_bytes(parts[2].read_bytes()[:-9])  # damaged since
    kept = parts[0].stat().st_mtime_ns
    again, _ = rank("-k", "2", "--system=ease")
    assert again.equals(whole) and parts[0].stat().st_mtime_ns == kept
    blown = bytearray(parts[1].read_bytes())
    blown[10:60] = bytes(50)  # where its columns are; its schema is at the end
    parts[1].write_bytes(blown)
    pl.DataFrame({"other": [1]}).write_parquet(parts[2])
    again, _ = rank("-k", "2", "--system=ease")
    assert again.equals(whole) and parts[0].stat().st_mtime_ns == kept
    with pytest.raises(SystemExit):
        rank("-k", "3", "--system=ease")
    assert "answers another question: k (2 there, 3 now)" in capsys.readouterr().err


def test_lists_of_a_run_that_has_changed_since_are_not_mixed_with_new_ones(rank, tmp_path, capsys):
    rank("-k", "2", "--system=ease")
    asked = json.loads((tmp_path / "lists" / "asked.json").read_text())
    asked["run"]["fit"] = "another"
    (tmp_path / "lists" / "asked.json").write_text(json.dumps(asked))
    with pytest.raises(SystemExit):
        rank("-k", "2", "--system=ease")
    assert "answers another question: run" in capsys.readouterr().err


def test_a_question_that_was_corrected_before_any_answer_is_asked_in_the_same_folder(rank, capsys):
    with pytest.raises(SystemExit):
        rank("-k", "2", "--system=eese")
    assert "no system 'eese'" in capsys.readouterr().err
    found, _ = rank("-k", "2", "--system=ease")
    assert len(found)


def test_titles_and_candidates(rank, tiny_run):
    titles = load_data(open_workspace(tiny_run)).corpus.catalogue.titles
    table = pl.DataFrame({"history": [[titles[0]]], "candidates": [[titles[4], titles[2]]]})
    found, _ = rank("--by=title", table=table)
    assert found["history"].to_list() == [0, 0]
    assert set(found["title"]) == {titles[2], titles[4]}


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (pl.DataFrame({"items": [["a"]]}), ["columns items", "'history'"]),
        (pl.DataFrame({"history": ["a"]}), ["columns history", "a list of items per row"]),
        (pl.DataFrame({"history": [["nobody"]]}), ["rows from 0", "has the id 'nobody'"]),
        (pl.DataFrame({"history": [["0"]], "candidates": ["a"]}), ["'candidates' must hold"]),
        (pl.DataFrame({"history": [None, ["0"]]}), ["has an empty value (null)"]),
        (pl.DataFrame({"history": [["0", None]]}), ["has an empty value (null)"]),
    ],
)
def test_bad_files_are_one_clear_line(rank, capsys, table, words):
    with pytest.raises(SystemExit) as ended:
        rank(table=table)
    err = capsys.readouterr().err.strip().splitlines()[-1]
    assert ended.value.code == 2 and all(word in err for word in ["asked.parquet", *words])


def test_what_is_missing_is_named(tiny_run, tmp_path, capsys):
    for flags, word in (((), "--input"), ((f"--input={tmp_path}/x", "--output=y"), "no such file")):
        with pytest.raises(SystemExit):
            delrec("rank", f"--workdir={tiny_run}", *flags)
        assert word in capsys.readouterr().err


def test_signs_of_a_pattern_in_a_name_are_only_a_name(rank, asked, tmp_path, tiny_run):
    """Polars would take `lists[1]` for `lists1`."""
    first, _ = rank("-k", "2", "--system=ease")
    (tmp_path / "h1.parquet").write_bytes((tmp_path / "asked.parquet").read_bytes())
    asked.head(1).write_parquet(tmp_path / "h[1].parquet")
    given = f"--input={tmp_path / 'h[1].parquet'}", f"--output={tmp_path / 'of one'}"
    delrec("rank", f"--workdir={tiny_run}", *given, "-k", "2", "--system=ease")
    (part,) = (tmp_path / "of one").glob("*.parquet")
    alone, same = pl.read_parquet(part), ["user", "rank", "item", "title"]
    assert alone[same].equals(first[same].head(2))
    # One history is a batch of another shape, whose scores may differ in their last bits.
    np.testing.assert_allclose(alone["score"], first["score"].head(2), rtol=1e-5)


def test_lists_are_not_put_among_files_of_others(rank, tmp_path, capsys):
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "config.json").write_text("{}")
    with pytest.raises(SystemExit):
        rank("-k", "2", "--system=ease")
    assert "`delrec rank` did not write, such as config.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "asked.json").write_text("[]"), "holds no JSON object"),
        (lambda folder: (folder / "asked.json").unlink(), "no asked.json that says whose"),
    ],
)
def test_lists_that_do_not_say_whose_they_are_are_not_added_to(
    rank, tmp_path, capsys, damage, words
):
    rank("-k", "2", "--system=ease")
    damage(tmp_path / "lists")
    with pytest.raises(SystemExit) as ended:
        rank("-k", "2", "--system=ease")
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("delrec:")]
    assert ended.value.code == 2 and words in line
