"""Commands that go beyond one training: pretrain (before it) and ensemble (after several)."""

from pathlib import Path

import click

from customcnn.cli.data import FOLDER, workers_option
from customcnn.cli.networks import device_option, given, model_option, print_training, refuse_both, settings_option
from customcnn.cli.output import json_option, print_json, resumable, say, table
from customcnn.cli.results import weights_option
from customcnn.progress import terminal


@click.command()
@click.argument("data", type=FOLDER)
@model_option
@settings_option
@click.option("--epochs", type=int, help="How often every image is seen.  [default: 20]")
@click.option("--batch-size", type=int, help="Images in a step.")
@click.option("--seed", type=int, help="Of the weights and the order of the images.")
@click.option("--precision", type=click.Choice(["auto", "float32", "bfloat16", "float16"]), help="Of the arithmetic.")
@device_option
@click.option("--out", type=FOLDER, metavar="RUN", help="The run directory.  [default: runs/MODEL-autoencoder]")
@click.option("--resume", is_flag=True, help="Go on with the run that is there, with its own recipe.")
@click.option("--replace", is_flag=True, help="Delete the run that is there.")
@json_option
@workers_option
def pretrain(
    data: Path,
    settings: tuple[str, ...],
    out: Path | None,
    resume: bool,
    replace: bool,
    as_json: bool,
    workers: int | None,
    **options: object,
) -> None:
    """Train a network's convolutions as an auto-encoder on DATA/train: a start for customcnn train, without labels.

    \b
    Example: customcnn pretrain augmented --model proposed --out runs/start
             customcnn train augmented --model proposed --weights runs/start
    """
    from customcnn.data.manifest import scan, with_known_groups
    from customcnn.runs.run_dir import RunDir
    from customcnn.training.autoencoder import autoencoder_recipe
    from customcnn.training.autoencoder import pretrain as run_pretraining

    refuse_both(resume, replace)
    wanted = given(settings, options)
    recipe = autoencoder_recipe(wanted)
    run = RunDir(out or Path("runs") / f"{recipe.model}-autoencoder")
    if resume:
        run.require_begun()
    if resume and run.exists():
        recipe = autoencoder_recipe(wanted, run.read_recipe())
    with resumable(run.recipe, resume):
        result = run_pretraining(
            with_known_groups(scan(data)),
            run,
            recipe,
            resume=resume,
            replace_run=replace,
            workers=workers,
            progress=terminal,
            say=say,
        )
    print_training(result, recipe, as_json, digits=5)


@click.command()
@click.argument("runs", type=FOLDER, nargs=-1, required=True)
@click.option("--out", type=FOLDER, metavar="RUN", required=True, help="The run directory to make.")
@click.option(
    "--weigh",
    type=click.Choice(["validation", "equal"]),
    default="validation",
    show_default=True,
    help="By validation accuracy, or all equal.",
)
@weights_option
@click.option("--replace", is_flag=True, help="Delete the run that is there.")
@json_option
def ensemble(runs: tuple[Path, ...], out: Path, weigh: str, weights: str, replace: bool, as_json: bool) -> None:
    """Combine trained RUNS into one network: the weighted mean of their probabilities.

    evaluate, predict and visualize take the new run like any other.

    \b
    Example: customcnn ensemble runs/proposed runs/alexnet runs/small --out runs/together
             customcnn evaluate runs/together augmented
    """
    from customcnn.data.leakage import DRAWN
    from customcnn.runs.run_dir import RunDir
    from customcnn.training.ensemble import ensemble as combine

    members = combine([RunDir(run) for run in runs], RunDir(out), weigh=weigh, weights=weights, replace_run=replace)
    notes = [DRAWN] if any(member.info.drawn for member in members) else []
    if as_json:
        found = [member.row() | {"val_accuracy": member.accuracy} for member in members]
        print_json({"run": out, "members": found, "notes": notes})
    else:
        rows: list[list[object]] = [["run", "network", "epoch", "validation accuracy", "weight"]]
        for member in members:
            accuracy = "unknown" if member.accuracy is None else f"{member.accuracy:.4f}"
            info = member.info
            rows.append([member.run.path, info.model, info.epoch, accuracy, f"{member.weight:.4f}"])
        click.echo(table(rows))
        click.echo(f"Run: {out}")
    for note in notes:
        say(f"Warning: trained on drawn cells. {note}")


COMMANDS = (pretrain, ensemble)
