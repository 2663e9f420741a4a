"""The report of a run: one page that needs nothing from elsewhere, and the model card beside it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from customcnn.errors import CustomCNNError, show
from customcnn.html.page import page
from customcnn.io.atomic import write_text
from customcnn.report import prediction_sections, run_sections
from customcnn.report.mistakes import Mistake, Pictures, picture_all, worst
from customcnn.report.model_card import model_card
from customcnn.report.positive import with_positive
from customcnn.report.run_facts import NOT_MEDICAL, RunFacts, read_facts
from customcnn.runs.run_dir import RunDir


@dataclass(frozen=True)
class Report:
    """What `write_report` wrote, and the notes on it: the warnings, then the remarks, which are also apart."""

    page: Path
    model_card: Path
    notes: list[str]
    remarks: list[str]


def write_report(
    run: RunDir,
    *,
    data: Path | None = None,
    out: Path | None = None,
    mistakes: int = 12,
    positive: str | None = None,
    device: str = "auto",
    say: Callable[[str], object] = lambda line: None,
) -> Report:
    """Write report.html and model-card.md from what a run holds.

    The same files give the same page: nothing in it depends on when it is made.

    Args:
        run: a trained classifier or an ensemble, scored or not.
        data: the folder whose images were scored, for the pictures of mistakes; None for the one in metrics.json, if it
            is still there.
        out: of the page; None for report.html in the run. The model card is always in the run.
        mistakes: how many wrong answers to show; 0 for none.
        positive: of two classes the one that sensitivity is the recall of; None for that of the scores. Of another one
            the figures are computed anew from predictions.csv, and there is no threshold: that is chosen by evaluate.
        device: "auto", "cpu" or "gpu", for the Grad-CAM of the mistakes.
        say: receives the notes about images that are no longer there, and about the threshold.

    Raises:
        CustomCNNError: no trained classifier; a positive class that is none of two; a file of the run is damaged;
            `data` or the folder of `out` is missing.
    """
    if data is not None and not data.is_dir():
        raise CustomCNNError(f"--data names the folder of the scored images. Received: {show(data)}. Check its name.")
    target = out or run.report
    if target.is_dir() or not target.resolve().parent.is_dir():
        raise CustomCNNError(f"--out names a file in a folder that exists. Received: {show(target)}. Choose another.")
    found = read_facts(run)
    if positive and positive != found.positive:
        found = with_positive(found, positive, say)
    shown = worst(found.predictions, mistakes)
    root = data or (Path(found.data) if found.data else None)
    weights = str((found.metrics or {}).get("weights", "best"))
    pictures = picture_all(run, shown, root, weights=weights, device=device) if root else {}
    if shown and not pictures:
        say(f"Note: the images are not in {show(root or '')}, so the mistakes have no pictures. Give --data.")
    write_text(target, report_page(found, shown, pictures, root))
    write_text(run.model_card, model_card(found))
    return Report(target, run.model_card, found.notes, found.remarks)


def report_page(found: RunFacts, worst: list[Mistake], pictures: dict[str, Pictures], root: Path | None) -> str:
    """Return the page."""
    parts = [
        run_sections.scores(found),
        prediction_sections.clinical(found),
        prediction_sections.calibration(found),
        prediction_sections.mistakes(found, worst, pictures, root),
        run_sections.data(found),
        run_sections.split(found),
        run_sections.training(found),
        run_sections.environment(found),
        run_sections.again(found),
    ]
    title = f"Report: {found.info.model}, {found.run.path.resolve().name}"
    lead = run_sections.lead(found)
    return page(title, [part for part in parts if part], found.notes, lead=lead, footer=NOT_MEDICAL)
