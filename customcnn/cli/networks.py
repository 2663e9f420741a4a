"""Commands on networks: models, summary, train."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from customcnn.cli import completion
from customcnn.cli.cluster_options import FOLDER_OR_ADDRESS
from customcnn.cli.data import FOLDER, workers_option
from customcnn.cli.output import json_option, print_json, resumable, say, table
from customcnn.progress import terminal

if TYPE_CHECKING:
    from customcnn.io.remote_path import Folder
    from customcnn.recipe.recipe import Recipe
    from customcnn.training.train import TrainResult

device_option = click.option(
    "--device", type=click.Choice(["auto", "cpu", "gpu"]), help="Where to compute.  [default: auto]"
)
positive_option = click.option(
    "--positive",
    metavar="CLASS",
    help="Of two classes, the one that sensitivity is the recall of.  [default: the run's]",
)
model_option = click.option(
    "--model", shell_complete=completion.models, help="A name from customcnn models.  [default: proposed]"
)
settings_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    shell_complete=completion.settings,
    help="Set a key of the recipe; may be repeated.",
)
head_option = click.option("--head", help="What stands on a backbone: plain, transfer, dense128 or report.")
freeze_option = click.option(
    "--freeze",
    metavar="none|all|N|-N",
    help="Layers not trained: all before the head, the first N, or all but the last N.",
)
no_pack_option = click.option(
    "--no-pack",
    is_flag=True,
    help="Decode images anew whenever they are needed instead of once: slower, and needs no disk.",
)


@click.command()
@json_option
def models(as_json: bool) -> None:
    """List the networks.

    \b
    Example: customcnn models
    """
    from dataclasses import asdict

    from customcnn.models import list_models

    specs = list_models()
    if as_json:
        print_json([asdict(spec) for spec in specs])
        return
    rows = [("network", "input", "parameters")]
    rows += [(spec.name, f"{spec.input_size}x{spec.input_size}", f"{spec.parameters:,}") for spec in specs]
    heading, *lines = table(rows).splitlines()
    click.echo("\n".join([heading, *(f"{line}  {spec.title}" for line, spec in zip(lines, specs, strict=True))]))


@click.command()
@click.argument("model", shell_complete=completion.models)
@click.option("--classes", default=2, show_default=True, help="Number of classes.")
@click.option("--input-size", type=int, help="Edge of the input in pixels.  [default: the network's own]")
@head_option
@freeze_option
@json_option
def summary(
    model: str, classes: int, input_size: int | None, head: str | None, freeze: str | None, as_json: bool
) -> None:
    """Print one network, layer by layer.

    \b
    Example: customcnn summary proposed
             customcnn summary vgg19 --head transfer --freeze all
    """
    from customcnn.backend import devices
    from customcnn.models import build_model, get_spec
    from customcnn.models.summary import render_summary, summarize

    get_spec(model)
    devices.configure("cpu")
    options = {key: value for key, value in {"head": head, "freeze": freeze}.items() if value}
    found = summarize(build_model(model, classes=classes, input_size=input_size, **options))
    print_json(found) if as_json else click.echo(render_summary(found))


@click.command()
@click.argument("data", type=FOLDER_OR_ADDRESS)
@model_option
@click.option("--recipe", type=FOLDER, metavar="FILE", help="A recipe in TOML.  [default: the network's own]")
@settings_option
@head_option
@click.option("--weights", metavar="none|imagenet|FILE|RUN", help="What to begin with.  [default: none, at random]")
@freeze_option
@click.option("--epochs", type=int, help="How often every image is seen.")
@click.option("--batch-size", type=int, help="Images in a step.")
@click.option("--seed", type=int, help="Of the weights, the order of the images and dropout.")
@click.option("--precision", type=click.Choice(["auto", "float32", "bfloat16", "float16"]), help="Of the arithmetic.")
@device_option
@click.option(
    "--devices",
    default="1",
    show_default=True,
    metavar="N|all",
    help="So many devices of this machine share each batch; on TensorFlow or JAX.",
)
@click.option(
    "--hosts",
    metavar="HOST:PORT|env",
    help="Train with other processes, on this host or others, that give the same address: of rank 0.",
)
@click.option("--rank", type=int, help="Number of this process, from 0.  [default: by torchrun, Open MPI, Slurm, ...]")
@click.option("--world", type=int, help="How many processes there are.  [default: by torchrun, Open MPI, Slurm]")
@click.option("--tensorboard", is_flag=True, default=None, help="Write TensorBoard logs into the run.")
@click.option("--mlflow", flag_value="logs", help="Log to MLflow: into the run, or to MLFLOW_TRACKING_URI.")
@click.option("--out", type=FOLDER, metavar="RUN", help="The run directory.  [default: runs/MODEL]")
@click.option("--resume", is_flag=True, help="Go on with the run that is there, with its own recipe.")
@click.option("--replace", is_flag=True, help="Delete the run that is there.")
@json_option
@no_pack_option
@workers_option
def train(
    data: "Folder",
    recipe: Path | None,
    settings: tuple[str, ...],
    out: Path | None,
    resume: bool,
    replace: bool,
    as_json: bool,
    no_pack: bool,
    devices: str,
    hosts: str | None,
    rank: int | None,
    world: int | None,
    workers: int | None,
    **options: object,
) -> None:
    """Train a network on DATA/train and score it on DATA/validation after every epoch.

    \b
    Example: customcnn train augmented --model proposed --out runs/proposed
             customcnn train augmented --model small --set input_size=96 --epochs 5
             customcnn train augmented --model mobilenetv2 --weights imagenet --freeze all
             customcnn train augmented --hosts 10.0.0.5:7654 --rank 0 --world 2
    """
    from customcnn.backend.data_parallel import parse_devices
    from customcnn.backend.rank import find_rank
    from customcnn.data.manifest import scan, with_known_groups
    from customcnn.recipe.recipe import load_recipe
    from customcnn.runs.run_dir import RunDir
    from customcnn.training.train import train as run_training

    refuse_both(resume, replace)
    place = find_rank(hosts, rank, world)
    wanted = given(settings, options)
    chosen = load_recipe(recipe, wanted)
    run = RunDir(out or Path("runs") / chosen.model)
    if resume and place is None:
        run.require_begun()
    elif resume and place is not None and place.number == 0 and not run.exists():
        # A job that is started again may have written nothing yet.
        say(f"There is no run in {run.path} yet: the training begins.")
    if resume and run.exists():
        chosen = load_recipe(recipe, wanted, run.read_recipe())
    with resumable(run.recipe, resume):
        result = run_training(
            with_known_groups(scan(data)),
            run,
            chosen,
            resume=resume,
            replace_run=replace,
            no_pack=no_pack,
            replicas=parse_devices(devices),
            rank=place,
            workers=workers,
            progress=terminal,
            say=say,
            # A question goes where the JSON would.
            ask=click.confirm if sys.stdin.isatty() and sys.stdout.isatty() and not as_json else None,
        )
    if place is None or place.number == 0:
        print_training(result, chosen, as_json)


def given(settings: tuple[str, ...], options: Mapping[str, object]) -> dict[str, object]:
    """Return the recipe keys of --set and of the options that were given; an option counts more."""
    from customcnn.recipe.recipe import parse_settings

    return parse_settings(settings) | {key: value for key, value in options.items() if value is not None}


def refuse_both(resume: bool, replace: bool) -> None:
    """Refuse to go on with what is to be deleted, as wrong usage."""
    if resume and replace:
        raise click.UsageError("--resume and --replace exclude each other.")


def print_training(result: "TrainResult", recipe: "Recipe", as_json: bool, digits: int = 4) -> None:
    """Print what a training came to, and the warnings that its scores carry.

    Args:
        result: of the training.
        recipe: its recipe.
        as_json: whether to print JSON.
        digits: behind the point of the scores in the text.
    """
    from customcnn.recipe.monitor import kept_words

    best, epochs = result.best, len(result.history)
    if as_json:
        print_json(
            {
                "run": result.run.path,
                "model": recipe.model,
                "epochs": epochs,
                "monitor": recipe.monitor,
                "keep": recipe.keep,
                **best,
                "leakage": result.leakage.as_dict(),
                "notes": result.notes,
            }
        )
    else:
        scores = {key: value for key, value in best.items() if key not in ("epoch", "learning_rate")}
        told = ", ".join(f"{key} {value:.{digits}f}" for key, value in scores.items())
        click.echo(f"{kept_words(recipe, result.history)}: {told}")
        click.echo(f"Run: {result.run.path}")
    for note in result.notes:
        say(f"Warning: {note}")


COMMANDS = (models, summary, train)
