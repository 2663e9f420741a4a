"""python -m benchmarks GOAL: one command a goal, each in a module of this folder that has a click command `main`."""

from importlib import import_module

import click

GOALS = {
    "train": "one training step on the CPU",
    "train-gpu": "training on a GPU, with the images on the card",
    "epoch": "whole epochs beside their steps, validation, checkpoints",
    "pack": "decoding once, and reading shuffled batches",
    "augment": "turned and flipped images, on the disk and in memory",
    "scale": "time and memory of each command as the number of files grows",
    "predict": "inference, and the start of customcnn predict",
    "serve": "a server with many clients beside Keras alone",
    "cluster": "augmenting and packing by Ray, and from and to S3",
    "export": "every export of a run: size, difference from Keras, speed",
}


class Goals(click.Group):
    """Load a goal's module only when it is asked for: the peers are heavy."""

    def list_commands(self, context: click.Context) -> list[str]:
        """Return the goals whose module is there."""
        return list(GOALS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Return the command of a goal."""
        if name not in GOALS:
            return None
        command = import_module(f"benchmarks.{name.replace('-', '_')}").main
        command.short_help = GOALS[name]
        return command


@click.group(cls=Goals)
def cli() -> None:
    """Race customcnn against its named peers. docs/performance.md tells what was found."""


if __name__ == "__main__":
    cli(prog_name="python -m benchmarks")
