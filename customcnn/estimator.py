"""A network as a scikit-learn estimator: for cross-validation, grid search and pipelines.

It is trained by `customcnn.training.train`, as everything here is, in a temporary run directory.
"""

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from customcnn.backend import devices
from customcnn.data.manifest import Manifest, Record
from customcnn.data.split import Shares, split_by_group, split_by_image
from customcnn.errors import CustomCNNError, listed, show
from customcnn.explain.explanation import Explanation, Method
from customcnn.images.decode import encode
from customcnn.inference.classifier import BATCH, explained, probabilities
from customcnn.inference.inputs import Picture, as_pixels, is_several
from customcnn.metrics.validation import require_finite
from customcnn.recipe.recipe import Recipe, load_recipe, parse_recipe
from customcnn.runs.run_dir import RunDir
from customcnn.runs.saved_model import ModelInfo, load_model, read_info
from customcnn.training.classification import input_size
from customcnn.training.train import train

if TYPE_CHECKING:
    import keras

KEYS = ("input_size", "epochs", "batch_size", "learning_rate", "device")
"""Parameters that are keys of the recipe."""


class InvalidInput(CustomCNNError, ValueError):
    """What an estimator refuses: an error of this package, and a ValueError, which scikit-learn expects."""


class ImageClassifier(ClassifierMixin, BaseEstimator):
    """A network of this package as a scikit-learn classifier of images.

    Images may be given as a list of files (paths), of their bytes, of Pillow images or of arrays; as one array
    (N, H, W, 3), or (N, H, W) in grey; or, with `image_shape`, as a table (N, features). Pixels are uint8, 0 to 255; of
    any other numbers `value_range` says what is black and what is white. Sizes are changed to the network's.

    A part of the images is not trained on: it chooses the epoch that is kept. With `groups` in `fit` whole groups go
    there, so that this choice, too, is made on new subjects.

    Args:
        model: a name from `customcnn models`.
        input_size: of the network, height and width in pixels, one number or two; None for its own.
        epochs, batch_size, learning_rate: of the recipe; None for the network's own.
        recipe: further keys of the recipe, such as {"augmentation.flip": "both"}.
        validation_fraction: share of the images that is held out in `fit`, above 0 and below 1.
        image_shape: (H, W), or (H, W, 3): what a row of a table holds, row by row of the image, channels last.
        value_range: the two values that stand for 0 and 255; None where pixels are uint8.
        random_state: of the weights, the order of the images, dropout and what is held out. The same number gives the
            same network on one CPU.
        device: "auto", "cpu" or "gpu".
        verbose: print a line an epoch.

    Attributes:
        classes_: the labels, (C,), sorted; the order of the columns of `predict_proba`.
        n_features_in_: of a table only, how many columns it had.
        history_: one dictionary an epoch, as in history.csv.
        best_epoch_: the number, from 1, of the epoch that was kept.
        network_: the trained network.

    Examples:
        >>> from sklearn.model_selection import GroupKFold, cross_val_score
        >>> network = ImageClassifier(input_size=64, epochs=5, random_state=0)
        >>> cross_val_score(network, paths, labels, groups=subjects, cv=GroupKFold(4))  # doctest: +SKIP
    """

    def __init__(
        self,
        model: str = "small",
        *,
        input_size: int | tuple[int, int] | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        recipe: Mapping[str, object] | None = None,
        validation_fraction: float = 0.2,
        image_shape: tuple[int, ...] | None = None,
        value_range: tuple[float, float] | None = None,
        random_state: int | np.random.RandomState | None = None,
        device: str = "auto",
        verbose: bool = False,
    ) -> None:
        self.model = model
        self.input_size = input_size
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.recipe = recipe
        self.validation_fraction = validation_fraction
        self.image_shape = image_shape
        self.value_range = value_range
        self.random_state = random_state
        self.device = device
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = self.image_shape is None
        tags.input_tags.two_d_array = self.image_shape is not None
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        return tags

    def fit(
        self, X: Any, y: Any, groups: Sequence[object] | None = None, validation: tuple[Any, Any] | None = None
    ) -> "ImageClassifier":
        """Train the network.

        Args:
            X: N images.
            y: their labels (N,).
            groups: the group of each image, (N,): whole groups are held out.
            validation: images and labels to choose the epoch by; X then trains as a whole.

        Raises:
            ValueError: images, labels or parameters that cannot be used; it is a CustomCNNError, too.
        """
        with _value_errors():
            images, labels = self._checked(X, y)
            self.classes_, numbers = np.unique(labels, return_inverse=True)
            if len(self.classes_) < 2:
                raise InvalidInput(
                    f"A classifier needs two classes or more. Received: one class, {self.classes_[0]!r}."
                )
            recipe = self._recipe()
            if validation is None:
                parts = self._parts(numbers, groups, recipe.seed)
            else:
                held, known = self._checked(*validation, reset=False)
                images = [*images, *held]
                parts = ["train"] * len(numbers) + ["validation"] * len(held)
                numbers = np.concatenate([numbers, self._numbers(known)])
            self._train(images, numbers, parts, recipe)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probabilities of N images, float64 (N, C), in the order of `classes_`; rows sum to 1."""
        check_is_fitted(self)
        with _value_errors():
            images = self._images(X, reset=False)
            size = self.network_.info.input_size
            found = []
            for start in range(0, len(images), BATCH):
                pixels = np.stack([as_pixels(image, size)[0] for image in images[start : start + BATCH]])
                found.append(self.network_.probabilities(pixels))
            rows = np.concatenate(found)
            require_finite(rows)
            return rows

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable label of each of N images, (N,)."""
        shares = self.predict_proba(X)
        return self.classes_[shares.argmax(axis=1)]

    def explain(
        self, image: Any, label: object = None, method: str | Method = "grad-cam", *, layer: str | None = None
    ) -> Explanation:
        """Find where in one image the network sees what speaks for a class.

        Args:
            image: one of what `fit` takes N of: a file, its bytes, a Pillow image, an array, a row of a table.
            label: one of `classes_`; None for the predicted one.
            method, layer: see `customcnn.Classifier.explain`.

        Raises:
            ValueError: something that is not one image, or no such class, method or layer.
        """
        check_is_fitted(self)
        with _value_errors():
            if is_several(image) and np.ndim(image) != 1:
                raise InvalidInput(
                    "One image is explained at a time. Received: several. Explain them one after the other."
                )
            images = self._images(image[None] if isinstance(image, np.ndarray) else [image], reset=False)
            pixels = as_pixels(images[0], self.network_.info.input_size)[0]
            shares = self.network_.probabilities(pixels[None])
            require_finite(shares)
            names = [str(name) for name in self.classes_]
            wanted = None if label is None else str(label)
            return explained(self.network_.model, pixels, shares[0], names, wanted, method, layer)

    def _checked(self, X: Any, y: Any, *, reset: bool = True) -> tuple[Sequence[Picture], np.ndarray]:
        if y is None:
            raise InvalidInput(
                "This classifier requires y to be passed, but the target y is None. Received: None. Give the labels."
            )
        labels = column_or_1d(y, warn=True)
        check_classification_targets(labels)
        images = self._images(X, reset=reset)
        check_consistent_length(images, labels)
        return images, labels

    def _images(self, X: Any, *, reset: bool) -> Sequence[Picture]:
        """Return images one by one, each as `as_pixels` takes it."""
        if isinstance(X, np.ndarray) and X.ndim > 2:
            if X.ndim == 4 and X.shape[-1] == 1:
                X = X[..., 0]
            if X.ndim > 4 or (X.ndim == 4 and X.shape[-1] != 3) or not X.size:
                raise InvalidInput(f"Images are (N, H, W, 3) in RGB or (N, H, W) in grey. Received: {X.shape}.")
            return [*levels(X, self.value_range)]
        if _is_list_of_images(X):
            return [levels(x, self.value_range) if isinstance(x, np.ndarray) else x for x in X]
        table = validate_data(self, X, reset=reset)
        return [*self._from_table(table, reset=reset)]

    def _from_table(self, table: np.ndarray, *, reset: bool) -> np.ndarray:
        """Return the rows of a table (N, features) as images, uint8 (N, H, W) or (N, H, W, 3); `reset` in `fit`."""
        shape = self.image_shape
        if shape is None:
            raise InvalidInput(
                f"A row of a table needs its shape to be an image. Received: {table.shape}. Give image_shape=(H, W) or "
                "(H, W, 3), or images as (N, H, W, 3)."
            )
        if not 2 <= len(shape) <= 3 or tuple(shape[2:]) not in ((), (1,), (3,)) or np.prod(shape) != table.shape[1]:
            raise InvalidInput(
                f"A row of a table holds one image, (H, W) or (H, W, 3). Received: image_shape {tuple(shape)} for "
                f"{table.shape[1]} columns."
            )
        whole = tuple(shape) if tuple(shape[2:]) == (3,) else tuple(shape[:2])
        return levels(table, self.value_range).reshape(len(table), *whole)

    def _numbers(self, labels: np.ndarray) -> np.ndarray:
        unknown = sorted({str(label) for label in np.setdiff1d(labels, self.classes_)})
        if unknown:
            raise InvalidInput(f"The validation has the classes of the training. Received: {listed(unknown)} too.")
        return np.searchsorted(self.classes_, labels)

    def _recipe(self) -> Recipe:
        given = {key: _plain(getattr(self, key)) for key in KEYS if getattr(self, key) is not None}
        given |= {key: _plain(value) for key, value in dict(self.recipe or {}).items()}
        if self.random_state is not None or "seed" not in given:
            seeded = isinstance(self.random_state, int | np.integer)
            drawn = self.random_state if seeded else check_random_state(self.random_state).randint(2**31 - 1)
            given["seed"] = int(drawn)  # type: ignore[arg-type]
        return parse_recipe(given, type(self).__name__, load_recipe(None, {"model": self.model}))

    def _parts(self, numbers: np.ndarray, groups: Sequence[object] | None, seed: int) -> list[str]:
        if not 0 < self.validation_fraction < 1:
            raise InvalidInput(
                f"validation_fraction lies between 0 and 1, without both ends. Received: {self.validation_fraction!r}."
            )
        parts = Shares(1 - self.validation_fraction, self.validation_fraction)
        labels = [str(self.classes_[number]) for number in numbers]
        if groups is not None:
            check_consistent_length(numbers, groups)
            return split_by_group(labels, [str(group) for group in groups], parts, seed)
        if min(np.bincount(numbers)) < 2:
            rare = [str(label) for label, n in zip(self.classes_, np.bincount(numbers), strict=True) if n < 2]
            raise InvalidInput(
                "Every class has two images or more, one to train and one to choose the epoch by. "
                f"Received: n_samples=1 of class {listed(rare)}. Give more, or validation=(images, labels)."
            )
        return split_by_image(labels, parts, seed)

    def _train(self, images: Sequence[Picture], numbers: np.ndarray, parts: list[str], recipe: Recipe) -> None:
        with tempfile.TemporaryDirectory(prefix="customcnn-") as folder:
            data, run = Path(folder) / "data", RunDir(Path(folder) / "run")
            data.mkdir()
            # The network's classes are the numbers of ours, whose names may be of any type.
            width = len(str(len(self.classes_) - 1))
            records = tuple(
                Record(_write(image, place, data, input_size(recipe)), f"{number:0{width}}", split=part)
                for place, (image, number, part) in enumerate(zip(images, numbers, parts, strict=True))
            )
            result = train(Manifest(data, records), run, recipe, say=print if self.verbose else _nothing)
            self.history_ = result.history
            self.best_epoch_ = int(result.best["epoch"])
            self.network_ = Network(run.best.read_bytes(), recipe.device)


