"""The notebook: it stores no output, and its cells run, here on a tiny storefront."""

import json
from pathlib import Path

import pytest
from compiling import QUICK_ENVIRONMENT
from tiny_storefront import TINY

NOTEBOOK = Path(__file__).parents[1] / "docs" / "quickstart.ipynb"


def changed(name, value):
    """The line of a notebook that sets a name, with another value."""

    def change(source):
        lines = source.split("\n")
        return "\n".join(
            f"{name} = {value!r}" if line.startswith(f"{name} =") else line for line in lines
        )

    return change


def tiny_settings():
    """{key: value} of the flags of a tiny run."""
    found = {}
    for flag in TINY:
        key, _, value = flag.removeprefix("--config.").partition("=")
        found[key] = json.loads(value)
    return found


def test_the_notebook_stores_no_output():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code and all(cell["outputs"] == [] for cell in code)
    assert all(cell["execution_count"] is None for cell in code)
    assert [cell["source"][0] for cell in code if cell["source"][0].startswith("SOURCE")] == [
        'SOURCE = ""\n'
    ]


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat", reason="needs nbclient and ipykernel")
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient and ipykernel")
    pytest.importorskip("ipykernel", reason="needs nbclient and ipykernel")
    for name, value in QUICK_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        cell.source = changed("CHANGES", tiny_settings())(cell.source)
    client = nbclient.NotebookClient(
        notebook, timeout=1800, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    shown = {
        cell.source.split("\n")[-1]: cell.outputs[-1]["data"]["text/plain"]
        for cell in notebook.cells
        if cell.cell_type == "code" and cell.outputs and "data" in cell.outputs[-1]
    }
    assert "'hybrid(delrec+teacher)'" in shown["recommender.systems"]
    assert "shape: (5, 4)" in shown["recommender.recommend(history, k=5)"]
    assert "shape: (4, 5)" in shown["recommender.rank([history], [candidates])"]
    assert shown["recommender.embed_items().shape"] == "(36, 16)"
    assert shown["delrec.load(WORKDIR).main"] == "'delrec'"
    assert (tmp_path / "runs" / "storefront" / "report" / "index.html").exists()
