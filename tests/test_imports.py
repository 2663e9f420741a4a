"""What is imported, when, and in which direction: help answers at once, and no module looks up to the one above it."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import customcnn

PACKAGE = Path(customcnn.__file__).parent
BACKENDS = {"tensorflow", "jax", "torch"}
KERAS = {"keras", *BACKENDS}
HEAVY = {*KERAS, "sklearn", "scipy", "matplotlib", "pandas", "Augmentor", "imagehash"}
HEAVY |= {"gradio", "fastapi", "uvicorn", "onnx", "onnxruntime", "tf2onnx", "ai_edge_litert"}
HEAVY |= {"mlflow", "sqlalchemy", "alembic", "umap", "threadpoolctl", "ray", "fsspec", "s3fs", "upath"}
HEAVY |= {"albumentations", "optuna", "kagglehub", "openvino", "numba", "simplejpeg", "cv2", "faiss"}

LAYERS = (
    ("errors", "progress", "links", "graph", "stylesheet", "fused", "intervals", "temperature", "views", "streams"),
    ("places", "ranks"),
    ("files", "workers", "page", "checks"),
    ("runtime", "cluster"),
    ("images", "charts", "gradcam", "models", "sampling", "schedules", "stain"),
    ("manifest", "transforms", "metrics", "paired", "calibration", "plots", "bmp", "resample", "operations"),
    ("readers", "calibration_plots", "conformal", "novelty"),
    ("inputs",),
    ("recipe", "features"),
    ("leakage", "devices", "clinical"),
    ("runs", "resident", "precisions", "replicas"),
    ("checkpoint", "judge", "loggers", "jobs"),
    ("occlusion",),
    ("explanation",),
    ("predictions",),
    (
        "pack",
        "samples",
        "download",
        "split",
        "crop",
        "augment",
        "audit",
        "copies",
        "callbacks",
        "compile",
        "warmstart",
        "feed",
    ),
    ("task", "hosts"),
    ("train", "classifier", "export"),
    ("predict",),
    ("evaluate",),
    ("calibrate",),
    ("visualize", "compare", "model_selection", "ensemble", "pretrain", "doctor"),
    ("studies", "price", "report"),
    ("api", "estimator", "serve"),
    ("cli",),
    ("__main__",),
)
"""A module imports from the lines above its own; a package also from itself. A new module is given its place here."""

AT_THE_TOP = {
    "keras": {
        "callbacks.py",
        "models/alexnet.py",
        "models/backbones.py",
        "models/blocks.py",
        "models/densenet161.py",
        "models/googlenet.py",
        "models/heads.py",
        "models/proposed.py",
        "models/residual.py",
        "models/small.py",
    },
    "numba": {"resample.py"},
    "sklearn": {"estimator.py"},
    "gradio": {"serve/page.py"},
    "fastapi": {"serve/app.py", "serve/page.py", "serve/running.py"},
    "uvicorn": {"serve/running.py"},
}
"""Where a heavy library may be imported while the module is loaded: only in modules that are loaded by functions."""

FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def parse(file: str) -> ast.Module:
    return ast.parse((PACKAGE / file).read_text("utf-8"))


def imported(nodes: Iterator[ast.AST]) -> set[str]:
    """Return the dotted names that the nodes import: `customcnn.errors`, `numpy`."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            module = node.module or ""
            # `from customcnn.io import atomic` imports a module, `from customcnn.io.atomic import x` a name.
            found |= {f"{module}.{alias.name}" for alias in node.names} if module == "customcnn" else {module}
    return found


def while_loading(nodes: list[ast.stmt]) -> Iterator[ast.AST]:
    """Yield the statements that run while a module is loaded: those of functions and for type checkers do not."""
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node
        for block in ("body", "orelse", "finalbody", "handlers"):
            yield from while_loading(getattr(node, block, []))


def layer(module: str) -> int:
    """Return the number of the layer of `customcnn.x` or `customcnn.x.y`."""
    name = module.split(".")[1]
    places = [number for number, names in enumerate(LAYERS) if name in names]
    assert places, f"{module} has no place in LAYERS"
    return places[0]


# ---------------------------------------------------------------- which way imports point


@pytest.mark.parametrize("file", [file for file in FILES if file != "__init__.py"])
def test_imports_point_one_way(file):
    own = "customcnn." + file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    for other in imported(ast.walk(parse(file))):
        if other.partition(".")[0] != "customcnn" or other == "customcnn.__version__":
            continue
        same_package = "/" in file and other.split(".")[1] == own.split(".")[1]
        assert same_package or layer(other) < layer(own), f"{own} imports {other}"


@pytest.mark.parametrize("file", [file for file in FILES if file.startswith("models/")])
def test_networks_know_nothing_of_data_and_of_backends(file):
    names = imported(ast.walk(parse(file)))
    ours = {name for name in names if name.startswith("customcnn")}
    assert {name for name in ours if not name.startswith("customcnn.models")} <= {"customcnn.errors"}
    assert not {name.partition(".")[0] for name in names} & BACKENDS


@pytest.mark.parametrize("file", FILES)
def test_nothing_imports_the_command_line_experiments_or_data_tools(file):
    names = imported(ast.walk(parse(file)))
    assert not {name for name in names if name.partition(".")[0] in ("experiments", "data_tools", "tests")}
    if not file.startswith("cli/") and file != "__main__.py":
        assert not {name for name in names if f"{name}.".startswith("customcnn.cli.")}


@pytest.mark.parametrize("file", FILES)
def test_heavy_libraries_are_imported_inside_functions(file):
    names = {name.partition(".")[0] for name in imported(while_loading(parse(file).body))}
    allowed = {library for library, files in AT_THE_TOP.items() if file in files}
    assert not names & HEAVY - allowed


def test_backends_are_named_in_few_modules():
    using = {file for file in FILES if {n.partition(".")[0] for n in imported(ast.walk(parse(file)))} & BACKENDS}
    # What asks the machine, what calls its kernels, what feeds it, what keeps images on it, what shares them among
    # several, gradients for Grad-CAM, and formats that are TensorFlow's own.
    core = {"devices.py", "fused.py", "feed.py", "resident.py", "replicas.py", "hosts.py", "gradcam.py"}
    assert using == core | {"export/serving.py", "export/litert.py"}


def test_the_package_itself_imports_nothing():
    """What its public names need is imported when one of them is first used; type checkers read on."""
    code = "import sys, customcnn; print(*[name for name in sys.modules if name.startswith('customcnn.')])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == ""


# ---------------------------------------------------------------- what a command loads


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
    assert not loaded & KERAS


def test_help_answers_at_once(tmp_path):
    """Processor time, not the clock's: a busy machine must not fail this."""
    before = os.times()
    subprocess.run([sys.executable, "-m", "customcnn", "--help"], capture_output=True, check=True, cwd=tmp_path)
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    assert spent < 1.5
