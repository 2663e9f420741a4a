"""The model card: what a network is for, on what it was tried, and where its limits are. Plain Markdown."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from customcnn.errors import printable
from customcnn.metrics.scores import HEADLINES, PER_CLASS, recall_names
from customcnn.recipe.monitor import kept_words
from customcnn.report.prediction_sections import calibration_state
from customcnn.report.run_facts import NO_GROUPS, NOT_MEDICAL, RunFacts
from customcnn.report.run_sections import between, counted, figures


def model_card(found: RunFacts) -> str:
    """Return the card of a run as Markdown; the same run gives the same text.

    Reference: Mitchell et al. (2019), Model Cards for Model Reporting, doi:10.1145/3287560.3287596.
    """
    parts = {
        "Model details": _details(found),
        "Intended use": _use(),
        "Out of scope": _out_of_scope(found),
        "Data": _data(found),
        "Evaluation": _evaluation(found),
        "Leakage and limits": _limits(found),
        "Calibration": _calibration(found),
        "Ethical considerations": _ethics(found),
        "How to reproduce": _again(found),
    }
    lines = [f"# Model card: {text(found.info.model)}, {text(found.run.path.resolve().name)}", ""]
    lines += [f"**{NOT_MEDICAL}**", ""]
    for note in found.notes:
        lines += [f"> **{'Note' if note in found.remarks else 'Warning'}.** {text(note)}", ">"]
    lines = [*lines[:-1], ""] if found.notes else lines
    for heading, body in parts.items():
        lines += [f"## {heading}", "", *body, ""]
    return "\n".join(lines).rstrip() + "\n"


def text(value: object) -> str:
    """Return text as Markdown shows it as it is, on one line."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", printable(value))


