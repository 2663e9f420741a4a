"""Logs of a training for other programs: MLflow here, TensorBoard by Keras; history.csv comes from the callbacks."""

import json
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from customcnn.data.leakage import run_notes
from customcnn.errors import CustomCNNError, show
from customcnn.io.atomic import write_text
from customcnn.metrics.scores import HEADLINES
from customcnn.recipe.recipe import Recipe, flat
from customcnn.runs.run_dir import RunDir

STATE, STORE, ARTIFACTS = "run.json", "mlflow.db", "artifacts"
"""In the run's folder mlflow: which run of MLflow it is, and unless MLFLOW_TRACKING_URI is set, MLflow's own files."""

EXPERIMENT = "customcnn"
BATCH = 100  # epochs in a call: MLflow takes a thousand numbers in one

SETTINGS = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # its own 7 would hold a training up for minutes after every epoch
}
"""What MLflow is told by environment variables, where the user has not set them."""

Say = Callable[[str], object]


def _load() -> Any:
    """Import MLflow, with its telemetry off and quiet."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # before the import, which would start it
    for key, value in SETTINGS.items():
        os.environ.setdefault(key, value)
    try:
        import alembic  # noqa: F401  MLflow's store in a file needs both, and mlflow-skinny does not install them
        import mlflow
        import sqlalchemy  # noqa: F401
    except ImportError as error:
        raise CustomCNNError(
            "mlflow=logs needs mlflow-skinny, sqlalchemy and alembic. "
            f"Received: an environment without {error.name}. Install customcnn[mlflow]."
        ) from None
    return mlflow


def require(recipe: Recipe) -> None:
    """Refuse before a training the logs that could not be written.

    Raises:
        CustomCNNError: TensorBoard or MLflow is not installed, or nothing answers at MLFLOW_TRACKING_URI.
    """
    if recipe.tensorboard:
        try:
            import tensorboard  # noqa: F401
        except ImportError:
            raise CustomCNNError(
                "tensorboard=true needs the tensorboard package. Received: none. Install customcnn[tensorboard]."
            ) from None
    if recipe.mlflow != "none":
        _require_mlflow()


def _require_mlflow() -> None:
    mlflow, uri = _load(), _tracking_uri()
    if uri is None:
        return
    try:
        mlflow.MlflowClient(uri).search_experiments(max_results=1)
    except Exception as error:  # MLflow's own, of requests, of SQLAlchemy
        raise CustomCNNError(
            "MLFLOW_TRACKING_URI names an MLflow server or store. "
            f"Received: {show(_plain(uri))} ({_first_line(error)}). "
            "Start it, or unset the variable to log into the run."
        ) from None


class MlflowRun:
    """The run of MLflow that belongs to a run directory: begun once, and gone on with when the training is.

    Args:
        run: the run directory.
        recipe: of the training.

    Attributes:
        sent: the last epoch that MLflow has.
    """

    def __init__(self, run: RunDir, recipe: Recipe) -> None:
        self.run, self.recipe, self.sent = run, recipe, 0
        self.uri = _tracking_uri()
        self.client: Any = None
        self.id = ""

    @property
    def state(self) -> Path:
        """The file that names the run of MLflow."""
        return self.run.mlflow / STATE

    def open(self, *, going: bool = True) -> bool:
        """Begin the run of MLflow, or find the one of an earlier call.

        Args:
            going: mark a run that is found as running again.

        Returns:
            Whether it was begun.

        Raises:
            CustomCNNError: MLflow refuses.
        """
        mlflow = _load()
        self.run.mlflow.mkdir(parents=True, exist_ok=True)
        try:
            self.client = mlflow.MlflowClient(self.uri or _sqlite(self.run.mlflow / STORE))
            self.id = self._found(going)
            begun = not self.id
            if begun:
                self.id = self._begun()
        except Exception as error:
            self.client = None
            raise CustomCNNError(
                f"MLflow takes a run. Received: {_first_line(error)}. "
                "See what it needs, or train without --mlflow: --set mlflow=none."
            ) from None
        return begun

    def send(self, history: Sequence[Mapping[str, float]]) -> None:
        """Log the epochs that MLflow does not have yet, each under its number as the step."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        missing = [row for row in history if row["epoch"] > self.sent]
        for start in range(0, len(missing), BATCH):
            rows = missing[start : start + BATCH]
            metrics = [
                Metric(key, float(value), now, int(row["epoch"]))
                for row in rows
                for key, value in row.items()
                if key != "epoch"
            ]
            self.client.log_batch(self.id, metrics=metrics)
            self.sent = int(rows[-1]["epoch"])

    def send_files(self) -> None:
        """Log recipe.toml, environment.json, history.csv and the pictures; the best network where the recipe asks so.

        The manifest stays here: it names patients.
        """
        run = self.run
        files = [run.recipe, run.environment, run.history, *sorted(run.path.glob("*.png"))]
        if self.recipe.mlflow == "weights":
            files.append(run.best)
        for file in files:
            if file.is_file():
                self.client.log_artifact(self.id, str(file))

    def end(self, status: str) -> None:
        """Set the status: "FINISHED", "FAILED" or "KILLED"."""
        if self.client is not None:
            self.client.set_terminated(self.id, status)

    def _found(self, going: bool) -> str:
        """Return the run that the state names; "" where it is not in this store."""
        try:
            state = json.loads(self.state.read_text("utf-8"))
        except (OSError, ValueError):
            return ""
        if state.get("tracking_uri") != (self.uri and _plain(self.uri)):
            return ""
        try:
            found = self.client.get_run(state["run_id"])
        except Exception:  # it was deleted there
            return ""
        if self.uri is None and not str(found.info.artifact_uri).startswith(self._artifacts()):
            return ""  # the run directory was moved or copied: MLflow would write to its old place
        for key, value in _parameters(self.recipe).items():
            if found.data.params.get(key) != value:
                self.client.set_tag(found.info.run_id, f"resumed.{key}", value)  # a parameter cannot change
        if going:
            self.client.update_run(found.info.run_id, "RUNNING")
        self.sent = max((m.step for m in self.client.get_metric_history(found.info.run_id, "loss")), default=0)
        return str(found.info.run_id)

    def _begun(self) -> str:
        from mlflow.entities import Param

        notes = run_notes(self.run.read_manifest())
        tags = {"mlflow.source.name": "customcnn train"}
        if notes:
            tags["mlflow.note.content"] = "\n\n".join(notes)  # MLflow shows it above the scores
        begun = self.client.create_run(self._experiment(), tags=tags, run_name=self.run.path.resolve().name)
        parameters = [Param(key, value) for key, value in _parameters(self.recipe).items()]
        self.client.log_batch(begun.info.run_id, params=parameters)
        state = {"tracking_uri": self.uri and _plain(self.uri), "run_id": begun.info.run_id}
        write_text(self.state, json.dumps(state, indent=2) + "\n")
        return str(begun.info.run_id)

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        place = self._artifacts() if self.uri is None else None
        found = self.client.get_experiment_by_name(name)
        if found and place and found.artifact_location != place:
            name = f"{name} in {self.run.path.resolve()}"
            found = self.client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self.client.create_experiment(name, artifact_location=place))

    def _artifacts(self) -> str:
        return str((self.run.mlflow / ARTIFACTS).resolve())


