"""The pages for people who change the package: the files that CONTRIBUTING names, and the drawing in design.md."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "CONTRIBUTING.md"
HEADING = "## Ten changes, and the files that each touches"
FILE = re.compile(r"[\w./-]*/[\w./-]+|[\w-]+\.(?:md|cfg|toml|py)")
NO_PATHS = {"study.toml"}
"""What looks like a path of the repository and is the name of a file that somebody adds."""


def rows() -> list[list[str]]:
    """Return the cells of the table of changes, without its head."""
    section = PAGE.read_text("utf-8").partition(f"\n{HEADING}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def quoted(cell: str) -> tuple[list[str], list[str]]:
    """Return the paths and the other words that stand in backticks."""
    words = [word for word in re.findall(r"`([^`]+)`", cell) if word not in NO_PATHS]
    paths = [word for word in words if FILE.fullmatch(word)]
    return paths, [word for word in words if word not in paths]


def test_there_are_ten_changes_with_code_tests_and_docs():
    assert len(rows()) == 10
    for change, code, tests, docs in rows():
        assert all(
            path.startswith(("customcnn/", "data_tools/", "experiments/", "setup.cfg")) for path in quoted(code)[0]
        )
        assert all(path.startswith("tests/") for path in quoted(tests)[0])
        assert all(path.endswith(".md") for path in quoted(docs)[0])
        assert all(quoted(cell)[0] for cell in (code, tests, docs)), f"{change}: a column names no file"


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_every_path_of_the_table_exists(row):
    missing = [path for cell in row[1:] for path in quoted(cell)[0] if not (ROOT / path).is_file()]
    assert not missing


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_every_name_in_brackets_is_in_the_file_before_it(row):
    wanted = [match.groups() for cell in row[1:] for match in re.finditer(r"`([^`]+)` \(((?:`\w+`(?:, )?)+)\)", cell)]
    for path, names in wanted:
        source = (ROOT / path).read_text("utf-8")
        for name in re.findall(r"`(\w+)`", names):
            defined = rf"^(def|class) {name}\b|^{name}\b.*="
            assert re.search(defined, source, re.M), f"{path} defines no {name}"


def test_every_other_path_of_the_page_exists():
    prose = re.sub(r"^```.*?^```$", "", PAGE.read_text("utf-8"), flags=re.M | re.S)
    paths = [path for line in prose.splitlines() if not line.startswith("|") for path in quoted(line)[0]]
    assert "docs/design.md" in paths
    assert not [path for path in paths if not (ROOT / path).exists()]


def test_the_drawing_leaves_out_what_a_longer_way_says_too():
    reduced = runpy.run_path(str(ROOT / "docs" / "rooms.py"))["reduced"]
    graph = {"cli": {"runs", "io", "data"}, "runs": {"data", "io"}, "data": {"io"}, "io": set(), "html": set()}
    assert reduced(graph) == {"cli": {"runs"}, "runs": {"data"}, "data": {"io"}, "io": set(), "html": set()}
