"""The notebook of the documentation: without stored outputs, and running from its first cell to its last."""

import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "docs").glob("*.ipynb"))

each_notebook = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)


def test_there_is_a_notebook() -> None:
    assert [path.name for path in NOTEBOOKS] == ["python.ipynb"]


@each_notebook
def test_nothing_of_an_execution_is_stored(notebook: Path) -> None:
    document = json.loads(notebook.read_text("utf-8"))
    assert (document["nbformat"], document["nbformat_minor"]) == (4, 5)
    assert document["metadata"]["kernelspec"]["name"] == "python3"
    names = [cell["id"] for cell in document["cells"]]
    assert len(set(names)) == len(names)
    for cell in document["cells"]:
        assert cell["metadata"] == {}
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
            compile("".join(cell["source"]), cell["id"], "exec")


@each_notebook
def test_a_notebook_with_drawn_cells_says_so(notebook: Path) -> None:
    document = json.loads(notebook.read_text("utf-8"))
    text = "".join("".join(cell["source"]) for cell in document["cells"] if cell["cell_type"] == "markdown")
    assert "drawn" in text and "says anything about leukemia" in text


@pytest.mark.docs
@each_notebook
def test_jupyter_runs_it_and_shows_the_pictures(notebook: Path, tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    nbformat = pytest.importorskip("nbformat")
    document = nbformat.read(notebook, as_version=4)
    nbformat.validate(document)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(document, timeout=600, kernel_name="python3", resources=resources).execute()
    shown = {
        cell["id"]: [output["data"] for output in cell["outputs"] if "data" in output]
        for cell in document["cells"]
        if cell["cell_type"] == "code"
    }
    assert shown["predict"][0]["text/html"].count("<img ") == 6
    assert "image/png" in shown["explain"][0] and "<img " in shown["explain"][0]["text/html"]
    assert len(shown["methods"]) == 6
