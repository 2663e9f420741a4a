"""The command that puts a network into other people's hands: serve."""

from pathlib import Path

import click

from customcnn.cli.data import FOLDER
from customcnn.cli.networks import device_option
from customcnn.cli.output import say
from customcnn.cli.results import runtime_option, weights_option


@click.command()
@click.argument("run", type=FOLDER)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="The address to listen at; 0.0.0.0 lets others in."
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=7860, show_default=True, help="0 takes one that is free."
)
@weights_option
@runtime_option
@click.option(
    "--max-size",
    type=click.FloatRange(min=0, min_open=True),
    default=20,
    show_default=True,
    metavar="MB",
    help="Of one image; a request may hold five times as much.",
)
@click.option("--max-files", type=click.IntRange(min=1), default=100, show_default=True, help="Images in one request.")
@click.option(
    "--rate",
    type=click.IntRange(min=0),
    metavar="N",
    help="Requests a minute and client; 0 for no limit.  [default: 0 on this machine's own address, else 600]",
)
@click.option("--examples", type=FOLDER, help="Example images for the page.  [default: drawn cells, if it knows such]")
@click.option("--no-page", is_flag=True, help="The web API alone.")
@device_option
def serve(
    run: Path,
    host: str,
    port: int,
    weights: str,
    runtime: str,
    max_size: float,
    max_files: int,
    rate: int | None,
    examples: Path | None,
    no_page: bool,
    device: str | None,
) -> None:
    """Serve a trained network to the browser and to programs, until Ctrl-C.

    The page at / takes one image or many, and shows class, probability, Grad-CAM and warnings. POST /predict answers
    programs in JSON, such as curl -F file=@cell.bmp http://127.0.0.1:7860/predict, and /docs says how. It listens on
    this machine only, asks nobody else, and keeps no image.

    It needs pip install 'customcnn[serve]'.

    \b
    Example: customcnn serve runs/proposed
    """
    from customcnn.runs.run_dir import RunDir
    from customcnn.serve import serve as run_server
    from customcnn.serve.limits import MB, Limits

    run_server(
        RunDir(run),
        host=host,
        port=port,
        weights=weights,
        runtime=runtime,
        device=device or "auto",
        limits=Limits.of(host, int(max_size * MB), max_files, rate),
        examples=examples,
        page=not no_page,
        say=say,
    )


COMMANDS = (serve,)
