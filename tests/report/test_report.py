"""The report of a run and its model card: what stands on them, for every kind of run, and that they are safe."""

import csv
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from customcnn.cli import cli
from customcnn.data.leakage import DRAWN
from customcnn.data.manifest import scan
from customcnn.data.split import check_files
from customcnn.errors import CustomCNNError
from customcnn.evaluation.evaluate import evaluate
from customcnn.metrics.clinical import clinical
from customcnn.report import write_report
from customcnn.report.mistakes import worst
from customcnn.report.model_card import text as markdown
from customcnn.report.prediction_sections import calibration_state
from customcnn.report.run_facts import CHOSEN_HERE, NO_GROUPS, NOT_MEDICAL, RunFacts, read_facts
from customcnn.runs.run_dir import RunDir
from customcnn.runs.saved_model import load_model, save_model
from customcnn.training.ensemble import ensemble
from customcnn.training.train import train
from tests.support.colors import paint, recipe
from tests.support.commands import error_line
from tests.support.reports import CLASSES, HOSTILE, LONG, half_wrong, hostile_run, read_more, rows_of


class Reader(HTMLParser):
    """What a page holds: headings, addresses, pictures and tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.headings: list[tuple[int, str]] = []
        self.addresses: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.tags: list[str] = []
        self._inside = 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append(tag)
        self.addresses += [values[key] for key in ("src", "href", "action", "data", "poster") if key in values]
        if tag == "img":
            self.images.append(values)
        if re.fullmatch("h[1-6]", tag):
            self._inside = int(tag[1])
            self.headings.append((self._inside, ""))

    def handle_endtag(self, tag):
        if re.fullmatch("h[1-6]", tag):
            self._inside = 0

    def handle_data(self, data):
        if self._inside:
            self.headings[-1] = (self._inside, self.headings[-1][1] + data)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def trained(home) -> Path:
    """A run of two classes, scored on its test part, half of which is painted wrong."""
    data = paint(home / "data", {"train/all": 16, "train/hem": 16, "validation/all": 6, "validation/hem": 6})
    half_wrong(data / "test", ("all", "hem"), 12)
    run = RunDir(home / "run")
    manifest = check_files(scan(data))[0]
    train(manifest, run, recipe(epochs=3))
    evaluate(run, manifest, resamples=100)
    return run.path


@pytest.fixture(scope="module")
def hostile(home) -> Path:
    """A run of four classes with names that must be escaped, with clinical results and calibration."""
    return hostile_run(home / "hostile").path


@pytest.fixture
def run(trained, tmp_path) -> RunDir:
    """A copy of the first run that a test may change."""
    reports = shutil.ignore_patterns("report.html", "model-card.md")
    return RunDir(Path(shutil.copytree(trained, tmp_path / "run", ignore=reports)))


def change(run: RunDir, **values) -> None:
    run.metrics.write_text(json.dumps(json.loads(run.metrics.read_text()) | values))


def page_of(run: RunDir, **options) -> str:
    return write_report(run, **options).page.read_text("utf-8")


def require_safe(text: str) -> Reader:
    """Hold that a page fetches nothing, runs nothing, and can be read by machines for who cannot see."""
    reader = Reader(text)
    assert all(address.startswith(("#", "data:image/")) for address in reader.addresses)
    assert not {"script", "link", "iframe", "object", "embed", "form"} & set(reader.tags)
    assert "url(" not in text and "@import" not in text and not re.search(r"<[^>]*\son\w+\s*=", text)
    assert all(image["alt"] for image in reader.images)
    levels = [level for level, _ in reader.headings]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert text.count("<table") == text.count("<caption>")
    anchors = [address[1:] for address in reader.addresses if address.startswith("#")]
    assert all(f'id="{anchor}"' in text for anchor in anchors)
    return reader


# ---------------------------------------------------------------- what stands on the page


def test_the_page_of_a_scored_run(trained):
    run = RunDir(trained)
    report = write_report(run)
    assert (report.page, report.model_card) == (run.report, run.model_card)
    text = run.report.read_text("utf-8")
    reader = require_safe(text)
    parts = [heading for level, heading in reader.headings if level == 2]
    wanted = ["Worst mistakes", "Data", "Split and leakage", "Training", "Environment", "Make it again"]
    assert parts == ["Scores", "Clinical reading", "Calibration", *wanted]
    metrics = json.loads(run.metrics.read_text())
    accuracy = metrics["accuracy"]
    assert f'<span class="value">{accuracy["value"]:.3f}</span>' in text
    assert f"{accuracy['low']:.3f} to {accuracy['high']:.3f}" in text
    assert text.index(NO_GROUPS) < text.index('class="value"') < text.index("<h2")
    assert "on the test part of" in text and f"{metrics['images']} images, {metrics['errors']} errors" in text
    assert run.recipe.read_text().splitlines()[1] in text
    assert "Loss by epoch" in text and "Accuracy by epoch" in text
    assert NOT_MEDICAL in text.partition("<footer>")[2]


def test_the_same_files_give_the_same_page(run):
    first = write_report(run)
    before = (first.page.read_bytes(), first.model_card.read_bytes())
    second = write_report(run)
    assert before == (second.page.read_bytes(), second.model_card.read_bytes())


def test_mistakes_come_with_picture_and_grad_cam(trained, tmp_path):
    run = RunDir(trained)
    errors = json.loads(run.metrics.read_text())["errors"]
    assert errors >= 5
    text = page_of(run, mistakes=4, out=tmp_path / "four.html")
    reader = require_safe(text)
    assert len(reader.images) == 8
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in reader.images)
    names = [mistake.path for mistake in worst(rows_of(run), 4)]
    assert [image["alt"].partition(":")[0] for image in reader.images[::2]] == names
    assert f"The 4 wrong answers that the network was surest of, of {errors}." in text
    none = page_of(run, mistakes=0, out=tmp_path / "none.html")
    assert "--mistakes 0" in none and "<img" not in none


def test_images_that_are_gone_are_told_of(run, home, tmp_path):
    change(run, data=str(tmp_path / "gone"))
    said: list[str] = []
    text = page_of(run, say=said.append)
    require_safe(text)
    assert "<img" not in text and "give their folder as --data" in text
    assert len(said) == 1 and said[0].startswith("Note: the images are not in")
    assert worst(rows_of(run), 1)[0].path in text
    assert "<img" in page_of(run, data=home / "data")


def test_an_image_that_became_unreadable_is_left_out(run, home, tmp_path):
    data = Path(shutil.copytree(home / "data", tmp_path / "data"))
    first, second = (mistake.path for mistake in worst(rows_of(run), 2))
    (data / first).write_bytes(b"no image")
    text = page_of(run, data=data, mistakes=2)
    assert text.count("<img") == 2 and "1 image of these could not be read" in text
    assert f'alt="{second}: ' in text


def test_no_picture_comes_from_outside_of_the_data(run, home):
    rows = rows_of(run)
    outside = [str(home / "data" / rows[0]["path"]), f"../data/{rows[0]['path']}"]
    with run.predictions.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({**rows[0], "path": path, "predicted": "hem", "label": "all"} for path in outside)
    assert all((home / "data" / path).is_file() for path in outside)
    text = page_of(run, data=home / "data")
    assert "<img" not in text and outside[0] in text


def test_the_worst_mistakes_by_hand():
    rows = [
        {"path": path, "label": label, "predicted": predicted, "probability_a": a, "probability_b": b}
        for path, label, predicted, a, b in [
            ("right", "a", "a", "1", "0"),
            ("second-z", "a", "b", ".1", ".9"),
            ("third", "b", "a", ".6", ".4"),
            ("second-a", "a", "b", ".1", ".9"),
            ("first", "b", "a", ".99", ".01"),
        ]
    ]
    assert [mistake.path for mistake in worst(rows, 9)] == ["first", "second-a", "second-z", "third"]
    assert [mistake.probability for mistake in worst(rows, 2)] == [0.99, 0.9]


def test_warnings_stand_first(run):
    warning = "Inflated by leakage: 6 of 12 <test> images."
    change(run, notes=[warning, DRAWN], chosen_on_this_part=True)
    text = page_of(run)
    head = text.partition("<nav")[0]
    assert "Inflated by leakage: 6 of 12 &lt;test&gt; images." in head and DRAWN in head and CHOSEN_HERE in head
    card = run.model_card.read_text()
    assert "> **Warning.** Inflated by leakage: 6 of 12 \\<test\\> images." in card


def test_leakage_in_the_runs_own_split_is_told_in_its_place(run):
    with run.manifest.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with run.manifest.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(row | {"group": "one"} for row in rows)
    text = page_of(run)
    section = text.partition('id="split-and-leakage"')[2].partition("<h2")[0]
    assert "12 of 12 validation images belong to 1 group that the network was trained on" in section
    assert "12 of 12 validation images belong to 1 group" in run.model_card.read_text()


def test_further_evaluations_stand_beside(run):
    (run.path / "elsewhere").mkdir()
    metrics = json.loads(run.metrics.read_text()) | {"data": "other <cells>", "part": "given"}
    (run.path / "elsewhere" / "metrics.json").write_text(json.dumps(metrics))
    text = page_of(run)
    assert "On other data" in text and "other &lt;cells&gt;" in text and "elsewhere" in text
    assert "`other <cells>`" in run.model_card.read_text()


# ---------------------------------------------------------------- what a full evaluation adds


def test_curves_thresholds_subjects_and_calibration(run, home):
    groups = [row["label"] + Path(row["path"]).name[:2] for row in rows_of(run)]
    groups[0] = groups[-1]  # one group of both classes
    metrics = read_more(run, groups, threshold=0.4)
    text = page_of(run)
    reader = require_safe(text)
    assert [heading for level, heading in reader.headings if level == 2][:3] == [
        "Scores",
        "Clinical reading",
        "Calibration",
    ]
    area = metrics["clinical"]["curves"]["all"]["roc"]["area"]
    assert f"all: area {area['value']:.3f} ({area['low']:.3f} to {area['high']:.3f})" in text
    for words in (
        "Decision curve",
        "Sensitivity at a fixed specificity",
        "A threshold chosen beforehand",
        "By subject",
    ):
        assert words in text
    assert "Results by site" in text and "north" in text
    assert "Left out: 1 group with images of more than one class." in text
    assert "T = 1.250" in text and "T = 1.250" in run.model_card.read_text()
    assert f"{metrics['calibration']['ece']['value']:.3f}" in text and "Reliability by bin" in text


def test_what_a_calibrated_network_says_of_itself(run):
    found = read_facts(run)
    sets = {"method": "lac", "coverage": 0.9, "quantile": 0.5, "unit": "group", "images": 9, "groups": 3}
    stored = {"temperature": 2.0, "part": "validation", "images": 9, "groups": 3, "sets": sets, "novelty": {"limit": 1}}
    since = replace(found, info=replace(found.info, calibration=stored))
    lines = calibration_state(since)
    assert "since it was scored" in lines[0] and "90% of images of new groups" in lines[1] and len(lines) == 3
    scored = replace(since, metrics={**(found.metrics or {}), "calibration": {"temperature": 2.0}})
    assert "T = 2.000, fitted on 9 images of the validation part" in calibration_state(scored)[0]
    assert calibration_state(found) == ["The probabilities are the network's own: no temperature was fitted."]
    assert scored.commands()[1].startswith("customcnn calibrate") and "--part validation" in scored.commands()[1]


def test_results_with_nothing_in_them_leave_their_parts_out(run):
    empty = {
        "curves": {},
        "sensitivity_at": {},
        "threshold": None,
        "decision_curve": None,
        "subjects": None,
        "strata": {},
    }
    change(run, clinical=empty, calibration={"ece": {"value": None, "low": None, "high": None}, "reliability": []})
    text = page_of(run)
    assert "Clinical reading" not in text and "undefined" in text
    change(run, clinical={**empty, "threshold": {"value": 0.3, "rule": "given", "chosen_on": "x", "sensitivity": 0.5}})
    assert "0.500" in page_of(run).partition("A threshold chosen beforehand")[2].partition("</table>")[0]


def test_pictures_stand_in_where_the_numbers_are_missing(run):
    change(run, clinical=None, calibration=None)
    for path in run.path.glob("*.png"):
        path.unlink()
    Image.new("RGB", (4, 4)).save(run.path / "roc.png")
    Image.new("RGB", (4, 4)).save(run.path / "reliability.png")
    reader = require_safe(page_of(run, mistakes=0))
    assert [image["alt"] for image in reader.images] == ["ROC curve", "Reliability diagram"]


# ---------------------------------------------------------------- every kind of run


def test_names_that_must_be_escaped(hostile):
    run = RunDir(hostile)
    text = page_of(run)
    require_safe(text)
    assert "&lt;script&gt;alert(1)&lt;" in text and "<script" not in text
    assert LONG in text and "a | b &amp; `c`" in text
    card = run.model_card.read_text()
    assert HOSTILE not in re.sub(r"`[^`]*`", "", card) and "\\<script\\>" in card
    header = next(line for line in card.splitlines() if line.startswith("| part"))
    assert len(re.findall(r"(?<!\\)\|", header)) == len(CLASSES) + 4


def test_a_run_without_scores_names_the_command(run):
    for path in (run.metrics, run.predictions):
        path.unlink()
    text = page_of(run)
    reader = require_safe(text)
    assert f"customcnn evaluate {run.path} DATA" in text and "has not been scored yet" in text
    assert "Scores" not in [heading for _, heading in reader.headings]
    assert f"    customcnn evaluate {run.path} DATA" in run.model_card.read_text()


def test_an_ensemble_has_members_and_no_curves(trained, home, tmp_path):
    other = RunDir(tmp_path / "other")
    data = scan(home / "data")
    train(data, other, recipe(model="one-conv", seed=2))
    run = RunDir(tmp_path / "together")
    ensemble([RunDir(trained), other], run)
    evaluate(run, data, resamples=50)
    text = page_of(run, mistakes=2)
    reader = require_safe(text)
    assert "An ensemble is not trained" in text and str(trained) in text and "by epoch" not in text
    assert len(reader.images) == 4, "the mean of the members' Grad-CAM"
    assert "an ensemble of: small" in run.model_card.read_text()


def test_an_autoencoder_is_refused_in_one_line(run, tmp_path):
    path = run.best
    facts = read_facts(run)
    save_model(load_model(path), replace(facts.info, classes=[], positive=""), path)
    with pytest.raises(CustomCNNError, match="an auto-encoder") as error:
        write_report(run)
    assert "\n" not in str(error.value)
    assert not run.report.exists() and not run.model_card.exists()


def test_thousands_of_images_make_a_small_page(run):
    metrics = json.loads(run.metrics.read_text())
    rng = np.random.default_rng(0)
    shares = rng.random(5000)
    rows = [
        {
            "path": f"test/all/{number}.png",
            "label": "all",
            "group": f"g{number % 900}",
            "predicted": "hem" if share > 0.5 else "all",
            "probability_all": 1 - share,
            "probability_hem": share,
        }
        for number, share in enumerate(shares.tolist())
    ]
    with run.predictions.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    labels = (rng.random(5000) < shares).astype(int)
    found = clinical(labels, np.column_stack([1 - shares, shares]), ["all", "hem"], resamples=20)
    run.metrics.write_text(json.dumps(metrics | {"images": 5000, "errors": 2500, "clinical": found}))
    text = page_of(run)
    require_safe(text)
    assert len(text) < 1_000_000


# ---------------------------------------------------------------- the model card


def test_the_card_has_every_part(trained):
    run = RunDir(trained)
    write_report(run)
    card = run.model_card.read_text()
    wanted = ["Model details", "Intended use", "Out of scope", "Data", "Evaluation", "Leakage and limits"]
    wanted += ["Calibration", "Ethical considerations", "How to reproduce"]
    assert re.findall(r"^## (.+)$", card, re.M) == wanted
    assert card.startswith("# Model card: small, run\n\n**Not a medical device")
    metrics = json.loads(run.metrics.read_text())
    row = metrics["roc_auc"]
    assert f"| ROC AUC | {row['value']:.3f} | {row['low']:.3f} to {row['high']:.3f} |" in card
    assert "| train | 16 | 16 | 32 | not known |" in card
    assert "no temperature was fitted" in card.partition("## Calibration")[2]


def test_the_card_of_a_run_without_calibration(run):
    change(run, calibration=None)
    write_report(run)
    assert "Not measured" in run.model_card.read_text().partition("## Calibration")[2]


def test_markdown_is_escaped():
    assert markdown("a_b *c* <d> |e| `f` [g]") == "a\\_b \\*c\\* \\<d\\> \\|e\\| \\`f\\` \\[g\\]"
    assert "\n" not in markdown("two\nlines")


# ---------------------------------------------------------------- commands and errors


def facts_with(run: RunDir, command: list[str]) -> RunFacts:
    return replace(read_facts(run), environment={"command": command})


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (["/opt/bin/customcnn", "train", "a b", "--epochs", "3"], "customcnn train 'a b' --epochs 3"),
        (["/lib/customcnn/__main__.py", "train", "x"], "python -m customcnn train x"),
        (["lesson.py"], "lesson.py"),
        ([], ""),
    ],
)
def test_the_command_that_made_a_run(run, command, shown):
    assert facts_with(run, command).made_by == shown


def test_the_commands_that_make_it_again_can_be_parsed(run):
    import shlex

    commands = facts_with(run, ["customcnn", "train", str(run.path / "data")]).commands()
    assert [shlex.split(line)[1] for line in commands] == ["train", "evaluate", "report"]
    for line in commands:
        _, name, *words = shlex.split(line)
        cli.commands[name].make_context(name, words)


def test_the_options_of_the_evaluation_are_in_the_commands(run):
    threshold = {"value": 0.5, "rule": "sensitivity>=0.95"}
    change(run, tta=True, weights="last", clinical={"threshold": threshold, "strata": {"fold": []}})
    line = read_facts(run).commands()[1]
    for words in ("--part test", "--weights last", "--tta", "--strata fold", "--threshold 'sensitivity>=0.95'"):
        assert words in line
    assert "--resamples 100" in line


def test_another_positive_class_from_the_predictions(run, home):
    before = json.loads(run.metrics.read_text())
    assert before["positive"] == "all" and before["clinical"]["threshold"]
    lines = []
    text = page_of(run, data=home / "data", mistakes=0, positive="hem", say=lines.append)
    assert lines == [
        "Note: the threshold was chosen for the other class; evaluate with the same --positive to choose one."
    ]
    assert "Sensitivity (recall of hem)" in text and "recall of all" in text and "chosen beforehand" not in text
    assert "--positive hem" in text, "the command that makes it again"
    card = run.model_card.read_text()
    assert "positive class: hem" in card and "sensitivity (recall of hem)" in card
    assert json.loads(run.metrics.read_text()) == before, "the scores of the run stay"
    manifest = check_files(scan(home / "data"))[0]
    evaluate(run, manifest, resamples=100, positive="hem")
    assert page_of(run, data=home / "data", mistakes=0).count("recall of hem") >= text.count("recall of hem")
    with pytest.raises(CustomCNNError, match="A positive class is one of two classes"):
        write_report(run, positive="blast")


def test_the_command(run, home):
    result = CliRunner().invoke(cli, ["report", str(run.path), "--data", str(home / "data"), "--mistakes", "1"])
    assert result.exit_code == 0, result.output
    assert f"Page: {run.report}\nModel card: {run.model_card}\n" in result.output
    assert "Note: no group labels given, so leakage cannot be checked." in result.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--data", "no-such-folder"],
            "--data names the folder of the scored images. Received: 'no-such-folder'.",
        ),
        (["--out", "."], "--out names a file in a folder that exists. Received: '.'."),
        (["--out", "no/such/page.html"], "--out names a file in a folder that exists."),
    ],
)
def test_what_cannot_be_done_is_one_line(run, options, message, shell):
    assert error_line(*shell("report", run.path, *options)).startswith(message)
    assert not run.report.exists()


@pytest.mark.parametrize("content", ["{", "[]", '{"images": 3}', "\udcff"])
def test_damaged_scores_are_one_line(run, content):
    run.metrics.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(CustomCNNError, match=r"metrics\.json") as error:
        write_report(run)
    assert "\n" not in str(error.value) and not run.report.exists()


def test_a_run_is_needed(tmp_path):
    with pytest.raises(CustomCNNError, match="A run is a folder made by customcnn train"):
        write_report(RunDir(tmp_path))
