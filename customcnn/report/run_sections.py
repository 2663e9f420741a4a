"""The parts of a run's report that are about the run: its scores, data, split, training and environment."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from customcnn.data.leakage import Leakage
from customcnn.html.page import (
    Html,
    Section,
    beside,
    escape,
    facts,
    group,
    matrix,
    preformatted,
    score,
    subheading,
    table,
)
from customcnn.html.svg_charts import Series, line_chart
from customcnn.metrics.scores import HEADLINES, PER_CLASS, recall_names
from customcnn.report.run_facts import NO_GROUPS, RunFacts

MEANING = {
    "accuracy": "share of the images that got their true class",
    "balanced_accuracy": "mean of the recall of all classes: a rare class counts as much as a common one",
    "macro_precision": "mean of the precision of all classes",
    "macro_recall": "mean of the recall of all classes that occur",
    "macro_f1": "mean of the F1 of all classes",
    "weighted_precision": "the same mean, each class counted by its images",
    "weighted_recall": "the same mean, each class counted by its images: the accuracy once more",
    "weighted_f1": "the same mean, each class counted by its images",
    "cohen_kappa": "agreement beyond what chance would give: 0 is chance, 1 is perfect",
    "roc_auc": "how often an image of a class gets a higher probability for it than an image of another: .5 is chance",
}
CLASS_MEANING = (
    "Precision: of the images that were called this class, the share that is. Recall: of the images that are this "
    "class, the share that was called so. F1: the harmonic mean of both. Images: how many there are."
)
LEADING = ("accuracy", "balanced_accuracy", "roc_auc")
SHOWN_KEYS = "model input_size weights epochs batch_size optimizer learning_rate loss monitor precision seed"


def between(row: Mapping[str, Any] | None) -> str:
    """Return an interval in words."""
    if not row or row.get("low") is None or row.get("high") is None:
        return "–"
    return f"{row['low']:.3f} to {row['high']:.3f}"


def figures(value: object) -> str:
    """Return a score, or an interval's value, with three digits."""
    number = value.get("value") if isinstance(value, Mapping) else value
    return f"{number:.3f}" if isinstance(number, int | float) else "undefined"


def lead(found: RunFacts) -> list[str]:
    """Return what stands first: the scores with their intervals, or which command is missing."""
    metrics = found.metrics
    if metrics is None:
        command = found.commands()[-2]
        return ["This run has not been scored yet. Score it, then make this page again:", preformatted(command)]
    tiles = [_tile(HEADLINES[key], metrics[key]) for key in LEADING]
    positive = metrics.get("positive_class")
    if positive:
        names = recall_names(positive["name"], metrics["classes"])
        tiles += [_tile(names[key], positive[key]) for key in ("sensitivity", "specificity")]
    return [_sentence(found), group("scores", *tiles), _method(metrics)]


def _tile(name: str, row: Mapping[str, Any], about: str = "") -> Html:
    return score(name[0].upper() + name[1:], row["value"], row["low"], row["high"], about)


def _sentence(found: RunFacts) -> str:
    metrics = found.metrics or {}
    groups = "" if metrics["groups"] is None else f" of {counted(metrics['groups'], 'group')}"
    errors = counted(metrics["errors"], "error")
    views = " Each answer is the mean over eight turns and mirror images." if metrics.get("tta") else ""
    return f"Scored on {found.part} of {found.data}: {counted(metrics['images'], 'image')}{groups}, {errors}.{views}"


def _method(metrics: Mapping[str, Any]) -> str:
    how = metrics.get("interval") or {}
    level = f"{how.get('level', 0.95):.0%}".replace("%", " %")
    resamples = f", {how['resamples']:,} resamples" if how.get("resamples") else ""
    text = f"Intervals: {level}, {how.get('method', 'unknown')}{resamples}."
    if not metrics["errors"]:
        text += " Where the data hold no error, no resample does: an interval of 1 to 1 is too narrow."
    return text


def explained(name: str, meaning: str) -> Html:
    """Return what a score is called, with a few words on what it says."""
    return Html(f"{escape(name)}<small>{escape(meaning)}</small>")


