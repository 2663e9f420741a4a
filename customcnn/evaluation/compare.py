"""Runs side by side: which of them is better on the images that all were tested on, and whether that is shown."""

import json
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from customcnn.data.manifest import read_rows
from customcnn.data.names import without_split
from customcnn.errors import CustomCNNError, show, show_names
from customcnn.io import atomic
from customcnn.metrics.bootstrap import numbered
from customcnn.metrics.paired_tests import DIFFERENCES, compare_answers, p_text
from customcnn.metrics.scores import evaluate_predictions
from customcnn.metrics.validation import check_classes
from customcnn.runs.run_dir import RunDir, rows_to_csv

RECALLS = ("sensitivity", "specificity")
SCORES = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "roc_auc": "ROC AUC"}
CARRIED = ("model", "part", "data", "weights", "epoch", "tta", "chosen_on_this_part", "notes")
"""What a run's metrics.json says about the run itself, and goes into the comparison as it is."""
MOST_DRAWN = 60
"""So many pairs the picture has; compare.csv has all."""


@dataclass(frozen=True)
class Tested:
    """What a run answered on its test images.

    Attributes:
        run: its folder, that of predictions.csv and metrics.json.
        metrics: the contents of metrics.json.
        paths: of the N images inside the data folder.
        labels: their true classes, by name.
        groups: their groups; None unless every image has one.
        probabilities: (N, C) float64, columns in the order of metrics["classes"].
    """

    run: Path
    metrics: Mapping[str, Any]
    paths: list[str]
    labels: list[str]
    groups: list[str] | None
    probabilities: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """(N,) bool: where the greatest probability is that of the true class."""
        classes = np.array(self.metrics["classes"])
        return classes[self.probabilities.argmax(axis=1)] == np.array(self.labels)


