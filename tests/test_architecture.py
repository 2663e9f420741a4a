"""The rooms of the package: who may import from whom, which room knows which library, and what a command loads."""

import ast
import os
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.support.rooms import FRONT_DOORS, PACKAGE, ROOMS, arrows, files_of, imports_of, parse, room_of

EVERYWHERE = {"errors", "progress"}
"""What every room may import."""

BASE = {"io", "images", "data"}
ON_RUNS = {*BASE, "metrics", "backend", "runs"}
LIBRARY = {
    *ON_RUNS, "audit", "augmentation", "cluster", "evaluation", "explain", "export", "html", "inference", "models",
    "plots", "recipe", "report", "training", "visualize",
}  # fmt: skip

ALLOWED: dict[str, set[str]] = {
    "io": set(),
    "html": set(),
    "metrics": set(),
    "models": set(),
    "images": {"io"},
    "augmentation": {"images"},
    "plots": {"io", "metrics"},
    "explain": {"io", "images", "html", "metrics"},
    "data": {"io", "images"},
    "recipe": {"models", "augmentation", "data"},
    "backend": {"io"},
    "cluster": {"io", "backend"},
    "runs": {"io", "data", "recipe", "backend", "metrics"},
    "audit": {*BASE, "html", "runs"},
    "training": {*ON_RUNS, "recipe", "models", "augmentation", "plots"},
    "inference": {*ON_RUNS, "explain", "html"},
    "report": {*ON_RUNS, "explain", "html", "recipe"},
    "evaluation": {*ON_RUNS, "plots", "html", "inference"},
    "export": {*ON_RUNS, "inference"},
    "visualize": {*ON_RUNS, "plots", "html", "inference", "explain", "evaluation"},
    "model_selection": LIBRARY,
    "leakage_cost": {*LIBRARY, "model_selection"},
    "studies": {*LIBRARY, "model_selection"},
    "serve": {*BASE, "explain", "html", "inference", "report", "runs"},
    "doctor": LIBRARY,
    "api": {*LIBRARY, "estimator"},
    "estimator": LIBRARY,
    "cli": {*LIBRARY, "model_selection", "leakage_cost", "studies", "serve", "api", "doctor", "estimator"},
    "__init__": {"api", "estimator", "explain", "inference"},
    "__main__": {"cli", "io"},
    "errors": set(),
    "progress": {"errors"},
}
"""Which rooms a room may import from, besides its own files and EVERYWHERE. A new room gets a row, and a reason in
docs/design.md."""


def allowed_in(room: str) -> set[str]:
    """Return all that a room may import from."""
    return ALLOWED[room] if room in EVERYWHERE else ALLOWED[room] | EVERYWHERE


BACKENDS = {"tensorflow", "jax", "torch"}
KNOWN_IN: dict[str, set[str]] = {
    "keras": {
        "augmentation", "backend", "doctor", "estimator", "evaluation", "explain", "export", "inference", "models",
        "runs", "training", "visualize",
    },
    "tensorflow": {"backend", "explain", "export", "training"},
    "jax": {"backend", "explain", "training"},
    "torch": {"backend", "explain", "training"},
    "matplotlib": {"explain", "plots", "visualize"},
    "ray": {"cluster"},
    "fsspec": {"io"},
    "Augmentor": {"data"},
    "albumentations": {"augmentation"},
    "openvino": {"export", "inference"},
    "onnxruntime": {"export", "inference"},
    "gradio": {"serve"},
    "fastapi": {"serve"},
    "mlflow": {"training"},
    "optuna": {"model_selection"},
}  # fmt: skip
"""The rooms that may know a library at all."""

HEAVY = {*KNOWN_IN, "sklearn", "scipy", "pandas", "imagehash", "starlette", "uvicorn", "onnx", "tf2onnx"}
HEAVY |= {"ai_edge_litert", "sqlalchemy", "alembic", "umap", "threadpoolctl", "s3fs", "upath", "kagglehub", "numba"}
HEAVY |= {"simplejpeg", "cv2", "faiss"}

LOADED_AT_THE_TOP: dict[str, set[str]] = {
    "keras": {"models", "training/callbacks.py"},
    "numba": {"images/fast_resize.py"},
    "sklearn": {"estimator.py"},
    "gradio": {"serve/page.py", "serve/answer_queue.py"},
    "fastapi": {"serve/app.py", "serve/page.py", "serve/server.py"},
    "starlette": {"serve"},
    "uvicorn": {"serve/server.py", "serve/connections.py"},
}
"""Where a heavy library may be imported while the module is loaded: only in modules that functions import."""

EVERY_PLACE = (*ROOMS, *FRONT_DOORS)


