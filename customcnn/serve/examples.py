"""Example images for the page: drawn cells where the network knows such, or those of a folder."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from customcnn.data.synthetic import FULL, LABELS, Stain, draw_cell
from customcnn.images.decode import BadImage, center_box, encode, open_image
from customcnn.inference.inputs import expand
from customcnn.runs.saved_model import ModelInfo
from customcnn.serve.multipart import Upload, plain_name

MOST = 6
"""So many fit beside each other."""

CROPPED = 400  # pixels: what the lessons and the demo keep of a cell
SEED = 26  # of subjects that no training has drawn: those of the demo have other names


def example_uploads(info: ModelInfo, folder: Path | None) -> list[Upload]:
    """Return the files of at most MOST examples.

    Args:
        info: of the network.
        folder: of images; None for drawn cells, if the network was trained on such, and else for none.

    Raises:
        CustomCNNError: the folder is missing or holds no image.
    """
    if folder is not None:
        return _from_folder(folder)
    return _drawn() if info.drawn and set(info.classes) == set(LABELS) else []


def _from_folder(folder: Path) -> list[Upload]:
    found: list[Upload] = []
    for path in expand([folder]):
        data = path.read_bytes()
        try:
            open_image(data, path)
        except BadImage:
            continue
        found.append(Upload(plain_name(path.name, len(found) + 1), data))
        if len(found) == MOST:
            break
    return found


def _drawn() -> list[Upload]:
    found = []
    for number in range(MOST):
        label = LABELS[number % len(LABELS)]
        subject = f"example {number + 1}"
        cell = draw_cell(label, np.random.default_rng((SEED, number)), Stain.of(SEED, label, subject), FULL)
        image = Image.fromarray(cell).crop(center_box(FULL, FULL, CROPPED))
        found.append(Upload(f"drawn_{label}_{number + 1}.png", encode(image, "PNG")))
    return found


def thumbnail(data: bytes, size: int) -> bytes:
    """Return an image file as a JPEG of at most `size` pixels a side."""
    image = open_image(data, "an example").convert("RGB")
    image.thumbnail((size, size))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()
