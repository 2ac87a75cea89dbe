"""What `delrec export --format=hub` writes, and which folders are not opened."""

import json
import pickle
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from huggingface_hub import ModelCard
from safetensors.numpy import load_file, save_file
from tiny_storefront import delrec, open_workspace

import delrec_jax
from delrec_jax.analysis.tables import read_metrics_json
from delrec_jax.errors import UserError
from delrec_jax.evaluation.systems import SIMPLE_BASELINES
from delrec_jax.files import file_hash
from delrec_jax.hub.catalogue import read_titles
from delrec_jax.hub.folder import Choices, export_shared
from delrec_jax.hub.manifest import FORMAT
from delrec_jax.hub.settings import shared_settings
from delrec_jax.workdir.workspace import Workspace


@pytest.fixture
def folder(shared_folder, tmp_path):
    """A copy that may be changed."""
    return shutil.copytree(shared_folder, tmp_path / "folder")


def rewritten(folder, name, change):
    """Changes the object in a JSON file, and makes the hash in delrec.json that of the new file."""
    content = json.loads((folder / name).read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))
    rehashed(folder, name)


def rehashed(folder, name):
    if name != "delrec.json":
        list_of = json.loads((folder / "delrec.json").read_text())
        list_of["files"][name] = file_hash(folder / name)
        (folder / "delrec.json").write_text(json.dumps(list_of))


def test_nothing_of_users_or_of_this_machine_is_in_it(shared_folder, tiny_run):
    names = {p.relative_to(shared_folder).as_posix() for p in shared_folder.rglob("*.*")}
    listed = json.loads((shared_folder / "delrec.json").read_text())["files"]
    assert names == {"README.md", "delrec.json", *listed}
    assert {name.rpartition(".")[2] for name in listed} == {"json", "safetensors"}
    texts = [
        path.read_text() for path in shared_folder.rglob("*.*") if path.suffix in (".json", ".md")
    ]
    run = delrec_jax.load(tiny_run)
    for text in texts:
        assert str(tiny_run) not in text and str(tiny_run.parent) not in text
        assert not any(f'"{user}"' in text for user in run.histories if not user.isdigit())
    catalogue = json.loads((shared_folder / "catalogue.json").read_text())
    assert catalogue == {"ids": list(run.item_ids), "titles": list(run.titles)}
    settings = json.loads((shared_folder / "config.json").read_text())
    assert "mesh" not in settings and settings["distill"]["length"] == 3
    rows = read_metrics_json(shared_folder / "results.json")
    assert rows == read_metrics_json(tiny_run / "report" / "metrics.json")


def test_the_card_has_the_result_and_what_is_stronger(shared_folder, tiny_run):
    card = ModelCard.load(shared_folder / "README.md")
    assert card.data.license == "apache-2.0" and card.data.library_name == "delrec_jax"
    measured = {
        (row["system"], row["metric"]): row
        for row in read_metrics_json(tiny_run / "report" / "metrics.json")
        if row["protocol"] == "full"
    }
    results = {one.metric_type: one for one in card.data.eval_results}
    assert set(results) == {"hr@1", "hr@10", "ndcg@10"}
    own = measured["delrec", "NDCG@10"]
    assert results["ndcg@10"].metric_value == pytest.approx(own["value"], abs=1e-4)
    assert f"{own['ci_low']:.4f} to {own['ci_high']:.4f}" in results["ndcg@10"].metric_name
    simple = {n: measured[n, "NDCG@10"] for n in SIMPLE_BASELINES}
    best = max(simple, key=lambda name: simple[name]["value"])
    told = (
        f"{simple[best]['value']:.3f} [{simple[best]['ci_low']:.3f}, {simple[best]['ci_high']:.3f}]"
    )
    assert re.search(rf"strongest simple baseline .* an NDCG@10 of {re.escape(told)}", card.text)
    assert "no figure here is a result on real data" in card.text
    assert "The titles of all items are in `catalogue.json`" in card.text
    assert 'delrec.load("USER/NAME")' in card.text and "--from=USER/NAME" in card.text
    assert "built-in" not in card.text and "{{" not in card.text


