"""The dict of `customcnn.metrics.clinical.clinical` as text for the terminal."""

from collections.abc import Iterable
from typing import Any

from customcnn.errors import printable
from customcnn.metrics.scores import recall_names

NAME_WIDTH = 24  # of a class, a subject or a stratum
MOST_ROWS = 30  # of the subjects, and of a column's strata


def format_clinical(result: dict[str, Any]) -> str:
    """Write the dict of `clinical` as aligned text, less than 100 columns wide, without a last newline.

    Long names are shortened; of many subjects those whom the soft vote gets wrong come first, then the rest by name.
    """
    parts = [_curves(result)]
    if result["threshold"]:
        parts.append(_threshold(result))
    if result["decision_curve"]:
        parts.append(_decision(result["decision_curve"], result["positive"]))
    if result["subjects"]:
        parts.append(_subjects(result["subjects"], result["positive"]))
    parts += [_stratum(column, rows) for column, rows in result["strata"].items()]
    return "\n\n".join("\n".join(lines) for lines in parts)


def _curves(result: dict[str, Any]) -> list[str]:
    """Return the areas and the sensitivities at fixed specificity, by class."""
    interval = result["interval"]
    lines = [f"{'clinical reading':46}  {'value':>9}  {interval['level'] * 100:g} % interval"]
    for name, curves in result["curves"].items():
        sensitivity, specificity = _names(result, 18) or (f"sensitivity (recall of {_short(name)})", "specificity")
        share = curves["precision_recall"]["prevalence"]
        lines += [
            f"{'positive class' if result['positive'] else 'class'} {_short(name)}, {share:.3f} of the images",
            _row("  ROC area (guessing: .5)", curves["roc"]["area"]),
            _row(f"  precision-recall area (guessing: {share:.3f})", curves["precision_recall"]["area"]),
        ]
        lines.append(f"  {sensitivity} at a {specificity} of")
        for row in result["sensitivity_at"][name]:
            where = "" if row["threshold"] is None else f", from {row['threshold']:.3f}"
            lines.append(_row(f"    {row['specificity']:.2f}{where}", row["sensitivity"]))
    proportions = "; proportions: Wilson" if interval["proportions"] == "Wilson" else ""
    how = f", {_count(interval['resamples'], 'resample')}, seed {interval['seed']}" if interval["resamples"] else ""
    lines.append(f"intervals: {interval['method']}{how}{proportions}")
    return [*lines, "thresholds at a fixed specificity are chosen on these images, in every resample anew"]


def _threshold(result: dict[str, Any]) -> list[str]:
    found = result["threshold"]
    chosen = f"{_short(found['rule'], 20)}, chosen on {_short(found['chosen_on'], 12)}"
    keys = ("sensitivity", "specificity", "accuracy", "balanced_accuracy")
    labels = [*_names(result, 18), "accuracy", "balanced accuracy"]
    return [
        f"{_short(result['positive'], 16)} from a probability of {found['value']:.4f} on ({chosen})",
        *(_row(f"  {label}", found[key]) for key, label in zip(keys, labels, strict=True)),
    ]


def _names(result: dict[str, Any], width: int) -> tuple[str, ...]:
    """Return sensitivity and specificity with the class whose recall they are; nothing of more than two classes."""
    return tuple(recall_names(result["positive"], result["classes"], width).values()) if result["positive"] else ()


def _decision(curve: dict[str, Any], positive: str) -> list[str]:
    """Return at which threshold probabilities the model is worth more than treating all or none."""
    of = f"decision curve, positive class {_short(positive, 14)}"
    better = [
        place
        for place, (model, everyone) in enumerate(zip(curve["model"], curve["all"], strict=True))
        if model > max(everyone, curve["none"]) + 1e-9  # where all are treated by the model too, rounding differs
    ]
    if not better:
        return [f"{of}: nowhere better than treating all or none"]
    runs = [[better[0], better[0]]]
    for place in better[1:]:
        if place == runs[-1][1] + 1:
            runs[-1][1] = place
        else:
            runs.append([place, place])
    shown = [f"{curve['threshold'][first]:.2f} to {curve['threshold'][last]:.2f}" for first, last in runs[:3]]
    more = f" and {_count(len(runs) - 3, 'short stretch', 'short stretches')}" if len(runs) > 3 else ""
    return [
        f"{of}: better than treating all or none at probabilities of",
        f"  {', '.join(shown)}{more}",
    ]


