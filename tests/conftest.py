"""Fixtures that several test files share: small folders of images, the command line, and data beside the repository."""

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from customcnn.cli import main

# A busy machine must not fail a property for being slow.
settings.register_profile("customcnn", deadline=None)
settings.load_profile("customcnn")

MakeFolder = Callable[..., Path]
Shell = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _settings_of_python() -> Iterator[None]:
    """Fail the test after which Python's own variables differ: the programs that later tests start would see them."""
    before = {name: value for name, value in os.environ.items() if name.startswith("PYTHON")}
    yield
    assert {name: value for name, value in os.environ.items() if name.startswith("PYTHON")} == before


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """Return a function that writes class folders of tiny, all different images.

    `make_folder({"all": 5, "hem": 4})` writes `data/all/0.bmp` to `4.bmp` and `data/hem/0.bmp` to `3.bmp`, 8 x 8 RGB.
    Instead of a count, a class may have a list of file names; a class may be a path ("train/all").
    """
    made = 0

    def make(
        classes: Mapping[str, int | list[str]], name: str = "data", *, size: int = 8, suffix: str = ".bmp"
    ) -> Path:
        nonlocal made
        for label, files in classes.items():
            folder = tmp_path / name / label
            folder.mkdir(parents=True, exist_ok=True)
            for file in [f"{i}{suffix}" for i in range(files)] if isinstance(files, int) else files:
                pixels = np.random.default_rng(made).integers(0, 256, (size, size, 3), dtype=np.uint8)
                made += 1
                Image.fromarray(pixels).save(folder / file)
        return tmp_path / name

    return make


@pytest.fixture
def shell(capfd: pytest.CaptureFixture[str]) -> Shell:
    """Return a function that runs a command line in this process and gives its status, output and error stream."""

    def run(*words: object) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        output, errors = capfd.readouterr()
        return int(ended.value.code or 0), output, errors

    return run


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real data beside the repository, or skip the test where it is not there."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the real data is not at {folder}")
    return folder


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """Return the empty root of a file system of 64 KiB; skip the test where it may not be mounted.

    A test may make it read-only: `subprocess.run(["mount", "-o", "remount,ro", disk], check=True)`.
    """
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system can be mounted by root only")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)
