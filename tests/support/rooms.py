"""What the source says of itself: the rooms of the package, and who imports what from where."""

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import customcnn

PACKAGE = Path(customcnn.__file__).parent
FRONT_DOORS = ("__init__", "__main__", "api", "doctor", "errors", "estimator", "progress")
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


class Import(NamedTuple):
    """One imported name.

    Attributes:
        file: where, relative to the package: "data/split.py".
        module: of what, dotted: "customcnn.images.decode", "numpy".
        name: "" for the module itself.
        at_the_top: whether it runs while the file's module is loaded.
    """

    file: str
    module: str
    name: str
    at_the_top: bool

    @property
    def library(self) -> str:
        """The distribution's first name: "customcnn", "numpy"."""
        return self.module.partition(".")[0]


def room_of(place: str) -> str:
    """Return the room of a file ("data/split.py") or module ("customcnn.data.split"); a front door is one itself."""
    if place.endswith(".py"):
        return place.split("/")[0].removesuffix(".py")
    return (place.split(".")[1:] or ["__init__"])[0]


def files_of(room: str) -> list[str]:
    """Return the files of a room or of a front door, relative to the package."""
    inside = sorted(path.relative_to(PACKAGE).as_posix() for path in (PACKAGE / room).rglob("*.py"))
    return inside or [f"{room}.py"]


def parse(file: str) -> ast.Module:
    """Return the syntax tree of a file, relative to the package."""
    return ast.parse((PACKAGE / file).read_text("utf-8"))


@cache
def imports_of(file: str) -> tuple[Import, ...]:
    """Return every import of a file, also those inside functions and for type checkers alone."""
    tree = parse(file)
    loading = set(map(id, _while_loading(tree.body)))
    return tuple(_imports(file, ast.walk(tree), loading))


def _imports(file: str, nodes: Iterable[ast.AST], loading: set[int]) -> Iterator[Import]:
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(file, alias.name, "", id(node) in loading)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            for alias in node.names:
                dotted = f"{node.module}.{alias.name}"
                if is_module(dotted):
                    yield Import(file, dotted, "", id(node) in loading)
                else:
                    yield Import(file, node.module or "", alias.name, id(node) in loading)


def is_module(dotted: str) -> bool:
    """Tell whether this is a module of the package."""
    first, *rest = dotted.split(".")
    path = PACKAGE.joinpath(*rest)
    return first == "customcnn" and (path.with_suffix(".py").is_file() or (path / "__init__.py").is_file())


def _while_loading(nodes: Iterable[ast.stmt]) -> Iterator[ast.AST]:
    """Yield the statements that run while a module is loaded: those of functions and for type checkers do not."""
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node
        for block in ("body", "orelse", "finalbody", "handlers"):
            yield from _while_loading(getattr(node, block, []))


def arrows() -> dict[str, set[str]]:
    """Return which rooms and front doors each imports from, itself left out."""
    return {
        room: {room_of(one.module) for file in files_of(room) for one in imports_of(file) if one.library == "customcnn"}
        - {room, "__init__"}
        for room in (*ROOMS, *FRONT_DOORS)
    }
