"""Reproduce a study: prepare its data, train and score every row, and set the published numbers beside the measured.

A call goes on where an earlier one stopped: prepared folders are found again, a finished row is read from its
result.json, a training that was cut off is resumed.
"""

import difflib
import json
import tomllib
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from customcnn.data.manifest import Manifest, fingerprint, scan
from customcnn.errors import CustomCNNError, show, show_names
from customcnn.io.atomic import refuse_overlap, write_text
from customcnn.model_selection.space import read_space
from customcnn.progress import Progress, silent
from customcnn.recipe.recipe import Recipe, load_recipe, parse_recipe, parse_settings
from customcnn.runs.run_dir import RunDir
from customcnn.runs.series import pack_once
from customcnn.studies.prepare import prepare
from customcnn.studies.results import DATA, DONE, FAILED, RUNS, Changes, Reproduction, Result
from customcnn.studies.row_runner import Work, attempt, read_result
from customcnn.studies.study_file import Row, Study
from customcnn.training.classification import input_size

if TYPE_CHECKING:
    from customcnn.cluster.remote_trainings import Spread
    from customcnn.cluster.status_files import Post

STATE = "study.json"

Say = Callable[[str], object]


def reproduce(
    study: Study,
    data: Path,
    out: Path,
    changes: Changes | None = None,
    *,
    workers: int | None = None,
    spread: "Spread | None" = None,
    progress: Progress = silent,
    say: Say = lambda line: None,
    tables: Callable[[Reproduction], object] = lambda found: None,
) -> Reproduction:
    """Prepare the data of a study, train and score its rows, and write its tables after each.

    A row that fails (whatever the error) is a row that says why, and the others go on. Ctrl-C stops at once.

    Args:
        study: from `read_study`.
        data: class folders, or a split folder, with a manifest.csv where groups are to be known.
        out: where everything goes; an earlier call's folder is gone on with.
        changes: what is to be smaller than in the study; None for nothing.
        workers: threads or processes; None for one a core.
        spread: the cluster whose nodes run the rows, several at a time; None for one after the other, here.
        progress: see `customcnn.progress`.
        say: receives one line for each thing a user should know.
        tables: is called with the results so far after every row, and writes them.

    Raises:
        CustomCNNError: the data is not what the study needs, an unknown key or row, or a folder of other options.
    """
    changes = changes or Changes()
    rows = _chosen(study, changes)
    settings = parse_settings(changes.settings) | ({"epochs": changes.epochs} if changes.epochs else {})
    parse_recipe(settings, "the command line")
    recipes = {row.name: _recipe(row, settings) for row in rows}
    if changes.limit < 0:
        raise CustomCNNError(f"--limit is 1 or more. Received: {changes.limit}. Leave it out for all images.")
    _refuse_shipped(study, data)
    source = scan(data)
    refuse_overlap(data, out)
    done = {row.name: read_result(row, RunDir(out / RUNS / row.name)) for row in study.rows}
    found = Reproduction(study, changes, out, done)
    _begin(found, data, source)
    _refuse_changed_recipes(found, recipes)
    prepared = {
        name: prepare(source, how, out / DATA / name, limit=changes.limit, workers=workers, progress=progress)
        for name, how in study.preparations.items()
        if any(row.data == name and found.results[row.name].status != DONE for row in rows)
    }
    results = dict(found.results)

    def work(row: Row, say: Say) -> Work:
        return Work(study, row, prepared[row.data], found.run(row), settings, workers, progress, say)

    if spread is None:
        ends = _one_by_one(rows, recipes, results, work, say)
    else:
        ends = _spread(rows, recipes, results, work, spread, out, say)
    with closing(ends):
        for name, result in ends:
            results[name] = result
            for note in result.notes:
                say(f"Warning: {name}: {note}")
            if result.status == FAILED:
                say(f"Failed: {name}: {result.reason}")
            found = Reproduction(study, changes, out, dict(results))
            tables(found)
    return found


Recipes = Mapping[str, Recipe | CustomCNNError]
Ends = Generator[tuple[str, Result]]


def _one_by_one(
    rows: Sequence[Row], recipes: Recipes, before: Mapping[str, Result], work: Callable[[Row, Say], Work], say: Say
) -> Ends:
    """Run one row after the other."""
    for number, row in enumerate(rows, start=1):
        title = f"Row {number} of {len(rows)}, {row.name}"
        if before[row.name].status == DONE:
            say(f"{title}: done before.")
            yield row.name, before[row.name]
        else:
            say(title)
            yield row.name, attempt(work(row, say), recipes[row.name])


