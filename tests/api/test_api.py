"""The Python door: what `import delrec_jax` offers, and that it loads nothing before it is used."""

import ast
import datetime
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from ml_collections import ConfigDict
from readme_text import ROOT, python_blocks
from tiny_storefront import CONFIG, TINY, open_workspace

import delrec_jax as delrec
from delrec_jax.config import from_config
from delrec_jax.data.corpora.csv_pair import csv_paths, read_csv_pair
from delrec_jax.workdir.prepared import load_data
from delrec_jax.workdir.session import locked

README = (ROOT / "README.md").read_text()
GUIDE = (ROOT / "docs" / "guides" / "python.md").read_text()
STOREFRONT = CONFIG.removeprefix("--config=")


def overrides(flags):
    """The values of flags, as keyword arguments for `load_config`."""
    pairs = (flag.removeprefix("--config.").split("=", 1) for flag in flags)
    return {key: ast.literal_eval(value) for key, value in pairs}


def test_importing_the_package_loads_no_library():
    script = "import sys, delrec_jax; print(len({'jax', 'numpy', 'polars'} & set(sys.modules)))"
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert found.stdout == "0\n"


def test_every_public_name_is_there_and_documented():
    assert set(delrec.__all__) <= set(dir(delrec))
    for name in delrec.__all__:
        assert getattr(delrec, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'fly'"):
        delrec.fly  # noqa: B018


@pytest.mark.parametrize("path", [STOREFRONT, "storefront"])
def test_a_config_by_path_or_by_name_with_values_changed(path):
    config = delrec.load_config(path, distill__length=12, **{"teacher.name": "gru4rec"})
    assert (config.distill.length, config.teacher.name) == (12, "gru4rec")
    assert delrec.load_config(f"{path}:no_anchor").tune.anchor == 0.0


@pytest.mark.parametrize(
    ("path", "changes", "message"),
    [
        ("storefront", {"distill__lenght": 3}, r"distill\.lenght does not exist.*distill\.length"),
        ("storefront", {"distill__length": "long"}, r"distill\.length='long'"),
        ("storefront", {"distill__length": 0}, r"distill\.length"),
        ("storefrnot", {}, "there is no such config file"),
        ("storefront:", {}, "nothing after the colon"),
    ],
)
def test_bad_settings_are_one_clear_line(path, changes, message):
    with pytest.raises(delrec.UserError, match=message):
        delrec.load_config(path, **changes)


def test_a_run_is_resumed_and_opened(tiny_run, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(tiny_run, workdir)
    config = delrec.load_config(STOREFRONT, **overrides(TINY))
    trained = (workdir / "adapter").stat().st_mtime_ns
    delrec.run_stage(config, workdir, "teach")
    ran = delrec.run(config, workdir)
    assert (workdir / "adapter").stat().st_mtime_ns == trained, "finished stages are skipped"
    opened = delrec.load(str(workdir))
    asked = ["Tangled Stone Mystery Book One"]
    assert ran.recommend(asked).equals(opened.recommend(asked))
    assert opened.main == "delrec" and len(opened.titles) == len(opened.item_ids)
    with pytest.raises(delrec.UserError, match="another config"):
        delrec.run(delrec.load_config(STOREFRONT, **overrides(TINY), seed=3), workdir)
    with pytest.raises(delrec.UserError, match=r"config\.json is not there"):
        delrec.load(tmp_path)


class Pandas:
    """What is used of a pandas frame: columns by name, each as an array."""

    def __init__(self, columns):
        self._columns = {name: np.array(values, kind) for name, (values, kind) in columns.items()}
        self.columns = list(columns)

    def __getitem__(self, name):
        column = Pandas({})
        column.to_numpy = lambda: self._columns[name]
        return column

    def to_numpy(self):
        raise AssertionError("whole frames are not converted")


DAYS = [datetime.datetime(2024, 1, day, 12, tzinfo=datetime.UTC) for day in (3, 1, 2)]
ITEMS = pl.DataFrame({"item": [7, 8, 9], "title": ['The "A"', "B, or C", None]})
TABLES = {
    "polars": pl.DataFrame({"user_id": ["a", "a", "b"], "item_id": [7, 8, 9], "timestamp": DAYS}),
    "lazy": pl.LazyFrame({"user_id": ["a", "a", "b"], "item_id": [7, 8, 9], "timestamp": DAYS}),
    "pandas": Pandas(
        {
            "user_id": (["a", "a", "b"], object),
            "item_id": ([7, 8, 9], np.int64),
            "timestamp": ([day.replace(tzinfo=None) for day in DAYS], "datetime64[ns]"),
        }
    ),
}


@pytest.mark.parametrize("kind", TABLES)
def test_frames_are_read_back_as_they_were(kind, tmp_path):
    settings = delrec.from_frame(TABLES[kind], ITEMS, tmp_path / "shop")
    assert settings == {"data.corpus": "csv", "data.path": str(tmp_path / "shop")}
    raw = read_csv_pair(*csv_paths(settings["data.path"]))
    assert raw.interactions["item"].to_list() == ["7", "8", "9"]
    seconds = [int(day.timestamp()) for day in DAYS]
    assert raw.interactions["time"].to_list() == seconds
    assert raw.items["title"].to_list()[:2] == ['The "A"', "B, or C"]


@pytest.mark.parametrize("kind", ["polars", "pandas"])
def test_ids_with_one_missing_are_whole_numbers_and_the_missing_one_is_refused(kind, tmp_path):
    """In such a column pandas has floats: without a look at them all unknown users were one, called NaN."""
    columns = {"user": [1.0, 1.0, np.nan], "item": [7.0, 8.0, 9.0], "time": [1, 2, 3]}
    typed = {name: (values, None) for name, values in columns.items()}
    table = pl.DataFrame(columns) if kind == "polars" else Pandas(typed)
    settings = delrec.from_frame(table, ITEMS, tmp_path / "shop")
    lines = csv_paths(settings["data.path"])[0].read_text().splitlines()
    assert lines == ["user,item,time", "1,7,1", "1,8,2", ",9,3"]
    with pytest.raises(delrec.UserError, match=r"row 4.*user|user.*row 4|line 4"):
        read_csv_pair(*csv_paths(settings["data.path"]))


def test_what_is_no_frame_is_refused(tmp_path):
    with pytest.raises(delrec.UserError, match="items is a list: give a polars or pandas frame"):
        delrec.from_frame(TABLES["polars"], [1, 2], tmp_path)


@pytest.mark.parametrize(
    ("cell", "kind"),
    [(["a", "b"], "List"), (datetime.timedelta(seconds=3), "Duration"), (b"a", "Binary")],
)
def test_a_column_that_no_cell_of_a_file_holds_is_refused_by_name(cell, kind, tmp_path):
    items = pl.DataFrame({"item": ["x"], "title": ["T"], "genres": [cell]})
    with pytest.raises(delrec.UserError, match=f"items: column 'genres' holds {kind}"):
        delrec.from_frame(TABLES["polars"], items, tmp_path)


def test_times_that_no_calendar_holds_are_refused(tmp_path):
    days = (["290000-01-01"], "datetime64[s]")
    table = Pandas({"user": (["a"], object), "item": ([7], np.int64), "time": days})
    with pytest.raises(delrec.UserError, match="interactions: cannot be written as CSV"):
        delrec.from_frame(table, ITEMS, tmp_path / "shop")


@pytest.mark.parametrize("place", ["", None, 5, " "])
def test_a_place_that_is_none_is_not_this_folder(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = delrec.load_config(STOREFRONT)
    for ask in (delrec.DELRecModel, delrec.load, partial(delrec.run, config)):
        with pytest.raises(delrec.UserError, match=rf"(workdir|place) is {place!r}: give the fold"):
            ask(place)
    with pytest.raises(delrec.UserError, match="folder is"):
        delrec.from_frame(TABLES["polars"], ITEMS, place)
    assert not list(tmp_path.iterdir())


def test_a_fit_that_cannot_begin_leaves_the_tables_of_the_last_one(tmp_path):
    workdir, items = tmp_path / "run", pl.DataFrame({"item": [7, 8, 9], "title": list("ABC")})
    first = delrec.DELRecModel(workdir, "storefront")
    first._keep(
        Path(delrec.from_frame(TABLES["polars"], items, tmp_path / "a")["data.path"]), update=False
    )
    before = (workdir / "tables" / "interactions.csv").read_bytes()
    other = TABLES["polars"].with_columns(pl.lit("zoe").alias("user_id"))
    with pytest.raises(delrec.UserError, match="storefrnt"):
        delrec.DELRecModel(workdir, "storefrnt").fit(other, items, update=True)
    with locked(workdir), pytest.raises(delrec.UserError, match="another run is using it"):
        first.fit(other, items, update=True)
    assert (workdir / "tables" / "interactions.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("cell", "word"),
    [(["a", "b"], "list"), (np.array(["a", "b"]), "ndarray"), (b"a", "bytes"), ({}, "dict")],
)
def test_a_pandas_cell_that_is_no_text_is_refused(cell, word, tmp_path):
    cells = np.empty(1, object)
    cells[0] = cell
    items = Pandas({"item": ([7], np.int64), "title": (["A"], object)})
    items.columns.append("genres")
    items._columns["genres"] = cells
    with pytest.raises(delrec.UserError, match=f"items: column 'genres' holds {word}"):
        delrec.from_frame(TABLES["polars"], items, tmp_path)


@pytest.mark.parametrize("unit", ["D", "s", "ms", "us", "ns"])
def test_pandas_dates_of_any_unit(unit, tmp_path):
    days = (["2024-01-03", "2024-01-01", "2024-01-02"], f"datetime64[{unit}]")
    table = Pandas({"user": (["a"] * 3, object), "item": ([7, 8, 9], np.int64), "time": days})
    settings = delrec.from_frame(table, ITEMS, tmp_path / "shop")
    found = read_csv_pair(*csv_paths(settings["data.path"])).interactions["time"]
    midnight = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC).timestamp()
    assert (found - int(midnight)).to_list() == [2 * 86_400, 0, 86_400]


def test_two_columns_of_one_name_are_refused(tmp_path):
    items = Pandas({"item": ([7], np.int64), "title": (["A"], object)})
    items.columns.append("title")
    with pytest.raises(delrec.UserError, match="items: there are several columns 'title'"):
        delrec.from_frame(TABLES["polars"], items, tmp_path)


def test_an_index_with_a_name_is_not_dropped_in_silence(tmp_path):
    table = Pandas({"item": ([7], np.int64), "time": ([1], np.int64)})
    table.index = SimpleNamespace(names=["user"])  # as set_index("user") leaves it
    with pytest.raises(delrec.UserError, match="interactions: its index 'user' is not read: call"):
        delrec.from_frame(table, ITEMS, tmp_path)
    table.index.names = [None]
    delrec.from_frame(table, ITEMS, tmp_path)


def test_a_fit_names_frames_in_its_errors(tmp_path):
    items = pl.DataFrame({"item": [7, 7], "title": ["A", "B"]})
    model = delrec.DELRecModel(workdir=tmp_path / "run")
    with pytest.raises(delrec.UserError, match=r"items \(as CSV\), line 3, column 'item'"):
        model.fit(TABLES["polars"], items)


def test_what_pandas_calls_missing_is_an_empty_cell(tmp_path):
    class NAType:
        """pandas.NA has no truth value, and says so when it is compared."""

        def __ne__(self, other):
            return self

        def __bool__(self):
            raise TypeError("boolean value of NA is ambiguous")

    items = Pandas({"item": ([7, 8, 9], np.int64), "title": (["A", NAType(), None], object)})
    settings = delrec.from_frame(TABLES["polars"], items, tmp_path / "shop")
    assert read_csv_pair(*csv_paths(settings["data.path"])).items["title"].to_list() == [
        "A",
        "",
        "",
    ]


FIT = {
    "pretrain.text.full": 0.0,
    "pretrain.text.recent": 1.0,
    "tune.controls": (),
    "distill.controls": (),
    "baselines.names": ("popularity",),
    "baselines.hybrids": (),
}


def test_the_readmes_lines_about_a_run(tiny_run, tmp_path, monkeypatch, capsys):
    shutil.copytree(tiny_run, tmp_path / "runs" / "storefront")
    monkeypatch.chdir(tmp_path)
    load = delrec.load_config
    tiny = SimpleNamespace(**{name: getattr(delrec, name) for name in delrec.__all__})
    tiny.load_config = lambda name: load(name, **overrides(TINY))
    about_runs, _ = python_blocks(README)
    names = {"delrec": tiny}
    exec(without_import(about_runs), names)
    shown = capsys.readouterr().out
    assert "hybrid(delrec+teacher)" in shown and shown.count("shape: (5, ") == 2
    assert len(names["vectors"]) == len(names["recommender"].titles)


def test_the_guides_lines_about_asking(tiny_run, tmp_path, monkeypatch):
    shutil.copytree(tiny_run, tmp_path / "runs" / "storefront")
    monkeypatch.chdir(tmp_path)
    _, about_asking, _, _ = python_blocks(GUIDE)
    names = {"delrec": delrec}
    exec(without_import(about_asking), names)
    assert names["found"].height == 15 and names["best"].height == 3
    assert len(names["vectors"]) == len(names["titles"])


def test_the_guides_lines_about_a_run():
    """The settings that they name exist; a run of this size is tested above."""
    about_runs, *_ = python_blocks(GUIDE)
    line = next(line for line in about_runs.splitlines() if line.startswith("config = "))
    names = {"delrec": delrec}
    exec(line, names)
    assert (names["config"].distill.length, names["config"].teacher.name) == (12, "gru4rec")


def test_the_guides_lines_about_tables(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, _, about_tables, about_models = python_blocks(GUIDE)
    names = {"delrec": delrec, "interactions": TABLES["polars"], "items": ITEMS}
    exec(without_import(about_tables), names)
    assert names["config"].data.path == "shop" and (tmp_path / "shop" / "items.csv").is_file()
    ours, theirs = (without_comments(text) for text in (about_models, python_blocks(README)[1]))
    assert ours == theirs, "the README's lines, which are run below"


def without_comments(text):
    return [line.partition("  #")[0] for line in text.splitlines()]


def without_import(block):
    first, _, rest = block.partition("\n")
    assert first == "import delrec_jax as delrec"
    return rest


def test_a_model_is_fitted_to_tables_and_asked_by_user(tiny_run, tmp_path, monkeypatch):
    corpus = load_data(open_workspace(tiny_run)).corpus
    names = ["ann", "bob", *(f"u{user}" for user in range(2, 48))]
    interactions = pl.DataFrame(
        {
            "user": np.repeat(names, corpus.interactions.lengths),
            "item": [corpus.catalogue.ids[item] for item in corpus.interactions.items],
            "time": np.arange(len(corpus.interactions.items)),
        }
    )
    items = pl.DataFrame({"item": corpus.catalogue.ids, "title": corpus.catalogue.titles})
    tiny = partial(delrec.DELRecModel, config=STOREFRONT, **overrides(TINY) | FIT)
    with pytest.raises(delrec.UserError, match="nothing was fitted"):
        tiny("runs/shop").recommend(["ann"])

    monkeypatch.chdir(tmp_path)
    _, about_models = python_blocks(README)
    known = {
        "delrec": SimpleNamespace(DELRecModel=tiny),
        "interactions": interactions,
        "items": items,
    }
    exec(without_import(about_models), known)
    model = known["model"]
    found = model.recommend(["u3", "bob"], k=2)
    assert found["user"].to_list() == ["u3", "u3", "bob", "bob"]
    had = interactions.filter(pl.col("user") == "u3")["item"].to_list()
    assert not set(had) & set(found["item"][:2])
    again = model.recommender.recommend(had, k=2, by="id")
    assert again["item"].to_list() == found["item"][:2].to_list()
    with pytest.raises(delrec.UserError, match="users: 'u99' has no history"):
        model.recommend(["u99"])
    with pytest.raises(delrec.UserError, match="users='ann': give a list of users"):
        model.recommend("ann")
    fewer = interactions.filter(pl.col("user") != "u3")
    with pytest.raises(delrec.UserError, match=r"holds a fit to other tables: .*update=True"):
        model.fit(fewer, items)
    broken = interactions.with_columns(pl.lit(None).alias("time"))
    with pytest.raises(delrec.UserError, match="time"):
        model.fit(broken, items, update=True)
    assert delrec.load("runs/shop").recommend(had, k=2, by="id").equals(again)


def test_settings_of_a_model_are_those_of_its_config():
    config = delrec.load_config("minilm/own", **{"data.path": "x"})
    assert isinstance(config, ConfigDict)
    assert from_config(config).data.corpus == "csv"
