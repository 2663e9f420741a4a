"""The documents say what is true: links lead somewhere, commands exist, generated parts are fresh, lessons run."""

import os
import re
import runpy
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path

import click
import pytest

from customcnn.cli import cli

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md")])
LESSONS = ("samples", "split", "crop", "augment", "leakage", "train", "evaluate", "clinical")
LESSONS += ("compare", "calibrate", "crossval", "tune", "visualize", "pretrain", "ensemble", "python", "terminal")
NUMBER = re.compile(r"-?\d[\d,]*(\.\d+)?(e[+-]?\d+)?")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
each_lesson = pytest.mark.parametrize("lesson", LESSONS)


@dataclass(frozen=True)
class Block:
    """One fenced block: the words behind its opening fence, its text, and the number of its first line.

    Words that the tests know: `sh`, `python` and `text`; `no-run` for what needs data that is not here; `fails` for
    commands that each end with an error; behind `text` (what the block before prints) `scores` where the numbers may
    differ, and `no-check`.
    """

    words: tuple[str, ...]
    text: str
    line: int

    @property
    def language(self) -> str:
        """The first word."""
        return self.words[0] if self.words else ""


@cache
def read(page: Path) -> tuple[list[Block], list[tuple[int, str]]]:
    """Return the fenced blocks of a page, and its other lines with their numbers; cog's programs are left out."""
    blocks: list[Block] = []
    prose: list[tuple[int, str]] = []
    inside: tuple[tuple[str, ...], int] | None = None
    body: list[str] = []
    program = False
    for number, line in enumerate(page.read_text("utf-8").splitlines(), start=1):
        if inside is None and (program or line.startswith("<!-- [[[cog")):
            program = "]]]" not in line
        elif not line.startswith("```"):
            body.append(line) if inside else prose.append((number, line))
        elif inside is None:
            inside, body = (tuple(line[3:].split()), number + 1), []
        else:
            blocks.append(Block(inside[0], "\n".join(body) + "\n", inside[1]))
            inside = None
    assert inside is None, f"{page.name}: the block from line {inside[1]} on has no end"
    return blocks, prose


def blocks_of(language: str) -> list[pytest.ParameterSet]:
    """Return every block of a language in all pages as a test parameter."""
    return [
        pytest.param(block, id=f"{page.relative_to(ROOT)}:{block.line}")
        for page in PAGES
        for block in read(page)[0]
        if block.language == language
    ]


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_command_is_documented(name: str) -> None:
    command = cli.commands[name]
    assert command.help, f"{name} has no help"
    assert "Example:" in command.help, f"{name} shows no example"
    page = (DOCS / "commands.md").read_text()
    _, heading, section = page.partition(f"\n## {name}\n")
    assert heading, f"{name} is missing from docs/commands.md"
    section = section.partition("\n## ")[0]
    options = [option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)]
    missing = [option for option in options if option.startswith("--") and option not in section]
    assert not missing, f"missing from docs/commands.md, {name}: {missing}"


def test_commands_stand_in_the_order_of_the_way_of_the_data() -> None:
    headings = [line[3:] for _, line in read(DOCS / "commands.md")[1] if line.startswith("## ")]
    way = ["samples", "download", "split", "crop", "augment", "audit", "pack", "models", "summary", "pretrain"]
    way += [
        "train",
        "evaluate",
        "predict",
        "report",
        "compare",
        "calibrate",
        "leakage",
        "crossval",
        "tune",
        "visualize",
    ]
    way += ["serve", "export", "ensemble", "reproduce", "demo"]
    assert headings[: len(way)] == way
    assert sorted(headings) == sorted(cli.commands)


