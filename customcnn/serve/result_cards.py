"""What the page shows of its answers: one card an image, a line that sums up, the table as CSV."""

import io
from base64 import b64encode
from collections import Counter
from collections.abc import Sequence

import numpy as np
from PIL import Image

from customcnn.explain.gradcam import overlay
from customcnn.html.page import Html, data_uri, escape
from customcnn.inference.decision import Prediction
from customcnn.inference.predictions import as_row
from customcnn.runs.run_dir import rows_to_csv
from customcnn.runs.saved_model import ModelInfo
from customcnn.serve.service import Answer

WAITING = Html('<div class="cc-wait" aria-hidden="true"></div>')
CSV_NAME = "predictions.csv"


def results(answers: Sequence[Answer], maps: Sequence[np.ndarray | None], expected: int, limit: float | None) -> str:
    """Return the results as markup.

    Args:
        answers: one an image.
        maps: the Grad-CAM of the first of them, as far as they are there; None where there is none.
        expected: of how many images a Grad-CAM is drawn.
        limit: of the novelty; None where that is not known.
    """
    if not answers:
        return str(notice("The images are no longer here. Drop them again."))
    cards = []
    for place, answer in enumerate(answers):
        heat = maps[place] if place < len(maps) else None
        cards.append(card(answer, heat, place >= len(maps) and place < expected, limit))
    left = sum(answer.prediction is not None for answer in answers[expected:])
    more = f'<p class="cc-faint">Grad-CAM is drawn for the first {expected} images.</p>' if left else ""
    return f'<div role="status">{summary(answers)}</div>{more}<div class="cc-cards">{"".join(cards)}</div>'


def notice(text: str) -> Html:
    """Return a line that stands where results would."""
    return Html(f'<p class="cc-faint" role="status">{escape(text)}</p>')


def summary(answers: Sequence[Answer]) -> Html:
    """Return how many images were given which class, and the link to the table."""
    good = [answer.prediction for answer in answers if answer.prediction]
    counts = Counter(_called(prediction) for prediction in good)
    parts = [f"{count:,} {name}" for name, count in sorted(counts.items())]
    bad = len(answers) - len(good)
    parts += [f"{bad:,} could not be read"] if bad else []
    novel = sum(bool(prediction.novel) for prediction in good)
    strange = f"; {novel:,} unlike the training images" if novel else ""
    many = f"{len(answers):,} image{'s' * (len(answers) != 1)}"
    table = b64encode(csv_table(answers).encode("utf-8", "backslashreplace")).decode("ascii")
    link = f'<a class="cc-csv" download="{CSV_NAME}" href="data:text/csv;charset=utf-8;base64,{table}">Save as CSV</a>'
    return Html(f'<p class="cc-sum"><span><b>{many}:</b> {escape(", ".join(parts) + strange)}</span> {link}</p>')


def _called(prediction: Prediction) -> str:
    return "not sure" if prediction.sure is False else prediction.label


def card(answer: Answer, heat: np.ndarray | None, waiting: bool, limit: float | None) -> Html:
    """Return one image's card: the image and its Grad-CAM, the class or "not sure", the probabilities, the warnings.

    Args:
        answer: what is said.
        heat: its Grad-CAM, float (h, w), 0..1; None for none.
        waiting: whether that is still to come.
        limit: of the novelty.
    """
    name = f'<h3 class="cc-name">{escape(answer.name)}</h3>'
    found = answer.prediction
    if found is None:
        return Html(f'<article class="cc-card">{name}<p class="cc-bad">{escape(answer.error)}</p></article>')
    pictures = _pictures(answer, heat, waiting)
    lines = "".join(_bar(label, value, label == found.label) for label, value in found.probabilities.items())
    other = f'<p class="cc-warn">{escape(answer.warning)}</p>' if answer.warning else ""
    words = f"{_verdict(found)}{_novel(found, limit)}{other}"
    return Html(f'<article class="cc-card">{pictures}{name}{words}<dl class="cc-bars">{lines}</dl></article>')


