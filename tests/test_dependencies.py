"""setup.cfg declares what is imported: no package is there only because another one happens to depend on it."""

import ast
import re
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path

import pytest

from tests.support import ROOT

DISTRIBUTIONS = {
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "faiss": "faiss-cpu",
    "mlflow": "mlflow-skinny",
    "sklearn": "scikit-learn",
    "umap": "umap-learn",
}
"""Packages that are imported under another name than they are installed by."""

UNDECLARED = {"ipywidgets", "no_such_package"}
"""The first is used where a notebook has it; a test imports the second to see that fail."""

FOR_DEVELOPERS = {"bench", "dev", "gpu", "test"}
"""Extras that no feature of the package needs."""

OWN = {"benchmarks", "customcnn", "data_tools", "tests"}


def declared() -> dict[str, set[str]]:
    """Return the distributions that each extra installs, and under "" those that every installation has."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg", "utf-8")
    lists = {"": config["options"]["install_requires"], **config["options.extras_require"]}
    return {extra: set(map(normalized, re.findall(r"^[\w.-]+", text, re.M))) for extra, text in lists.items()}


def normalized(name: str) -> str:
    """Return the name of a distribution as registries compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def imported_by(folder: str) -> dict[str, Path]:
    """Return the distributions that the modules of a folder import at any place, each with one of the modules."""
    return {
        normalized(DISTRIBUTIONS.get(library, library)): path
        for path in sorted((ROOT / folder).rglob("*.py"))
        for library in _libraries(ast.parse(path.read_text("utf-8")))
        if library not in sys.stdlib_module_names | OWN | UNDECLARED
    }


def _libraries(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def test_the_package_imports_what_it_declares_and_declares_what_it_imports():
    features = set().union(*(names for extra, names in declared().items() if extra not in FOR_DEVELOPERS))
    imported = imported_by("customcnn")
    undeclared = {name: str(path) for name, path in imported.items() if name not in features}
    assert not undeclared
    assert features - imported.keys() == set(), "declared, and imported nowhere"


@pytest.mark.parametrize("folder", ["benchmarks", "data_tools", "tests"])
def test_what_surrounds_the_package_imports_what_some_extra_declares(folder):
    everything = set().union(*declared().values())
    assert not {name: str(path) for name, path in imported_by(folder).items() if name not in everything}
