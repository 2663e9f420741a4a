"""The rooms of the package as docs/design.md shows them: a table, a drawing and a list of files, read from the code.

cog calls these functions; `cog --check` fails where the page no longer says what the code does.
"""

import ast
import textwrap
from collections.abc import Iterable, Mapping

from tests.support.rooms import FRONT_DOORS, ROOMS, arrows, files_of, parse
from tests.test_architecture import ALLOWED, EVERYWHERE, LIBRARY

NOT_DRAWN = {*EVERYWHERE, "__init__", "__main__"}
"""Imported by nearly all, or importing one room for a single line: arrows that hide the others."""


def table() -> str:
    """Return the rooms, then the front doors, as Markdown: what lives there, and what each may import."""
    places = {room: room if room in ROOMS else f"{room}.py" for room in ALLOWED}
    rows = [(f"`{place}`", _summary(place), _allowed(ALLOWED[room])) for room, place in places.items()]
    return _markdown(("room", "what lives there", "may import"), rows)


def library() -> str:
    """Return the rooms that the table calls "the library", as a paragraph."""
    return textwrap.fill(", ".join(f"`{room}`" for room in ALLOWED if room in LIBRARY) + ".", 120) + "\n"


def files() -> str:
    """Return the files of every room as Markdown; the first folder is left out, `__init__.py` too."""
    rows = []
    for room in ALLOWED:
        names = [file.removeprefix(f"{room}/") for file in files_of(room)] if room in ROOMS else []
        names = [name for name in names if not name.endswith("__init__.py")]
        rows += [(f"`{room}/`", " ".join(f"`{name}`" for name in names))] if names else []
    return _markdown(("room", "files"), rows)


def drawing() -> str:
    """Return the imports between rooms as a Mermaid flowchart, without those that follow from others."""
    graph = {room: others - NOT_DRAWN for room, others in arrows().items() if room not in NOT_DRAWN}
    lines = ["flowchart TD"]
    lines += [f"    {room}([{room}.py])" for room in graph if room in FRONT_DOORS]
    lines += [f"    {room} --> {' & '.join(sorted(others))}" for room, others in reduced(graph).items() if others]
    return "\n".join(["```mermaid", *lines, "```"]) + "\n"


def reduced(graph: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Return the transitive reduction of a graph without circles: no arrow that a longer way makes superfluous."""
    return {
        node: {
            other for other in others if not any(other in reached_from(graph, between) for between in others - {other})
        }
        for node, others in graph.items()
    }


def reached_from(graph: Mapping[str, set[str]], start: str) -> set[str]:
    """Return every node that the arrows lead to from a start, which is left out."""
    reached: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        node = waiting.pop()
        if node not in reached:
            reached.add(node)
            waiting += graph[node]
    return reached


def _summary(place: str) -> str:
    """Return the first line of a room's or a module's docstring."""
    file = place if place.endswith(".py") else f"{place}/__init__.py"
    return (ast.get_docstring(parse(file)) or "").partition("\n")[0]


def _allowed(rooms: set[str]) -> str:
    whole = rooms >= LIBRARY
    names = [f"`{room}`" for room in ALLOWED if room in (rooms - LIBRARY if whole else rooms)]
    return ", ".join(["the library"] * whole + names) or "–"


def _markdown(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