def compare(
    runs: Sequence[Path],
    *,
    part: str | None = None,
    positive: str | None = None,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare every two of several runs that were tested on the same images.

    Each pair has the difference of its accuracies and of its balanced accuracies with a paired bootstrap's interval
    (one draw of the groups serves both runs), McNemar's exact test, and its p value corrected for all pairs after Holm.
    That p value is the exact sign-flip test over groups where groups are known; over single images it is the same as
    McNemar's. A difference is shown where it is below 1 - level after the correction.

    Args:
        runs: two folders or more that hold predictions.csv and metrics.json.
        part: refuse runs that were tested on another part; None for any.
        positive: of two classes the one that sensitivity is the recall of; None for the one that all runs were scored
            for, or else the default one of their classes.
        resamples, seed: of the bootstrap.
        level: the confidence level, between 0 and 1.

    Returns:
        A dict ready for JSON: images, groups, classes, positive, interval, runs, recipes (those that differ in the seed
        alone), pairs and notes. Differences are first minus second.

    Raises:
        CustomCNNError: fewer than two runs, one that was not evaluated, runs tested on different images, or a positive
            class that is none of two.

    Reference: Dietterich (1998), Approximate statistical tests for comparing supervised classification learning
    algorithms, doi:10.1162/089976698300017197.
    """
    _check_options(runs, resamples, level)
    tested = same_images([read_tested(run) for run in runs])
    other = [t.run for t in tested if part is not None and t.metrics.get("part") != part]
    if other:
        raise CustomCNNError(
            f"--part names the part that all runs were tested on. Received: {part}; {show_names(other)} on "
            f"{show_names(sorted({str(t.metrics.get('part')) for t in tested} - {part}))}. Evaluate them on it, or "
            "leave --part out."
        )
    first, names = tested[0], [str(t.run) for t in tested]
    classes = sorted(set(first.labels))
    units = np.arange(len(first.paths)) if first.groups is None else numbered(first.groups, len(first.paths))
    right = np.stack([t.right for t in tested])
    labels = np.array([classes.index(label) for label in first.labels])
    positive = _positive(tested, positive)
    scored = [_scored(t, positive, resamples, level, seed) for t in tested]
    rows = [row for row, _ in scored]
    pairs = compare_answers(right, labels, units, resamples=resamples, level=level, seed=seed)
    for pair in pairs:
        pair["first"], pair["second"] = names[pair["first"]], names[pair["second"]]
        pair["test"] = "McNemar's exact test" if first.groups is None else "exact sign-flip test over groups"
        pair["verdict"] = verdict(pair, level)
    return {
        "images": len(first.paths),
        "groups": None if first.groups is None else int(units.max()) + 1,
        "classes": list(first.metrics["classes"]),
        "positive": positive,
        "interval": {
            "level": level,
            "scores": scored[0][1],
            "differences": _method(first.groups is not None, int(units.max()) + 1),
            "resamples": resamples,
            "seed": seed,
        },
        "runs": rows,
        "recipes": _over_seeds(tested, rows),
        "pairs": pairs,
        "notes": _notes(tested, rows, int(units.max()) + 1, len(pairs), level),
    }


def verdict(pair: Mapping[str, Any], level: float) -> str:
    """Say in a sentence what a pair of `compare` has shown about the accuracy."""
    row, p = pair["accuracy"], pair["holm"]
    tested = f"p {'= ' if p >= 1e-4 else ''}{p_text(p)} after Holm"
    better, worse = pair["first"], pair["second"]
    value, low, high = row["value"], row["low"], row["high"]
    if p < 1 - level and value < 0:
        better, worse, value, low, high = worse, better, -value, *(None if x is None else -x for x in (high, low))
    interval = "" if low is None else f" ({low:.3f} to {high:.3f})"
    if p < 1 - level:
        return f"{better} is better than {worse} by {value:.3f}{interval}, {tested}"
    return f"{better} and {worse}: no difference shown; {value:.3f}{interval}, {tested}"


def read_tested(run: Path) -> Tested:
    """Read predictions.csv and metrics.json of a run, or of a folder that evaluate --out wrote.

    Raises:
        CustomCNNError: one is missing or damaged, or the two are not of one evaluation.
    """
    here = RunDir(run)
    if not (here.predictions.is_file() and here.metrics.is_file()):
        raise CustomCNNError(
            "Runs are compared by their predictions.csv and metrics.json, which customcnn evaluate writes. "
            f"Received: {show(run)} without them. Evaluate it first."
        )
    try:
        metrics = json.loads(here.metrics.read_text("utf-8"))
        classes, images, errors = [str(name) for name in metrics["classes"]], metrics["images"], metrics["errors"]
        columns = [f"probability_{name}" for name in classes]
        rows = read_rows(here.predictions, ("path", "label", "group", "predicted", *columns))
        rows.sort(key=lambda row: row["path"])
        probabilities = np.array([[float(row[column]) for column in columns] for row in rows]).reshape(-1, len(classes))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CustomCNNError(
            f"metrics.json and predictions.csv are those of customcnn evaluate. Received: {show(run)} "
            f"({type(error).__name__}: {show(str(error))}). Evaluate it again."
        ) from None
    groups = [row["group"] for row in rows]
    paths, labels = [row["path"] for row in rows], [row["label"] for row in rows]
    tested = Tested(run, metrics, paths, labels, groups if all(groups) else None, probabilities)
    predicted = [classes[index] for index in probabilities.argmax(axis=1)] if rows else []
    whole = len(rows) > 0 and len(set(paths)) == len(rows) and set(labels) <= set(classes)
    if not (whole and [row["predicted"] for row in rows] == predicted):
        raise CustomCNNError(
            "A predictions.csv has each image once, a label that the network knows, and the most probable class as "
            f"predicted. Received: another one in {show(run)}. Evaluate it again."
        )
    if (len(rows), int((~tested.right).sum())) != (images, errors):
        raise CustomCNNError(
            f"metrics.json and predictions.csv are of one evaluation. Received: {show(run)}, where they disagree on "
            "the images or the errors. Evaluate it again."
        )
    return tested


def same_images(tested: Sequence[Tested]) -> list[Tested]:
    """Return the runs with paths that agree and groups that all share, or say what differs.

    A path may begin with the name of its part where a run was tested on a whole folder, and lack it where the part
    itself was the folder. Groups that one run knows hold for all.

    Raises:
        CustomCNNError: other images, other labels, or other groups.
    """
    tested = _without_part(tested)
    first, known = tested[0], next((t for t in tested if t.groups is not None), tested[0])
    _refuse(
        "Runs are compared on the images that all of them were tested on",
        [_other_images(first, t) for t in tested],
        "Evaluate them on the same part of the same data",
    )
    _refuse(
        "An image has the same label in all runs",
        [_other(first, t, first.labels, t.labels, "labels") for t in tested],
        "Evaluate them on the same data",
    )
    _refuse(
        "An image has the same group in all runs",
        [_other(known, t, known.groups or [], t.groups or [], "groups") for t in tested],
        "Evaluate them with the same --group-pattern or --groups",
    )
    return [replace(t, groups=known.groups) for t in tested]


def write(found: Mapping[str, Any], out: Path) -> None:
    """Write compare.json, compare.csv (a row for each pair) and compare.png into a folder."""
    from customcnn.plots.figure import own_style, save_figure

    atomic.refuse_non_empty(out, True)
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for pair in found["pairs"]:
        row = {"first": pair["first"], "second": pair["second"]}
        for key in DIFFERENCES:
            row |= {key: pair[key]["value"], f"{key}_low": pair[key]["low"], f"{key}_high": pair[key]["high"]}
        keys = ("only_first", "only_second", "mcnemar", "p", "holm", "test", "verdict")
        rows.append(row | {key: pair[key] for key in keys})
    with own_style():
        save_figure(_forest(found), out / "compare.png")
    atomic.write_text(out / "compare.csv", rows_to_csv(rows))
    atomic.write_text(out / "compare.json", json.dumps(found, indent=2) + "\n")


def warnings(found: Mapping[str, Any]) -> list[str]:
    """Return the warnings that the runs carry, each once, with the runs it belongs to unless it belongs to all."""
    owners: dict[str, list[str]] = defaultdict(list)
    for row in found["runs"]:
        for note in row["notes"]:
            owners[note].append(row["run"])
    every = len(found["runs"])
    return [note if len(runs) == every else f"{', '.join(runs)}: {note}" for note, runs in owners.items()]


def _check_options(runs: Sequence[Path], resamples: int, level: float) -> None:
    places = {run.resolve() for run in runs}
    if len(places) < max(2, len(runs)):
        raise CustomCNNError(
            f"A comparison has two runs or more, each once. Received: {show_names(runs)}. Name different runs."
        )
    if resamples < 1:
        raise CustomCNNError(f"Intervals need a resample at least. Received: --resamples {resamples}. Give 1 or more.")
    if not 0 < level < 1:
        raise CustomCNNError(f"A level lies between 0 and 1. Received: --level {level:g}. Give .95, for instance.")


def _positive(tested: Sequence[Tested], named: str | None) -> str | None:
    """Return the positive class: the one that is named, or that all runs were scored for, or the default one."""
    classes = [str(name) for name in tested[0].metrics["classes"]]
    of_runs = {t.metrics.get("positive") for t in tested}
    own = of_runs.pop() if len(of_runs) == 1 else None
    return check_classes(classes, named or (own if own in classes else None))[1]


def _scored(
    tested: Tested, positive: str | None, resamples: int, level: float, seed: int
) -> tuple[dict[str, Any], str]:
    """Return a run's row, its scores and what its metrics.json says of it, and how their intervals come about."""
    classes = list(tested.metrics["classes"])
    metrics = evaluate_predictions(
        np.array([classes.index(label) for label in tested.labels]),
        tested.probabilities,
        classes,
        groups=tested.groups,
        positive=positive if positive in classes else None,
        resamples=resamples,
        level=level,
        seed=seed,
    )
    row = {"run": str(tested.run), **{key: tested.metrics.get(key) for key in CARRIED}}
    row["notes"] = list(row["notes"] or [])
    recalls = {key: metrics["positive_class"][key] for key in RECALLS if positive and "positive_class" in metrics}
    return row | {key: metrics[key] for key in ("images", "errors", *SCORES)} | recalls, metrics["interval"]["method"]


def _method(grouped: bool, units: int) -> str:
    unit = "group" if grouped else "image"
    return f"none (one {unit} only)" if units == 1 else f"paired percentile bootstrap over {unit}s"


def _over_seeds(tested: Sequence[Tested], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Gather the runs that differ in the seed alone, each seed once: n, mean, standard deviation and range."""
    gathered: dict[str, dict[int, Mapping[str, Any]]] = defaultdict(dict)
    for t, row in zip(tested, rows, strict=True):
        key, seed = _recipe_but_seed(t)
        if key:
            gathered[key].setdefault(seed, row)
    result = []
    for members in gathered.values():
        if len(members) < 2:
            continue
        entry: dict[str, Any] = {"runs": [row["run"] for row in members.values()], "seeds": list(members)}
        for score in SCORES:
            values = [row[score]["value"] for row in members.values() if row[score]["value"] is not None]
            if len(values) == len(members):
                spread = {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1))}
                entry[score] = {"n": len(values), **spread, "low": min(values), "high": max(values)}
        result.append(entry)
    return result


def _recipe_but_seed(tested: Tested) -> tuple[str, int]:
    """Return what decides a training but for its seed, and the seed; "" where no recipe with a seed is at hand.

    The recipe stands in the folder itself, or in the run inside which evaluate --out wrote.
    """
    for run in (RunDir(tested.run), RunDir(tested.run.resolve().parent)):
        if not run.exists():
            continue
        try:
            recipe = tomllib.loads(run.recipe.read_text("utf-8", "surrogateescape"))
            taught = atomic.sha256(run.manifest.read_bytes()) if run.manifest.is_file() else ""
        except (OSError, ValueError):
            return "", 0
        seed = recipe.pop("seed", None)
        if seed is None or recipe.get("model") != tested.metrics.get("model"):
            return "", 0
        how = [tested.metrics.get(key) for key in ("weights", "tta")]
        return json.dumps([recipe, taught, how], sort_keys=True, default=str), seed
    return "", 0


def _without_part(tested: Sequence[Tested]) -> list[Tested]:
    """Take the name of the part off the paths, where some runs were tested on the part as a folder of its own."""
    parts = {str(t.metrics.get("part")) for t in tested}
    (name, *others) = sorted(parts - {"given"}) or [""]
    if len(parts) == 1 or others:
        return list(tested)
    return [replace(t, paths=[without_split(path, name) for path in t.paths]) for t in tested]


def _some(names: Sequence[str]) -> str:
    if not names:
        return ""
    return f" ({show_names(names)})"


def _refuse(rule: str, found: Iterable[str], way_out: str) -> None:
    if differing := [text for text in found if text]:
        raise CustomCNNError(f"{rule}. Received: {'; '.join(differing)}. {way_out}.")


def _other_images(first: Tested, other: Tested) -> str:
    """Say which images one of two runs was tested on and the other was not; "" for the same."""
    less, more = sorted(set(first.paths) - set(other.paths)), sorted(set(other.paths) - set(first.paths))
    lacks = f"lacks {len(less):,} of the {len(first.paths):,} images of {show(first.run)}{_some(less)}"
    has = f"has {len(more):,} that it lacks{_some(more)}"
    found = [text for text, names in ((lacks, less), (has, more)) if names]
    return f"{show(other.run)} {' and '.join(found)}" if found else ""


def _other(first: Tested, other: Tested, ours: Sequence[str], theirs: Sequence[str], what: str) -> str:
    """Say which images have other labels or groups in two runs; "" for none, and where one knows none."""
    paths = [path for path, one, two in zip(first.paths, ours, theirs, strict=False) if one != two]
    images = f"{len(paths):,} image{'s' * (len(paths) != 1)} with other {what}"
    return f"{images} in {show(other.run)} than in {show(first.run)}{_some(paths)}" if paths else ""


def _notes(
    tested: Sequence[Tested], rows: Iterable[Mapping[str, Any]], units: int, pairs: int, level: float
) -> list[str]:
    """Return the sentences without which the table would be misread."""
    notes = []
    unit = "image" if tested[0].groups is None else "group"
    if tested[0].groups is None:
        notes.append("no group labels given: if several images show one subject, these intervals are too narrow.")
    else:
        notes.append(
            "McNemar's test takes images as independent, and those of one group are not: the verdicts rest on the "
            f"sign-flip test over {units:,} group{'s' * (units != 1)}."
        )
    if 2.0 ** (1 - units) * pairs >= 1 - level:
        smallest = p_text(min(1.0, 2.0 ** (1 - units) * pairs))
        notes.append(
            f"{units:,} {unit}{'s' * (units != 1)} can show no difference: no p could be below {smallest} after Holm."
        )
    chosen = [row["run"] for row in rows if row["chosen_on_this_part"]]
    if chosen:
        notes.append(f"the best epoch was chosen by its score on this part: {', '.join(chosen)}.")
    folders = Counter(str(t.metrics.get("data")) for t in tested)
    if len(folders) > 1:
        notes.append(
            f"the images came from {', '.join(folders)}: they are matched by path, their pixels are not compared."
        )
    return notes


def _forest(found: Mapping[str, Any]) -> Any:
    """Draw the differences of all pairs with their intervals, one below the other; what is shown is filled."""
    from customcnn.errors import printable
    from customcnn.plots.curves import BEST, TRAIN, VALIDATION
    from customcnn.plots.figure import new_figure

    pairs, level = found["pairs"][:MOST_DRAWN], found["interval"]["level"]
    left = f"; the first {len(pairs)} of {len(found['pairs']):,} pairs" if len(pairs) < len(found["pairs"]) else ""
    title = f"Differences of accuracy, {level * 100:g} % intervals{left}"
    figure = new_figure(9.6, 1.3 + 0.5 * len(pairs), title, warnings(found))
    axes = figure.subplots()
    for key, color, marker, shift in (("accuracy", TRAIN, "o", -0.12), ("balanced_accuracy", VALIDATION, "s", 0.12)):
        for place, pair in enumerate(pairs):
            row, y = pair[key], place + shift
            if row["low"] is not None:
                axes.plot([row["low"], row["high"]], [y, y], color=color, linewidth=1.6)
            fill = color if key == "accuracy" and pair["holm"] < 1 - level else "white"
            label = SCORES[key] if place == 0 else None
            axes.plot(row["value"], y, marker, color=color, markerfacecolor=fill, linestyle="", label=label)
    axes.axvline(0, color=BEST, linewidth=1, linestyle=":", zorder=0)
    ends = {row["run"]: printable(row["run"]) for row in found["runs"]}
    ends = {name: text if len(text) <= 40 else f"…{text[-39:]}" for name, text in ends.items()}
    names = [f"{ends[pair['first']]} minus\n{ends[pair['second']]}" for pair in pairs]
    axes.set_yticks(range(len(pairs)), names, fontsize=8, parse_math=False)
    axes.set(ylim=(len(pairs) - 0.5, -0.5), xlabel="difference (right: the first is better); filled: shown after Holm")
    axes.grid(axis="x", color="#E3E6E9", linewidth=0.8)
    figure.legend(loc="outside lower left", fontsize=8, ncols=2, frameon=False)
    return figure
