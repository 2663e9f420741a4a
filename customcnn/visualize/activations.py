"""Activation maps: what every convolution and pooling layer makes of one image, as pictures and on a page."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from customcnn.errors import CustomCNNError, show
from customcnn.explain.graph import is_graph
from customcnn.html.page import Html, Section, bars, beside, facts, figure, page
from customcnn.io.atomic import write_text
from customcnn.plots.tiles import figure_21, flat_channels, tile_picture, write_png
from customcnn.visualize.grids import INDEX, image_figure

STYLES = ("range", "figure-21")
"""How maps are drawn: from the lowest to the highest value of each, or as the report's figure 21 draws them."""

FIGURE_21 = (
    "As the report's figure 21: every layer with maps, and each tile, one channel of it, as (x - mean) / deviation * "
    "64 + 128 of its own values, cut to 0 (dark violet) and 255 (yellow). Compare places inside a tile, not tiles. A "
    "channel with the same value everywhere is the middle, 128; a value that is not a finite number is red."
)
COLORS = (
    "Each tile is one channel of the layer, coloured by itself from its lowest value (dark violet) over green to its "
    "highest (yellow): compare places inside a tile, not tiles. A channel with the same value everywhere stays dark "
    "violet; a value that is not a finite number is red."
)


def activation_layers(model: Any) -> list[Any]:
    """Return the convolution and pooling layers with feature maps, also of models inside the model, in graph order.

    Args:
        model: a functional keras model.
    """
    found: list[Any] = []
    for layer in model.layers:
        if is_graph(layer):
            found.extend(activation_layers(layer))
        elif _has_maps(layer):
            found.append(layer)
    return found


def is_drawn(layer: Any, style: str) -> bool:
    """Tell whether a step of the network, known to have four axes, is drawn in a style."""
    import keras

    if style == "figure-21":
        return isinstance(layer, keras.layers.Layer) and not isinstance(layer, keras.layers.InputLayer)
    return _has_maps(layer)


def _has_maps(layer: Any) -> bool:
    import keras

    k = keras.layers
    kinds = (k.Conv2D, k.Conv2DTranspose, k.DepthwiseConv2D, k.SeparableConv2D, k.MaxPooling2D, k.AveragePooling2D)
    return isinstance(layer, kinds)  # each of them takes and gives four axes: batch, height, width, channels


