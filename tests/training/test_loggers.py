"""What MLflow is told of a training, read back by its own client; nothing of it leaves the machine on its own."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from customcnn.cli import cli
from customcnn.data.leakage import DRAWN
from customcnn.data.manifest import Manifest, scan
from customcnn.errors import CustomCNNError
from customcnn.evaluation.evaluate import evaluate
from customcnn.recipe.recipe import flat
from customcnn.runs.run_dir import RunDir
from customcnn.training import loggers
from customcnn.training.loggers import MlflowRun, log_end, log_epoch, log_scores
from customcnn.training.train import train
from tests.support.colors import paint, recipe
from tests.support.errors import refused

pytest.importorskip("mlflow")
pytest.importorskip("sqlalchemy")
pytest.importorskip("alembic")

LOGS = recipe(mlflow="logs", epochs=2)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Manifest:
    """Two classes, 16 images to train and 8 to validate on, said to be drawn."""
    sizes = {"train/all": 8, "train/hem": 8, "validation/all": 4, "validation/hem": 4}
    found = scan(paint(tmp_path_factory.mktemp("colors") / "data", sizes))
    return replace(found, records=tuple(replace(r, extra={"origin": "drawn"}) for r in found.records))


@pytest.fixture
def folder_store(monkeypatch, tmp_path) -> str:
    """Let MLflow write into folders, which is quick; its own default makes a database of sixty steps."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "store").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


@pytest.fixture
def own_store(monkeypatch) -> None:
    """Let the logs go into the run."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)


def read_back(uri: str, run: RunDir):
    """Return MLflow's client and the run, found by what the run directory says of it."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    return client, client.get_run(json.loads((run.mlflow / "run.json").read_text())["run_id"])


def history_of(client, logged) -> list[dict[str, float]]:
    """Return what MLflow has of every epoch, as history.csv has it."""
    rows: dict[int, dict[str, float]] = {}
    for key in logged.data.metrics:
        if "." not in key:
            for metric in client.get_metric_history(logged.info.run_id, key):
                assert key not in rows.setdefault(metric.step, {}), f"{key} of epoch {metric.step} was logged twice"
                rows[metric.step][key] = metric.value
    return [{"epoch": step, **rows[step]} for step in sorted(rows)]


def artifacts(client, logged) -> set[str]:
    return {file.path for file in client.list_artifacts(logged.info.run_id)}


# ---------------------------------------------------------------- what is logged


def test_a_training_and_its_resumption_are_one_run(data, folder_store, tmp_path):
    run = RunDir(tmp_path / "run")
    result = train(data, run, LOGS)
    client, logged = read_back(folder_store, run)
    assert logged.info.status == "FINISHED" and logged.info.run_name == "run"
    assert history_of(client, logged) == result.history == run.read_history()
    assert logged.data.params == {k: v if isinstance(v, str) else json.dumps(v) for k, v in flat(LOGS).items()}
    assert logged.data.params["epochs"] == "2" and logged.data.params["optimizer"] == "adam"
    assert logged.data.tags["mlflow.note.content"] == DRAWN
    assert client.get_experiment(logged.info.experiment_id).name == "customcnn"
    assert artifacts(client, logged) == {"recipe.toml", "environment.json", "history.csv", "curves.png"}
    local = client.download_artifacts(logged.info.run_id, "history.csv")
    assert Path(local).read_bytes() == run.history.read_bytes()

    more = train(data, run, replace(LOGS, epochs=3), resume=True)
    client, again = read_back(folder_store, run)
    assert again.info.run_id == logged.info.run_id
    assert history_of(client, again) == more.history and len(more.history) == 3
    assert again.data.tags["resumed.epochs"] == "3" and again.info.status == "FINISHED"


@pytest.mark.kill
def test_the_weights_only_where_they_are_asked_for(data, folder_store, tmp_path):
    run = RunDir(tmp_path / "run")
    train(data, run, replace(LOGS, mlflow="weights", epochs=1))
    client, logged = read_back(folder_store, run)
    assert "best.keras" in artifacts(client, logged)
    local = client.download_artifacts(logged.info.run_id, "best.keras")
    assert Path(local).read_bytes() == run.best.read_bytes()


@pytest.mark.kill
def test_a_training_that_was_not_logged_is_logged_from_its_first_epoch_on(data, folder_store, tmp_path):
    run = RunDir(tmp_path / "run")
    train(data, run, replace(LOGS, mlflow="none"))
    assert not run.mlflow.exists()
    result = train(data, run, LOGS, resume=True)  # nothing to train any more
    client, logged = read_back(folder_store, run)
    assert history_of(client, logged) == result.history and len(result.history) == 2
    assert "curves.png" in artifacts(client, logged)


@pytest.mark.kill
@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt, "KILLED"), (CustomCNNError, "FAILED")])
def test_a_training_that_broke_off(data, folder_store, tmp_path, error, status):
    run = RunDir(tmp_path / "run")

    def stop(line: str) -> None:
        if line.startswith("Epoch 1/"):
            raise error

    with pytest.raises(error):
        train(data, run, LOGS, say=stop)
    _, logged = read_back(folder_store, run)
    assert logged.info.status == status
    result = train(data, run, LOGS, resume=True)
    client, again = read_back(folder_store, run)
    assert again.info.run_id == logged.info.run_id and again.info.status == "FINISHED"
    assert history_of(client, again) == result.history


