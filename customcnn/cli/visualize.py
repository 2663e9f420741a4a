"""The command that looks inside a network: visualize."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from customcnn.cli.data import FOLDER, groups_option, pattern_option, read_data, skip_bad_option, workers_option
from customcnn.cli.networks import device_option
from customcnn.cli.output import json_option, print_json
from customcnn.cli.results import weights_option
from customcnn.progress import terminal

if TYPE_CHECKING:
    from customcnn.data.manifest import Manifest

KINDS = ("activations", "filters", "gradcam", "gradcam++", "occlusion", "sanity", "exciting", "features", "diagram")
STYLES = ("range", "figure-21")
"""Those of `customcnn.visualize`, which is not imported before the command runs; a test holds them equal."""


@click.command()
@click.argument("run", type=FOLDER)
@click.argument("images", type=FOLDER, nargs=-1)
@click.option(
    "--what",
    multiple=True,
    type=click.Choice([*KINDS, "all"]),
    help="What to show; may be repeated.  [default: activations, filters, gradcam and diagram; with --data also "
    "exciting and features]",
)
@click.option("--gradcam", is_flag=True, help="The same as --what gradcam.")
@click.option("--layers", multiple=True, metavar="NAME", help="A layer, or a pattern such as 'conv*'; may be repeated.")
@click.option(
    "--style",
    type=click.Choice(STYLES),
    default=STYLES[0],
    show_default=True,
    help="Of activations: each map from its lowest to its highest value, or every layer as in the report's figure 21.",
)
@click.option("--class", "classes", multiple=True, metavar="NAME", help="A class to explain; may be repeated.")
@click.option("--data", type=FOLDER, help="Labelled images for exciting and features.")
@click.option(
    "--part", type=click.Choice(["train", "validation", "test"]), help="Of --data.  [default: test, or else validation]"
)
@click.option("--limit", default=600, show_default=True, help="So many images of --data at most, drawn evenly.")
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same pictures.")
@click.option("--umap", is_flag=True, help="Show features also by UMAP; needs pip install umap-learn.")
@pattern_option
@groups_option
@skip_bad_option
@weights_option
@click.option("--out", type=FOLDER, help="Where to write the pictures.  [default: RUN/activations]")
@click.option("--replace", is_flag=True, help="Write over --out; RUN/activations always is.")
@json_option
@device_option
@workers_option
def visualize(
    run: Path,
    images: tuple[Path, ...],
    what: tuple[str, ...],
    gradcam: bool,
    layers: tuple[str, ...],
    style: str,
    classes: tuple[str, ...],
    data: Path | None,
    part: str | None,
    limit: int,
    seed: int,
    umap: bool,
    group_pattern: str | None,
    groups: Path | None,
    skip_bad: bool,
    weights: str,
    out: Path | None,
    replace: bool,
    as_json: bool,
    device: str | None,
    workers: int | None,
) -> None:
    """Look inside a network: its architecture and filters, what its layers make of images, and where it looks.

    Pictures and one page. With --data also the images that excite filters most, and the features in two dimensions: do
    they tell the classes apart, or the subjects?

    \b
    Example: customcnn visualize runs/proposed cell.bmp
             customcnn visualize runs/proposed cell.bmp --what gradcam++ --what occlusion --layers 'conv*'
             customcnn visualize runs/proposed --data parts --group-pattern cnmc
    """
    if not images and data is None:
        raise click.UsageError("Name an image, or give --data.")
    from customcnn.runs.run_dir import RunDir
    from customcnn.visualize import Wanted, visualize_run
    from customcnn.visualize.run import ON_DATA

    kinds = [*what, *(["gradcam"] if gradcam else [])]
    if "all" in kinds:
        kinds = [kind for kind in KINDS if (images or kind in (*ON_DATA, "filters", "diagram"))]
        kinds = [kind for kind in kinds if data or kind != "features"]
    manifest: Manifest | None = None
    if data is not None:
        manifest = read_data(data, group_pattern, groups, skip_bad=skip_bad, workers=workers)
    page = visualize_run(
        RunDir(run),
        images,
        weights=weights,
        out=out,
        replace=replace,
        device=device or "auto",
        wanted=Wanted(kinds, layers, classes, manifest, part, limit, seed, umap, style),
        workers=workers,
        progress=terminal,
    )
    if as_json:
        print_json({"run": run, "page": page, "files": sorted(page.parent.rglob("*.png"))})
    else:
        click.echo(f"Page: {page}")


COMMANDS = (visualize,)
