"""What a finished P2Rec run leaves behind, and what commands say to it."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file
from tiny_p2rec import P2REC
from tiny_storefront import CONFIG, delrec, open_workspace

from delrec_jax.app.answers import Answers
from delrec_jax.data.splits import padded_histories, partition_users
from delrec_jax.errors import UserError
from delrec_jax.evaluation.systems import of_recommender
from delrec_jax.evaluation.top_lists import read_lists
from delrec_jax.p2rec import files, report
from delrec_jax.p2rec.augment import valid_ndcg10
from delrec_jax.p2rec.categories import category_vectors
from delrec_jax.p2rec.category_checks import check_categories
from delrec_jax.p2rec.cells import RANDOM, cells
from delrec_jax.p2rec.item_embeddings import ItemEmbedder, shuffled_owner
from delrec_jax.p2rec.text_vectors import principal
from delrec_jax.serving.recommender import Recommender
from delrec_jax.stages.inputs import Inputs
from delrec_jax.teachers import item_to_item
from delrec_jax.teachers.cease import vector_cease
from delrec_jax.training.checkpoints import load_tree
from delrec_jax.workdir import recommenders
from delrec_jax.workdir.augmented_ease import solve
from delrec_jax.workdir.closed_forms import training_part
from delrec_jax.workdir.conventional_system import ConventionalSystem
from delrec_jax.workdir.prepared import load_data
from delrec_jax.workdir.recommenders import Cell, taught_vectors
from delrec_jax.workdir.validation import selecting_rows

SYSTEMS = {
    "teacher",
    "teacher_augmented",
    "teacher_augmented_untuned_lm",
    "teacher_augmented_shuffled_text",
    "teacher_augmented_random_vectors",
}
CELL = ("augmented", "teachers", "sasrec", "seed-1")


@pytest.fixture
def metrics(p2rec_run):
    return json.loads((p2rec_run / "report" / "metrics.json").read_text())


def test_the_page_has_the_plain_and_the_augmented_recommender(p2rec_run):
    answers = Answers(Recommender(open_workspace(p2rec_run)), "SASRec")
    assert answers.chosen == ("teacher", "teacher_augmented")
    answer = answers.ask([1, 8], answers.chosen, 5, None)
    labels = [listing.label for listing in answer.listings]
    assert labels == ["Teacher (SASRec)", "Teacher + P2Rec"]
    assert answer.asked.lists["teacher"] != answer.asked.lists["teacher_augmented"]
    assert answer.texts == ()


def test_each_recommender_is_asked_as_it_was_ranked(p2rec_run):
    recommender = Recommender(open_workspace(p2rec_run))
    names = set(recommender.systems)
    assert {"teacher", "teacher(gru4rec)", "teacher_augmented", "teacher_augmented(ease)"} <= names
    assert recommender.main == "teacher_augmented"
    data = load_data(open_workspace(p2rec_run))
    histories = data.split.histories("test")
    lists, _ = read_lists(p2rec_run / "records")
    lists = lists.filter(seed=0)
    asked = 0
    for (system, teacher), table in lists.group_by("system", "teacher"):
        name = of_recommender(system, teacher) if teacher not in ("", "sasrec") else system
        if name in names:
            found = recommender.ranked(histories, k=10, system=name)
            wanted = table.sort("user")["items"].to_numpy()
            np.testing.assert_array_equal(np.stack([items for items, _ in found]), wanted, name)
            asked += 1
    assert asked >= len(names)
    assert "Teacher + P2Rec (ease)" in Answers(recommender, "SASRec").labels.values()


def embeddings(run, *place):
    return load_file(run.joinpath("augmented", "embeddings", *place))["embeddings"]


def test_every_recommender_is_ranked_under_every_system_and_seed(metrics):
    found = {
        (row["teacher"], row["seed"], row["system"])
        for row in metrics
        if row["protocol"] == "full" and row["system"] in SYSTEMS
    }
    assert found == {
        (t, s, x) for t in ("sasrec", "gru4rec", "ease") for s in (0, 1) for x in SYSTEMS
    }
    assert {"popularity", "oracle"} <= {row["system"] for row in metrics}
    # The same for every seed, so it has one row of each protocol and metric.
    oracle = [(row["protocol"], row["metric"]) for row in metrics if row["system"] == "oracle"]
    assert len(set(oracle)) == len(oracle) > 0


def test_only_what_reads_the_parser_is_charged_for_it(p2rec_run):
    cost = json.loads((p2rec_run / "records" / "cost.json").read_text())
    trained = {
        one["system"]: set(one["trained"])
        for one in cost["systems"]
        if (one["teacher"], one["seed"]) == ("sasrec", 1)
    }
    parser = {name for name in trained["teacher_augmented"] if name.startswith("preference/")}
    assert parser
    for system in ("teacher_augmented_shuffled_text", "teacher_augmented_random_vectors"):
        assert parser <= trained[system]
    for system in ("teacher", "teacher_augmented_untuned_lm"):
        assert trained[system] and not parser & trained[system]


def test_results_come_by_popularity_of_the_target(metrics, p2rec_run):
    parts = {row["protocol"] for row in metrics if row["protocol"].startswith("full@")}
    assert parts == {"full@head", "full@tail", "full@cold"}
    records = pl.read_parquet(p2rec_run / "records" / "records.parquet")
    data = load_data(open_workspace(p2rec_run))
    counts = data.split.train_counts(data.num_items)
    for head, cold, target in records.select("head", "cold", "target").unique().iter_rows():
        above = (counts > counts[target]).sum()
        assert cold == (counts[target] == 0)
        assert not (head and cold)
        assert not head or above < len(counts) / 5


def test_categories_are_groups_of_what_training_knows(p2rec_run):
    ws = open_workspace(p2rec_run)
    data = load_data(ws)
    for seed in (0, 1):
        stored = files.load_categories(ws, seed)
        known = data.split.train_counts(data.num_items) > 0
        np.testing.assert_array_equal(stored.of_item >= 0, known)
        # k-means' own condition: no item is nearer to another centre than to its category's.
        counts = data.split.train_counts(data.num_items)
        vectors = taught_vectors(ws, data.num_items)
        vectors = category_vectors(vectors, counts, popularity="residual")[known]
        away = ((vectors[:, None] - stored.centres[None]) ** 2).sum(-1)
        np.testing.assert_array_equal(away.argmin(1), stored.of_item[known])
        described = json.loads(
            (p2rec_run / "preference" / f"seed-{seed}" / "categories.json").read_text()
        )
        titles = dict(zip(data.corpus.catalogue.titles, stored.of_item, strict=True))
        for row in described["categories"]:
            assert row["size"] == (stored.of_item == row["category"]).sum()
            assert {titles[title] for title in row["titles"]} == {row["category"]}
            share = counts[stored.of_item == row["category"]].sum() / counts[known].sum()
            assert row["share"] == pytest.approx(share)  # of the interactions


def test_the_parser_is_told_beside_what_the_mean_target_gives(p2rec_run):
    found = json.loads((p2rec_run / "preference" / "parse.json").read_text())
    assert [row["seed"] for row in found] == [0, 1]
    ws = open_workspace(p2rec_run)
    data = load_data(ws)
    counts, catalogue = data.split.train_counts(data.num_items), data.corpus.catalogue
    for row in found:
        users = len(data.split.training_users)
        assert row["train_users"] + row["valid_users"] == users
        assert row["valid_users"] == round(0.2 * users)
        of_item = files.load_categories(ws, row["seed"]).of_item
        assert row["categories"] == check_categories(of_item, counts, catalogue.attributes)
        assert "genre" in row["categories"]["attributes"]
        # One item has one category: whoever spreads the mean over all of them is far from it.
        valid = partition_users(data.split.training_users, SHARES, row["seed"])["valid"]
        theirs = {int(item) for user in valid for item in data.split.train.history(int(user))}
        assert row["one_item"]["items"] == len(theirs) < (counts > 0).sum()
        assert row["one_item"]["constant"]["squared_error"] > row["constant"]["squared_error"]
        assert row["constant"]["squared_error"] == pytest.approx(constant_error(ws, data, row))
        # Step 0 is the mean target (but for the small start of the projection), so nothing selected is worse.
        assert row["squared_error"] <= row["constant"]["squared_error"] * 1.05


SHARES = {"train": 0.8, "valid": 0.2}


def constant_error(ws, data, row):
    """What the mean target of the users who train is worth on those who are held out, counted by hand."""
    users, seed = data.split.training_users, row["seed"]
    parts = partition_users(users, SHARES, seed)
    of_item = files.load_categories(ws, seed).of_item
    count = ws.experiment.parse.categories

    def shares(part):
        kinds = [of_item[data.split.train.history(int(user))] for user in parts[part]]
        return np.array([np.bincount(kind, minlength=count) / len(kind) for kind in kinds])

    return ((shares("valid") - shares("train").mean(0)) ** 2).mean()


def test_the_log_has_what_selects(p2rec_run):
    rows = [
        json.loads(line)
        for line in (p2rec_run / "preference/seed-0/model/metrics.jsonl").read_text().splitlines()
    ]
    assert rows[-1]["step"] == 8 and "valid/top_category" in rows[-1]


def test_embeddings_name_their_items(p2rec_run):
    catalogue = load_data(open_workspace(p2rec_run)).corpus.catalogue
    for place in ("untuned", "seed-0/tuned", "seed-1/shuffled", "seed-1/random"):
        path = p2rec_run / "augmented" / "embeddings" / f"{place}.safetensors"
        with safe_open(path, framework="numpy") as file:
            assert json.loads(file.metadata()["description"])["item_ids"] == list(catalogue.ids)
            assert file.get_tensor("embeddings").shape == (catalogue.num_items, 16)


def test_tuned_embeddings_are_those_of_the_adapters(p2rec_run):
    ws = open_workspace(p2rec_run)
    data = load_data(ws)
    embedder = ItemEmbedder(ws.experiment, data.corpus.catalogue.titles, Inputs(ws).language)
    trained, _ = files.load_parser(ws, 1)
    tuned = embedder.embed(trained["adapters"])
    np.testing.assert_allclose(
        tuned, embeddings(p2rec_run, "seed-1", "tuned.safetensors"), atol=1e-6
    )
    untuned = embedder.embed(None)
    np.testing.assert_allclose(untuned, embeddings(p2rec_run, "untuned.safetensors"), atol=1e-6)
    assert np.abs(tuned - untuned).max() > 1e-4, "the adapters play no part"


def test_items_are_embedded_by_as_much_of_their_titles_as_is_asked_for(p2rec_run):
    ws = open_workspace(p2rec_run)
    titles, language = load_data(ws).corpus.catalogue.titles, Inputs(ws).language

    def embedded(most, language):
        augment = replace(ws.experiment.augment, max_title_tokens=most)
        return ItemEmbedder(replace(ws.experiment, augment=augment), titles, language).embed(None)

    first = np.array([language.tokenizer.encode(title)[0] for title in titles])
    short = embedded(1, language)
    same = np.abs(short[:, None] - short[None]).max(-1) < 1e-6
    np.testing.assert_array_equal(same, first[:, None] == first[None])
    cut = replace(language.pieces, titles=language.pieces.titles.cut(1))
    texts_of_users = replace(language, pieces=cut)
    np.testing.assert_allclose(embedded(0, texts_of_users), short, atol=1e-6)
    np.testing.assert_allclose(embedded(99, texts_of_users), embedded(0, language), atol=1e-6)


def test_the_control_has_every_title_at_another_item(p2rec_run):
    others = shuffled_owner(36, seed=1)
    assert (others != np.arange(36)).all() and set(others) == set(range(36))
    tuned = embeddings(p2rec_run, "seed-1", "tuned.safetensors")
    shuffled = embeddings(p2rec_run, "seed-1", "shuffled.safetensors")
    np.testing.assert_array_equal(shuffled, tuned[others])


def test_the_random_control_has_the_spectrum_of_the_tuned_embeddings(p2rec_run):
    tuned = embeddings(p2rec_run, "seed-1", "tuned.safetensors").astype(np.float64)
    drawn = embeddings(p2rec_run, "seed-1", "random.safetensors").astype(np.float64)
    values = np.linalg.svd(tuned - tuned.mean(axis=0), compute_uv=False)
    found = np.linalg.svd(drawn - drawn.mean(axis=0), compute_uv=False)
    np.testing.assert_allclose(found, values, atol=1e-4 * values[0])


def test_an_augmented_teacher_is_stored_as_a_plain_one(p2rec_run):
    plain = load_file(p2rec_run.joinpath(*CELL, "teacher", "teacher.safetensors"))
    augmented = load_file(p2rec_run.joinpath(*CELL, "teacher_augmented", "teacher.safetensors"))
    assert {k: v.shape for k, v in plain.items()} == {k: v.shape for k, v in augmented.items()}
    trained = load_file(p2rec_run.joinpath(*CELL, "teacher_augmented", "result.safetensors"))
    assert "items/embedding" not in trained, "an adapter's items have no vectors of their own"


def test_the_plain_teacher_of_the_first_seed_is_that_of_teach(p2rec_run):
    ws = open_workspace(p2rec_run)
    first = recommenders.first_cell(ws.experiment)
    assert (
        recommenders.cell_path(ws, first) == p2rec_run / "teacher" / "model" / "result.safetensors"
    )
    assert not recommenders.cell_folder(ws, first).exists()
    stored = json.loads((p2rec_run / "augmented" / "augment.json").read_text())
    stored = [row for row in stored if row["teacher"] != "ease"]
    # Where `parse` selected step 0, the tuned language model is the untuned one, for both networks.
    parsed = json.loads((p2rec_run / "preference" / "parse.json").read_text())
    same = 2 * sum(row["step"] == 0 for row in parsed)
    assert len(stored) == 20 and len({row["checkpoint"] for row in stored}) == 20 - same
    assert same < 4, "no seed was tuned"


def test_ease_is_solved_with_the_embeddings_of_each_system(p2rec_run):
    ws = open_workspace(p2rec_run)
    data = load_data(ws)
    rows = json.loads((p2rec_run / "augmented" / "augment.json").read_text())
    rows = [row for row in rows if row["teacher"] == "ease"]
    assert {(row["step"], row["steps"]) for row in rows} == {(-1, 0)} and len(rows) == 10
    for row in rows:
        cell = Cell("ease", row["seed"], row["system"])
        held, told = load_tree(recommenders.cell_path(ws, cell))
        if cell.system == "teacher":
            assert not held["vectors"].size and "weight" not in told["choice"]["settings"]
            continue
        path = files.embeddings_path(ws, cell.system, cell.seed)
        vectors = files.load_embeddings(path, ids=data.corpus.catalogue.ids)
        np.testing.assert_array_equal(held["vectors"], vectors)
        form, settings = vector_cease("EASE", vectors), told["choice"]["settings"]
        wanted = form.fit(training_part(data), **settings).matrix
        found = recommenders.load_cell(ws, data, cell)
        np.testing.assert_allclose(found.matrix, wanted, rtol=1e-5, atol=1e-7)
    assert "solved" in (p2rec_run / "report" / "tables.md").read_text()


def test_a_solved_recommender_is_solved_again_only_for_other_settings(p2rec_run, tmp_path):
    data, path = load_data(open_workspace(p2rec_run)), tmp_path / "cell" / "teacher.safetensors"
    train = training_part(data)
    vectors = np.random.default_rng(0).normal(size=(data.num_items, 3)).astype(np.float32)
    first = solve(path, data, train, vectors, identity={"a": 1})
    before = path.stat().st_mtime_ns
    assert solve(path, data, train, vectors, identity={"a": 1})["choice"] == first["choice"]
    assert path.stat().st_mtime_ns == before
    assert "weight" not in solve(path, data, train, None, identity={"a": 2})["choice"]["settings"]


def test_the_page_shows_categories_maps_and_no_other_file(p2rec_run):
    page = (p2rec_run / "report" / "index.html").read_text()
    assert "P2Rec" in page and 'src="http' not in page and 'href="http' not in page
    titles = load_data(open_workspace(p2rec_run)).corpus.catalogue.titles
    described = json.loads((p2rec_run / "preference/seed-0/categories.json").read_text())
    for row in described["categories"]:
        assert row["titles"][0] in page
    assert any(title in page for title in titles) and "nearest neighbors" in page
    assert "was not tuned" not in page
    tables = (p2rec_run / "report" / "tables.md").read_text()
    assert "Jaccard with teacher" in tables and 'id="beyond"' in page
    assert "Teacher + P2Rec" in tables and "±" in tables and "Paired tests" in tables
    (parsed, _) = json.loads((p2rec_run / "preference" / "parse.json").read_text())
    explained = f"{100 * parsed['categories']['popularity_explained']:.0f} %"
    assert f"they explain {explained} of the variance of log-popularity" in page
    assert f"| seed 0 | {explained} |" in tables
    (plain, *_) = json.loads((p2rec_run / "augmented" / "augment.json").read_text())
    assert "**Validation**" in tables and f"{plain['valid_ndcg10']:.4f}"[:4] in tables


def test_maps_are_of_the_vectors_that_their_titles_name(p2rec_run, monkeypatch):
    shown = {}
    monkeypatch.setattr(
        report, "_map", lambda title, vectors, *more: shown.update({title: vectors})
    )
    ws = open_workspace(p2rec_run)
    report._maps(ws, load_data(ws))
    for title, place in (
        ("LM before parsing", ("untuned.safetensors",)),
        ("LM after parsing", ("seed-0", "tuned.safetensors")),
    ):
        np.testing.assert_array_equal(shown[title], embeddings(p2rec_run, *place))
    assert len(shown) == 3


def test_a_second_run_skips_all_stages_and_gives_the_same_bytes(p2rec_run, capsys):
    before = (p2rec_run / "report" / "metrics.json").read_bytes()
    delrec("run", CONFIG, f"--workdir={p2rec_run}", *P2REC, "--config.method=p2rec")
    assert capsys.readouterr().err.count("finished before, skipped") == 7
    assert (p2rec_run / "report" / "metrics.json").read_bytes() == before


def test_prompts_show_a_user_and_an_item_alone(p2rec_run, capsys):
    delrec("prompts", CONFIG, f"--workdir={p2rec_run}", *P2REC, "--config.method=p2rec", "--n=1")
    out = capsys.readouterr().out
    assert out.count("Information reconstruction") == 1 and "target: category" in out
    assert "Information augmentation, item 0" in out and "(RPS)" not in out


def test_recommend_asks_the_augmented_and_the_plain_teacher(p2rec_run, capsys):
    titles = load_data(open_workspace(p2rec_run)).corpus.catalogue.titles
    delrec("recommend", f"--workdir={p2rec_run}", f"--history={titles[0]}", "-k", "3")
    out = capsys.readouterr().out
    assert "SASRec + P2Rec" in out and "DELRec" not in out and titles[0] not in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["distill"], ["method=p2rec has no stage 'distill'", "delrec, delrec_p2rec"]),
        (["export", "--output=x"], ["has no stage 'tune'"]),
        (["run", "--config.method=p2rek"], ["method is 'p2rek'", "p2rec"]),
        (["run", "--config.parse.categories=1"], ["parse.categories is 1"]),
        (["run", "--config.parse.loss=mae"], ["parse.loss is 'mae'", "mse, kl"]),
        (["run", "--config.parse.valid_users=1.0"], ["parse.valid_users is 1.0"]),
        (["run", "--config.parse.sub_histories=1.5"], ["parse.sub_histories is 1.5", "0 to 1"]),
        (["run", "--config.parse.pool=all"], ["parse.pool is 'all'", "titles, text"]),
        (["run", "--config.parse.popularity=gone"], ["parse.popularity is 'gone'", "residual"]),
        (["run", "--config.augment.controls=('luck',)"], ["augment.controls is 'luck'", "random"]),
        (["run", "--config.augment.way=glue"], ["augment.way is 'glue'", "concatenate, adapter"]),
        (
            ["run", "--config.augment.way=halves", "--config.augment.reduce=learned"],
            ["augment.reduce is 'learned'", "halves"],
        ),
        (
            ["run", "--config.augment.way=initialise", "--config.augment.reduce=learned"],
            ["augment.reduce is 'learned'", "pca"],
        ),
        (["run", "--config.augment.teachers=('popularity',)"], ["augment.teachers", "sasrec"]),
        (["run", "--config.teacher.name=popularity"], ["teacher.name is 'popularity'", "sasrec"]),
        (["run", "--config.teacher.name=sasrec+ease"], ["teacher.name is 'sasrec+ease'", "caser"]),
    ],
)
def test_mistakes_are_one_clear_line(tmp_path, capsys, arguments, words):
    command, *flags = arguments
    with pytest.raises(SystemExit) as ended:
        given = [CONFIG, *P2REC, "--config.method=p2rec", *flags]
        delrec(command, *given, f"--workdir={tmp_path}")
    assert ended.value.code == 2
    err = capsys.readouterr().err.strip()
    assert len(err.splitlines()) == 1
    for word in words:
        assert word in err


def test_more_categories_than_items_are_refused(p2rec_run, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run_parse(p2rec_run, tmp_path, "--config.parse.categories=30")
    err = capsys.readouterr().err
    assert "parse.categories" in err and "30" in err


def test_embeddings_of_another_catalogue_are_refused(p2rec_run):
    path = p2rec_run / "augmented" / "embeddings" / "untuned.safetensors"
    with pytest.raises(UserError, match=r"not the catalogue's 2; run `delrec augment`"):
        files.load_embeddings(path, ids=("a", "b"))
    with pytest.raises(UserError, match="cannot be read"):
        files.load_embeddings(path.with_name("none.safetensors"), ids=("a", "b"))


def run_parse(run, workdir, *flags):
    """`delrec parse` on the finished stages before it."""
    for name in ("data", "lm", "teacher"):
        shutil.copytree(run / name, workdir / name)
    delrec("parse", CONFIG, f"--workdir={workdir}", *P2REC, "--config.method=p2rec", *flags)


def test_a_frozen_model_trains_the_projection_alone(p2rec_run, tmp_path):
    flags = ("--config.parse.lm=frozen", "--config.parse.loss=kl", "--config.parse.seeds=1")
    run_parse(p2rec_run, tmp_path, *flags, "--config.parse.select_by=top_category")
    trained = load_file(tmp_path / "preference/seed-0/model/result.safetensors")
    assert set(trained) == {"projection/kernel", "projection/bias"}


def augmented(run, workdir, way, *flags, controls, teachers="('sasrec',)"):
    """Stages up to `augment` on what a finished run has parsed; opened."""
    for name in ("data", "lm", "teacher", "preference"):
        shutil.copytree(run / name, workdir / name)
    kept = [flag for flag in P2REC if not flag.startswith("--config.augment")]
    chosen = (f"--config.augment.way={way}", f"--config.augment.teachers={teachers}")
    given = (
        *kept,
        *chosen,
        f"--config.augment.controls={controls}",
        "--config.method=p2rec",
        *flags,
    )
    delrec("augment", CONFIG, f"--workdir={workdir}", *given)
    return open_workspace(workdir), given


def counted_ndcg10(ws, data, cell):
    """NDCG@10 on the validation items, user by user."""
    scores = np.asarray(
        recommenders.load_cell(ws, data, cell).scores(padded_histories(data.split, "valid", 16))
    )
    gains = []
    for row, (user, target) in enumerate(
        zip(data.split.users("valid"), data.split.target("valid"), strict=True)
    ):
        seen = np.setdiff1d(data.split.history("valid", int(user)), target)
        others, own = np.delete(scores[row], seen), scores[row, target]
        rank = (others > own).sum() + ((others == own).sum() + 1) / 2
        gains.append(1 / np.log2(1 + rank) if rank <= 10 else 0.0)
    return np.array(gains)


def test_an_ensemble_is_ranked_by_the_sum_of_what_was_trained_apart(p2rec_run, tmp_path):
    given = {"controls": "('random',)", "teachers": "('sasrec', 'ease')"}
    ws, given = augmented(p2rec_run, tmp_path, "ensemble", **given)
    data = load_data(ws)
    stored = json.loads((tmp_path / "augmented" / "augment.json").read_text())
    assert [row["system"] for row in stored[::2]] == ["teacher", "teacher_augmented", RANDOM] * 2
    histories = np.array([[-1, -1, 0], [-1, 3, 5]], np.int32)
    for cell, row in zip(cells(ws.experiment), stored, strict=True):
        assert row["valid_ndcg10"] == pytest.approx(valid_ndcg10(ws, data, cell))
        if cell.name == "ease":
            assert row["valid_ndcg10"] == pytest.approx(counted_ndcg10(ws, data, cell).mean())
            # The users who select the networks' steps, where not all do.
            teacher = replace(ws.experiment.teacher, valid_users=7)
            few = SimpleNamespace(
                experiment=replace(ws.experiment, teacher=teacher), folder=ws.folder
            )
            asked = selecting_rows(np.arange(len(data.split.users("valid"))), 7)
            assert len(asked) == 7
            among = counted_ndcg10(ws, data, cell)[asked].mean()
            assert valid_ndcg10(few, data, cell) == pytest.approx(among)
        assert ("alone_ndcg10" in row) == (cell.system != "teacher" and cell.name == "sasrec")
    augmented_cell = cells(ws.experiment)[2]
    both = recommenders.load_cell(ws, data, augmented_cell)
    plain = recommenders.load_cell(ws, data, recommenders.first_cell(ws.experiment))
    summed = 0
    for part in both.parts:
        scores = np.asarray(part.scores(histories), np.float64)
        summed = summed + (scores - scores.mean(1, keepdims=True)) / scores.std(1, keepdims=True)
    np.testing.assert_allclose(both.scores(histories), summed, atol=1e-4)
    np.testing.assert_array_equal(both.parts[0].scores(histories), plain.scores(histories))
    # Trained apart: the part that reads texts is that of an adapter run, to the bit.
    alone = "augmented/teachers/sasrec/seed-1/teacher_augmented/teacher.safetensors"
    assert (tmp_path / alone).read_bytes() == (p2rec_run / alone).read_bytes()
    for stage in ("fit", "evaluate"):
        delrec(stage, CONFIG, f"--workdir={tmp_path}", *given)
    records = pl.read_parquet(tmp_path / "records" / "records.parquet")
    mine = records.filter(system="teacher_augmented", protocol="full", seed=0, teacher="sasrec")
    asked = ConventionalSystem(both, data.split, 16)
    scores = np.asarray(asked.scores("test", np.arange(len(mine))))
    for row, (user, target, rank) in enumerate(mine.select("user", "target", "rank").iter_rows()):
        seen = np.setdiff1d(data.split.history("test", user), target)
        others = np.delete(scores[row], seen)
        assert (
            rank
            == (others > scores[row, target]).sum()
            + ((others == scores[row, target]).sum() + 1) / 2
        )


def test_a_catalogue_too_large_for_ease_is_refused_before_anything_is_trained(
    p2rec_run, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(item_to_item, "MOST_ITEMS", 5)
    with pytest.raises(SystemExit) as ended:
        given = {"controls": "()", "teachers": "('sasrec', 'ease')"}
        augmented(p2rec_run, tmp_path, "adapter", **given)
    assert ended.value.code == 2
    assert "EASE: a catalogue of 36 items" in (err := capsys.readouterr().err)
    assert "augment.teachers" in err and not (tmp_path / "augmented" / "teachers").exists()


def test_halves_keep_the_text_as_it_came(p2rec_run, tmp_path):
    flags = ("--config.augment.reduce=whitened", "--config.augment.start_std=0.05")
    ws, _ = augmented(p2rec_run, tmp_path, "halves", *flags, controls="()")
    assert [cell.system for cell in cells(ws.experiment)] == ["teacher"] * 2 + [
        "teacher_augmented"
    ] * 2
    assert not (tmp_path / "augmented" / "embeddings" / "untuned.safetensors").exists()
    tuned = embeddings(tmp_path, "seed-1", "tuned.safetensors")
    found = load_file(tmp_path.joinpath(*CELL, "teacher_augmented", "teacher.safetensors"))
    expected = 0.05 * principal(tuned, 8, "whitened")
    np.testing.assert_allclose(found["items/embedding"][:, :8], expected, rtol=1e-5, atol=1e-7)
    trained = load_file(tmp_path.joinpath(*CELL, "teacher_augmented", "result.safetensors"))
    assert trained["items/embedding"].shape == (36, 8)


def test_delrec_distils_the_augmented_teacher(both_run):
    ws = open_workspace(both_run)
    metrics = json.loads((both_run / "report" / "metrics.json").read_text())
    systems = {row["system"] for row in metrics if row["protocol"] == "full"}
    assert {"teacher", "teacher_augmented", "delrec", "lm_shuffled_prompt"} <= systems
    data = load_data(ws)
    histories = np.array([[-1, -1, 0], [-1, 3, 5]], np.int32)
    distilled = np.asarray(recommenders.load_teacher(ws, data).scores(histories))
    (cell,) = cells(ws.experiment)
    assert cell.system == "teacher_augmented"
    augmented = np.asarray(recommenders.load_cell(ws, data, cell).scores(histories))
    plain = recommenders.load_cell(ws, data, recommenders.first_cell(ws.experiment))
    np.testing.assert_array_equal(distilled, augmented)
    assert np.abs(distilled - np.asarray(plain.scores(histories))).max() > 1e-3


def test_a_run_that_tunes_beside_the_teacher_says_so_and_ranks_without_it(both_run):
    metrics = json.loads((both_run / "report" / "metrics.json").read_text())
    assert {row["beside"] for row in metrics if row["system"] == "delrec"} == {"teacher"}
    assert {row["beside"] for row in metrics if row["system"] != "delrec"} == {""}
    assert "DELRec, tuned beside the teacher (" in (both_run / "report" / "tables.md").read_text()
    page = (both_run / "report" / "index.html").read_text()
    assert "standardized scores (weight 1)" in page
    kept = (both_run / "adapter" / "distilled" / "result.safetensors").read_bytes()
    assert b"teacher" not in kept, "the teacher is no part of what stage 2 stores"
