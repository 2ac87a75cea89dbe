"""A teacher that exists only as lists: SASRec's own lists, through a file, are what SASRec itself says."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from seam_runs import HERE, QUICK, write_config
from tiny_storefront import delrec, open_workspace

from delrec_jax.config import TeacherConfig
from delrec_jax.data.splits import PARTS, padded_histories
from delrec_jax.delrec.agreement import Exam, Reader
from delrec_jax.delrec.pattern_simulating import teacher_target
from delrec_jax.delrec.prompt_examples import make_lists, source_rows
from delrec_jax.delrec.rows import histories_before
from delrec_jax.errors import UserError
from delrec_jax.stages.histories import asked_histories, histories
from delrec_jax.teachers.lists import top_lists
from delrec_jax.workdir.hybrids import Hybrid
from delrec_jax.workdir.listed_teacher import ListedSystem, read_listed
from delrec_jax.workdir.prepared import load_data
from delrec_jax.workdir.recommenders import list_source, load_teacher

TOP, LISTED = 4, 8  # distill.top_h; distill.num_candidates and candidates.rerank


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("listed")


@pytest.fixture(scope="module")
def sasrec(folder):
    """A workdir with a trained SASRec, ranked."""
    config = write_config(folder / "sasrec.py", teacher__name="sasrec")
    delrec("baseline", config, f"--workdir={folder / 'sasrec'}", *QUICK)
    return open_workspace(folder / "sasrec")


@pytest.fixture(scope="module")
def lists_of_it(sasrec):
    """SASRec's lists for all histories that a run asks about, by part: users, lengths, items, scores."""
    data, teacher = load_data(sasrec), load_teacher(sasrec, load_data(sasrec)).scores
    rows = source_rows(sasrec.experiment, data.split, data.split.training_users, "teacher")
    made = make_lists(sasrec.experiment, data.split, data.num_items, rows, teacher)
    found = {"train": (rows.users, rows.ends, made.items, made.scores)}
    for part in PARTS:
        users, lengths = data.split.users(part), data.split.history_lengths(part)
        items, scores = top_lists(
            teacher,
            padded_histories(data.split, part, sasrec.experiment.teacher.max_length),
            top_h=LISTED,
            allowed=np.ones(data.num_items, bool),
            seen=histories_before(data.split.interactions, users, lengths),
        )
        found[part] = (users, lengths, items, scores)
    return found


def table_of(lists, data, top=LISTED):
    """The file's rows, in random order; a history that is asked twice is listed once, as the first part has it."""
    tables = []
    for users, lengths, items, scores in lists.values():
        items, scores = items[:, :top], scores[:, :top]
        columns = {
            "user_id": [data.split.interactions.user_ids[user] for user in users.repeat(top)],
            "length": lengths.repeat(top).astype(np.int32),
            "item_id": [data.corpus.catalogue.ids[item] for item in items.ravel()],
            "score": scores.ravel(),
        }
        tables.append(pl.DataFrame(columns))
    table = pl.concat(tables).unique(["user_id", "length", "item_id"], keep="first")
    return table.sample(fraction=1.0, shuffle=True, seed=0)


@pytest.fixture(scope="module")
def run(folder, sasrec, lists_of_it):
    """A workdir up to stage 2 whose teacher are these lists, and the flag of its config."""
    config = write_config(
        folder / "config.py",
        lm__family=f"{HERE / 'toy_family.py'}:BAG",
        tune__adalora__targets=("mix",),
        teacher__name="lists",
        teacher__lists=str(folder / "lists.parquet"),
    )
    flags = (config, f"--workdir={folder / 'run'}", *QUICK)
    delrec("prepare", *flags)
    delrec("histories", *flags, f"--output={folder / 'asked'}")
    table_of(lists_of_it, load_data(sasrec)).write_parquet(folder / "lists.parquet")
    for command in ("baseline", "pretrain", "distill", "tune"):
        delrec(command, *flags)
    return folder / "run", config


