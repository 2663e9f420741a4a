"""Commands on runs: evaluate, predict, export, visualize."""

import csv
import io
import json
from dataclasses import asdict
from pathlib import Path

import click

from customcnn.cli.data import FOLDER, groups_option, pattern_option, read_data, skip_bad_option, workers_option
from customcnn.cli.networks import device_option, no_pack_option
from customcnn.cli.show import GROUPS_UNKNOWN, say
from customcnn.progress import terminal

weights_option = click.option(
    "--weights",
    type=click.Choice(["best", "last"]),
    default="best",
    show_default=True,
    help="Those of the best epoch or of the last.",
)


@click.command()
@click.argument("run", type=FOLDER)
@click.argument("data", type=FOLDER)
@click.option("--part", type=click.Choice(["train", "validation", "test"]), help="[default: test, or else validation]")
@weights_option
@click.option("--out", type=FOLDER, help="Where to write the results.  [default: the run]")
@click.option("--resamples", default=2000, show_default=True, help="Of the bootstrap behind the intervals.")
@pattern_option
@groups_option
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
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
    group_pattern: str | None,
    groups: Path | None,
    as_json: bool,
    skip_bad: bool,
    device: str | None,
    no_pack: bool,
    workers: int | None,
) -> None:
    """Score a trained network on one part of DATA, or on all of it where it is not split.

    Writes predictions.csv, metrics.json, confusion.png and curves.png.

    \b
    Example: customcnn evaluate runs/proposed augmented
    """
    from customcnn.evaluate import evaluate as run_evaluation
    from customcnn.metrics import format_report
    from customcnn.runs import RunDir

    result = run_evaluation(
        RunDir(run),
        read_data(data, group_pattern, groups, skip_bad=skip_bad),
        part=part,
        weights=weights,
        out=out,
        resamples=resamples,
        device=device or "auto",
        no_pack=no_pack,
        workers=workers,
        progress=terminal,
        say=say,
    )
    click.echo(json.dumps(result.metrics, indent=2) if as_json else format_report(result.metrics))
    if result.metrics["chosen_on_this_part"]:
        say("Note: the best epoch was chosen by its score on this part; a test part would be free of that choice.")
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
@click.option(
    "--runtime",
    type=click.Choice(["auto", "keras", "openvino"]),
    default="auto",
    show_default=True,
    help="What computes: auto is openvino where customcnn export made its file from these weights.",
)
@device_option
@workers_option
def predict(
    run: Path,
    images: tuple[Path, ...],
    format: str,
    weights: str,
    runtime: str,
    device: str | None,
    workers: int | None,
) -> None:
    """Predict the class of image files, or of all images in a folder.

    \b
    Example: customcnn predict runs/proposed cell.bmp
    """
    from customcnn.leakage import DRAWN
    from customcnn.predict import predict as run_prediction
    from customcnn.runs import RunDir, read_info, rows_to_csv

    found = run_prediction(
        RunDir(run),
        images,
        weights=weights,
        runtime=runtime,
        device=device or "auto",
        workers=workers,
        progress=terminal,
        say=say,
    )
    if format == "json":
        click.echo(json.dumps({"predictions": [asdict(prediction) for prediction in found]}, indent=2))
    elif format == "csv":
        rows = [
            {"file": p.file, "label": p.label, **{f"probability_{k}": v for k, v in p.probabilities.items()}}
            for p in found
        ]
        click.echo(rows_to_csv(rows), nl=False)
    else:
        for prediction in found:
            shares = "  ".join(f"{_field(label)} {value:.3f}" for label, value in prediction.probabilities.items())
            click.echo(f"{_field(prediction.file)}  {_field(prediction.label)}  ({shares})")
    if read_info(RunDir(run).weights(weights)).drawn:
        say(f"Warning: trained on drawn cells. {DRAWN}")


def _field(name: str) -> str:
    # As the CSV would quote it, so that a name with a newline stays on its line.
    from customcnn.errors import show

    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow([name])
    return text.getvalue() if name.isprintable() else show(name)


@click.command()
@click.argument("run", type=FOLDER)
@click.option("--format", type=click.Choice(["openvino"]), default="openvino", show_default=True, help="Of the file.")
@weights_option
def export(run: Path, format: str, weights: str) -> None:
    """Write a trained network for OpenVINO: predict then starts and computes several times faster, without Keras.

    It needs pip install 'customcnn[openvino]'. After more training, export again: an old export is never used.

    \b
    Example: customcnn export runs/proposed
             customcnn predict runs/proposed cell.bmp
    """
    from customcnn.export import export as run_export
    from customcnn.runs import RunDir

    path = run_export(RunDir(run), format=format, weights=weights)
    click.echo(f"Export: {path}")


@click.command()
@click.argument("run", type=FOLDER)
@click.argument("images", type=FOLDER, nargs=-1, required=True)
@weights_option
@click.option("--out", type=FOLDER, help="Where to write the pictures.  [default: RUN/activations]")
@device_option
def visualize(run: Path, images: tuple[Path, ...], weights: str, out: Path | None, device: str | None) -> None:
    """Show what every convolution and pooling layer makes of an image: tiled activation maps and an index page.

    \b
    Example: customcnn visualize runs/proposed cell.bmp
    """
    from customcnn.runs import RunDir
    from customcnn.visualize import visualize_run

    page = visualize_run(RunDir(run), images, weights=weights, out=out, device=device or "auto", progress=terminal)
    click.echo(f"Page: {page}")


COMMANDS = (evaluate, predict, export, visualize)