def test_a_run_without_a_report_says_so(tiny_run, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    shutil.rmtree(run / "report")
    delrec("export", f"--workdir={run}", "--format=hub", f"--output={tmp_path / 'out'}")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "nothing is known here of how well it ranks" in card and "model-index" not in card
    assert "not stated. Whoever publishes them has to choose one" in card


def test_titles_that_stay_at_home(tiny_run, tmp_path):
    flags = ("--format=hub", "--titles=no", f"--output={tmp_path / 'out'}")
    delrec("export", f"--workdir={tiny_run}", *flags)
    run = delrec_jax.load(tiny_run)
    for path in (tmp_path / "out").rglob("*"):
        shown = path.name not in ("tokenizer.json",) and path.is_file()
        assert not shown or run.titles[0].encode() not in path.read_bytes(), path
    with pytest.raises(UserError, match="the titles were left out"):
        delrec_jax.load(tmp_path / "out")
    titles = dict(zip(run.item_ids, run.titles, strict=True))
    asked = list(run.titles[:2])
    found = delrec_jax.load(tmp_path / "out", titles=titles).recommend(asked)
    assert found.equals(run.recommend(asked))
    with pytest.raises(UserError, match="not the titles that the model was made with"):
        delrec_jax.load(tmp_path / "out", titles=titles | {run.item_ids[3]: "Another"})
    del titles[run.item_ids[3]]
    with pytest.raises(UserError, match="no title of the item"):
        delrec_jax.load(tmp_path / "out", titles=titles)


def test_titles_from_a_file(tiny_run, tmp_path, capsys):
    export_shared(open_workspace(tiny_run), tmp_path / "out", Choices(titles=False))
    run = delrec_jax.load(tiny_run)
    pairs = [f'{item},"{title}"' for item, title in zip(run.item_ids, run.titles, strict=True)]
    (tmp_path / "items.csv").write_text("\n".join(["item,title", *pairs]))
    given = (f"--from={tmp_path / 'out'}", f"--history={run.titles[0]}", "-k", "2")
    delrec("recommend", *given, f"--titles={tmp_path / 'items.csv'}")
    assert "DELRec" in capsys.readouterr().out
    (tmp_path / "items.csv").write_text("id,name\n")
    with pytest.raises(SystemExit):
        delrec("recommend", *given, f"--titles={tmp_path / 'none.csv'}")
    assert "none.csv: no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("\ufeffitem,title\n1,A\n", {"1": "A"}),
        ("item,title\n1\n", "line 2"),
        ("item,title\n1,\n", "line 2, column 'title': empty cell"),
        ("item,title\n1,A\n1,B\n", "line 3, column 'item': '1' has a row already"),
        ("id,name\n1,A\n", "no column 'item'"),
    ],
)
def test_titles_in_a_file_are_read_strictly(tmp_path, text, found):
    (tmp_path / "items.csv").write_text(text, encoding="utf-8")
    if isinstance(found, dict):
        assert read_titles(tmp_path / "items.csv") == found
        return
    with pytest.raises(UserError, match=found):
        read_titles(tmp_path / "items.csv")


@pytest.mark.parametrize("tree", [{"delrec": 1}, {"delrec": 1, "delrec/prompt": 2}])
def test_arrays_that_stand_where_tensors_of_a_system_belong_are_told(folder, tree):
    arrays = {name: np.zeros(2, np.float32) for name in tree}
    save_file(arrays, folder / "systems.safetensors")
    rehashed(folder, "systems.safetensors")
    with pytest.raises(
        UserError, match=r"systems\.safetensors: (cannot be read|there is an array)"
    ):
        delrec_jax.load(folder).recommend([delrec_jax.load(folder).titles[0]], k=1)


def test_values_that_are_not_finite_are_told(folder):
    """Even where nothing reads them, as in a direction that the ranks leave out."""
    arrays = load_file(folder / "systems.safetensors")
    name = next(name for name in arrays if name.startswith("delrec/") and name.endswith("/B"))
    arrays[name] = np.full_like(arrays[name], np.nan)
    save_file(arrays, folder / "systems.safetensors")
    rehashed(folder, "systems.safetensors")
    with pytest.raises(UserError, match=f"{name} has values that are not finite"):
        delrec_jax.load(folder).recommend([delrec_jax.load(folder).titles[0]], k=1)


@pytest.mark.parametrize("name", ["data.corpus", "seed.x"])
def test_a_key_with_a_dot_is_told(folder, name):
    rewritten(folder, "config.json", lambda settings: settings.update({name: 1}))
    with pytest.raises(UserError, match=r"config\.json: .*dots in field names"):
        delrec_jax.load(folder)


