"""Studies: recipes that belong together, how their data was prepared, and the numbers to hold them against."""

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from customcnn.data.augmentor import Operations
from customcnn.data.manifest import PARTS
from customcnn.data.split import Shares, shares
from customcnn.errors import CustomCNNError, show, show_names
from customcnn.metrics.scores import HEADLINES, PER_CLASS

STUDY = "study.toml"
KINDS = ("train", "crossval", "tune")
WAYS = ("own", "image", "group", "name")
PLACES: Mapping[str, Mapping[str, str]] = {
    "training": {
        "loss": "training loss",
        "accuracy": "training accuracy",
        "val_loss": "validation loss",
        "val_accuracy": "validation accuracy",
    },
    "network": {"parameters": "parameters", "trainable": "of them trained", "non_trainable": "of them not trained"},
    "folds": {"accuracy": "mean validation accuracy", "loss": "mean validation loss"},
    "search": {"epochs": "best epochs", "learning_rate": "best learning rate", "dropout": "best dropout"}
    | {"val_accuracy": "its validation accuracy", "val_loss": "its validation loss"},
}
"""What can be compared beside the scores of a part: the chosen epoch, the network, a crossval's folds, a search."""
SCORES = {**HEADLINES, "log_loss": "log loss", "sensitivity": "sensitivity", "specificity": "specificity"}

Values = Mapping[str, Mapping[str, float]]
"""Numbers by place (a part of the data, or one of `PLACES`) and score."""


@dataclass(frozen=True)
class Preparation:
    """How a study made its parts from class folders.

    Attributes:
        split: "own" takes the parts that the folder has; "image", "group" and "name" (as Keras's `validation_split`)
            split what `pool` names anew.
        ratio, val, test: the shares, as by `customcnn split`; -1 for what the others leave.
        seed: of the split.
        pool: the parts that are split anew. A folder without parts is split as a whole.
        keep: the parts that stay as they are. Parts that stand in neither are left out.
        group_pattern: gives groups to images that have none, so that leakage shows; "" for none.
        crop: two numbers, edge and whole: the centred square of that edge in images of the whole, and in proportion in
            others; none for no crop. Nothing is refused: the studies cut every cell.
        minority: "balance" adds turned, shifted and flipped copies of the smaller classes BEFORE the split, until each
            is as large as the largest; "none" does not.
        augment: the options of `customcnn augment`, on the training part after the split; none for no augmentation.
    """

    split: str = "own"
    ratio: float = -1.0
    val: float = -1.0
    test: float = -1.0
    seed: int = 120
    pool: tuple[str, ...] = ("train", "validation")
    keep: tuple[str, ...] = ()
    group_pattern: str = ""
    crop: tuple[int, ...] = ()
    minority: str = "none"
    augment: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shares(self) -> Shares:
        """The shares of the parts that are made anew."""
        return shares(*(None if share < 0 else share for share in (self.ratio, self.val, self.test)))

    @property
    def operations(self) -> Operations:
        """The operations of `augment`."""
        others = ("count", "seed", "balance", "minority")
        return Operations(**{key: value for key, value in self.augment.items() if key not in others})


@dataclass(frozen=True)
class Row:
    """One line of a study's table.

    Attributes:
        name: of the row, and of the folder of its run.
        recipe: the TOML file; for `tune` the file of the search; None for a mark, which is published and not trained.
        data: the name of its preparation.
        kind: "train", "crossval" or "tune".
        options: of `crossval`.
        published: the numbers to hold it against.
        note: one sentence about it.
    """

    name: str
    recipe: Path | None
    data: str
    kind: str
    options: Mapping[str, Any]
    published: Values
    note: str


@dataclass(frozen=True)
class Study:
    """A study.toml, checked.

    Attributes:
        path: the file.
        title: its first heading.
        scores: those of the summary, of `SCORES`.
        parts: the parts that are scored, where the data has them.
        notes: sentences that belong beside its tables.
        shipped: names of folders that tell data as its provider ships it.
        prepare: the command that turns it into class folders; {data} stands for its folder.
        preparations: by name; the first is for rows that name none.
        rows: what is trained.
        marks: what others published, for comparison.
    """

    path: Path
    title: str
    scores: tuple[str, ...]
    parts: tuple[str, ...]
    notes: tuple[str, ...]
    shipped: tuple[str, ...]
    prepare: str
    preparations: Mapping[str, Preparation]
    rows: tuple[Row, ...]
    marks: tuple[Row, ...]


