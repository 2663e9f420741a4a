"""The parts of a run's report that read its predictions: curves, thresholds, subjects, calibration, mistakes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from customcnn.html.page import Html, Section, data_uri, escape, facts, figure, group, matrix, subheading, table
from customcnn.html.svg_charts import Series, line_chart
from customcnn.metrics.scores import recall_names
from customcnn.report.mistakes import Mistake, Pictures
from customcnn.report.run_facts import RunFacts
from customcnn.report.run_sections import between, counted, explained, figures

LARGEST_TABLE = 20  # rows of subjects; the files of the run have them all
PICTURES = {
    "roc.png": "ROC curve",
    "precision-recall.png": "Precision-recall curve",
    "decision.png": "Decision curve",
    "subjects.png": "Results of each subject",
    "reliability.png": "Reliability diagram",
}


def clinical(found: RunFacts) -> Section | None:
    """Return curves, thresholds, subjects and strata, where customcnn evaluate has written them."""
    known = (found.metrics or {}).get("clinical")
    if not known:
        pictures = _pictures(found, ("roc.png", "precision-recall.png", "decision.png", "subjects.png"))
        return Section("Clinical reading", [group("charts", *pictures)]) if pictures else None
    curves = known.get("curves") or {}
    blocks: list[str] = []
    names = _names(known)
    charts = [*_roc(curves, names), *_decision(known.get("decision_curve"), known.get("positive"))]
    if charts:
        blocks.append(group("charts", *charts))
    for part in (_fixed, _threshold, _subjects, _strata):
        blocks += part(known)
    return Section("Clinical reading", blocks) if blocks else None


def _pictures(found: RunFacts, names: Sequence[str]) -> list[Html]:
    return [
        Html(f'<div class="framed">{figure(data_uri(path.read_bytes()), PICTURES[name], PICTURES[name])}</div>')
        for name in names
        if (path := found.run.path / name).is_file()
    ]


def _names(known: Mapping[str, Any]) -> dict[str, str]:
    """Return what sensitivity and specificity are called, with the class whose recall they are where there are two."""
    names = {"sensitivity": "sensitivity", "specificity": "specificity"}
    if known.get("positive") in (known.get("classes") or []):
        names |= recall_names(known["positive"], known["classes"])
    return names


def _roc(curves: Mapping[str, Any], names: Mapping[str, str]) -> list[Html]:
    rates, recalls = [], []
    for name, curve in curves.items():
        roc, against = curve.get("roc"), curve.get("precision_recall")
        if roc and roc.get("sensitivity"):
            band = roc.get("band")
            area = (band["false_positive_rate"], band["low"], band["high"]) if band else None
            label = f"{name}: area {_value(roc.get('area'))}"
            rates.append(Series(label, roc["false_positive_rate"], roc["sensitivity"], band=area))
        if against and against.get("recall"):
            label = f"{name}: area {_value(against.get('area'))}"
            recalls.append(Series(label, against["recall"], against["precision"]))
    whole = (0.0, 1.0)
    charts = []
    if rates:
        alt = "ROC curve; " + "; ".join(line.name for line in rates)
        caption = "ROC curve: what share is found at which share of false alarms. The dotted diagonal is chance."
        charts.append(
            line_chart(
                rates,
                alt=alt,
                x=f"1 − {names['specificity']}",
                y=names["sensitivity"],
                caption=caption,
                x_range=whole,
                y_range=whole,
                diagonal=True,
            )
        )
    if recalls:
        recall = names["sensitivity"] if names["sensitivity"] != "sensitivity" else "recall"
        alt = "Precision-recall curve; " + "; ".join(line.name for line in recalls)
        caption = "Precision-recall curve: how many alarms are right at which share found."
        charts.append(
            line_chart(recalls, alt=alt, x=recall, y="precision", caption=caption, x_range=whole, y_range=whole)
        )
    return charts


def _value(row: Mapping[str, Any] | None) -> str:
    words = between(row)
    return figures(row) if words == "–" else f"{figures(row)} ({words})"


def _decision(curve: Mapping[str, Any] | None, positive: str | None) -> list[Html]:
    if not curve or not curve.get("model"):
        return []
    places = curve["threshold"]
    band = (places, curve["model_low"], curve["model_high"]) if curve.get("model_low") else None
    lines = [
        Series("by the network", places, curve["model"], band=band),
        Series("treat everyone", places, curve["all"]),
        Series("treat no one", [places[0], places[-1]], [0.0, 0.0]),
    ]
    highest = max(value for value in [*curve["model"], *curve["all"], 0.0] if value is not None)
    caption = (
        "Decision curve: the net benefit of acting on the network's answer, by how sure one must be to act. "
        "It helps where its line is above both others."
    ) + (f" Positive class: {positive}." if positive else "")
    chart = line_chart(
        lines,
        alt="Decision curve: net benefit by threshold probability, of the network, of treating all and of none",
        x="threshold probability",
        y="net benefit",
        caption=caption,
        x_range=(0.0, 1.0),
        y_range=(-0.25 * max(highest, 0.04), 1.05 * max(highest, 0.04)),
    )
    return [chart]


def _fixed(known: Mapping[str, Any]) -> list[str]:
    rows = [
        [name, figures(row["specificity"]), figures(row["sensitivity"]), between(row["sensitivity"]), _rate(row)]
        for name, at in (known.get("sensitivity_at") or {}).items()
        for row in at
    ]
    if not rows:
        return []
    names = _names(known)
    header = ["class", names["specificity"], names["sensitivity"], "interval", "threshold"]
    caption = "The share found where so many of the others are left alone; called this class from the threshold on"
    return [subheading("Sensitivity at a fixed specificity"), table(header, rows, caption)]


def _rate(row: Mapping[str, Any]) -> str:
    value = row.get("threshold")
    return "–" if value is None else f"{value:.4g}"


def _threshold(known: Mapping[str, Any]) -> list[str]:
    chosen = known.get("threshold")
    if not chosen:
        return []
    names = {**_names(known), "accuracy": "accuracy"}
    values = {label: _value(_row(chosen.get(key))) for key, label in names.items() if chosen.get(key)}
    about = {
        "threshold": f"{chosen['value']:.4g}",
        "rule": chosen.get("rule", ""),
        "chosen on": chosen.get("chosen_on", ""),
        **values,
    }
    return [subheading("A threshold chosen beforehand"), facts(about, "Applied to the images scored here")]


def _row(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {"value": value, "low": None, "high": None}


def _subjects(known: Mapping[str, Any]) -> list[str]:
    subjects = known.get("subjects")
    if not subjects or not subjects.get("count"):
        return []
    rows = subjects.get("rows") or []
    wrong_first = sorted(rows, key=lambda row: (row["label"] == row["predicted"], str(row["group"])))
    shown = [
        [str(row["group"]), row["label"], row["images"], figures(row["share"]), row["predicted"], _right(row)]
        for row in wrong_first[:LARGEST_TABLE]
    ]
    right = f"accuracy {_value(subjects.get('accuracy'))}"
    blocks: list[str] = [
        subheading("By subject"),
        f"The images of each of {counted(subjects['count'], 'group')} pooled, by the mean of their answers: {right}.",
    ]
    if subjects.get("mixed"):
        blocks.append(f"Left out: {counted(subjects['mixed'], 'group')} with images of more than one class.")
    if subjects.get("confusion_matrix") and known.get("classes"):
        blocks.append(matrix(known["classes"], subjects["confusion_matrix"], "Groups by true and predicted class"))
    if shown:
        of = f"share called {known['positive']}" if known.get("positive") else "share right"
        left = f", the first {LARGEST_TABLE} of {len(rows):,}" if len(rows) > LARGEST_TABLE else ""
        header = ["group", "class", "images", of, "predicted", "right"]
        blocks.append(table(header, shown, f"Groups, the wrong ones first{left}"))
    return blocks


def _right(row: Mapping[str, Any]) -> str:
    return "yes" if row["label"] == row["predicted"] else "no"


def _strata(known: Mapping[str, Any]) -> list[str]:
    blocks: list[str] = []
    for column, values in (known.get("strata") or {}).items():
        rows = [
            [
                str(row["value"]),
                row["images"],
                "–" if row.get("groups") is None else row["groups"],
                figures(row["accuracy"]),
                between(row["accuracy"]),
            ]
            for row in values
        ]
        header = ["value", "images", "groups", "accuracy", "interval"]
        blocks.append(table(header, rows, f"Results by {column}"))
    return [subheading("By stratum"), *blocks] if blocks else []


def calibration(found: RunFacts) -> Section | None:
    """Return whether probabilities mean what they say, where customcnn evaluate has written it."""
    known = (found.metrics or {}).get("calibration")
    if not known:
        pictures = _pictures(found, ("reliability.png",))
        return Section("Calibration", [*pictures]) if pictures else None
    meanings = {
        "ece": ("expected calibration error", "mean distance between the confidence and the share that is right"),
        "brier": ("Brier score", "mean squared distance of the probabilities from the truth: 0 is perfect"),
        "log_loss": ("log loss", "how little the probability of the true class was, in logarithms: 0 is perfect"),
    }
    rows = [
        [explained(name, meaning), figures(known[key]), between(_row(known[key]))]
        for key, (name, meaning) in meanings.items()
        if known.get(key) is not None
    ]
    scored = table(["score", "value", "interval"], rows, "Scores of the probabilities")
    blocks: list[str] = [*calibration_state(found), scored]
    bins = [row for row in known.get("reliability") or [] if row["images"]]
    if bins:
        blocks.insert(-1, group("charts", _reliability(bins)))
        shown = [
            [f"{b['low']:.2f} to {b['high']:.2f}", b["images"], figures(b["confidence"]), figures(b["accuracy"])]
            for b in bins
        ]
        blocks.append(table(["confidence", "images", "mean confidence", "share right"], shown, "Reliability by bin"))
    return Section("Calibration", blocks)


def calibration_state(found: RunFacts) -> list[str]:
    """Return in sentences whether a temperature was fitted, and what else the network says of its certainty."""
    metrics, stored = found.metrics or {}, found.info.calibration or {}
    value = (metrics.get("calibration") or {}).get("temperature")
    if value is not None:
        where = f", fitted on {counted(stored['images'], 'image')} of the {stored['part']} part" if stored else ""
        lines = [f"The probabilities were calibrated by temperature scaling, T = {value:.3f}{where}."]
    elif stored and metrics.get("weights") != "last":
        lines = ["The network has been calibrated since it was scored: run customcnn evaluate again."]
    else:
        lines = ["The probabilities are the network's own: no temperature was fitted."]
    sets = stored.get("sets")
    if sets:
        whom = "images of new groups" if sets["unit"] == "group" else "images like these"
        lines.append(
            f"customcnn predict also gives a set of classes, made to hold the true one for {sets['coverage']:.0%} of "
            f"{whom}; where it does not hold exactly one class, the network says that it is not sure."
        )
    if stored.get("novelty"):
        lines.append("customcnn predict also says which images do not look like those that it was trained on.")
    return lines


def _reliability(bins: Sequence[Mapping[str, Any]]) -> Html:
    line = Series("images in a bin", [b["confidence"] for b in bins], [b["accuracy"] for b in bins], dots=True)
    return line_chart(
        [line],
        alt=f"Reliability diagram: the share that is right by confidence, in {len(bins)} bins that hold images",
        x="confidence",
        y="share right",
        caption="Reliability: on the dotted diagonal probabilities mean what they say; below it they are too sure.",
        x_range=(0.0, 1.0),
        y_range=(0.0, 1.0),
        diagonal=True,
    )


def mistakes(
    found: RunFacts, worst: Sequence[Mistake], pictures: Mapping[str, Pictures], root: Path | None
) -> Section | None:
    """Return the wrong answers that the network was surest of, with their pictures where the files are there."""
    metrics = found.metrics
    if metrics is None:
        return None
    heading = "Worst mistakes"
    if not found.predictions:
        return Section(heading, ["There is no predictions.csv in this run: customcnn evaluate writes it."])
    if not metrics["errors"]:
        return Section(heading, ["There are none: every image got its true class."])
    if not worst:
        return Section(heading, ["Left out, as asked for by --mistakes 0."])
    blocks: list[str] = [
        f"{_how_many(len(worst), metrics['errors'])} "
        "Look at them: a wrong label, a damaged image or a class of cells that the training lacks shows here."
    ]
    if pictures:
        if any(picture.overlay for picture in pictures.values()):
            blocks.append(
                "The second picture of each is its Grad-CAM: yellow marks what spoke for the wrong answer. It shows "
                "where the network looked, not why, and it is coarse."
            )
        else:
            blocks.append("This network has no feature maps, so there is no Grad-CAM.")
        cards = [_card(mistake, pictures[mistake.path]) for mistake in worst if mistake.path in pictures]
        blocks.append(group("gallery", *cards))
    missing = sum(mistake.path not in pictures for mistake in worst)
    if missing:
        where = f"not in {root}" if root else "not at hand"
        what = "The images are" if not pictures else f"{counted(missing, 'image')} of these could not be read or were"
        blocks.append(f"{what} {where}: give their folder as --data to see them here.")
    rows = [[m.path, m.label, m.predicted, figures(m.probability), m.group or "–"] for m in worst]
    header = ["image", "true class", "predicted", "probability", "group"]
    blocks.append(table(header, rows, "The same as a list; predictions.csv in the run has every image"))
    return Section(heading, blocks)


def _how_many(shown: int, errors: int) -> str:
    if shown < errors:
        return f"The {counted(shown, 'wrong answer')} that the network was surest of, of {errors:,}."
    return "The one wrong answer." if errors == 1 else f"All {errors:,} wrong answers, the surest first."


def _card(mistake: Mistake, pictures: Pictures) -> Html:
    images = [(pictures.image, f"{mistake.path}: {mistake.label}, taken for {mistake.predicted}")]
    if pictures.overlay:
        images.append((pictures.overlay, f"Grad-CAM of {mistake.path} for {mistake.predicted}"))
    shown = "".join(f'<img src="{data_uri(content, "jpeg")}" alt="{escape(alt)}">' for content, alt in images)
    words = (
        f"<strong>{escape(mistake.label)}</strong>, called <strong>{escape(mistake.predicted)}</strong> "
        f"with {mistake.probability:.1%}<small>{escape(mistake.path)}</small>"
    )
    return Html(f'<figure class="card"><div class="pair">{shown}</div><figcaption>{words}</figcaption></figure>')
