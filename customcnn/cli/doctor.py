"""The command on the machine: doctor."""

import click

from customcnn.cli import completion
from customcnn.cli.output import json_option, print_json


@click.command()
@click.option(
    "--model",
    default="small",
    show_default=True,
    shell_complete=completion.models,
    help="The network whose training step is measured.",
)
@click.option("--no-measure", is_flag=True, help="Leave the measurements out.")
@json_option
def doctor(model: str, no_measure: bool, as_json: bool) -> None:
    """Say what this machine is, what customcnn does on it and why, and how fast one training step is.

    It tries which precisions each device computes, and whether they are faster there than float32.

    \b
    Example: customcnn doctor
             customcnn doctor --model proposed
    """
    from dataclasses import asdict

    from customcnn.doctor import examine, format_report

    report = examine(model, measure_speed=not no_measure)
    print_json(asdict(report)) if as_json else click.echo(format_report(report))


COMMANDS = (doctor,)