def _subjects(subjects: dict[str, Any], positive: str | None) -> list[str]:
    """Return the scores by subject and a table of the subjects."""
    lines = [f"subjects: {_count(subjects['count'], 'group')} with images of one class"]
    if subjects["mixed"]:
        lines.append(
            f"  left out: {_count(subjects['mixed'], 'group')} of several classes (photographs are no subjects)"
        )
    if not subjects["rows"]:
        return lines
    lines += [
        _row("  accuracy by soft vote", subjects["accuracy"]),
        _row("  ROC area of the mean probability", subjects["roc_auc"]),
    ]
    rows = subjects["rows"]
    if len(rows) > MOST_ROWS:
        rows = sorted(rows, key=lambda row: row["label"] == row["predicted"])[:MOST_ROWS]
    table = [["group", "class", "images", f"share {_short(positive, 10)}" if positive else "share right", "soft vote"]]
    for row in rows:
        vote = f"{_short(row['predicted'], 14)} {row['vote'][row['predicted']]:.3f}"
        wrong = "" if row["predicted"] == row["label"] else "  wrong"
        own = [_short(row["group"], 20), _short(row["label"], 14), f"{row['images']:,}", f"{row['share']:.3f}"]
        table.append([*own, vote + wrong])
    lines += _table(table, "<<>><")
    hidden = len(subjects["rows"]) - len(rows)
    return [*lines, f"  ... and {_count(hidden, 'subject')} more"] if hidden else lines


def _stratum(column: str, rows: list[dict[str, Any]]) -> list[str]:
    """Return a table of the values of one column."""
    table = [["value", "images", "groups", "accuracy", "balanced accuracy"]]
    for row in rows[:MOST_ROWS]:
        groups = "-" if row["groups"] is None else f"{row['groups']:,}"
        cells = [_short(row["value"]), f"{row['images']:,}", groups]
        table.append([*cells, *(_cell(row[key], row["groups"]) for key in ("accuracy", "balanced_accuracy"))])
    lines = [f"by {_short(column)}", *_table(table, "<>><<")]
    hidden = len(rows) - MOST_ROWS
    return [*lines, f"  ... and {_count(hidden, 'value')} more"] if hidden > 0 else lines


def _table(rows: list[list[str]], sides: Iterable[str]) -> list[str]:
    """Return aligned lines; a side is < or >."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    return [
        "  " + "  ".join(f"{c:{s}{w}}" for c, s, w in zip(row, sides, widths, strict=True)).rstrip() for row in rows
    ]


def _row(label: str, score: dict[str, Any]) -> str:
    value = f"{'undefined':>9}" if score["value"] is None else f"{score['value']:9.3f}"
    return f"{label:46}  {value}  {_span(score):14}".rstrip() + _undefined(score)


def _cell(score: dict[str, Any], groups: int | None) -> str:
    """Return a score and its interval; a single group has none and says so."""
    span = "one group" if groups == 1 else _span(score)
    return "undefined" if score["value"] is None else f"{score['value']:.3f}  {span}"


def _span(score: dict[str, Any]) -> str:
    return "-" if score["low"] is None else f"{score['low']:.3f} to {score['high']:.3f}"


def _undefined(score: dict[str, Any]) -> str:
    lacking = score.get("undefined_resamples")
    return f"  (undefined in {lacking:,})" if lacking else ""


def _count(number: int, what: str, many: str = "") -> str:
    return f"{number:,} {what if number == 1 else many or what + 's'}"


def _short(name: str, width: int = NAME_WIDTH) -> str:
    """Return a name on one line: the middle of a long one is left out."""
    text = printable(name)
    return text if len(text) <= width else f"{text[: width // 2 - 1]}...{text[1 - width // 2 + 1 :]}"
