"""Cells of CSV files: never a formula to a spreadsheet program, and read back as they were."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from customcnn.audit.copies import write_groups
from customcnn.data.manifest import Manifest, Record, read_manifest, read_rows
from customcnn.inference.decision import Prediction
from customcnn.inference.predictions import Predictions
from customcnn.io.csv_cells import as_text, from_text
from customcnn.runs.run_dir import rows_to_csv

FORMULAS = ["=HYPERLINK(0)", "+cmd|x", "-x", "@SUM(1)", "\t=1", "\r=1", "\n=1", "'=1", "=", "-1+1", "+1x"]
OTHERS = ["all", "-1", "+1", "-0.5", "", "'", "'x", "a=b", " =1", "'-1"]


@pytest.mark.parametrize("name", FORMULAS)
def test_a_formula_becomes_text(name):
    assert as_text(name) == f"'{name}"
    assert from_text(f"'{name}") == name


@pytest.mark.parametrize("cell", [*OTHERS, -1, -0.5, None, float("-inf")])
def test_other_cells_stay(cell):
    assert as_text(cell) is cell
    if isinstance(cell, str):
        assert from_text(cell) == cell


@given(st.text(st.sampled_from("'=+-@\t\r\n1.a"), max_size=6))
def test_every_name_comes_back(name):
    written = as_text(name)
    assert from_text(written) == name
    assert written[:1] not in ("=", "@", "\t", "\r", "\n")


def cells_of(text: str) -> list[str]:
    return [cell for row in csv.reader(io.StringIO(text, newline="")) for cell in row]


@pytest.mark.parametrize("name", FORMULAS)
def test_no_csv_of_the_package_holds_a_formula(tmp_path, name):
    """Written by each writer, and read by the package's own reader."""
    path = tmp_path / "a.csv"
    text = Predictions([Prediction(name, name, {name: 0.5, "b": 0.5})]).to_csv(path)
    assert not set(FORMULAS) - {"'=1"} & set(cells_of(text))
    assert read_rows(path, ("file",)) == [
        {"file": name, "label": name, f"probability_{name}": "0.5", "probability_b": "0.5"}
    ]
    path.write_text(rows_to_csv([{name: name}]), newline="")
    assert read_rows(path, ()) == [{name: name}]
    manifest = Manifest(tmp_path, (Record(name, name, name, "train", "", {name: name}),))
    manifest.write(path)
    assert read_manifest(path).records == manifest.records
    assert not set(FORMULAS) - {"'=1"} & set(cells_of(Path(path).read_bytes().decode()))
    write_groups({name: name}, path)
    assert read_rows(path, ("path", "group")) == [{"path": name, "group": name}]
    assert name not in cells_of(Path(path).read_bytes().decode())
