"""Train small convolutional networks on folders of cell images, and say what their scores are worth."""

__version__ = "0.1.0"

__all__ = [
    "Classifier",
    "CustomCNNError",
    "Explanation",
    "ImageClassifier",
    "LeakageWarning",
    "Prediction",
    "Predictions",
    "__version__",
    "fit",
    "load",
]

TYPE_CHECKING = False  # what type checkers take for True; `typing` itself is not needed then
if TYPE_CHECKING:
    from customcnn.api import Classifier, LeakageWarning, fit, load
    from customcnn.errors import CustomCNNError
    from customcnn.estimator import ImageClassifier
    from customcnn.explain.explanation import Explanation
    from customcnn.inference.decision import Prediction
    from customcnn.inference.predictions import Predictions
else:
    _HOMES = {
        "Classifier": "api",
        "CustomCNNError": "errors",
        "Explanation": "explain.explanation",
        "ImageClassifier": "estimator",
        "LeakageWarning": "api",
        "Prediction": "inference.decision",
        "Predictions": "inference.predictions",
        "fit": "api",
        "load": "api",
    }

    def __getattr__(name):
        """Import a public name when it is first used: `import customcnn` alone loads nothing."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        found = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = found
        return found

    def __dir__():
        return sorted({*globals(), *__all__})
