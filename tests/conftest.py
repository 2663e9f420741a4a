"""Fixtures that several test files share: small folders of images, and the data that lies beside the repository."""

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

# A busy machine must not fail a property for being slow.
settings.register_profile("customcnn", deadline=None)
settings.load_profile("customcnn")

MakeFolder = Callable[..., Path]


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