@pytest.mark.parametrize("page", [page for page in PAGES if "[[[cog" in page.read_text()], ids=lambda page: page.name)
def test_generated_parts_are_fresh(page: Path) -> None:
    pytest.importorskip("cogapp")
    # A narrow terminal: what is generated must not depend on where that is done.
    result = subprocess.run(
        [sys.executable, "-m", "cogapp", "--check", page.relative_to(ROOT)],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "47"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, f"run: cog -r {page.relative_to(ROOT)}\n{result.stdout}{result.stderr}"


# ---------------------------------------------------------------- links and lines


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings as GitHub makes them: lower case, no punctuation, dashes for spaces."""
    seen: Counter[str] = Counter()
    found = set()
    for _, line in read(page)[1]:
        if heading := re.fullmatch(r"#{1,6} +(.+?) *", line):
            text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading[1])
            slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
            seen[slug] += 1
    return found


def links(page: Path) -> Iterator[tuple[int, str]]:
    """Yield every link target of a page with its line number; code is left out."""
    for number, line in read(page)[1]:
        plain = re.sub(r"`[^`]*`", "", line)
        for target in re.findall(r"\]\(([^)\s]+)\)", plain):
            yield number, target


@each_page
def test_relative_links_and_anchors_resolve(page: Path) -> None:
    broken = []
    for number, target in links(page):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        there = (page.parent / name).resolve() if name else page
        if not there.exists() or not there.is_relative_to(ROOT) or (anchor and anchor not in anchors(there)):
            broken.append(f"line {number}: {target}")
    assert not broken


def test_anchors_are_those_of_github(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A `name`, and what it's for\n\n## Twice\n\n```sh\n# no heading\n```\n\n## Twice\n### [Link](a.md)\n"
    )
    assert anchors(page) == {"a-name-and-what-its-for", "twice", "twice-1", "link"}


def test_every_page_is_reachable_from_the_readme() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        targets = ((page.parent / target.partition("#")[0]).resolve() for _, target in links(page))
        waiting += [target for target in targets if target.suffix == ".md" and target.is_file()]
    assert {page for page in PAGES if page.parent == DOCS} <= reached


@each_page
def test_no_line_is_longer_than_120_characters(page: Path) -> None:
    assert not [n for n, line in read(page)[1] if len(line) > 120 and not line.startswith(("|", "    "))]


@each_lesson
def test_pages_with_scores_of_drawn_cells_say_so(lesson: str) -> None:
    blocks, prose = read(DOCS / f"{lesson}.md")
    shows = any("scores" in block.words or "accuracy" in block.text for block in blocks if block.language == "text")
    text = " ".join(line for _, line in prose)
    assert not shows or ("drawn" in text and re.search(r"says? nothing about leukemia", text))


# ---------------------------------------------------------------- commands and programs in the pages


@cache
def _tool(name: str) -> click.Group:
    return runpy.run_path(str(ROOT / name))["cli"]


def simple_commands(text: str) -> Iterator[list[str]]:
    """Yield the words of every simple command of a shell script; here-documents and redirections are left out."""
    end = ""
    for line in text.replace("\\\n", " ").splitlines():
        if end:
            end = "" if line == end else end
            continue
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        tokens = iter(lexer)
        for token in tokens:
            if token == "<<":
                end = next(tokens)
            elif token in (">", ">>", "<"):
                next(tokens)
            elif set(token) <= set(";&|()"):
                yield words
                words = []
            else:
                words.append(token)
        yield words


def parse(group: click.Group, arguments: list[str]) -> None:
    """Parse the arguments of a command line as click would, without running it; a usage error is raised."""
    if arguments[0].startswith("-"):
        group.make_context("group", arguments, resilient_parsing=True)
    else:
        name, *rest = arguments
        assert name in group.commands, f"there is no command {name}"
        # With the group above it: a command keeps the names of its help option, which the group gives, from then on.
        group.commands[name].make_context(name, rest, parent=click.Context(group, **group.context_settings))


def check_usage(text: str) -> int:
    """Parse every call of customcnn and of data_tools/cnmc.py in a shell script; return how many there are."""
    found = 0
    for words in simple_commands(text):
        while words and re.fullmatch(r"\w+=.*", words[0]):
            words = words[1:]
        if words and Path(words[0]).name == "customcnn":
            parse(cli, words[1:])
            found += 1
        elif tools := [word for word in words if re.fullmatch(r"data_tools/\w+\.py", word)]:
            parse(_tool(tools[0]), words[words.index(tools[0]) + 1 :])
            found += 1
    return found


@pytest.mark.parametrize("block", blocks_of("sh"))
def test_shell_blocks_are_bash_with_commands_and_options_that_exist(block: Block) -> None:
    subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
    check_usage(block.text)


@pytest.mark.parametrize("block", blocks_of("python"))
def test_python_blocks_compile(block: Block) -> None:
    compile(block.text, f"line {block.line}", "exec")


@pytest.mark.parametrize("text", ["customcnn no-such-command", "x && .venv/bin/customcnn split a b --no-such-option 1"])
def test_usage_check_notices_what_does_not_exist(text: str) -> None:
    with pytest.raises((AssertionError, click.UsageError)):
        check_usage(text)


def test_usage_check_reads_a_script_as_bash_does() -> None:
    script = (
        "A=1 customcnn models > x # customcnn nothing\ncat > y <<'END'\ncustomcnn nothing\nEND\ncustomcnn --version\n"
    )
    assert check_usage(script) == 2


def test_readme_has_commands_to_check() -> None:
    assert sum(check_usage(block.text) for block in read(ROOT / "README.md")[0] if block.language == "sh") >= 8


def test_ci_runs_the_readmes_test_command() -> None:
    readme = (ROOT / "README.md").read_text()
    shown = readme.partition("<!-- tests -->\n```sh\n")[2].partition("\n```\n")[0]
    assert re.fullmatch(r"python3 -m venv .+ && .+ && .+/pytest( -n 2 --dist loadfile)?", shown)
    used = re.search(r'^eval "\$\((sed .+ README\.md)\)"$', (ROOT / ".ci" / "run").read_text(), re.M)
    assert used, ".ci/run no longer takes its test command from the README"
    extracted = subprocess.run(["bash", "-c", used[1]], cwd=ROOT, capture_output=True, text=True, check=True)
    assert extracted.stdout == f"{shown}\n"


# ---------------------------------------------------------------- the lessons run


def missing_lines(shown: str, printed: str, *, scores: bool) -> list[str]:
    """Return the shown lines that are not printed in that order.

    Three dots stand for anything; blanks count once; with `scores` every number stands for any number.
    """

    if scores:
        shown, printed = NUMBER.sub("0", shown), NUMBER.sub("0", printed)
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    missing, position = [], 0
    for line in (" ".join(line.split()) for line in shown.splitlines() if line.strip()):
        wanted = re.compile(".*".join(map(re.escape, line.split("..."))))
        place = next((i for i in range(position, len(lines)) if wanted.fullmatch(lines[i])), None)
        if place is None:
            missing.append(line)
        else:
            position = place + 1
    return missing


def test_missing_lines_by_hand() -> None:
    printed = "a 1\nb  2.5\nthe end is near\n"
    assert missing_lines("a 1\nthe ... near\n", printed, scores=False) == []
    assert missing_lines("the end...\na 1\n", printed, scores=False) == ["a 1"]
    assert missing_lines("b 3\n", printed, scores=False) == ["b 3"]
    assert missing_lines("b 31,000.25\n", printed, scores=True) == []
    assert missing_lines("c 2.5\n", printed, scores=True) == ["c 0"]


def shell_script(blocks: list[Block]) -> str:
    """Return the shell blocks of a lesson as one script that marks where each begins and stops at the first error."""
    lines = ["exec 2>&1"]
    for block in blocks:
        if block.language != "sh" or "no-run" in block.words:
            continue
        lines.append(f"echo '=== {block.line}'")
        if "fails" in block.words:
            lines += [
                f"if {command}; then echo {shlex.quote(f'this was to fail: {command}')}; exit 99; fi"
                for command in block.text.splitlines()
            ]
        else:
            lines.append(block.text)
    return "\n".join(lines) + "\n"


def environment() -> dict[str, str]:
    """Return the environment of a lesson: this Python's programs first, no colours, one width."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "NO_COLOR": "1", "COLUMNS": "120", "KERAS_BACKEND": "tensorflow"}


@dataclass(frozen=True)
class Classroom:
    """The folder in which all lessons ran, and what each printed."""

    folder: Path
    status: dict[str, int]
    printed: dict[str, str] = field(repr=False)


@pytest.fixture(scope="module")
def classroom(tmp_path_factory: pytest.TempPathFactory) -> Classroom:
    folder = tmp_path_factory.mktemp("lessons")
    room = Classroom(folder, {}, {})
    for lesson in LESSONS:
        script = shell_script(read(DOCS / f"{lesson}.md")[0])
        result = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script], cwd=folder, env=environment(), stdout=subprocess.PIPE, text=True
        )
        room.status[lesson], room.printed[lesson] = result.returncode, result.stdout
        if result.returncode:
            break  # the lessons after it need what it makes
    return room


