"""Commands on runs: evaluate, predict."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from customcnn.cli.data import FOLDER, groups_option, pattern_option, read_data, skip_bad_option, workers_option
from customcnn.cli.networks import device_option, no_pack_option, positive_option
from customcnn.cli.output import GROUPS_UNKNOWN, json_option, note_line, print_csv, print_json, say, say_skipped
from customcnn.inference.runtimes import NAMES
from customcnn.progress import terminal

if TYPE_CHECKING:
    from customcnn.inference.predictions import Predictions

weights_option = click.option(
    "--weights",
    type=click.Choice(["best", "last"]),
    default="best",
    show_default=True,
    help="Those of the best epoch or of the last.",
)

runtime_option = click.option(
    "--runtime",
    type=click.Choice(["auto", "keras", *NAMES]),
    default="auto",
    show_default=True,
    help="What computes: auto is openvino where customcnn export made its file from these weights, else keras.",
)


@click.command()
@click.argument("run", type=FOLDER)
@click.argument("data", type=FOLDER)
@click.option("--part", type=click.Choice(["train", "validation", "test"]), help="[default: test, or else validation]")
@weights_option
@click.option("--out", type=FOLDER, help="Where to write the results.  [default: the run]")
@click.option("--resamples", default=2000, show_default=True, help="Of the bootstrap behind the intervals.")
@click.option("--tta", is_flag=True, help="Take the mean over the eight turns and mirror images of each image.")
@click.option(
    "--strata", multiple=True, metavar="COLUMN", help="Score each value of a manifest column apart; may be repeated."
)
@click.option(
    "--threshold",
    "rule",
    metavar="RULE",
    help="Of two classes, chosen on the validation split: youden, sensitivity>=X or specificity>=X.  [default: youden]",
)
@positive_option
@click.option("--clinical", is_flag=True, help="Print the clinical reading and the calibration, too.")
@click.option("--no-report", is_flag=True, help="Leave report.html and model-card.md as they are.")
@pattern_option
@groups_option
@json_option
@skip_bad_option
@device_option
@no_pack_option
@workers_option
def evaluate(
    run: Path,
    data: Path,
    part: str | None,
    weights: str,
    out: Path | None,
    resamples: int,
    tta: bool,
    strata: tuple[str, ...],
    rule: str | None,
    positive: str | None,
    clinical: bool,
    no_report: bool,
    group_pattern: str | None,
    groups: Path | None,
    as_json: bool,
    skip_bad: bool,
    device: str | None,
    no_pack: bool,
    workers: int | None,
) -> None:
    """Score a trained network on one part of DATA, or on all of it where it is not split.

    Writes predictions.csv, metrics.json, their pictures, report.html and model-card.md; with --out no report.

    \b
    Example: customcnn evaluate runs/proposed augmented
             customcnn evaluate runs/proposed parts --part test --tta --clinical
    """
    from customcnn.evaluation.evaluate import evaluate as run_evaluation
    from customcnn.metrics.calibration import format_calibration
    from customcnn.metrics.clinical_text import format_clinical
    from customcnn.metrics.scores import format_report
    from customcnn.report.run_facts import CHOSEN_HERE
    from customcnn.runs.run_dir import RunDir
    from customcnn.training.loggers import log_scores

    result = run_evaluation(
        RunDir(run),
        read_data(data, group_pattern, groups, skip_bad=skip_bad, workers=workers),
        part=part,
        weights=weights,
        out=out,
        resamples=resamples,
        tta=tta,
        strata=strata,
        rule=rule,
        positive=positive,
        device=device or "auto",
        no_pack=no_pack,
        workers=workers,
        progress=terminal,
        say=say,
    )
    if as_json:
        print_json(result.metrics)
    else:
        click.echo(format_report(result.metrics))
        if clinical or strata:
            click.echo(f"\n{format_clinical(result.metrics['clinical'])}")
        if clinical:
            click.echo(f"\n{format_calibration(result.metrics['calibration'])}")
    if out is None and not no_report:
        from customcnn.report import write_report

        write_report(RunDir(run), data=data, device=device or "auto", say=say)
    if out is None:
        log_scores(RunDir(run), result.metrics, say)
    if result.metrics["chosen_on_this_part"]:
        say(note_line(CHOSEN_HERE))
    elif result.metrics["part"] == "validation" and result.metrics["weights"] == "best":
        say("Note: this part has not chosen the epoch that was kept.")
    if result.metrics["calibrated_on_this_part"]:
        say("Note: the temperature was fitted on this part; the calibration says little here.")
    if not result.leakage.groups_known:
        say(GROUPS_UNKNOWN)
    for note in result.notes:
        say(f"Warning: {note}")


@click.command()
@click.argument("run", type=FOLDER)
@click.argument("images", type=FOLDER, nargs=-1, required=True)
@click.option(
    "--format", type=click.Choice(["text", "csv", "json"]), default="text", show_default=True, help="Of the output."
)
@click.option("--json", "format", flag_value="json", help="The same as --format json.")
@weights_option
@runtime_option
@click.option(
    "--tta", is_flag=True, help="The mean over the turns and mirror images of each image: eight times slower."
)
@skip_bad_option
@device_option
@workers_option
def predict(
    run: Path,
    images: tuple[Path, ...],
    format: str,
    weights: str,
    runtime: str,
    tta: bool,
    skip_bad: bool,
    device: str | None,
    workers: int | None,
) -> None:
    """Predict the class of image files, or of all images in a folder.

    A network from customcnn calibrate also says where it is not sure, and what does not look like its images. A damaged
    image is named, the others are answered all the same, and the status is 1, or 0 with --skip-bad.

    \b
    Example: customcnn predict runs/proposed cell.bmp
             customcnn predict runs/proposed cells/ --format csv --skip-bad
    """
    from customcnn.data.leakage import DRAWN
    from customcnn.images.decode import bad_images
    from customcnn.inference.classifier import predict as run_prediction
    from customcnn.runs.run_dir import RunDir
    from customcnn.runs.saved_model import read_info

    found = run_prediction(
        RunDir(run),
        images,
        weights=weights,
        runtime=runtime,
        tta=tta,
        skip_bad=True,
        device=device or "auto",
        workers=workers,
        progress=terminal,
        say=say,
    )
    if found:
        _print(found, format)
        if read_info(RunDir(run).weights(weights)).drawn:
            say(f"Warning: trained on drawn cells. {DRAWN}")
    if found.skipped and not (found and skip_bad):
        raise bad_images(found.skipped, answered=len(found))
    say_skipped(found.skipped)


def _print(found: "Predictions", format: str) -> None:
    if format == "json":
        skipped = [{"path": path, "reason": reason} for path, reason in found.skipped]
        predictions = [prediction.as_dict() for prediction in found]
        print_json({"predictions": predictions, **({"skipped": skipped} if skipped else {})})
    elif format == "csv":
        print_csv(found.to_csv())
    else:
        click.echo(found)


COMMANDS = (evaluate, predict)
