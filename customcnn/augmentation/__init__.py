"""On-line augmentation: what is done to the training images anew in every epoch.

Three engines compute it: numpy_engine.py (numpy and Pillow), keras_engine.py (Keras layers) and
albumentations_engine.py. Each is loaded only where it is used.
"""

from __future__ import annotations

from customcnn.augmentation.settings import Augmentation, Transform

__all__ = ["make_transform"]


def make_transform(augmentation: Augmentation) -> Transform:
    """Return the function that changes a batch of training images.

    Every image of a batch draws its own amounts. They depend on the key and on the image's place in the batch alone,
    whichever thread calls and whatever it has done before.

    Args:
        augmentation: what is to be done.

    Returns:
        A function of images, uint8 (N, H, W, 3), and a key, whole numbers from 0 on such as (seed, epoch, batch). It
        returns an array of the same shape with values 0..255: uint8 from "arrays" and "albumentations", float32 from
        "layers". The images that went in are never written to; they come back as they are where nothing is to be done.

    Raises:
        CustomCNNError: the engine is not installed or lacks what a key asks for, or the pipeline's file is not one.
    """
    if not augmentation.active:
        return lambda images, key: images
    if augmentation.engine == "layers":
        from customcnn.augmentation.keras_engine import layers_transform as engine
    elif augmentation.engine == "albumentations":
        from customcnn.augmentation.albumentations_engine import pipeline_transform as engine
    else:
        from customcnn.augmentation.numpy_engine import arrays_transform as engine
    change = engine(augmentation)
    return lambda images, key: change(images, key) if len(images) else images