@pytest.mark.docs
@each_lesson
def test_shell_blocks_of_the_lesson_run_and_print_what_is_shown(classroom: Classroom, lesson: str) -> None:
    assert lesson in classroom.status, f"not run: {list(classroom.status)[-1]} failed"
    printed = classroom.printed[lesson]
    assert classroom.status[lesson] == 0, printed[-3000:]
    by_block = {int(line): text for line, text in re.findall(r"^=== (\d+)\n(.*?)(?=^=== \d|\Z)", printed, re.M | re.S)}
    before: Block | None = None
    for block in read(DOCS / f"{lesson}.md")[0]:
        if block.language == "text" and "no-check" not in block.words and before and before.line in by_block:
            output = by_block[before.line]
            missing = missing_lines(block.text, output, scores="scores" in block.words)
            assert not missing, f"{lesson}.md line {block.line} shows {missing}, but this came:\n{output}"
        elif block.language != "text":
            before = block


RUN_EACH = """
import runpy, sys, traceback
for name in sys.argv[1:]:
    print(f"=== {name}", flush=True)
    try:
        runpy.run_path(name, run_name="__main__")
    except BaseException:
        traceback.print_exc(file=sys.stdout)
    sys.stdout.flush()
"""


@pytest.fixture(scope="module")
def printed_by_python(classroom: Classroom) -> dict[str, str]:
    """Return what the Python blocks of each lesson print: one program a lesson, one after the other in one process."""
    programs = []
    for lesson in LESSONS:
        blocks = [block for block in read(DOCS / f"{lesson}.md")[0] if "no-run" not in block.words]
        text = "\n".join(block.text for block in blocks if block.language == "python")
        if text:
            programs.append(f"lesson_{lesson}.py")
            (classroom.folder / programs[-1]).write_text(text)
    result = subprocess.run(
        [sys.executable, "-c", RUN_EACH, *programs],
        cwd=classroom.folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return dict(re.findall(r"^=== lesson_(\w+)\.py\n(.*?)(?=^=== lesson_|\Z)", result.stdout, re.M | re.S))


@pytest.mark.docs
@each_lesson
def test_python_blocks_of_the_lesson_run_and_print_what_is_shown(
    classroom: Classroom, printed_by_python: dict[str, str], lesson: str
) -> None:
    assert classroom.status.get("visualize") == 0, "the commands before it failed"
    blocks = [block for block in read(DOCS / f"{lesson}.md")[0] if "no-run" not in block.words]
    printed = printed_by_python.get(lesson, "")
    assert "Traceback (most recent call last)" not in printed, printed[-3000:]
    assert printed or not any(block.language == "python" for block in blocks)
    for block, follower in pairwise(blocks):
        if block.language == "python" and follower.language == "text" and "no-check" not in follower.words:
            missing = missing_lines(follower.text, printed, scores="scores" in follower.words)
            assert not missing, f"{lesson}.md line {follower.line} shows {missing}, but this came:\n{printed}"
