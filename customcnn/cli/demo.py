"""The demo: the whole way on drawn cells, printed as the commands that a user would type."""

import io
import json
import shlex
import sys
import time
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from customcnn.cli import completion
from customcnn.cli.data import FOLDER
from customcnn.cli.output import json_option, print_json, table
from customcnn.errors import CustomCNNError
from customcnn.progress import is_quiet

SPLITS = {"image": "by-image", "group": "by-subject"}


@dataclass(frozen=True)
class Plan:
    """How large the demo is.

    Attributes:
        subjects: of each class, to train and validate on.
        new_subjects: of each class, whom no network sees before the end.
        cells: of each subject.
        count: augmented training images.
        input_size: of the network, in pixels.
        epochs: of each training.
    """

    subjects: int = 8
    new_subjects: int = 8
    cells: int = 30
    count: int = 800
    input_size: int = 64
    epochs: int = 10


@click.command()
@click.argument("out", type=FOLDER, default="customcnn-demo")
@click.option(
    "--model",
    default="small",
    show_default=True,
    shell_complete=completion.models,
    help="Any network; proposed wants a GPU.",
)
@click.option("--epochs", type=int, help="Of each of the two trainings.  [default: 10]")
@click.option("--input-size", type=int, help="Of the network, in pixels.  [default: 64 for small, else its own]")
@click.option("--replace", is_flag=True, help="Write over an earlier demo.")
@json_option
@click.pass_context
def demo(
    context: click.Context,
    out: Path,
    model: str,
    epochs: int | None,
    input_size: int | None,
    replace: bool,
    as_json: bool,
) -> None:
    """Draw cells, split, crop, augment, train, evaluate and visualize them in OUT: minutes on two cores.

    It ends with the table that teaches the point: the same network, split by image and split by subject, each scored on
    its own validation part and on cells of new subjects. The cells are drawn: the scores say nothing about leukemia.

    \b
    Example: customcnn demo
    """
    from customcnn.io.atomic import refuse_non_empty
    from customcnn.models import get_spec

    spec = get_spec(model)
    plan = Plan()
    plan = Plan(
        epochs=plan.epochs if epochs is None else epochs,
        input_size=input_size or (plan.input_size if model == "small" else spec.input_size),
    )
    began = time.monotonic()
    if replace:
        _clear(out)
    refuse_non_empty(out, False)
    out.mkdir(parents=True, exist_ok=True)
    with _apart(as_json):
        for line in commands(out, model, plan):
            click.secho(f"\n$ customcnn {shlex.join(line)}", bold=True)
            context.find_root().command.main(line, prog_name="customcnn", standalone_mode=False)
    rows, details = results(out)
    _write_page(out, rows, details, commands(out, model, plan))
    page, seconds = out / "index.html", time.monotonic() - began
    if as_json:
        print_json({"folder": out, "page": page, "seconds": round(seconds, 1), **_as_dict(out, details)})
        return
    click.echo(f"\n{table(rows)}\n\n{LESSON}\n")
    click.echo(f"Pictures and results: {page}  ({seconds:.0f} s in all)")


def _apart(as_json: bool) -> AbstractContextManager[object]:
    """Lead what the commands print away from the result of the demo itself, where that is to stand alone."""
    if is_quiet():
        return redirect_stdout(io.StringIO())
    return redirect_stdout(sys.stderr) if as_json else nullcontext()


def _as_dict(out: Path, details: dict[str, Any]) -> dict[str, Any]:
    from customcnn.data.leakage import DRAWN

    runs = [
        {
            "run": out / f"{name}-run",
            "split": by,
            "accuracy": details[name][0]["accuracy"],
            "new_subjects": details[name][1]["accuracy"],
            "leakage": details[name][0]["leakage"],
        }
        for by, name in SPLITS.items()
    ]
    return {"runs": runs, "notes": [DRAWN]}


LESSON = (
    "Both rows are the same network on the same cells. In the first, cells of one subject stand on both sides of the\n"
    "split, so its validation score also counts what the network knows of the subjects. The new subjects were never\n"
    "seen by either: the difference is the price of the leak. Drawn cells, not patients: no score here says anything\n"
    "about leukemia."
)