def test_the_root_holds_the_front_doors_and_rooms_alone():
    assert sorted(path.stem for path in PACKAGE.glob("*.py")) == sorted(FRONT_DOORS)
    assert set(ALLOWED) == set(EVERY_PLACE)
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert not [folder for folder in folders if not (folder / "__init__.py").is_file()], "a room has an __init__.py"


def test_no_circle():
    """Neither in what is allowed nor in what is done; the first is checked since the second is a part of it."""
    TopologicalSorter({room: allowed_in(room) for room in ALLOWED}).prepare()


@pytest.mark.parametrize("room", EVERY_PLACE)
def test_imports_keep_to_the_plan(room):
    unplanned = arrows()[room] - allowed_in(room)
    lines = [
        f"{one.file}: {one.module}.{one.name}"
        for file in files_of(room)
        for one in imports_of(file)
        if one.library == "customcnn" and room_of(one.module) in unplanned
    ]
    assert not lines
    assert not [one for file in files_of(room) for one in imports_of(file) if one.library in OUTSIDE]


OUTSIDE = {"benchmarks", "data_tools", "docs", "experiments", "tests"}


@pytest.mark.parametrize("room", EVERY_PLACE)
def test_private_names_stay_in_their_room(room):
    """Neither imported from another room, nor reached through its module."""
    taken = []
    for file in files_of(room):
        modules = {}
        for one in imports_of(file):
            if one.library == "customcnn" and room_of(one.module) != room:
                taken += [f"{file}: {one.module}.{one.name}"] if one.name.startswith("_") and one.name[1] != "_" else []
                modules |= {one.module.rpartition(".")[2]: one.module} if not one.name else {}
        taken += [
            f"{file}: {node.value.id}.{node.attr}"
            for node in ast.walk(parse(file))
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules
            if node.attr.startswith("_") and not node.attr.startswith("__")
        ]
    assert not taken


@pytest.mark.parametrize("room", EVERY_PLACE)
def test_libraries_are_known_to_few_rooms_and_loaded_late(room):
    for file in files_of(room):
        for one in imports_of(file):
            assert room in KNOWN_IN.get(one.library, {room}), f"{file} imports {one.library}"
            if one.at_the_top and one.library in HEAVY:
                assert LOADED_AT_THE_TOP.get(one.library, set()) & {room, file}, f"{file} loads {one.library}"


# ---------------------------------------------------------------- what a command loads


def test_the_package_itself_imports_nothing():
    """What its public names need is imported when one of them is first used; type checkers read on."""
    code = "import sys, customcnn; print(*[name for name in sys.modules if name.startswith('customcnn.')])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == ""


def loaded_by(lines: list[list[object]], cwd: Path) -> set[str]:
    """Run command lines one after the other in a fresh process and return the libraries that it has loaded."""
    code = f"""
import sys
from customcnn.cli import main
for line in {[[str(word) for word in line] for line in lines]!r}:
    try:
        main(line)
    except SystemExit as end:
        assert not end.code, (line, end.code)
print("LOADED", *{{name.partition(".")[0] for name in sys.modules}})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=cwd)
    assert done.returncode == 0, done.stderr[-2000:]
    last = done.stdout.splitlines()[-1]
    assert last.startswith("LOADED ")
    return set(last.split()[1:])


def test_help_and_the_table_of_networks_load_nothing_heavy(tmp_path):
    lines: list[list[object]] = [["--help"], ["--version"], ["models"], ["models", "--json"]]
    lines += [[command, "--help"] for command in ("train", "evaluate", "augment", "audit", "visualize", "demo")]
    loaded = loaded_by(lines, tmp_path)
    assert "customcnn" in loaded
    assert not loaded & HEAVY


def test_the_commands_on_folders_do_not_load_keras(tmp_path):
    loaded = loaded_by(
        [
            ["samples", "cells", "--subjects", 2, "--cells", 3, "--size", 64, "--workers", 1],
            ["split", "cells", "by-image", "--ratio", 0.5, "--workers", 1],
            ["split", "cells", "parts", "--by", "group", "--group-pattern", "cnmc", "--ratio", 0.5, "--workers", 1],
            ["crop", "parts", "cropped", "--size", 60, "--workers", 1],
            ["augment", "cropped", "augmented", "--count", 6, "--brightness", 0.2, "--workers", 1],
            ["audit", "augmented", "--workers", 1],
        ],
        tmp_path,
    )
    assert "Augmentor" in loaded, "the commands have done their work"
    assert not loaded & {"keras", *BACKENDS}


def test_help_answers_at_once(tmp_path):
    """Processor time, not the clock's: a busy machine must not fail this."""
    before = os.times()
    subprocess.run([sys.executable, "-m", "customcnn", "--help"], capture_output=True, check=True, cwd=tmp_path)
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    assert spent < 1.5