def counted(number: int, what: str) -> str:
    """Return a number with its noun."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def scores(found: RunFacts) -> Section | None:
    """Return the tables of all scores, with what each means, and the confusion matrix."""
    metrics = found.metrics
    if metrics is None:
        return None
    rows = [
        [explained(HEADLINES[key], MEANING[key]), figures(metrics[key]), between(metrics[key])]
        for key in HEADLINES
        if key in metrics
    ]
    if metrics.get("log_loss") is not None:
        meaning = "how little the probability of the true class was, on a scale of logarithms: 0 is perfect"
        rows.append([explained("log loss", meaning), figures(metrics["log_loss"]), "–"])
    by_class = [_class_row(name, metrics["per_class"][name]) for name in metrics["classes"]]
    names = [word for label in PER_CLASS.values() for word in (label, "interval")]
    blocks: list[str] = [
        table(["score", "value", "interval"], rows, f"All scores on {found.part}"),
        subheading("By class"),
        table(["class", *names, "images"], by_class, f"Scores of each class on {found.part}"),
        CLASS_MEANING,
        subheading("Confusion matrix"),
        matrix(
            metrics["classes"],
            metrics["confusion_matrix"],
            "Images by true class (rows) and predicted class (columns), and their share of the row",
        ),
    ]
    if found.others:
        blocks += [subheading("On other data"), _others(found)]
    return Section("Scores", blocks)


def _class_row(name: str, row: Mapping[str, Any]) -> list[object]:
    cells = [cell for key in PER_CLASS for cell in (figures(row[key]), between(row[key]))]
    return [name, *cells, row["support"]]


def _others(found: RunFacts) -> Html:
    rows = [
        [
            name,
            values["data"],
            values["part"],
            values["images"],
            figures(values["accuracy"]),
            between(values["accuracy"]),
            _leak_word(values.get("leakage") or {}),
        ]
        for name, values in found.others.items()
    ]
    header = ["folder", "data", "part", "images", "accuracy", "interval", "leakage"]
    return table(header, rows, "Scores in folders of this run, from customcnn evaluate --out")


def _leak_word(leak: Mapping[str, Any]) -> str:
    if leak.get("warning"):
        return "inflated by leakage"
    return "none found" if leak.get("groups_known") else "not known"


def data(found: RunFacts) -> Section:
    """Return what the network was trained, validated and tested on."""
    trained = found.trained
    about: dict[str, object] = {
        "images": f"{len(trained.records):,}",
        "classes": f"{len(found.info.classes):,}",
        "groups": counted(len({r.group for r in trained.records}), "group") if trained.groups_known else "not known",
        "drawn": "yes: made by customcnn samples, not photographs" if trained.drawn or found.info.drawn else "no",
    }
    counts = trained.counts()
    parts = trained.parts or [""]
    groups = _groups(found)
    header: list[str] = ["class"]
    for part in parts:
        header += [f"{part or 'all'} images", *([f"{part or 'all'} groups"] if trained.groups_known else [])]
    rows = []
    for label in [*trained.classes, ""]:
        row: list[object] = [label or Html("<strong>all classes</strong>")]
        for part in parts:
            labels = [label] if label else trained.classes
            row.append(sum(counts[part, each] for each in labels))
            if trained.groups_known:
                row.append(len(set().union(*(groups.get((part, each), set()) for each in labels))))
        rows.append(row)
    return Section("Data", [facts(about, "The images of this run"), table(header, rows, "Images by class and part")])


def _groups(found: RunFacts) -> dict[tuple[str, str], set[str]]:
    groups: dict[tuple[str, str], set[str]] = {}
    for record in found.trained.records:
        groups.setdefault((record.split, record.label), set()).add(record.group)
    return groups


def split(found: RunFacts) -> Section:
    """Return what the parts share that they should not."""
    scored = (found.metrics or {}).get("leakage")
    rows = [_leak_row(leak.part, leak.as_dict()) for leak in found.leakages()]
    if scored and scored["part"] not in [row[0] for row in rows]:
        rows.append(_leak_row(f"{scored['part']} ({found.data})", scored))
    elif scored:
        rows = [_leak_row(str(row[0]), scored) if row[0] == scored["part"] else row for row in rows]
    if not rows:
        return Section("Split and leakage", ["The images of this run are not split into parts that could be compared."])
    header = ["part", "images", "groups known", "groups shared", "images in them", "identical files"]
    caption = "What each part shares with the images that the network was trained on"
    return Section("Split and leakage", [*_verdicts(found.leakages(), scored), table(header, rows, caption)])


def _leak_row(name: str, leak: Mapping[str, Any]) -> list[object]:
    known = "yes" if leak["groups_known"] else "no"
    return [
        name,
        leak["images"],
        known,
        leak["shared_groups"],
        leak["images_in_shared_groups"],
        leak["identical_files"],
    ]


def _verdicts(leaks: Sequence[Leakage], scored: Mapping[str, Any] | None) -> list[str]:
    every = [*([scored] if scored else []), *(leak.as_dict() for leak in leaks)]
    warnings = list(dict.fromkeys(str(leak["warning"]) for leak in every if leak["warning"]))
    if warnings:
        return warnings
    if not all(leak["groups_known"] for leak in every):
        return [f"No file stands in two parts. {NO_GROUPS} Give --group-pattern or --groups if you can."]
    return ["Nothing is shared: no group and no file stands both in the training part and in another."]


def training(found: RunFacts) -> Section:
    """Return the curves, or the members of an ensemble, and the recipe."""
    if found.members:
        header = ["member", "network", "weight"]
        rows = [[row["run"], row["model"], _three(row["weight"])] for row in found.members]
        text = "An ensemble is not trained: its members are, and their probabilities are averaged by these weights."
        blocks: list[str] = [text, table(header, rows, "Members")]
    elif found.history:
        last = found.history[-1].get("epoch", len(found.history))
        text = f"Trained for {counted(int(last), 'epoch')}; the scores are those of epoch {_epoch(found)}."
        blocks = [text, group("charts", *_curves(found))]
    else:
        blocks = ["No epoch is recorded."]
    if not found.members:
        shown = {key: _plain(getattr(found.recipe, key)) for key in SHOWN_KEYS.split()}
        half = -(-len(shown) // 2)
        items = [*shown.items()]
        keys = beside(facts(dict(items[:half]), "Its main keys"), facts(dict(items[half:]), "and further ones"))
        blocks += [subheading("Recipe"), keys]
    whole = preformatted(found.recipe_text.strip()).replace("<pre>", '<pre class="columns">', 1)
    return Section("Training", [*blocks, subheading("Every key: recipe.toml"), Html(whole)])


def _epoch(found: RunFacts) -> int:
    return int((found.metrics or {}).get("epoch", found.info.epoch))


def _curves(found: RunFacts) -> list[Html]:
    """Return loss and accuracy by epoch, the epoch that is scored marked."""
    epochs = [row.get("epoch", number) for number, row in enumerate(found.history, start=1)]
    charts = []
    for key in ("loss", "accuracy"):
        lines = [
            Series(name, epochs, [row.get(column) for row in found.history], dots=len(epochs) <= 30)
            for name, column in (("training", key), ("validation", f"val_{key}"))
            if any(_is_number(row.get(column)) for row in found.history)
        ]
        if lines:
            ends = ", ".join(f"{line.name} {_three(line.y[-1])}" for line in lines)
            alt = f"{key.capitalize()} by epoch; after the last epoch: {ends}"
            mark = float(_epoch(found)) if len(epochs) > 1 else None
            caption = f"{key.capitalize()} by epoch" + (
                f"; the upright line is the epoch scored here, {mark:g}" if mark else ""
            )
            charts.append(line_chart(lines, alt=alt, x="epoch", y=key, mark=mark, caption=caption))
    return charts


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and value == value and abs(value) != float("inf")


def _three(value: object) -> str:
    try:
        return f"{float(str(value)):.3f}"
    except ValueError:
        return str(value)


def _plain(value: object) -> str:
    return " x ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def environment(found: RunFacts) -> Section:
    """Return the machine and the versions."""
    known = found.environment
    if not known:
        return Section("Environment", ["Not recorded."])
    about = {key: known[key] for key in ("python", "platform", "processor", "cores", "backend") if key in known}
    versions = {name: version or "not installed" for name, version in (known.get("packages") or {}).items()}
    return Section("Environment", [beside(facts(about, "Machine"), facts(versions, "Versions of the packages"))])


def again(found: RunFacts) -> Section:
    """Return the commands that make everything once more."""
    blocks: list[str] = [preformatted("\n".join(found.commands()))]
    if found.made_by and not found.made_by.startswith(("customcnn ", "python -m customcnn ")):
        blocks.append("The first line is the program that made the run, not a command of customcnn.")
    if not found.members:
        data = found.data if (found.metrics or {}).get("part") in found.trained.parts else "DATA"
        words = ["customcnn", "train", data, "--recipe", str(found.run.recipe), "--out", "NEW"]
        blocks += ["Or from its recipe, as a new run:", preformatted(shlex.join(words))]
    blocks.append("The same seed, data and versions on the same kind of processor give the same network.")
    return Section("Make it again", blocks)
