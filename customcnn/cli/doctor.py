"""The command on the machine: doctor."""

import json

import click


@click.command()
@click.option("--model", default="small", show_default=True, help="The network whose training step is measured.")
@click.option("--no-measure", is_flag=True, help="Leave the measurement out.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def doctor(model: str, no_measure: bool, as_json: bool) -> None:
    """Say what this machine is, what customcnn does on it and why, and how fast one training step is.

    \b
    Example: customcnn doctor
             customcnn doctor --model proposed
    """
    from dataclasses import asdict

    from customcnn.doctor import examine, format_report

    report = examine(model, measure_speed=not no_measure)
    click.echo(json.dumps(asdict(report), indent=2) if as_json else format_report(report))


COMMANDS = (doctor,)