class Network:
    """A trained network that can be pickled and copied: the bytes of its .keras file, loaded when it is needed.

    Args:
        data: the file's bytes.
        device: "auto", "cpu" or "gpu".
    """

    def __init__(self, data: bytes, device: str) -> None:
        self.data, self.device = data, device
        self._loaded: tuple[keras.Model, ModelInfo] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"data": self.data, "device": self.device, "_loaded": None}

    @property
    def model(self) -> "keras.Model":
        """The Keras network."""
        return self._load()[0]

    @property
    def info(self) -> ModelInfo:
        """What it carries beside its weights."""
        return self._load()[1]

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Return the probabilities, float64 (N, C), of uint8 (N, H, W, 3) at the input size."""
        return probabilities(self.model, images)

    def _load(self) -> "tuple[keras.Model, ModelInfo]":
        if self._loaded is None:
            device = devices.configure(self.device)
            with tempfile.TemporaryDirectory(prefix="customcnn-") as folder:
                path = Path(folder) / "network.keras"
                path.write_bytes(self.data)
                model, info = load_model(path), read_info(path)
            devices.prepare(model, device)
            self._loaded = model, info
        return self._loaded


def levels(values: np.ndarray, value_range: tuple[float, float] | None) -> np.ndarray:
    """Return pixels as uint8, 0..255.

    Args:
        values: uint8, or with a range any numbers inside it.
        value_range: what becomes 0 and what 255, evenly in between, rounded; None for uint8.

    Raises:
        InvalidInput: other numbers, or a value outside the range.
    """
    if value_range is None:
        if values.dtype != np.uint8:
            raise InvalidInput(
                f"Pixels are uint8, 0 to 255. Received: {values.dtype}. Convert them, or give value_range=(low, high): "
                "the values of black and of white."
            )
        return values
    low, high = (float(end) for end in value_range)
    if not low < high:
        raise InvalidInput(f"value_range is (low, high), the low one first. Received: ({low:g}, {high:g}).")
    shares = (np.asarray(values, dtype=np.float64) - low) / (high - low)
    if values.size and not (shares.min() >= 0 and shares.max() <= 1):
        raise InvalidInput(
            f"Pixels lie in value_range. Received: {np.min(values):g} to {np.max(values):g} for {low:g} to {high:g}."
        )
    return np.rint(255 * shares).astype(np.uint8)


def _is_list_of_images(X: Any) -> bool:
    """Tell a collection of paths, bytes, Pillow images or arrays from a table of numbers."""
    if isinstance(X, str | bytes | Image.Image):
        raise InvalidInput(f"X is a collection of images. Received: one {type(X).__name__}. Put it into a list.")
    if getattr(X, "ndim", 1) != 1 or not (isinstance(X, Iterable) and isinstance(X, Sized)):
        return False
    first = next(iter(X), None)
    return isinstance(first, str | bytes | PathLike | Image.Image) or (isinstance(first, np.ndarray) and first.ndim > 1)


def _write(image: Picture, place: int, folder: Path, size: tuple[int, int]) -> str:
    """Put an image into a folder, a file as a link; return its name."""
    if isinstance(image, str | PathLike):
        path = Path(image).resolve()
        if not path.is_file():
            raise InvalidInput(f"An image is a file. Received: {show(Path(image))}, which is none. Check its name.")
        name = f"{place:09}{path.suffix}"
        (folder / name).symlink_to(path)
        return name
    name = f"{place:09}.bmp"
    (folder / name).write_bytes(encode(Image.fromarray(as_pixels(image, size)[0]), "BMP"))
    return name


def _plain(value: Any) -> Any:
    # A grid of NumPy's numbers: a recipe takes Python's.
    return value.item() if isinstance(value, np.generic) else value


def _nothing(line: str) -> None:
    pass


@contextmanager
def _value_errors() -> Iterator[None]:
    try:
        yield
    except InvalidInput:
        raise
    except CustomCNNError as error:
        raise InvalidInput(str(error)) from None