class Activations:
    """The maps of the layers of one network, for any number of images; see `activation_maps`.

    Args:
        model: a functional keras model of one input (H, W, 3) that takes raw 0..255 RGB.
        names: of the layers that are wanted, unknown ones are left out; None for all.
        style: of `STYLES`: "figure-21" takes every layer with maps, not convolutions and poolings alone.

    Attributes:
        names: of the layers, in graph order.

    Raises:
        CustomCNNError: the model has no layer with maps.
    """

    def __init__(self, model: Any, names: Collection[str] | None = None, style: str = STYLES[0]) -> None:
        import keras

        copy, found = _extractor(model, style)
        if not found:
            raise CustomCNNError(
                f"Activation maps need a convolution or pooling layer. Received: the model {show(model.name)}, which "
                "has none. Choose a convolutional network."
            )
        chosen = {name: tensor for name, tensor in found.items() if names is None or name in names}
        self.names = list(chosen)
        self.shape = tuple(model.inputs[0].shape[1:])
        self.extractor = keras.Model(copy.input, list(chosen.values())) if chosen else None

    def __call__(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Return the maps of one image, (H, W, C) by the layer's name; see `activation_maps`."""
        fits = len(self.shape) == image.ndim and all(
            side in (None, given) for side, given in zip(self.shape, image.shape, strict=True)
        )
        if image.dtype != np.uint8 or not fits:
            raise ValueError(f"The network takes a uint8 image {self.shape}. Received: {image.dtype} {image.shape}.")
        return {name: maps[0] for name, maps in self.batch(image[None]).items()}

    def batch(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return the maps of uint8 images (N, H, W, 3), (N, h, w, C) by the layer's name."""
        import keras

        if self.extractor is None:
            return {}
        outputs = self.extractor(keras.ops.convert_to_tensor(images, dtype="float32"), training=False)
        outputs = outputs if isinstance(outputs, list) else [outputs]  # Keras unpacks a list of one
        return {name: keras.ops.convert_to_numpy(output) for name, output in zip(self.names, outputs, strict=True)}


def activation_maps(model: Any, image: np.ndarray) -> dict[str, np.ndarray]:
    """Run one image through the network and return what every layer of `activation_layers` makes of it.

    Args:
        model: a functional keras model of one input (H, W, 3) that takes raw 0..255 RGB.
        image: uint8 (H, W, 3) of the model's input size.

    Returns:
        (H, W, C) arrays in graph order, in the type the layer computes in, by the layer's name; a layer inside a model
        inside the model is `outer/inner`; the second use of a shared layer is `name:2`.

    Raises:
        ValueError: the image is of another size or type.
        CustomCNNError: the model has no such layer.
    """
    return Activations(model)(image)


def _extractor(model: Any, style: str, prefix: str = "") -> tuple[Any, dict[str, Any]]:
    """Return the same layers as a model, and the tensors of all its maps by name.

    A model inside is replaced by one that gives its output and the list of its maps.
    """
    import keras

    maps: dict[str, Any] = {}

    def keep(name: str, tensor: Any) -> None:
        uses = sum(known == name or known.startswith(f"{name}:") for known in maps)
        maps[f"{name}:{uses + 1}" if uses else name] = tensor

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if is_graph(layer):
            inner, found = _extractor(layer, style, f"{prefix}{layer.name}/")
            result, tensors = keras.Model(inner.input, [inner.output, list(found.values())])(*args, **kwargs)
            for name, tensor in zip(found, tensors, strict=True):
                keep(name, tensor)
            return result
        result = layer(*args, **kwargs)
        if is_drawn(layer, style) and len(getattr(result, "shape", ())) == 4:
            last = getattr(layer, "data_format", "channels_last") == "channels_last"
            keep(prefix + layer.name, result if last else keras.ops.transpose(result, (0, 2, 3, 1)))
        return result

    # A model inside a model has a graph of its own, whose tensors the outer graph does not reach. So the layers, not
    # copied, are called once more, and each inner model is replaced by one that hands its maps out.
    sequential = isinstance(model, keras.Sequential)  # its graph has one input and one output, and no call_function
    ends = (model.inputs[0], model.outputs[0]) if sequential else (model.input, model.output)
    graph = keras.Model(*ends)
    copy = keras.models.clone_model(graph, clone_function=lambda layer: layer, call_function=call)
    return copy, maps


def write_activations(
    model: Any,
    image: np.ndarray,
    out: Path,
    *,
    title: str,
    notes: Sequence[str] = (),
    original: np.ndarray | None = None,
    probabilities: Mapping[str, float] | None = None,
    about: Mapping[str, object] | None = None,
) -> list[Path]:
    """Write the tiled maps of every convolution and pooling layer as pictures, and a page that shows them in order.

    The report prints such pictures of its two networks as figures 21 and 22.

    Args:
        model, image: see `activation_maps`.
        out: the folder; made if missing.
        title: of the page.
        notes: warnings for the page.
        original: uint8 (H, W, 3), the image before it was cropped and resized, to show beside the input.
        probabilities: class name -> 0..1, to show on the page.
        about: what else to say of image and network, name -> value.

    Returns:
        The files written, in the page's order: `00_original.png` if one was given, `00_input.png`, `01_<layer>.png`,
        `02_<layer>.png` and so on, and `index.html`.

    Raises:
        as `activation_maps` does; OSError.
    """
    maps = activation_maps(model, image)
    out.mkdir(parents=True, exist_ok=True)
    sections, written = input_sections(image, out, original, probabilities, about)
    more, files = map_sections(maps, out)
    write_text(out / INDEX, page(title, [*sections, *more], notes))
    return [*written, *files, out / INDEX]


def input_sections(
    image: np.ndarray,
    out: Path,
    original: np.ndarray | None = None,
    probabilities: Mapping[str, float] | None = None,
    about: Mapping[str, object] | None = None,
) -> tuple[list[Section], list[Path]]:
    """Write an image as it was given and as the network takes it; return the page's first sections, and the files."""
    pictures: list[Html] = []
    written: list[Path] = []
    if original is not None:
        written.append(out / "00_original.png")
        pictures.append(image_figure(written[-1], original, "Original", "The image as it was given"))
    written.append(out / "00_input.png")
    pictures.append(image_figure(written[-1], image, "Input", "The image as the network takes it"))
    sections = [Section("Image", [beside(*pictures), *([facts(about)] if about else [])])]
    if probabilities:
        sections.append(Section("Prediction", [bars(probabilities, "Probability of each class")]))
    return sections, written


def map_sections(maps: Mapping[str, np.ndarray], out: Path, style: str = STYLES[0]) -> tuple[list[Section], list[Path]]:
    """Write the tiles of every layer; return the page's sections, one a layer, and the files."""
    as_printed = style == "figure-21"
    sections, written = [Section("Activation maps", [FIGURE_21 if as_printed else COLORS])], []
    digits = max(2, len(str(len(maps))))
    for number, (name, activation) in enumerate(maps.items(), start=1):
        path = out / f"{number:0{digits}}_{re.sub(r'[^A-Za-z0-9._-]+', '_', name)[:100]}.png"
        pixels, columns = tile_picture(figure_21(activation), (0, 255)) if as_printed else tile_picture(activation)
        written.append(write_png(path, pixels))
        alt = f"{activation.shape[2]} maps of layer {name}, {columns} in a row"
        sections.append(Section(f"{number}. {name}", [figure(path.name, alt, _caption(activation))], level=3))
    return sections, written


def _caption(activation: np.ndarray) -> str:
    height, width, channels = activation.shape
    values = activation.astype(np.float64)
    finite = values[np.isfinite(values)]
    flat = flat_channels(activation).sum()
    words = [f"{channels} channels of {width}×{height}"]
    if finite.size:
        words.append(f"values from {finite.min():.3g} to {finite.max():.3g}")
    if flat:
        words.append(f"{flat} of them flat")
    if finite.size < values.size:
        words.append(f"{values.size - finite.size:,} values not finite")
    return ", ".join(words) + "."