def test_a_file_of_histories_is_ranked_by_a_folder(shared_folder, tiny_run, tmp_path):
    run = delrec_jax.load(tiny_run)
    pl.DataFrame({"history": [list(run.item_ids[:3])]}).write_parquet(tmp_path / "asked.parquet")
    flags = (f"--input={tmp_path / 'asked.parquet'}", f"--output={tmp_path / 'lists'}", "-k", "4")
    delrec("rank", f"--from={shared_folder}", *flags)
    found = pl.read_parquet(tmp_path / "lists" / "part-00000.parquet")
    assert found.equals(run.rank([list(run.item_ids[:3])], k=4, by="id"))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("delrec.json", {"format": FORMAT + 1}, f"of format {FORMAT + 1}, .* upgrade delrec_jax"),
        ("delrec.json", {"format": None}, "no format number"),
        ("delrec.json", {"code": "x.py"}, "'code' is an unknown key"),
        ("delrec.json", {"teachers": "teacher"}, "teachers is 'teacher'"),
        (
            "delrec.json",
            {"files": {"model.pkl": ""}},
            r"lists the file 'model\.pkl', which no such",
        ),
        ("delrec.json", {"files": {"../x.json": ""}}, r"lists the file '\.\./x\.json'"),
        ("delrec.json", {"systems": {}}, "has no system 'delrec'"),
        ("config.json", {"optimiser": 1}, r"config\.json: config\.optimiser does not exist"),
        ("config.json", {"seed": "one"}, r"config\.json: config\.seed is 'one'"),
        ("config.json", {"lm": {"verbalizer": "own.py:MINE"}}, "own.py:MINE', which names code"),
        ("tokenizer/tokenizer_config.json", {"auto_map": {}}, "auto_map names code"),
        ("catalogue.json", {"ids": [1]}, r"catalogue\.json: not a catalogue \(no list of texts"),
        ("catalogue.json", {"titles": ["a"]}, r"catalogue\.json: not a catalogue"),
    ],
)
def test_what_is_not_opened(folder, name, change, message):
    rewritten(folder, name, lambda content: content.update(change))
    with pytest.raises(UserError, match=message) as error:
        delrec_jax.load(folder)
    assert "\n" not in str(error.value)


def test_a_missing_key_and_a_list_in_place_of_an_object(folder):
    rewritten(folder, "delrec.json", lambda content: content.pop("base"))
    with pytest.raises(UserError, match="'base' is a missing key"):
        delrec_jax.load(folder)
    (folder / "delrec.json").write_text("[]")
    with pytest.raises(UserError, match="holds no JSON object"):
        delrec_jax.load(folder)


@pytest.mark.parametrize(
    ("file", "tensor", "system"),
    [
        ("systems.safetensors", "delrec/prompt", "delrec"),
        ("systems.safetensors", "lm_distilled_prompt/prompt", "lm_distilled_prompt"),
        ("teachers.safetensors", "teacher/items/embedding", "teacher"),
    ],
)
def test_a_tensor_of_another_shape_or_name(folder, file, tensor, system):
    tensors = load_file(folder / file)
    assert tensor in tensors, sorted(tensors)
    for changed in (
        tensors | {tensor: tensors[tensor][1:]},
        {name: value for name, value in tensors.items() if name != tensor},
        tensors | {f"{tensor}s": tensors[tensor]},
    ):
        save_file({name: np.ascontiguousarray(one) for name, one in changed.items()}, folder / file)
        rehashed(folder, file)
        recommender = delrec_jax.load(folder)
        with pytest.raises(UserError, match=f"{file}: {tensor.partition('/')[2]}s? is "):
            recommender.recommend(list(recommender.titles[:1]), system=system)


def test_a_pickle_in_place_of_safetensors(folder):
    (folder / "systems.safetensors").write_bytes(pickle.dumps({"delrec": 1}))
    rehashed(folder, "systems.safetensors")
    recommender = delrec_jax.load(folder)
    with pytest.raises(UserError, match=r"systems\.safetensors: cannot be read"):
        recommender.recommend(list(recommender.titles[:1]))


def test_code_of_ones_own_is_not_shared(tiny_run):
    experiment = open_workspace(tiny_run).experiment
    own = f"{Path(__file__).parents[1] / 'seams' / 'toy_recommender.py'}:FOLLOWS_LAST"
    changed = replace(experiment, teacher=replace(experiment.teacher, name=own))
    with pytest.raises(UserError, match=r"teacher\.name is '.*:FOLLOWS_LAST', which is code"):
        shared_settings(changed, "")


def test_paths_end_in_their_last_part(tiny_run):
    experiment = open_workspace(tiny_run).experiment
    data = replace(experiment.data, path="/somewhere/of/ann/shop", manual_dir="/data/raw")
    settings = shared_settings(replace(experiment, data=data), "")
    assert (settings["data"]["path"], settings["data"]["manual_dir"]) == ("shop", "raw")


def test_an_unfinished_run_and_a_folder_in_use(tiny_run, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("five years")
    with pytest.raises(SystemExit):
        delrec("export", f"--workdir={tiny_run}", "--format=hub", f"--output={tmp_path / 'mine'}")
    assert "does not exist yet or is empty" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        delrec("export", f"--workdir={tiny_run}", "--format=hub", "--titles=maybe", "--output=x")
    assert "--titles=maybe: use yes or no" in capsys.readouterr().err
    empty = Workspace(tmp_path / "run", open_workspace(tiny_run).experiment)
    with pytest.raises(UserError, match="export needs a finished `delrec tune`"):
        export_shared(empty, tmp_path / "out", Choices())
