"""What can be audited: folders, manifests and runs, and one line for each that cannot."""

import json
from functools import partial

import pytest

from customcnn.audit import open_data
from customcnn.data.manifest import scan
from customcnn.io.remote_path import parse_folder
from tests.support.audit_pictures import cell, save
from tests.support.errors import refused


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for part in ("train", "validation"):
        for i in range(2):
            save(tmp_path / f"data/{part}/all/{i}.png", cell(i + 10 * len(part)))
    return tmp_path / "data"


def run_of(data, folder, environment=None, metrics=None):
    folder.mkdir(parents=True)
    (folder / "recipe.toml").write_text("")
    scan(data).write(folder / "manifest.csv")
    if environment is not None:
        (folder / "environment.json").write_text(json.dumps(environment))
    if metrics is not None:
        (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


failure = partial(refused, open_data, match="Received: ")


def test_a_folder_is_scanned(data):
    assert open_data(data) == scan(data)


def test_a_manifest_is_read_as_it_stands(data):
    scan(data).write(data / "manifest.csv")
    text = (data / "manifest.csv").read_text().replace("train/all/0.png,all", "train/all/0.png,other")
    (data / "list.csv").write_text(text)
    found = open_data(data / "list.csv")
    assert found.root == data
    assert found.classes == ["all", "other"], "its labels count, not the names of the folders"


def test_a_manifest_whose_images_are_missing(data):
    scan(data).write(data / "list.csv")
    (data / "train/all/0.png").unlink()
    assert "1 of 4 are missing: 'train/all/0.png'" in failure(data / "list.csv")
    found = open_data(data / "list.csv", skip_bad=True)
    assert [record.path for record in found.records] == [
        "train/all/1.png",
        "validation/all/0.png",
        "validation/all/1.png",
    ]
    assert [path for path, _ in found.skipped] == ["train/all/0.png"]
    (data.parent / "alone.csv").write_text((data / "list.csv").read_text())
    assert "4 of 4 are missing" in failure(data.parent / "alone.csv", skip_bad=True)


@pytest.mark.parametrize("outside", ["../secret.png", "train/../../secret.png", "{tmp_path}/secret.png"])
def test_a_manifest_opens_nothing_outside_of_its_folder(data, tmp_path, outside):
    save(tmp_path / "secret.png", cell(1))
    run = run_of(data, tmp_path / "run", {"data": str(data)})
    outside = outside.format(tmp_path=tmp_path)
    (data / "list.csv").write_text(f"path,label,group,split,sha256\n{outside},all,,,\n")
    for skip_bad in (False, True):
        assert refused(open_data, data / "list.csv", skip_bad=skip_bad) == (
            f"The paths in a table lie inside its folder. Received: {str(data / 'list.csv')!r} with {outside!r}. "
            "Write them relative to the folder, without '..'."
        )
    (run / "manifest.csv").write_text((data / "list.csv").read_text())
    assert "lie inside its folder" in failure(run)


def test_files_that_are_no_manifest(data):
    (data.parent / "notes.csv").write_text("a,b\n1,2\n")
    assert "without path, label" in failure(data.parent / "notes.csv")
    (data.parent / "empty.csv").write_text("path,label,group,split,sha256\n")
    assert "which lists none" in failure(data.parent / "empty.csv")
    assert "which is no folder" in failure(data / "train/all/0.png")


@pytest.mark.parametrize(
    "recorded",
    [
        {"environment": {"command": ["customcnn", "train", "data", "--out", "runs/one"]}},
        {"environment": {"data": "data"}},
        {"environment": {}, "metrics": {"data": "data"}},
    ],
)
def test_the_images_of_a_run_are_those_of_the_folder_that_it_records(data, monkeypatch, recorded):
    run = run_of(data, data.parent / "runs/one", **recorded)
    found = open_data(run)
    assert found.root.resolve() == data
    assert found.records == scan(data).records
    (data.parent / "elsewhere").mkdir()
    monkeypatch.chdir(data.parent / "elsewhere")
    assert open_data(run).root.resolve() == data, "names are looked up from the folders above the run, too"


def test_the_images_of_a_run_are_those_at_the_address_that_it_records(data):
    pytest.importorskip("fsspec")
    there = parse_folder("memory://bucket/data")
    for record in scan(data).records:
        (there / record.path).put((data / record.path).read_bytes())
    run = run_of(data, data.parent / "runs/one", {"data": str(there)})
    assert (open_data(run).root, open_data(run).records) == (there, scan(data).records)
    (there / record.path).unlink()
    assert f"and the images are not in '{there}'" in failure(run)


def test_a_run_whose_images_cannot_be_found(data):
    run = run_of(data, data.parent / "run", {"command": ["customcnn", "train", "data"]})
    (data / "train/all/0.png").unlink()
    message = failure(run)
    assert "the images are not in" in message
    assert "Name the folder of the images instead of the run." in message
    assert "is not there" in failure(run_of(data, data.parent / "other", {"command": ["customcnn", "train", "gone"]}))
    (data.parent / "other/environment.json").write_text("no json")
    assert "is not there" in failure(data.parent / "other")
    (data.parent / "other/manifest.csv").unlink()
    assert "manifest.csv" in failure(data.parent / "other")
