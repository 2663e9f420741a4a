"""The command line: parse, call the library, print. No logic, and nothing heavy is imported before a command runs."""

import errno
import os
import re
import sys
from collections.abc import Collection, Sequence

import click

from customcnn import __version__
from customcnn.cli import (
    audit,
    calibrate,
    combine,
    compare,
    completion,
    data,
    demo,
    doctor,
    export,
    launch,
    leakage,
    networks,
    report,
    results,
    search,
    serve,
    study,
    visualize,
)
from customcnn.cli.output import colour, harmless
from customcnn.errors import CustomCNNError, is_out_of_memory, show
from customcnn.io.stdio import prepare_streams
from customcnn.progress import quietly


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="customcnn")
@click.option("--debug", is_flag=True, help="Show the traceback of an error; may stand anywhere in the line.")
@click.option(
    "-q",
    "--quiet",
    is_flag=True,
    help="No bars and no notes: only results, errors and warnings of leakage; may stand anywhere in the line.",
)
@click.pass_context
def cli(context: click.Context, debug: bool, quiet: bool) -> None:
    """Train small convolutional networks on folders of cell images, and say what their scores are worth.

    The way of the data: class folders, split, crop, augment, train, evaluate, visualize. Begin with

    \b
        customcnn demo
    """
    context.color = colour()


for command in (
    *data.COMMANDS,
    *audit.COMMANDS,
    *networks.COMMANDS,
    *launch.COMMANDS,
    *results.COMMANDS,
    *compare.COMMANDS,
    *calibrate.COMMANDS,
    *search.COMMANDS,
    *leakage.COMMANDS,
    *combine.COMMANDS,
    *study.COMMANDS,
    *demo.COMMANDS,
    *visualize.COMMANDS,
    *serve.COMMANDS,
    *export.COMMANDS,
    *report.COMMANDS,
    *doctor.COMMANDS,
    *completion.COMMANDS,
):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and end the process: 0 for success, 1 for an error, 2 for wrong usage, 130 for Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    prepare_streams()
    given, debug = _taken_out(given, "--debug")
    given, quiet = _taken_out(given, "-q", "--quiet")
    try:
        with quietly(quiet):
            sys.exit(cli.main(given, prog_name="customcnn", standalone_mode=False, obj=given) or 0)
    except click.Abort:
        message, status = "Stopped.", 130
        error: BaseException | None = None
    except click.ClickException as usage:
        usage.show()
        sys.exit(usage.exit_code)
    except Exception as caught:
        if debug:
            raise
        command = next((cli.commands[word] for word in given if word in cli.commands), cli)
        options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        message, status, error = f"Error: {fitted(explain(caught, options), options)}", 1, caught
    if isinstance(error, BrokenPipeError):
        # Whoever read our output has left, as `head` does. Python would complain once more while it closes the pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    else:
        click.secho(harmless(message), fg="red" if status == 1 else None, err=True, color=colour())
    sys.exit(status)


def _taken_out(words: list[str], *flags: str) -> tuple[list[str], bool]:
    """Return the words without the flags, and whether one was there; what stands behind a -- is none."""
    end = words.index("--") if "--" in words else len(words)
    kept = [word for word in words[:end] if word not in flags]
    return kept + words[end:], len(kept) < end


def fitted(message: str, options: Collection[str]) -> str:
    """Return an error of the library less the ways out that the command does not have, such as `or use --skip-bad`."""
    return re.sub(r",? or use (--[a-z-]+)(?=\.)", lambda way: way[0] if way[1] in options else "", message)


def explain(error: Exception, options: Collection[str] = ("--workers",)) -> str:
    """Return one line for any error: our own as it is, the system's with the file, anything else with its type.

    Args:
        error: that ended the command.
        options: that the command has.
    """
    if isinstance(error, CustomCNNError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        name = f" Received: {show(os.fsdecode(error.filename))}." if isinstance(error.filename, str | bytes) else ""
        where = "there" if name else "where it writes, also in the temporary folder (the variable TMPDIR)"
        way = (
            "Give a shorter name"
            if error.errno == errno.ENAMETOOLONG
            else f"Check the space and the permissions {where}"
        )
        return f"The system refused a file operation: {error.strerror}.{name} {way}."
    if is_out_of_memory(error):
        fewer = "Use fewer --workers, or for a network" if "--workers" in options else "Use"
        return f"Not enough memory. {fewer} a smaller batch_size or input_size."
    first = (str(error).strip().splitlines() or [""])[0]
    return f"Unexpected {type(error).__name__}: {first} (use --debug to see where, and report it)"