def find_study(path: Path) -> tuple[Path, list[str] | None]:
    """Return the study.toml of a folder, and None; or that of a recipe's folder, and the names of the recipe's rows.

    Raises:
        CustomCNNError: there is none, or it has no row of that recipe.
    """
    if path.is_dir() or path.name == STUDY:
        return (path / STUDY if path.is_dir() else path), None
    study = path.parent / STUDY
    if path.suffix != ".toml" or not path.is_file() or not study.is_file():
        raise CustomCNNError(
            f"A study is a folder with a {STUDY}, or one of its recipes. Received: {show(path)}. "
            "Example: experiments/report."
        )
    named = [row.name for row in read_study(study).rows if row.recipe == path.parent / path.name]
    if not named:
        raise CustomCNNError(
            f"A study has a row for each of its recipes. Received: {show(path)}, of which {show(study)} has none. "
            "Train it with customcnn train --recipe."
        )
    return study, named


def read_study(path: Path) -> Study:
    """Read a study.toml. Nothing in it executes.

    Raises:
        CustomCNNError: no TOML, an unknown key, a value of a wrong type, or a published number that is not there.
    """
    values = _toml(path)
    keys = {"title": str, "published": str, "table": str, "scores": list, "parts": list, "notes": list}
    _check(values, {**keys, "shipped": dict, "data": dict, "row": list, "mark": list}, show(path))
    for key in ("title", "published", "table", "data", "row"):
        if not values.get(key):
            raise CustomCNNError(f"A study has a {key}. Received: {show(path)} without it.")
    facts = _Facts(path.parent / values["published"], values["table"])
    shipped = values.get("shipped", {})
    _check(shipped, {"folders": list, "command": str}, f"[shipped] of {show(path)}")
    preparations = {name: _preparation(part, f"[data.{name}] of {show(path)}") for name, part in values["data"].items()}
    rows = [_row(row, path, preparations, facts, mark=False) for row in values["row"]]
    marks = [_row(row, path, preparations, facts, mark=True) for row in values.get("mark", [])]
    _refuse_twice([row.name for row in [*rows, *marks]], path)
    scores = tuple(values.get("scores", ["accuracy"]))
    parts = tuple(values.get("parts", ["validation"]))
    _require(set(scores) <= set(SCORES) and scores, f"scores of {show(path)}", SCORES, scores)
    _require(set(parts) <= set(PARTS) and parts, f"parts of {show(path)}", PARTS, parts)
    return Study(
        path,
        values["title"],
        scores,
        parts,
        tuple(values.get("notes", [])),
        tuple(shipped.get("folders", [])),
        shipped.get("command", ""),
        preparations,
        tuple(rows),
        tuple(marks),
    )


def label(place: str, score: str) -> str:
    """Return what a score is called: "precision of hem", "weighted F1", "training loss"."""
    if place in PLACES:
        return PLACES[place][score]
    kind, dot, name = score.partition(".")
    return f"{PER_CLASS[kind]} of {name}" if dot else SCORES[score]


class _Facts:
    """The published numbers: a TOML file, looked up by dotted path inside one of its tables."""

    def __init__(self, path: Path, table: str) -> None:
        self.path, self.table = path, table
        self.values = _toml(path)
        if table not in self.values:
            raise CustomCNNError(f"Published numbers stand in tables. Received: {table!r}, not in {show(path)}.")

    def number(self, key: str, where: str) -> float:
        """Return a number as a fraction: what stands under a key that ends in _percent is divided by 100.

        Raises:
            CustomCNNError: there is no number under that key.
        """
        found: Any = self.values[self.table]
        steps = key.split(".")
        for step in steps:
            found = found.get(step) if isinstance(found, Mapping) else None
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise CustomCNNError(
                f"A published number stands in {show(self.path)}. Received: {self.table}.{key} in {where}, which is "
                "no number there. Add it there, or correct the key."
            )
        return found / 100 if any(step.endswith("_percent") for step in steps) else found


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CustomCNNError(f"A study is made of TOML files. Received: {show(path)} ({error}).") from None