@pytest.mark.kill
def test_scores_of_an_evaluation(data, folder_store, tmp_path):
    run = RunDir(tmp_path / "run")
    train(data, run, replace(LOGS, epochs=1))
    metrics = evaluate(run, data, resamples=50).metrics
    log_scores(run, metrics, pytest.fail)
    client, logged = read_back(folder_store, run)
    found = logged.data.metrics
    assert found["validation.accuracy"] == metrics["accuracy"]["value"]
    assert found["validation.accuracy.low"] == metrics["accuracy"]["low"]
    assert "confusion.png" in artifacts(client, logged)
    assert logged.info.status == "FINISHED"


def test_scores_of_a_run_that_is_not_in_mlflow(tmp_path):
    log_scores(RunDir(tmp_path), {}, pytest.fail)
    assert not list(tmp_path.iterdir())


@pytest.mark.kill
def test_the_store_in_the_run(data, own_store, tmp_path):
    run = RunDir(tmp_path / "a run #1, &c.")
    result = train(data, run, LOGS)
    assert {path.name for path in tmp_path.iterdir()} == {run.path.name}
    assert {path.name for path in run.mlflow.iterdir()} == {"run.json", "mlflow.db", "artifacts"}
    client, logged = read_back(loggers._sqlite(run.mlflow / "mlflow.db"), run)
    assert history_of(client, logged) == result.history
    assert (run.mlflow / "artifacts" / logged.info.run_id / "artifacts" / "curves.png").is_file()

    moved = RunDir(run.path.rename(tmp_path / "moved"))
    more = train(data, moved, replace(LOGS, epochs=3), resume=True)
    assert {path.name for path in tmp_path.iterdir()} == {"moved"}, "nothing is written where the run was"
    client, again = read_back(loggers._sqlite(moved.mlflow / "mlflow.db"), moved)
    assert again.info.run_id != logged.info.run_id
    assert history_of(client, again) == more.history and len(more.history) == 3
    assert (moved.mlflow / "artifacts" / again.info.run_id / "artifacts" / "recipe.toml").is_file()


@pytest.mark.parametrize(("words", "value"), [([], None), (["--mlflow"], "logs")])
def test_the_option_of_the_command_line(words, value):
    assert cli.commands["train"].make_context("train", ["data", *words]).params["mlflow"] == value


# ---------------------------------------------------------------- what goes wrong


def test_mlflow_is_not_installed(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert refused(train, data, RunDir(tmp_path / "run"), LOGS) == (
        "mlflow=logs needs mlflow-skinny, sqlalchemy and alembic. Received: an environment without mlflow. "
        "Install customcnn[mlflow]."
    )
    assert not list(tmp_path.iterdir())


def test_no_server_answers(data, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://someone:secret@127.0.0.1:9/")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    message = refused(train, data, RunDir(tmp_path / "run"), LOGS)
    assert message.startswith("MLFLOW_TRACKING_URI names an MLflow server or store. Received: 'http://127.0.0.1:9/' (")
    assert message.endswith("Start it, or unset the variable to log into the run.")
    assert "secret" not in message
    assert not list(tmp_path.iterdir())


def test_a_server_that_is_away_for_an_epoch(monkeypatch, tmp_path):
    """The training goes on, and the next epoch brings what is missing."""
    taken: list[int] = []
    away = True

    class Client:
        def log_batch(self, run_id, metrics):
            if away:
                raise ConnectionError("no route\nto the host")
            taken.extend(sorted({metric.step for metric in metrics}))

    log = MlflowRun(RunDir(tmp_path), LOGS)
    log.client = Client()
    notes: list[str] = []
    rows = [{"epoch": float(number), "loss": 1 / number} for number in (1, 2)]
    log_epoch(log, rows[:1], notes.append)
    assert notes == ["Note: MLflow has not taken epoch 1 (no route)."]
    away = False
    log_epoch(log, rows, notes.append)
    log_epoch(log, rows, notes.append)
    assert taken == [1, 2] and len(notes) == 1


def test_what_fails_after_the_training_is_a_note(monkeypatch, tmp_path):
    notes: list[str] = []
    monkeypatch.setattr(MlflowRun, "open", lambda self: 1 / 0)
    log_end(RunDir(tmp_path), LOGS, [], notes.append)
    assert notes == ["Note: MLflow has not taken everything (division by zero). The run has it all."]


# ---------------------------------------------------------------- no telemetry


def test_no_telemetry():
    """In a process that MLflow does not take for a test or for CI, where it would be off anyhow."""
    code = """
import socket
from customcnn.training import loggers
socket.socket.connect = None  # whoever calls it fails
mlflow = loggers._load()
from mlflow.telemetry import client, utils
assert not utils._IS_IN_CI_ENV_OR_TESTING
assert utils.is_telemetry_disabled()
assert client.get_telemetry_client() is None
print("off")
"""
    marks = ("CI", "PYTEST", "GITHUB", "GITLAB", "JENKINS", "TRAVIS", "TF_BUILD", "BITBUCKET", "CODEBUILD", "BUILDKITE")
    marks += ("CIRCLECI", "TEAMCITY", "CLOUD_RUN", "RUN", "MLFLOW", "DO_NOT_TRACK")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(marks)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert (done.stdout, done.stderr) == ("off\n", "")


@pytest.mark.parametrize(
    ("uri", "plain"),
    [
        ("http://name:password@host:5000/x", "http://host:5000/x"),
        ("https://host/x?y=1", "https://host/x?y=1"),
        ("sqlite:////a/b.db", "sqlite:////a/b.db"),
    ],
)
def test_an_address_without_its_password(uri, plain):
    assert loggers._plain(uri) == plain
