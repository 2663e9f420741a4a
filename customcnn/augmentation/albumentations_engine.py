"""The engine "albumentations": a pipeline made of the same keys, or one that Albumentations has saved.

The amounts lie in the ranges of `Augmentation`. Where Albumentations computes otherwise:

- Shifts and the windows of crops have whole pixels. A crop interpolates anew.
- Contrast takes the mean of the grey image. Gamma is drawn evenly, not on a logarithmic scale.
- Hue has 180 steps, and the values are rounded after each change.
"""

import json
import math
import os
import random
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from customcnn.augmentation.draws import PIPELINE, generator
from customcnn.augmentation.settings import Augmentation, Transform
from customcnn.errors import CustomCNNError, show


def pipeline_transform(augmentation: Augmentation) -> Transform:
    """Return the function that changes a batch, see `make_transform`.

    Raises:
        CustomCNNError: Albumentations is not installed, or the pipeline's file is missing, is none, or wants more than
            an image; when called, the pipeline fails on an image or does not keep its shape and type.
    """
    library = _albumentations()
    loaded = _load(Path(augmentation.pipeline), library) if augmentation.pipeline else None
    made = cache(lambda height, width: library.Compose(_steps(augmentation, height, width, library)))
    lock = Lock()  # a pipeline holds its generators between two lines

    def transform(images: np.ndarray, key: tuple[int, ...]) -> np.ndarray:
        seeds = generator(key, PIPELINE).integers(2**63, size=(len(images), 2)).tolist()
        with lock:
            pipeline = made(*images.shape[1:3]) if loaded is None else loaded
            changed = [_run(pipeline, image, s, augmentation) for image, s in zip(images, seeds, strict=True)]
        return np.stack(changed)

    return transform


def _albumentations() -> Any:
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the network for its newest version
    try:
        import albumentations
    except ImportError:
        raise CustomCNNError(
            "augmentation.engine=albumentations needs the albumentations package. Received: none. "
            "Install customcnn[albumentations]."
        ) from None
    return albumentations


def _steps(a: Augmentation, height: int, width: int, library: Any) -> list[Any]:
    """Return the transforms for images of one size, each of which fires always but for the flips."""
    import cv2

    steps: list[Any] = []
    if a.flip in ("horizontal", "both"):
        steps.append(library.HorizontalFlip(p=0.5))
    if a.flip in ("vertical", "both"):
        steps.append(library.VerticalFlip(p=0.5))
    if a.quarter_turns and height == width:
        steps.append(library.RandomRotate90(p=1))
    elif a.quarter_turns:
        steps.append(library.Sequential([library.HorizontalFlip(p=1), library.VerticalFlip(p=1)], p=0.5))
    if a.rotate or a.zoom or a.shift:
        either = {axis: (-a.shift, a.shift) for axis in "xy"}
        factor = {axis: (1 - a.zoom, 1 + a.zoom) for axis in "xy"}
        steps.append(
            library.Affine(
                rotate=(-a.rotate, a.rotate),
                scale=factor,
                keep_ratio=True,
                translate_percent=either,
                interpolation=cv2.INTER_LINEAR,
                border_mode=cv2.BORDER_REFLECT,
                p=1,
            )
        )
    if a.crop:
        least = max(math.ceil((1 - a.crop) * height), math.ceil(height / width))  # a pixel at least, either way
        ratio = (width + 1e-6) / height  # int(height * ratio) is the width, not one less by rounding
        steps.append(library.RandomSizedCrop((least, height), (height, width), w2h_ratio=ratio, p=1))
    for key in ("brightness", "contrast", "gamma", "saturation", "hue"):
        amount = getattr(a, key)
        if amount and key == "gamma":
            steps.append(library.RandomGamma((100 / (1 + amount), 100 * (1 + amount)), p=1))
        elif amount:  # one at a time: ColorJitter shuffles its four
            others = dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0.0)
            steps.append(library.ColorJitter(**others | {key: amount}, p=1))
    return steps


def _load(path: Path, library: Any) -> Any:
    """Load a pipeline from JSON and check that an image is all it wants."""
    try:
        json.loads(path.read_text("utf-8"))
        pipeline = library.load(path, data_format="json")
        if isinstance(pipeline, library.BasicTransform):
            pipeline = library.Compose([pipeline])
        pipeline.strict = True  # an argument that no transform knows is an error, not a warning
    except Exception as error:  # what a file of any content breaks inside the library has no common type
        raise CustomCNNError(
            f"augmentation.pipeline is a JSON file that albumentations.save has written. Received: {show(path)} "
            f"({_line(error)}). Save it again."
        ) from None
    wanted = [*pipeline.processors, *pipeline.additional_targets, *_more_than_images(pipeline, library)]
    if wanted:
        raise CustomCNNError(
            f"augmentation.pipeline changes images and knows nothing else. Received: {show(path)}, which wants "
            f"{', '.join(wanted)}. Leave that out of it."
        )
    return pipeline


def _more_than_images(pipeline: Any, library: Any) -> list[str]:
    """Return the data that the transforms of a pipeline need beside the image."""
    found = []
    for transform in pipeline.transforms:
        if isinstance(transform, library.BaseCompose):
            found += _more_than_images(transform, library)
        else:
            found += [name for name in transform.targets_as_params if name != "image"]
    return found


def _run(pipeline: Any, image: np.ndarray, seeds: list[int], augmentation: Augmentation) -> np.ndarray:
    # set_random_seed() would give every transform the same numbers: both flips would fire together.
    pipeline.set_random_state(np.random.default_rng(seeds[0]), random.Random(seeds[1]))
    name = show(augmentation.pipeline)
    try:
        changed = pipeline(image=np.asarray(image))["image"]
    except Exception as error:
        raise CustomCNNError(
            f"augmentation.pipeline works on every image. Received: {name}, which fails on one of {image.shape[1]} x "
            f"{image.shape[0]} pixels ({_line(error)}). Change it."
        ) from None
    if getattr(changed, "shape", None) != image.shape or changed.dtype != np.uint8:
        raise CustomCNNError(
            f"augmentation.pipeline keeps the size of an image and its values, whole numbers from 0 to 255. Received: "
            f"{name}, which makes {changed.dtype} {tuple(changed.shape)} of {image.dtype} {image.shape}. Change it."
        )
    return changed


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