def _code(value: object) -> str:
    shown = printable(value)
    longest = max((len(run) for run in re.findall(r"`+", shown)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if longest else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def _items(values: dict[str, object]) -> list[str]:
    return [f"- {key}: {value}" for key, value in values.items()]


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    lines = [f"| {' | '.join(map(text, header))} |", f"| {' | '.join('---' for _ in header)} |"]
    return [*lines, *(f"| {' | '.join(map(text, row))} |" for row in rows)]


def _details(found: RunFacts) -> list[str]:
    info, recipe = found.info, found.recipe
    height, width = info.input_size
    values: dict[str, object] = {
        "network": text(info.model),
        "input": f"an RGB image, resized to {height} x {width} pixels",
        "output": f"one probability for each of {len(info.classes)} classes: {', '.join(map(text, info.classes))}",
    }
    if positive := found.positive:
        values["positive class"] = text(positive)
    if found.members:
        names = ", ".join(f"{text(row['model'])} ({float(row['weight']):.3f})" for row in found.members)
        values["an ensemble of"] = f"{names}; the numbers are weights"
    else:
        kept = f"; kept: {text(kept_words(recipe, found.history)).lower()}" if found.history else ""
        values |= {
            "weights to begin with": text(recipe.weights),
            "trained for": f"{counted(len(found.history), 'epoch')}{kept}",
            "optimizer": f"{text(recipe.optimizer)}, learning rate {recipe.learning_rate:g}, "
            f"batches of {recipe.batch_size}",
            "seed": recipe.seed,
        }
    version = (found.environment.get("packages") or {}).get("customcnn")
    values["made with"] = f"customcnn {version}" if version else "customcnn"
    return _items(values)


def _use() -> list[str]:
    return [
        "Teaching and research: to show how a small convolutional network learns to tell classes of cell images apart,",
        "and what its score is worth. Its users are students and researchers who check its answers themselves.",
    ]


def _out_of_scope(found: RunFacts) -> list[str]:
    return [
        "- Diagnosis, screening, triage, or any decision about a patient.",
        "- Images from another laboratory, stain, microscope or camera than those below, unless tried on them first.",
        "- Images of anything else: the network gives one of its "
        f"{len(found.info.classes)} classes to every image, also to one that shows no cell.",
    ]


def _data(found: RunFacts) -> list[str]:
    trained = found.trained
    counts, known = trained.counts(), trained.groups_known
    rows: list[list[object]] = []
    for part in trained.parts or [""]:
        records = [record for record in trained.records if record.split == part]
        groups = len({record.group for record in records}) if known else "not known"
        row = [counts[part, label] for label in trained.classes]
        rows.append([part or "all", *row, len(records), groups])
    lines = _table(["part", *trained.classes, "images", "groups"], rows)
    unit = "A group holds images that belong together: those of one subject, or copies of one photograph."
    drawn = "The images are drawn by a program; they show no patient." if trained.drawn or found.info.drawn else ""
    return [*lines, "", unit if known else NO_GROUPS, *([drawn] if drawn else [])]


def _evaluation(found: RunFacts) -> list[str]:
    metrics = found.metrics
    if metrics is None:
        return ["Not scored yet. The command that does it:", "", f"    {found.commands()[-2]}"]
    groups = "" if metrics["groups"] is None else f" of {counted(metrics['groups'], 'group')}"
    how = metrics.get("interval") or {}
    scored = [_score_row(HEADLINES[key], metrics[key]) for key in HEADLINES]
    if own := metrics.get("positive_class"):
        scored += [_score_row(name, own[key]) for key, name in recall_names(own["name"], metrics["classes"]).items()]
    lines = [
        f"On {text(found.part)} of {_code(found.data)}: {counted(metrics['images'], 'image')}{groups}, "
        f"{counted(metrics['errors'], 'error')}. Intervals: {how.get('level', 0.95):.0%}, "
        f"{how.get('method', 'unknown')}.",
        "",
        *_table(["score", "value", "interval"], scored),
        "",
    ]
    rows = []
    for name in metrics["classes"]:
        row = metrics["per_class"][name]
        cells = [f"{figures(row[key])} ({between(row[key])})" for key in PER_CLASS]
        rows.append([name, *cells, row["support"]])
    lines += _table(["class", *PER_CLASS.values(), "images"], rows)
    for name, values in found.others.items():
        lines += ["", f"On {_code(values['data'])} ({text(name)}): accuracy {figures(values['accuracy'])}, "]
        lines[-1] += f"{between(values['accuracy'])}, {counted(values['images'], 'image')}."
    return lines


def _score_row(name: str, row: dict[str, Any]) -> list[object]:
    return [name, figures(row), between(row)]


def _limits(found: RunFacts) -> list[str]:
    leaks = [leak.as_dict() for leak in found.leakages()]
    scored = (found.metrics or {}).get("leakage")
    warnings = [str(leak["warning"]) for leak in [*([scored] if scored else []), *leaks] if leak["warning"]]
    lines = [f"- {text(warning)}" for warning in dict.fromkeys(warnings)]
    if not warnings:
        known = found.trained.groups_known
        lines.append("- No group and no file stands in two parts." if known else f"- {NO_GROUPS}")
    if found.trained.groups_known:
        count = len({record.group for record in found.trained.part("train").records})
        lines.append(f"- The network has seen {counted(count, 'group')} in training. It knows no other variety.")
    lines.append("- An interval covers the luck of which images were scored. It does not cover another source.")
    return lines


def _calibration(found: RunFacts) -> list[str]:
    known = (found.metrics or {}).get("calibration")
    if not known:
        return ["Not measured: its probabilities may be too sure."]
    lines = [*map(text, calibration_state(found)), ""]
    names = {"ece": "expected calibration error", "brier": "Brier score", "log_loss": "log loss"}
    rows = [[name, figures(known[key]), between(known[key])] for key, name in names.items() if known.get(key)]
    return [*lines, *_table(["score", "value", "interval"], rows)]


def _ethics(found: RunFacts) -> list[str]:
    lines = [
        "- A missed blast and a false alarm do not weigh the same. The scores above do not weigh them.",
        "- Age, sex, origin and treatment of the subjects are not known here, and so are results by them.",
    ]
    if found.info.drawn:
        return [*lines, "- No patient's data was used: the cells are drawn."]
    return [
        *lines,
        "- The images may come from patients: the terms of their provider hold for the network too.",
    ]


def _again(found: RunFacts) -> list[str]:
    lines = ["```sh", *(printable(line) for line in found.commands()), "```", ""]
    packages = found.environment.get("packages") or {}
    versions = ", ".join(f"{name} {version}" for name, version in packages.items() if version)
    return [*lines, f"Versions: {versions or 'not recorded'}. The recipe is in recipe.toml, the report in report.html."]