def _check(values: Mapping[str, Any], known: Mapping[str, type], where: str) -> None:
    """Raise CustomCNNError for a key that is not known, with the nearest one, and for a value of another type."""
    for key, value in values.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"Known keys: {', '.join(known)}."
            raise CustomCNNError(f"A study has known keys only. Received: {show(key)} in {where}. {hint}")
        wanted = (int, float) if known[key] is float else (known[key],)
        if type(value) not in wanted:
            names = {str: "text", int: "a whole number", float: "a number", list: "a list", dict: "a table"}
            names[bool] = "true or false"
            raise CustomCNNError(f"Key {key} of a study is {names[known[key]]}. Received: {value!r} in {where}.")


def _require(fine: object, where: str, known: Sequence[str] | Mapping[str, object], received: object) -> None:
    if not fine:
        raise CustomCNNError(f"A study knows {', '.join(known)} here. Received: {received!r}, {where}.")


def _preparation(values: Any, where: str) -> Preparation:
    if not isinstance(values, dict):
        raise CustomCNNError(f"A preparation is a table. Received: {values!r}, {where}.")
    default = vars(Preparation())
    types: dict[str, type] = {key: list if isinstance(value, tuple) else type(value) for key, value in default.items()}
    _check(values, types, where)
    given: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    found = Preparation(**given)
    _require(found.split in WAYS, where, WAYS, found.split)
    _require(found.minority in ("none", "balance"), where, ("none", "balance"), found.minority)
    for parts in (found.pool, found.keep):
        _require(set(parts) <= set(PARTS), where, PARTS, parts)
    numbers = all(type(edge) is int and edge > 0 for edge in found.crop)
    if not numbers or (found.crop and (len(found.crop) != 2 or found.crop[0] > found.crop[1])):
        raise CustomCNNError(f"A crop is an edge and the whole, in pixels. Received: {list(found.crop)}, {where}.")
    options: dict[str, type] = {
        "count": int,
        "seed": int,
        "balance": bool,
        "minority": bool,
        **{k: type(v) for k, v in vars(Operations()).items()},
    }
    _check(found.augment, options, f"augment, {where}")
    found.operations  # noqa: B018 - out of range is an error here, not after hours
    # Also looks whether they are shares at all.
    if found.split != "own" and found.shares.test and found.split == "name":
        raise CustomCNNError(f"By name there are two shares. Received: a test share of {found.shares.test:g}, {where}.")
    return found


def _row(values: Any, path: Path, preparations: Mapping[str, Preparation], facts: _Facts, *, mark: bool) -> Row:
    where = f"a row of {show(path)}"
    known = {"name": str, "published": dict, "note": str}
    if not mark:
        known |= {"recipe": str, "data": str, "kind": str, "options": dict}
    if not isinstance(values, dict):
        raise CustomCNNError(f"A row is a table. Received: {values!r}, {where}.")
    _check(values, known, where)
    name, kind = values.get("name", ""), values.get("kind", "train")
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*" if not mark else r".+", name):
        raise CustomCNNError(
            f"A row has a name of small letters, digits and dashes: it names a folder. Received: {name!r}, {where}."
        )
    where = f"row {name} of {show(path)}"
    data = values.get("data", next(iter(preparations)))
    _require(data in preparations, where, preparations, data)
    _require(kind in KINDS, where, KINDS, kind)
    _check(values.get("options", {}), {"folds": int, "by": str} if kind == "crossval" else {}, f"options, {where}")
    recipe = None if mark else path.parent / values.get("recipe", f"{name}.toml")
    if recipe and not recipe.is_file():
        raise CustomCNNError(f"A row's recipe stands beside {STUDY}. Received: {show(recipe)} for {where}.")
    published = {}
    for place, scores in values.get("published", {}).items():
        _require(place in (*PARTS, *PLACES) and isinstance(scores, dict), where, (*PARTS, *PLACES), place)
        published[place] = {_score(place, score, where): facts.number(key, where) for score, key in scores.items()}
    return Row(name, recipe, data, kind, values.get("options", {}), published, values.get("note", ""))


def _score(place: str, score: str, where: str) -> str:
    known: Mapping[str, str] = PLACES.get(place, SCORES)
    per_class = place not in PLACES and score.partition(".")[0] in PER_CLASS and "." in score
    _require(per_class or score in known, where, known, score)
    return score


def _refuse_twice(names: Sequence[str], path: Path) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise CustomCNNError(f"Rows have names of their own. Received: {show_names(twice)} twice in {show(path)}.")
