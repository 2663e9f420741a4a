"""Weights that a backbone begins with: ImageNet's, through Keras's own loader and cache, or those of a file."""

from __future__ import annotations

import os
import re
import socket
import sys
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from customcnn.errors import CustomCNNError, show

if TYPE_CHECKING:
    import keras

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds that a server may be silent; without a limit an unreachable one would be waited for without end."""


def from_imagenet(name: str, build: Callable[[], keras.Model]) -> keras.Model:
    """Build a network whose weights Keras fetches, or finds in its cache; what it prints goes to the error stream.

    Args:
        name: of the network, for messages.
        build: builds it with weights="imagenet".

    Raises:
        CustomCNNError: the weights are not there and cannot be fetched, or the file that is there is damaged.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        with redirect_stdout(sys.stderr), warnings.catch_warnings():
            # MobileNets have weights for several sizes, of which it takes those for 224 pixels.
            warnings.filterwarnings("ignore", message="`input_shape` is undefined or non-square")
            return build()
    except Exception as error:  # Keras raises Exception itself where a download fails
        failed = re.search(r"URL fetch failure on (\S+): (?:None -- )?(.*)", str(error), flags=re.DOTALL)
        if failed:
            file = weights_folder() / failed[1].rpartition("/")[2]
            raise CustomCNNError(
                f"{name} with weights=imagenet reads {show(file)}. Received: no such file, and no answer from "
                f"{failed[1]} ({_first_line(failed[2])}). Put the file from there in that place, or train without it: "
                "weights=none."
            ) from None
        if isinstance(error, OSError | ValueError | KeyError):
            raise CustomCNNError(
                f"{name} with weights=imagenet reads a file in {show(weights_folder())}. Received: "
                f"{_first_line(error)}. Delete a damaged file there and try again, or train without: weights=none."
            ) from None
        raise
    finally:
        socket.setdefaulttimeout(before)


def from_file(name: str, file: str, load: Callable[[], T]) -> T:
    """Load the weights of a file.

    Args:
        name: of the network, for messages.
        file: an .h5 file of the network without its classifier.
        load: loads them, and may return a network.

    Raises:
        CustomCNNError: the file is not there, or is not one of this network's weights.
    """
    if not Path(file).is_file():
        raise CustomCNNError(
            f"weights must be none, imagenet, or a file that exists. Received: {show(file)}. Check its name."
        )
    try:
        with warnings.catch_warnings():
            # Keras only warns where a part of the weights is not in the file.
            warnings.filterwarnings("error", message="Skipping nested container")
            return load()
    except (OSError, ValueError, KeyError, UserWarning) as error:
        raise CustomCNNError(
            f"The weights of {name} are a file that Keras has saved of it without its classifier. Received: "
            f"{show(file)} ({_first_line(error)}). Choose the file of this network."
        ) from None


def load_file(name: str, model: keras.Model, file: str) -> None:
    """Load the weights of a file into a network without its classifier, in place; see `from_file`."""
    from_file(name, file, lambda: model.load_weights(file))


def weights_folder() -> Path:
    """Return the folder where Keras keeps fetched weights: `models` in KERAS_HOME or ~/.keras."""
    home = Path(os.path.expanduser(os.environ.get("KERAS_HOME") or "~/.keras"))  # a user may have no home at all
    # So Keras does where it may not write.
    return (home if os.access(home, os.W_OK) else Path("/tmp/.keras")) / "models"


def _first_line(error: object) -> str:
    return " ".join(str(error).split("\n", 1)[0].split()).rstrip(".")