def _spread(
    rows: Sequence[Row],
    recipes: Recipes,
    before: Mapping[str, Result],
    work: Callable[[Row, Say], Work],
    spread: "Spread",
    out: Path,
    say: Say,
) -> Ends:
    """Run the rows on the nodes of a cluster; they come as they end."""
    from customcnn.cluster.ray_cluster import LostTask

    with spread.crew(out, say) as crew:
        for number, row in enumerate(rows, start=1):
            title, recipe = f"row {number} of {len(rows)}", recipes[row.name]
            if before[row.name].status == DONE:
                say(f"{row.name}: done before.")
                yield row.name, before[row.name]
            elif isinstance(recipe, CustomCNNError):
                yield row.name, attempt(work(row, say), recipe)
            else:
                parts = replace(work(row, _unsaid), progress=silent)
                crew.start(row.name, row.name, title, _seated, parts, recipe)
        while crew.running:
            name, result = crew.wait()
            if isinstance(result, LostTask):
                result = Result(name, FAILED, str(result))
            crew.end(name, result.status)
            yield name, result


def _unsaid(line: str) -> None:
    """Say nothing: on a node it is the post that is told."""


def _seated(post: "Post", work: Work, recipe: Recipe) -> Result:
    """Run a row on a node."""
    try:
        if work.row.kind != "tune":
            pack_once(work.data, input_size(recipe), work.workers, post.progress)
    except CustomCNNError as error:
        return attempt(work, error)
    return attempt(replace(work, progress=post.progress, say=post.say), recipe)


def _chosen(study: Study, changes: Changes) -> list[Row]:
    names = [row.name for row in study.rows]
    unknown = [name for name in changes.only if name not in names]
    if unknown:
        near = difflib.get_close_matches(unknown[0], names, n=1)
        hint = f"Did you mean {near[0]}?" if near else f"Its rows: {', '.join(names)}."
        raise CustomCNNError(f"--only names rows of the study. Received: {show_names(unknown)}. {hint}")
    return [row for row in study.rows if not changes.only or row.name in changes.only]


def _recipe(row: Row, settings: Mapping[str, object]) -> Recipe | CustomCNNError:
    """Return the recipe of a row, or the error that it is: that fails the row, and no other."""
    assert row.recipe is not None
    try:
        if row.kind == "tune":
            return read_space(row.recipe, settings).recipe({})
        return load_recipe(row.recipe, settings)
    except CustomCNNError as error:
        return error


def _refuse_shipped(study: Study, data: Path) -> None:
    if not data.is_dir():
        return  # `scan` says so
    near = (folder.name for pattern in ("*", "*/*", "*/*/*") for folder in data.glob(pattern) if folder.is_dir())
    marks = {*near} & set(study.shipped)
    if marks:
        command = study.prepare.format(data=data)
        raise CustomCNNError(
            f"A study takes class folders. Received: {show(data)}, the data as it is shipped (it holds "
            f"{show_names(sorted(marks)[:1])}). First run: {command}"
        )


def _begin(found: Reproduction, data: Path, source: Manifest) -> None:
    """Write what decides every number, or compare it with what an earlier call wrote.

    Raises:
        CustomCNNError: something differs, or the folder is none of a study.
    """
    path = found.out / STATE
    names = {"epochs": "--epochs", "limit": "--limit", "set": "--set", "data": "DATA", "images": "the images in DATA"}
    names |= {"study": "the study", "preparations": f"the data of {found.study.path.name}"}
    state: dict[str, Any] = {
        "study": found.study.title,
        "data": str(data.resolve()),
        "images": fingerprint(source),
        "epochs": found.changes.epochs,
        "limit": found.changes.limit,
        "set": list(found.changes.settings),
        "preparations": {name: asdict(how) for name, how in found.study.preparations.items()},
    }
    state = json.loads(json.dumps(state))
    if path.is_file():
        old = json.loads(path.read_text())
        long = ("images", "preparations")
        changed = [
            f"{names[key]}, which changed" if key in long else f"{names[key]} {state[key]!r} where it was {old[key]!r}"
            for key in state
            if old.get(key) != state[key]
        ]
        if changed:
            raise CustomCNNError(
                f"A reproduction is gone on with as it was begun. Received: {', '.join(changed)}. "
                f"Give the same as before, or choose another --out than {show(found.out)}."
            )
        return
    if found.out.is_dir() and any(found.out.iterdir()):
        raise CustomCNNError(
            f"A reproduction is begun in an empty folder. Received: {show(found.out)}, which is not empty and holds "
            f"no {STATE}. Choose another --out."
        )
    found.out.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(state, indent=2) + "\n")


def _refuse_changed_recipes(found: Reproduction, recipes: Mapping[str, Recipe | CustomCNNError]) -> None:
    for row in found.study.rows:
        result, recipe = found.results[row.name], recipes.get(row.name)
        if result.status == DONE and isinstance(recipe, Recipe) and not _same(result.recipe, recipe):
            raise CustomCNNError(
                f"A row that is done keeps its recipe. Received: {row.name}, whose recipe or --set is another now. "
                f"Delete {show(found.run(row).path)}, or choose another --out."
            )


def _same(written: str, recipe: Recipe) -> bool:
    """Tell whether a recipe as TOML is this one; a key that it was too old to have counts as its default."""
    try:
        return parse_recipe(tomllib.loads(written), "result.json").to_toml() == recipe.to_toml()
    except (tomllib.TOMLDecodeError, CustomCNNError):
        return False