def test_what_is_distilled_is_what_sasrec_itself_says(run, sasrec):
    ws = open_workspace(run[0])
    data = load_data(ws)
    source, teacher = list_source(ws, data), load_teacher(sasrec, data).scores
    rows = source_rows(ws.experiment, data.split, data.split.training_users, "teacher")
    asked = (ws.experiment, data.split, data.num_items, rows)
    own = make_lists(sasrec.experiment, *asked[1:], teacher)
    found = make_lists(*asked, source)
    assert (found.items == own.items).all() and (found.scores == own.scores).all()
    with np.load(run[0] / "prompt" / "lists_valid.npz") as stored:
        best = stored["items"][:, :TOP]
    assert {*map(tuple, best.tolist())} < {*map(tuple, own.items[:, :TOP].tolist())}


def test_it_is_ranked_by_its_lists_and_what_they_leave_out_ties(run, sasrec, lists_of_it):
    data = load_data(sasrec)
    table = pl.read_parquet(run[0] / "baseline" / "records.parquet").filter(system="teacher")
    full = table.filter(protocol="full").sort("user")
    assert set(full["teacher"]) == {"lists"}
    _, _, items, _ = lists_of_it["test"]
    for row, history in enumerate(data.split.histories("test")):
        record, target = full.row(row, named=True), data.split.target("test")[row]
        place = np.flatnonzero(items[row] == target)
        others = data.num_items - len(history) - LISTED
        assert record["rank"] == (place[0] + 1 if len(place) else LISTED + (others + 1) / 2)
        assert record["ties"] == (0 if len(place) else others - 1)
    system = ListedSystem(list_source(open_workspace(run[0]), data), data.split, data.num_items)
    hybrid = Hybrid(data.split, {"teacher": system}, {"teacher": 2.0})
    rows = np.arange(len(items))
    scores = np.asarray(hybrid.scores("test", rows))
    last = scores[rows, items[:, -1]]
    assert ((scores >= last[:, None]).sum(1) == LISTED).all(), (
        "alone in a hybrid it ranks as itself"
    )
    own = pl.read_parquet(sasrec.root / "baseline" / "records.parquet")
    own = own.filter(system="teacher", protocol=f"rerank-{LISTED}").sort("user")
    same = table.filter(protocol=f"rerank-{LISTED}").sort("user")
    assert (same["rank"] == own["rank"]).all(), "the same items are reranked"
    assert (same["candidate_hash"] == own["candidate_hash"]).all()


def test_negatives_that_are_not_listed_have_no_share(sasrec, lists_of_it, folder):
    ws, data = sasrec, load_data(sasrec)
    path = folder / "short.csv"
    short = {"train": lists_of_it["train"]}
    table_of(short, data, top=TOP).write_csv(path)
    _, _, items, scores = lists_of_it["train"]
    rows = source_rows(ws.experiment, data.split, data.split.training_users, "teacher")
    found = make_lists(ws.experiment, data.split, data.num_items, rows, read_listed(path, data))
    assert (found.items == items).all() and (found.scores[:, :TOP] == scores[:, :TOP]).all()
    assert np.isneginf(found.scores[:, TOP:]).all()
    target = teacher_target(found.scores[0], kind="listwise", temperature=0.7)
    np.testing.assert_allclose(target.sum(), 1, rtol=1e-6)
    assert (target[TOP:] == 0).all() and (target[:TOP] > 0).all()
    exam = Exam([], found.scores[:3], np.stack([target] * 3))
    given = np.where(np.isfinite(exam.labels), exam.labels, -50.0)
    language = SimpleNamespace(params=None, vectors=None, readout={})
    reader = Reader(ws.experiment, language, lambda held, batch: given)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "delrec_jax.delrec.agreement.padded_batches", lambda *a, **b: [((), np.arange(3))]
        )
        reading = reader.read(None, None, exam)
    assert (reading.agreement == 1).all() and np.isfinite(reading.likelihood).all()
    np.testing.assert_allclose(reading.kendall_tau, 1.0)


