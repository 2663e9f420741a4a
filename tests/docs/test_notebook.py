"""The notebook of the documentation: without stored outputs, and running from its first cell to its last."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "docs").glob("*.ipynb"))

each_notebook = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)

PROGRAM = """
shown = []

def display(thing):
    shown.append(thing._repr_html_())

{cells}

import json
print("SHOWN", json.dumps(shown))
"""
"""A notebook as a program: what a cell's last line comes to is shown, as Jupyter does."""


def code(notebook: Path) -> list[str]:
    """Return the code cells of a notebook."""
    cells = json.loads(notebook.read_text("utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


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
def test_the_cells_run_one_after_the_other(notebook: Path, tmp_path: Path) -> None:
    """Without Jupyter: as one program, in which the last line of a cell is shown where it can be."""
    lines = []
    for cell in code(notebook):
        *before, last = cell.splitlines()
        plain = last.startswith((" ", "print(")) or "=" in last.partition("(")[0]
        lines += [*before, last if plain else f"value = {last}\nif hasattr(value, '_repr_html_'): display(value)"]
    (tmp_path / "notebook.py").write_text(PROGRAM.format(cells="\n".join(lines)))
    done = subprocess.run([sys.executable, "notebook.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    shown = json.loads(done.stdout.partition("SHOWN ")[2])
    # Two tables of predictions, one explanation, and one for each of two classes and three methods.
    assert sum(html.startswith("<table>") for html in shown) == 2
    assert sum("<div><img " in html for html in shown) == 7


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
