"""What a network sees in one image: the maps of every convolution and pooling layer, as pictures and on a page."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from customcnn import devices
from customcnn.errors import CustomCNNError, show
from customcnn.files import Staging, write_text
from customcnn.images import decode
from customcnn.leakage import run_notes
from customcnn.page import Html, Section, bars, beside, escape, facts, figure, page
from customcnn.plots import flat_channels, tile_maps, tile_picture, write_png
from customcnn.predict import expand, probabilities
from customcnn.progress import Progress, silent
from customcnn.runs import RunDir, load_model, read_classifier

__all__ = ["activation_layers", "activation_maps", "tile_maps", "visualize_run", "write_activations"]

INDEX = "index.html"
SHOWN_WIDTH = 320  # CSS pixels, of the image itself
LARGEST_ORIGINAL = 1000

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
        if _is_graph(layer):
            found.extend(activation_layers(layer))
        elif _has_maps(layer):
            found.append(layer)
    return found


def _is_graph(layer: Any) -> bool:
    import keras

    return isinstance(layer, keras.Model) and bool(getattr(layer, "inputs", None))


def _has_maps(layer: Any) -> bool:
    import keras

    k = keras.layers
    kinds = (k.Conv2D, k.Conv2DTranspose, k.DepthwiseConv2D, k.SeparableConv2D, k.MaxPooling2D, k.AveragePooling2D)
    return isinstance(layer, kinds)  # each of them takes and gives four axes: batch, height, width, channels


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
    import keras

    expected = tuple(model.inputs[0].shape[1:])
    same = len(expected) == image.ndim and all(e in (None, i) for e, i in zip(expected, image.shape, strict=True))
    if image.dtype != np.uint8 or not same:
        raise ValueError(f"The network takes a uint8 image {expected}. Received: {image.dtype} {image.shape}.")
    extractor, names = _extractor(model)
    if not names:
        raise CustomCNNError(
            f"Activation maps need a convolution or pooling layer. Received: the model {show(model.name)}, which has "
            "none. Choose a convolutional network."
        )
    batch = keras.ops.convert_to_tensor(image[None], dtype="float32")
    _, outputs = extractor(batch, training=False)
    return {name: keras.ops.convert_to_numpy(output)[0] for name, output in zip(names, outputs, strict=True)}


def _extractor(model: Any, prefix: str = "") -> tuple[Any, list[str]]:
    """Return the same layers as a model that gives its output and the list of all maps, and the names of the maps."""
    import keras

    maps: dict[str, Any] = {}

    def keep(name: str, tensor: Any) -> None:
        uses = sum(known == name or known.startswith(f"{name}:") for known in maps)
        maps[f"{name}:{uses + 1}" if uses else name] = tensor

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if _is_graph(layer):
            inner, names = _extractor(layer, f"{prefix}{layer.name}/")
            result, found = inner(*args, **kwargs)
            for name, tensor in zip(names, found, strict=True):
                keep(name, tensor)
            return result
        result = layer(*args, **kwargs)
        if _has_maps(layer):
            last = layer.data_format == "channels_last"
            keep(prefix + layer.name, result if last else keras.ops.transpose(result, (0, 2, 3, 1)))
        return result

    # A model inside a model has a graph of its own, whose tensors the outer graph does not reach. So the layers, not
    # copied, are called once more, and each inner model is replaced by one that hands its maps out.
    sequential = isinstance(model, keras.Sequential)  # its graph has one input and one output, and no call_function
    ends = (model.inputs[0], model.outputs[0]) if sequential else (model.input, model.output)
    graph = keras.Model(*ends)
    copy = keras.models.clone_model(graph, clone_function=lambda layer: layer, call_function=call)
    return keras.Model(copy.input, [copy.output, list(maps.values())]), list(maps)


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
    pictures = [_picture(out / "00_input.png", image, "Input", "The image as the network takes it")]
    written = [out / "00_input.png"]
    if original is not None:
        pictures.insert(0, _picture(out / "00_original.png", original, "Original", "The image as it was given"))
        written.insert(0, out / "00_original.png")
    sections = [Section("Image", [beside(*pictures), *([facts(about)] if about else [])])]
    if probabilities:
        sections.append(Section("Prediction", [bars(probabilities, "Probability of each class")]))
    sections.append(Section("Activation maps", [COLORS]))
    digits = max(2, len(str(len(maps))))
    for number, (name, activation) in enumerate(maps.items(), start=1):
        path = out / f"{number:0{digits}}_{re.sub(r'[^A-Za-z0-9._-]+', '_', name)[:100]}.png"
        pixels, columns = tile_picture(activation)
        written.append(write_png(path, pixels))
        alt = f"{activation.shape[2]} maps of layer {name}, {columns} in a row"
        sections.append(Section(f"{number}. {name}", [figure(path.name, alt, _caption(activation))], level=3))
    write_text(out / INDEX, page(title, sections, notes))
    return [*written, out / INDEX]


def _picture(path: Path, pixels: np.ndarray, name: str, alt: str) -> Html:
    """Write an image, no larger than a screen, and return it as a figure of the page."""
    height, width, _ = pixels.shape
    shown = Image.fromarray(pixels)
    shown.thumbnail((LARGEST_ORIGINAL, LARGEST_ORIGINAL))
    write_png(path, np.asarray(shown))
    return figure(path.name, alt, f"{name}, {width}×{height} pixels", width=SHOWN_WIDTH, sharp=width < SHOWN_WIDTH)


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


def visualize_run(
    run: RunDir,
    images: Sequence[Path],
    *,
    weights: str = "best",
    out: Path | None = None,
    device: str = "auto",
    progress: Progress = silent,
) -> Path:
    """Show what a trained network makes of images: one page an image, and an index where there are several.

    Args:
        run: a trained run.
        images: files, or folders of them.
        weights: "best" or "last".
        out: the folder to make; None for `activations` in the run, which is written over.
        device: "auto", "cpu" or "gpu".
        progress: draws the bar, see `customcnn.progress`.

    Returns:
        The page to open.

    Raises:
        CustomCNNError: no trained network, a file that is not an image, or an `out` that is not empty.
    """
    path = run.weights(weights)
    info = read_classifier(path)
    paths = expand(images)
    names = unique_names(paths)
    devices.configure(device)
    model = load_model(path)
    warnings = run_notes(run.read_manifest())
    with Staging(out or run.activations, replace=out is None) as work, progress(len(paths), "visualize") as advance:
        for source, name in zip(paths, names, strict=True):
            original = decode(source)
            image = decode(source, info.input_size)
            shares = dict(zip(info.classes, map(float, probabilities(model, image[None])[0]), strict=True))
            write_activations(
                model,
                image,
                work / name if len(paths) > 1 else work,
                title=f"{source.name} in {info.model}",
                notes=warnings,
                original=original,
                probabilities=shares,
                about={"file": source, "network": f"{info.model}, {weights} weights", "epochs": info.epoch},
            )
            advance(1)
        if len(paths) > 1:
            links = [
                Html(f'<p><a href="{name}/{INDEX}">{escape(p.name)}</a></p>')
                for p, name in zip(paths, names, strict=True)
            ]
            write_text(work / INDEX, page(f"Activation maps in {info.model}", [Section("Images", links)], warnings))
    return (out or run.activations) / INDEX


def unique_names(paths: Sequence[Path]) -> list[str]:
    """Return a folder name for each file: its stem in plain letters, numbered where two would be equal."""
    names: list[str] = []
    for path in paths:
        stem = re.sub(r"[^A-Za-z0-9._-]+", "_", path.stem)[:100].lstrip(".") or "image"
        count, name = 1, stem
        while name in names:
            count += 1
            name = f"{stem}-{count}"
        names.append(name)
    return names
