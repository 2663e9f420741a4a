"""Predict the class of image files, by Keras or by an exported network."""

from collections.abc import Callable, Sequence
from pathlib import Path

from customcnn.classifier import BATCH, RUNTIMES, Classifier, expand, probabilities
from customcnn.judge import Judge, Prediction
from customcnn.predictions import Predictions
from customcnn.progress import Progress, silent
from customcnn.runs import RunDir

__all__ = ["BATCH", "RUNTIMES", "Judge", "Prediction", "expand", "predict", "probabilities"]


def predict(
    run: RunDir,
    images: Sequence[Path],
    *,
    weights: str = "best",
    runtime: str = "auto",
    tta: bool = False,
    device: str = "auto",
    workers: int | None = None,
    progress: Progress = silent,
    say: Callable[[str], object] = lambda line: None,
) -> Predictions:
    """Predict the class of image files; a folder stands for the images directly inside it.

    A calibrated network (see `customcnn.calibrate`) also gives a set of classes, and says what looks like no cell.

    Args:
        run: a trained run.
        images: files or folders.
        weights: "best" or "last".
        runtime: "keras"; "openvino", "onnx" or "litert", from the run's export; "auto" for openvino where an export of
            these very weights is there and OpenVINO is installed, and no GPU is asked for.
        tta: take the mean over the turns and mirror images of each image, see `customcnn.views`: eight times the work.
        device: "auto", "cpu" or "gpu".
        workers: threads for decoding; None for one a core.
        progress: draws the bar, see `customcnn.progress`.
        say: receives the notes about converted images, about an export that is not used, and about sets of classes
            that were fitted without `tta`.

    Returns:
        One prediction a file, in the order given; a folder's files sorted by name.

    Raises:
        CustomCNNError: no trained network, a file that is not an image, or no export of these weights for the runtime.
    """
    classifier = Classifier(run, weights=weights, runtime=runtime, device=device, say=say)
    return classifier.predict(images, tta=tta, workers=workers, progress=progress)