def test_the_histories_that_are_needed_are_told_and_no_test_target_is(run, folder):
    ws = open_workspace(run[0])
    data = load_data(ws)
    ids, titles = data.split.interactions.user_ids, data.corpus.catalogue.ids
    wanted = {}
    for asked in asked_histories(ws.experiment, data):
        for user, length in zip(asked.users, asked.lengths, strict=True):
            most, parts = wanted.get((ids[user], int(length)), (0, []))
            wanted[ids[user], int(length)] = (max(most, asked.items), [*parts, asked.part])
    table = pl.read_csv(folder / "asked" / "histories.csv", schema_overrides={"user_id": pl.String})
    found = {
        (row["user_id"], row["length"]): (row["items"], row["parts"].split("+"))
        for row in table.iter_rows(named=True)
    }
    assert found == wanted and {"train+valid", "test"} <= set(table["parts"])
    rows = pl.read_csv(folder / "asked" / "interactions.csv", infer_schema=False)
    for user in range(len(ids)):
        mine = rows.filter(user_id=ids[user])
        sequence = [titles[item] for item in data.split.interactions.history(user)]
        trained = int(data.split.train.lengths[user])
        assert mine["item_id"].to_list() == sequence[:-1], "all but the target of the test part"
        assert mine["part"].to_list() == ["train"] * trained + ["later"] * (len(mine) - trained)
        assert mine["position"].to_list() == [str(n + 1) for n in range(len(mine))]


def test_a_corpus_of_the_same_name_is_not_replaced(run, tmp_path):
    own = tmp_path / "interactions.csv"
    own.write_text("user,item,time\na,b,1\n")
    with pytest.raises(UserError, match=r"interactions\.csv is there already"):
        histories(open_workspace(run[0]), tmp_path)
    assert own.read_text() == "user,item,time\na,b,1\n" and [*tmp_path.iterdir()] == [own]
    histories(open_workspace(run[0]), tmp_path / "asked")
    histories(open_workspace(run[0]), tmp_path / "asked")  # its own files


def test_it_has_no_answer_to_other_histories(run, capsys):
    data = load_data(open_workspace(run[0]))
    delrec(
        "recommend", f"--workdir={run[0]}", f"--history={data.corpus.catalogue.titles[0]}", "--k=3"
    )
    said = capsys.readouterr()
    assert "DELRec" in said.out and "The teacher has no column: teacher.name=lists" in said.err
    delrec("prompts", run[1], f"--workdir={run[0]}", *QUICK, "--n=1")
    words = [word for word in capsys.readouterr().out.split() if word != "_"]
    assert "pattern of the recommender model" in " ".join(words)
    with pytest.raises(UserError, match="a history that its file does not hold"):
        load_teacher(open_workspace(run[0]), data)


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--config.tune.beside=teacher", "tune.beside is 'teacher', which asks the teacher"),
        ("--config.method=p2rec", "teacher.name is 'lists', but method=p2rec"),
        ("--config.teacher.lists=", "teacher.name is 'lists' and teacher.lists ''"),
    ],
)
def test_what_needs_the_teachers_function_is_refused(tmp_path, capsys, flag, words):
    config = write_config(tmp_path / "config.py", teacher__name="lists", teacher__lists="lists.csv")
    with pytest.raises(SystemExit):
        delrec("prepare", config, f"--workdir={tmp_path / 'run'}", *QUICK, flag)
    assert words in capsys.readouterr().err


def test_a_path_without_its_name_has_no_effect_and_is_refused():
    with pytest.raises(UserError, match=r"teacher\.lists 'a\.csv': name=lists and the path"):
        TeacherConfig(lists="a.csv")


def test_another_content_of_the_file_makes_what_rests_on_it_anew(run, tmp_path, capsys):
    workdir, path = shutil.copytree(run[0], tmp_path / "run"), tmp_path / "other.parquet"
    table = pl.read_parquet(run[0].parent / "lists.parquet")
    table.write_parquet(path)
    flags = (run[1], f"--workdir={workdir}", *QUICK, f"--config.teacher.lists={path}")
    delrec("teach", *flags)  # the file has moved
    assert "teach: finished before, skipped" in capsys.readouterr().err
    table.with_columns(pl.col("score") * 2).write_parquet(path)
    delrec("teach", *flags)
    assert "teach: the source files have changed since" in capsys.readouterr().err
    assert not open_workspace(workdir).finished("distill")
    missing = table.filter(length=table["length"].max())
    table.join(missing, on=["user_id", "length"], how="anti").write_parquet(path)
    with pytest.raises(SystemExit):
        delrec("teach", *flags)
    length = missing["length"][0]
    said = capsys.readouterr().err
    assert "histories that are asked have no list, the first is user_id" in said
    assert f"length {length}: add them; `delrec histories`" in said
    path.unlink()
    assert json.loads((workdir / "teacher" / "teacher.json").read_text())["name"] == "lists"