def commands(out: Path, model: str, plan: Plan) -> list[list[str]]:
    """Return the demo's commands, each as its arguments."""
    subjects, new, cropped = out / "cells", out / "new-cells", out / "new-cropped"
    train: list[object] = ["train", "--model", model, "--epochs", plan.epochs]
    train += ["--set", f"input_size={plan.input_size}"]
    lines: list[list[object]] = [
        ["samples", subjects, "--subjects", plan.subjects, "--cells", plan.cells],
        ["samples", new, "--subjects", plan.new_subjects, "--cells", plan.cells, "--first-subject", plan.subjects + 1],
        ["crop", new, cropped, "--size", 400],
    ]
    for by, name in SPLITS.items():
        parts, crops, augmented, run = (out / f"{name}{step}" for step in ("", "-cropped", "-augmented", "-run"))
        lines += [
            ["split", subjects, parts, "--ratio", 0.8, "--by", by, "--group-pattern", "cnmc"],
            ["audit", parts],
            ["crop", parts, crops, "--size", 400],
            ["augment", crops, augmented, "--count", plan.count],
            [*train, augmented, "--out", run],
            ["evaluate", run, augmented, "--no-report"],
            ["evaluate", run, cropped, "--out", run / "new-subjects"],
            ["report", run],
        ]
    cell = cropped / "all" / f"UID_{plan.subjects + 1}_1_1_all.bmp"
    run = out / f"{SPLITS['group']}-run"
    lines += [["predict", run, cell], ["visualize", run, cell]]
    return [[str(word) for word in line] for line in lines]


def results(out: Path) -> tuple[list[list[str]], dict[str, Any]]:
    """Read the scores of the two runs: the table's rows, heading first, and the metrics by run and data."""
    rows = [["accuracy (95 % interval)", "its own validation part", "new subjects", "difference"]]
    details: dict[str, Any] = {}
    for by, name in SPLITS.items():
        run = out / f"{name}-run"
        found = [json.loads((folder / "metrics.json").read_text()) for folder in (run, run / "new-subjects")]
        details[name] = found
        own, new = (metrics["accuracy"] for metrics in found)
        mark = " inflated" if found[0]["leakage"]["warning"] else ""
        rows.append(
            [
                f"split by {'subject' if by == 'group' else by}",
                f"{_score(own)}{mark}",
                _score(new),
                f"{own['value'] - new['value']:+.3f}",
            ]
        )
    return rows, details


def _score(value: dict[str, float]) -> str:
    return f"{value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f})"


def _clear(out: Path) -> None:
    import shutil

    if out.is_dir() and any(out.iterdir()):
        if not (out / "cells" / "manifest.csv").is_file():
            raise CustomCNNError(f"--replace deletes a demo only. Received: {out}, which is none. Choose another OUT.")
        shutil.rmtree(out)


def _write_page(out: Path, rows: list[list[str]], details: dict[str, Any], lines: list[list[str]]) -> None:
    from customcnn.data.leakage import DRAWN
    from customcnn.html.page import Html, Section, beside, figure, page, preformatted
    from customcnn.html.page import table as html_table
    from customcnn.io.atomic import write_text
    from customcnn.metrics.scores import format_report

    sections = [Section("The same network, split two ways", [html_table(rows[0], rows[1:]), LESSON.replace("\n", " ")])]
    for name, (own, new) in details.items():
        run = f"{name}-run"
        pictures = beside(
            *(
                figure(f"{folder}/confusion.png", f"Confusion matrix of {name}: {caption}", caption, width=420)
                for folder, caption in ((run, "Validation part"), (f"{run}/new-subjects", "New subjects"))
            )
        )
        report = Html(f'<p><a href="{run}/report.html">Everything about this run on one page</a></p>')
        sections.append(
            Section(
                f"Split {name.replace('-', ' ')}",
                [
                    figure(f"{run}/curves.png", f"Loss and accuracy of {name} over the epochs", "Training"),
                    pictures,
                    report,
                    preformatted(f"Validation part\n\n{format_report(own)}\n\nNew subjects\n\n{format_report(new)}"),
                ],
            )
        )
    link = f"{SPLITS['group']}-run/activations/index.html"
    sections.append(Section("Inside the network", [Html(f'<p><a href="{link}">Activation maps of one cell</a></p>')]))
    shown = "\n".join(f"customcnn {shlex.join(line)}" for line in lines)
    sections.append(Section("The commands", [preformatted(shown)]))
    write_text(out / "index.html", page("customcnn demo", sections, [DRAWN]))


COMMANDS = (demo,)
