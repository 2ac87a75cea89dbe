"""Nothing is unpickled: no module has what would do it, and a pickle in the place of each file is refused in one line."""

import ast
import gzip
import io
import pickle
import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest

import delrec_jax
from delrec_jax.analysis.tables import read_log, read_metrics_json
from delrec_jax.config.files import read_config
from delrec_jax.data.corpora.atomic import read_atomic_tables
from delrec_jax.data.corpora.csv_pair import read_csv_pair
from delrec_jax.data.corpora.frames import load_frame
from delrec_jax.data.corpora.movielens import read_movielens
from delrec_jax.data.corpora.record_lines import json_record, read_records
from delrec_jax.data.corpora.steam import read_llara
from delrec_jax.data.recommendation_lists import read_recommendation_lists
from delrec_jax.data.stored_arrays import load_arrays
from delrec_jax.errors import UserError
from delrec_jax.evaluation.records import read_records as read_rank_records
from delrec_jax.hub.catalogue import read_catalogue, read_titles
from delrec_jax.hub.manifest import read_manifest
from delrec_jax.hub.settings import read_shared_settings
from delrec_jax.hub.tensors import read_tensors
from delrec_jax.language.adapter_files import load_adapter
from delrec_jax.language.hub import read_json as read_model_json
from delrec_jax.language.hub import stored_tensors
from delrec_jax.language.tokenizer import Tokenizer
from delrec_jax.teachers.list_files import load_lists
from delrec_jax.training.checkpoints import Checkpoints, load_tree
from delrec_jax.workdir.workspace import read_json

ROOT = Path(delrec_jax.__file__).parent
PICKLERS = {
    "pickle",
    "cPickle",
    "cloudpickle",
    "dill",
    "joblib",
    "marshal",
    "shelve",
    "pickletools",
}
READS_A_FRAME = (
    "data/corpora/frames.py"  # by an Unpickler that calls nothing: tests/data/test_frames.py
)
CALLS = {"eval", "exec", "compile", "__import__"}


