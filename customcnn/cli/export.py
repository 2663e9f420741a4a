"""The command export: a trained network in the formats of other programs."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from customcnn.cli.data import FOLDER, read_data
from customcnn.cli.output import json_option, print_json, say
from customcnn.cli.results import weights_option
from customcnn.export import FORMATS, TOLERANCE

if TYPE_CHECKING:
    from customcnn.export import Written


@click.command()
@click.argument("run", type=FOLDER)
@click.option(
    "--format",
    type=click.Choice([row.name for row in FORMATS]),
    default="openvino",
    show_default=True,
    help="Of the file.",
)
@click.option(
    "--precision",
    type=click.Choice(list(TOLERANCE)),
    default="float32",
    show_default=True,
    help="Of the weights; int8 also of the values inside the network.",
)
@weights_option
@click.option(
    "--data",
    type=FOLDER,
    help="Images to check with, and to measure with for int8.  [default: those of the training, where they still are]",
)
@click.option("--no-check", is_flag=True, help="Do not compare the export with Keras.")
@json_option
def export(
    run: Path, format: str, precision: str, weights: str, data: Path | None, no_check: bool, as_json: bool
) -> None:
    """Write a trained network for another program: raw pixels in, probabilities out, the class names inside.

    The export is opened by that program and compared with Keras; one that says something else is not written. predict
    --runtime opens openvino, onnx and litert without Keras. After more training, export again: an old export is never
    used. What a format needs comes with pip install 'customcnn[openvino]', 'customcnn[onnx]' or 'customcnn[litert]'.

    \b
    Example: customcnn export runs/proposed
             customcnn export runs/proposed --format onnx --precision int8
             customcnn predict runs/proposed cell.bmp --runtime onnx
    """
    from customcnn.export import export as run_export
    from customcnn.runs.run_dir import RunDir

    images = None if data is None else read_data(data)
    written = run_export(
        RunDir(run), format=format, precision=precision, weights=weights, data=images, check=not no_check, say=say
    )
    if as_json:
        print_json(written.as_dict())
    else:
        click.echo(_text(written))


def _text(written: "Written") -> str:
    lines = [f"Export: {written.path}", f"Size: {written.size / 1e6:.1f} MB, {written.precision}"]
    if written.difference is not None:
        lines.append(
            f"Check: {written.images} images, {written.same} with the class that Keras gives; "
            f"largest difference of a probability {written.difference:.1g} (at most {written.tolerance})"
        )
    return "\n".join(lines)


COMMANDS = (export,)