def log_epoch(log: MlflowRun, history: Sequence[Mapping[str, float]], say: Say) -> None:
    """Log what is new in the history; a server that does not answer is a note, and is asked again after the next."""
    try:
        log.send(history)
    except Exception as error:
        say(f"Note: MLflow has not taken epoch {history[-1]['epoch']:.0f} ({_first_line(error)}).")


def log_end(run: RunDir, recipe: Recipe, history: Sequence[Mapping[str, float]], say: Say) -> None:
    """Log the rest of the history and the files, and mark the run as finished; what fails is a note."""
    log = MlflowRun(run, recipe)
    try:
        log.open()
        log.send(history)
        log.send_files()
        log.end("FINISHED")
    except Exception as error:
        say(f"Note: MLflow has not taken everything ({_first_line(error)}). The run has it all.")


def log_scores(run: RunDir, metrics: Mapping[str, Any], say: Say) -> None:
    """Log the scores of an evaluation as `<part>.<score>`, and the pictures, to a run that is in MLflow already.

    Args:
        run: the run that was scored.
        metrics: the contents of its metrics.json.
        say: receives a note where MLflow does not take them.
    """
    if not (run.mlflow / STATE).is_file():
        return
    log, part, now = MlflowRun(run, run.read_recipe()), metrics["part"], int(time.time() * 1000)
    try:
        begun = log.open(going=False)
        from mlflow.entities import Metric

        log.send(run.read_history())
        found = [
            Metric(f"{part}.{key}{end}", metrics[key][name], now, metrics["epoch"])
            for key in HEADLINES
            for name, end in (("value", ""), ("low", ".low"), ("high", ".high"))
            if metrics[key][name] is not None
        ]
        log.client.log_batch(log.id, metrics=found)
        if metrics["leakage"]["warning"]:
            log.client.set_tag(log.id, f"{part}.warning", metrics["leakage"]["warning"])
        log.send_files()
        if begun:
            log.end("FINISHED")
    except Exception as error:
        say(f"Note: MLflow has not taken the scores ({_first_line(error)}). metrics.json has them.")


def _parameters(recipe: Recipe) -> dict[str, str]:
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in flat(recipe).items()}


def _tracking_uri() -> str | None:
    return os.environ.get("MLFLOW_TRACKING_URI") or None


def _plain(uri: str) -> str:
    """Return an address without the name and password that it may hold."""
    return re.sub(r"(?<=://)[^/\s]*@", "", uri)


def _sqlite(path: Path) -> str:
    # Only these two would change the name there. MLflow makes an empty folder of a name that is quoted: no others then.
    return "sqlite:///" + str(path.resolve()).replace("%", "%25").replace("?", "%3F")


def _first_line(error: Exception) -> str:
    # MLflow quotes the whole address where a server does not answer.
    return _plain((str(error).strip().splitlines() or [type(error).__name__])[0]).rstrip(".")[:200]