def _pictures(answer: Answer, heat: np.ndarray | None, waiting: bool) -> str:
    if answer.shown is None or answer.prediction is None:
        return ""
    image = _figure(answer.shown, f"Image {answer.name}", "Image")
    label = answer.prediction.label
    if waiting:
        beside = f"<figure>{WAITING}<figcaption>Grad-CAM …</figcaption></figure>"
    elif heat is None:
        return f'<div class="cc-pair cc-one">{image}</div>'
    else:
        laid = overlay(answer.shown, heat)
        beside = _figure(laid, f"Grad-CAM of {answer.name} for {label}", f"Grad-CAM: what speaks for {label}")
    return f'<div class="cc-pair">{image}{beside}</div>'


def _figure(pixels: np.ndarray, alt: str, caption: str) -> str:
    address = data_uri(_jpeg(pixels), "jpeg")
    return f'<figure><img src="{address}" alt="{escape(alt)}"><figcaption>{escape(caption)}</figcaption></figure>'


def _jpeg(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=88, subsampling=0)
    return buffer.getvalue()


def _verdict(found: Prediction) -> str:
    share = found.probabilities[found.label]
    if found.sure is False:
        which = " or ".join(found.classes or ()) or "no class fits"
        return f'<p class="cc-class cc-unsure">not sure <small>{escape(which)}</small></p>'
    doubtful = " cc-doubtful" if found.novel else ""
    return f'<p class="cc-class{doubtful}">{escape(found.label)} <small>{share:.1%}</small></p>'


def _novel(found: Prediction, limit: float | None) -> str:
    if not found.novel:
        return ""
    beyond = "" if limit is None else f" of at most {limit:.1f}"
    return (
        '<p class="cc-warn">Does not look like the images that the network knows: its answer means nothing here. '
        f"<small>Novelty {found.novelty:.1f}{beyond}</small></p>"
    )


def _bar(label: str, value: float, chosen: bool) -> str:
    kind = ' class="cc-chosen"' if chosen else ""
    return (
        f'<div{kind}><dt>{escape(label)}</dt><dd><span class="cc-track" aria-hidden="true">'
        f'<span style="width:{value:.1%}"></span></span><span class="cc-number">{value:.3f}</span></dd></div>'
    )


def csv_table(answers: Sequence[Answer]) -> str:
    """Return the predictions as CSV, the columns as those of `customcnn predict --format csv`.

    Where an image could not be read there is one column more, `error`, and its other cells are empty.
    """
    rows = [as_row(answer.prediction) if answer.prediction else {"file": answer.name} for answer in answers]
    if any(answer.error for answer in answers):
        rows = [{**row, "error": answer.error} for row, answer in zip(rows, answers, strict=True)]
    columns = max(rows, key=len)
    return rows_to_csv([{column: row.get(column, "") for column in columns} for row in rows])


def heading(info: ModelInfo, run: str, warnings: Sequence[str], report: bool) -> str:
    """Return the top of the page: what this is, and what it is worth.

    Args:
        info: of the network.
        run: its name.
        warnings: what belongs beside every answer.
        report: whether there is a report to link to.
    """
    link = '<a href="/report" target="_blank" rel="noopener">Report of the run</a> · ' if report else ""
    names = " or ".join(map(str, map(escape, info.classes)))
    notes = "".join(f"<li>{escape(note)}</li>" for note in warnings)
    banner = f'<aside class="cc-warn" aria-label="Warnings"><ul>{notes}</ul></aside>' if notes else ""
    return (
        f'<header class="cc-head"><h1>Which class has this cell: {names}?</h1>'
        f"<p>The network <b>{escape(info.model)}</b> from <b>{escape(run)}</b> looks at images of single cells. "
        f"{escape(_calibrated(info))} {link}"
        f'<a href="/docs" target="_blank" rel="noopener">For programs</a></p>{banner}</header>'
    )


def _calibrated(info: ModelInfo) -> str:
    if not info.calibration:
        return "It is not calibrated: its probabilities may be too sure, and it answers for anything."
    if info.calibration.get("sets"):
        return "Its probabilities are calibrated, and it says where it is not sure."
    return "Its probabilities are calibrated."
