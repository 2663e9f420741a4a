"""Fetch the public data sets through kagglehub, or say step by step how to fetch them by hand."""

import contextlib
import io
import logging
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from customcnn.errors import CustomCNNError
from customcnn.io import atomic

PATIENCE = (5, 10)
"""Seconds to wait for Kaggle: to connect, and then for its first answer. kagglehub itself would wait without end."""


@dataclass(frozen=True)
class Source:
    """Where a data set is fetched.

    Attributes:
        title: what it is.
        kaggle: owner and name on Kaggle.
        licence: of the data.
        script: in data_tools, what makes class folders of it.
        home: the authors' own page, where that is not the one on Kaggle.
    """

    title: str
    kaggle: str
    licence: str
    script: str
    home: str = ""

    @property
    def page(self) -> str:
        """The page on Kaggle."""
        return f"https://www.kaggle.com/datasets/{self.kaggle}"


SOURCES = {
    "cnmc": Source(
        "C-NMC 2019, a mirror on Kaggle",
        "andrewmvd/leukemia-classification",
        "CC BY 3.0",
        "cnmc.py",
        "https://doi.org/10.7937/tcia.2019.dc64i46r",
    ),
    "blood-cells": Source("Blood Cell Images", "paultimothymooney/blood-cells", "MIT", "blood_cells.py"),
}


class NotDownloaded(CustomCNNError):
    """A data set could not be fetched; `manual_steps` says how else to get it."""


def download(name: str, dst: Path | None = None, *, replace_dst: bool = False, bar: bool = False) -> Path:
    """Fetch a data set from Kaggle and unpack it.

    Args:
        name: a key of `SOURCES`.
        dst: the folder to make; None for kagglehub's own cache, where a download that broke off goes on.
        replace_dst: write over a destination that is not empty.
        bar: let kagglehub draw its progress bar on standard error.

    Returns:
        The folder that holds what Kaggle ships.

    Raises:
        NotDownloaded: kagglehub is not installed, or Kaggle does not answer or refuses.
        CustomCNNError: the destination is not empty.
    """
    slug = SOURCES[name].kaggle
    # Its outputs are meant for notebooks: ours go to standard output, and a bar only where someone looks at it.
    errors: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
    if not bar:
        errors = contextlib.redirect_stderr(io.StringIO())
    with contextlib.redirect_stdout(sys.stderr), errors:
        if dst is None:
            return Path(_fetch(slug, None))
        with atomic.Staging(dst, replace=replace_dst) as work:
            _fetch(slug, work)
            shutil.rmtree(work / ".complete", ignore_errors=True)  # kagglehub's own mark
    return dst


def _fetch(slug: str, folder: Path | None) -> str:
    try:
        import kagglehub
        import requests
        from kagglesdk.kaggle_env import get_endpoint, get_env
    except ImportError as error:
        raise NotDownloaded(
            f"Downloads need kagglehub. Received: an environment without it ({error.name}). "
            "Run pip install 'customcnn[download]', or fetch the data by hand."
        ) from None
    logging.getLogger("kagglehub").setLevel(logging.ERROR)
    try:
        endpoint = get_endpoint(get_env())
        requests.head(endpoint, timeout=PATIENCE)
    except requests.RequestException as error:
        raise NotDownloaded(
            f"Kaggle answers in some seconds. Received: none from {endpoint} ({type(error).__name__}). "
            "Check the connection, or fetch the data by hand."
        ) from None
    try:
        return kagglehub.dataset_download(slug, output_dir=None if folder is None else str(folder))
    except Exception as error:  # of requests, of zipfile, kagglehub's own, the system's
        raise NotDownloaded(
            f"Kaggle sends {slug}. Received: {type(error).__name__}: {' '.join(str(error).split())} "
            "Try again, or fetch the data by hand."
        ) from error


def manual_steps(name: str, dst: Path | None = None) -> list[str]:
    """Return what to do by hand instead of `download`, one numbered line a step."""
    source, folder = SOURCES[name], dst or Path(f"{name}-archive")
    home = f" (the authors' own page is {source.home})" if source.home else ""
    steps = [
        f"Open {source.page} in a browser{home}.",
        "Download it there as a zip file; Kaggle may ask you to sign in.",
        f"Unpack it: unzip archive.zip -d {shlex.quote(str(folder))}",
        f"Make class folders of it, in a checkout of customcnn: {next_command(name, folder)}",
    ]
    return [f"{number}. {step}" for number, step in enumerate(steps, start=1)]


def next_command(name: str, folder: Path) -> str:
    """Return the command that makes class folders of an unpacked data set."""
    return f"python data_tools/{SOURCES[name].script} prepare {shlex.quote(str(folder))} cells"