def dangers(text: str) -> list[str]:
    """What could run the content of a file, in the source text of a module."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in PICKLERS]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PICKLERS:
            found.append(node.module)
        elif isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else ""
            full = ast.unparse(node.func)
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if name in CALLS or full in ("yaml.load", "torch.load", "pd.read_pickle"):
                found.append(full)
            if full == "np.load" and given.get("allow_pickle") != "False":
                found.append("np.load")
            if given.get("shell", "False") != "False" or given.get("trust_remote_code") == "True":
                found.append(f"{full} with shell or trust_remote_code")
            if full.endswith("AutoTokenizer.from_pretrained") and "trust_remote_code" not in given:
                found.append(full)
    return found


def test_no_module_has_what_would_run_a_file():
    found = {
        str(path.relative_to(ROOT)): names
        for path in sorted(ROOT.rglob("*.py"))
        if (names := dangers(path.read_text()))
    }
    assert found == {READS_A_FRAME: ["pickle", "pickletools"]}


@pytest.mark.parametrize(
    "text",
    [
        *("import joblib.numpy_pickle", "def f():\n    from cloudpickle import loads", "eval('1')"),
        *("np.load(path)", "np.load(path, allow_pickle=True)", "subprocess.run(x, shell=True)"),
        *(
            "AutoTokenizer.from_pretrained(x)",
            "t.AutoModel.from_pretrained(x, trust_remote_code=True)",
        ),
        *("torch.load(path)", "yaml.load(text)"),
    ],
)
def test_the_search_finds_it(text):
    assert len(dangers(text)) == 1
    assert dangers("np.load(path, allow_pickle=False)\nmodel.eval()\nre.compile('x')") == []


class Opened:
    """Leaves a trace when it is unpickled: a file of this name."""

    def __init__(self, trace):
        self.trace = str(trace)

    def __reduce__(self):
        return (open, (self.trace, "w"))


def forms(trace):
    """Pickles as they are found: of each kind of protocol, packed, of torch, and of numpy."""
    thing = Opened(trace)
    binary = pickle.dumps(thing)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:  # as torch.save writes it
        archive.writestr("archive/data.pkl", binary)
        archive.writestr("archive/version", "3\n")
    array, arrays = io.BytesIO(), io.BytesIO()
    objects = np.array([thing, thing], object)
    np.save(array, objects, allow_pickle=True)
    names = ("header", "hash", "items", "scores", "key")
    np.savez(arrays, allow_pickle=True, **dict.fromkeys(names, objects))
    return {
        "binary": binary,
        "text": pickle.dumps(thing, 0),
        "gzip": gzip.compress(binary),
        "torch": packed.getvalue(),
        "npy": array.getvalue(),
        "npz": arrays.getvalue(),
    }


def _model(path):
    (path.parent / "config.json").write_text("{}")
    stored_tensors(path.parent)


def _tokenizer(path):
    Tokenizer(path.parent)


def _tree(path):
    path.with_suffix(".json").write_text("{}")
    load_tree(path)


def _adapter(path):
    load_adapter(path.parent, base_hash="")


def _csv(path):
    read_csv_pair(path, path)


def _atomic(path):
    (path.parent / "shop.item").write_bytes(path.read_bytes())
    read_atomic_tables(str(path.parent))


def _reviews(path):
    read_records(path, lambda line: tuple(json_record(line)), {"a": pl.String})


def _llara(path):
    names = path.parent / "id2name.txt"
    names.write_text("0::Heat\n")
    read_llara((path,), names)


PLACES = {
    "config.json": read_json,
    "config.py": read_config,
    "stored.npz": lambda path: load_arrays(path, "split", header=(), arrays=("items",)),
    "lists.npz": lambda path: load_lists(path, key=None),
    "result.safetensors": _tree,
    "adapter.json": _adapter,
    "model.safetensors": _model,
    "model.safetensors.index.json": _model,
    "pytorch_model.bin": _model,
    "tokenizer.json": _tokenizer,
    "base.json": read_model_json,
    "systems.safetensors": read_tensors,
    "delrec.json": read_manifest,
    "settings.json": read_shared_settings,
    "catalogue.json": lambda path: read_catalogue(path, None, ""),
    "titles.csv": read_titles,
    "records.parquet": read_rank_records,
    "lists.parquet": lambda path: read_recommendation_lists(path, None),
    "lists.csv": lambda path: read_recommendation_lists(path, None),
    "metrics.json": read_metrics_json,
    "metrics.jsonl": read_log,
    "interactions.csv": _csv,
    "shop.inter": _atomic,
    "reviews.json.gz": _reviews,
    "ml-100k.zip": lambda path: read_movielens(path, "100k"),
    "Test_data.df": load_frame,
    "Val_data.df": _llara,
}


@pytest.mark.parametrize("name", PLACES)
def test_a_pickle_in_the_place_of_a_file_is_refused(tmp_path, name):
    trace = tmp_path / "opened"
    for form, content in forms(trace).items():
        folder = tmp_path / form / "shop"
        folder.mkdir(parents=True)
        (folder / name).write_bytes(content)
        with pytest.raises(UserError) as caught:
            PLACES[name](folder / name)
        assert str(folder) in str(caught.value), form
        assert "\n" not in str(caught.value), form
        assert not trace.exists(), form


def test_the_trace_is_left_by_what_does_unpickle(tmp_path):
    trace = tmp_path / "opened"
    for form in ("binary", "text"):
        pickle.loads(forms(trace)[form])
        assert trace.exists()
        trace.unlink()
    np.load(io.BytesIO(forms(trace)["npy"]), allow_pickle=True)
    assert trace.exists()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Orbax's threads
def test_no_file_of_a_checkpoint_is_unpickled(tmp_path):
    """Orbax's metadata included; its arrays are raw bytes, in which a pickle would be numbers."""
    like, trace = {"x": jnp.zeros(3), "n": jnp.int32(0)}, tmp_path / "opened"
    with Checkpoints(tmp_path / "whole") as checkpoints:
        checkpoints.save(1, like, {"position": 3})
    files = [path for path in sorted((tmp_path / "whole").rglob("*")) if path.is_file()]
    assert len(files) > 5
    for file in files:
        whole = file.read_bytes()
        for content in list(forms(trace).values())[:2]:
            file.write_bytes(content)
            try:
                with Checkpoints(tmp_path / "whole") as checkpoints:
                    checkpoints.restore(like)
            except UserError as error:
                assert "\n" not in str(error)
            assert not trace.exists(), file
        file.write_bytes(whole)
