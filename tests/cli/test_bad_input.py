"""Bad input gets one clear line and status 1, and nothing half-written: every kind, to every command it can meet."""

import csv
import io
import json
import os
import re
import resource
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from customcnn.cli import cli, main
from customcnn.io.atomic import RESUME_FILE
from customcnn.models import get_spec
from tests.support.commands import error_line, printed
from tests.support.folders import contents

SIZE = get_spec("small").minimum_size
CLASSES = ("all", "hem")
PARTS = ("train", "validation")
ODD = "a b'c\"d\ne ü 細胞.png"
"""A name with a space, quotes, a newline and letters of other scripts."""

Words = list[object]


def picture(seed: int, size: int = SIZE) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8))


def class_folders(root: Path, parts: tuple[str, ...] = (), count: int = 6) -> Path:
    """Write class folders of noise: root/all/0.png to 5.png, and hem; or those of every part."""
    for part in parts or ("",):
        for number, label in enumerate(CLASSES):
            folder = root / part / label
            folder.mkdir(parents=True)
            for i in range(count):
                picture(1000 * len(part) + 100 * number + i).save(folder / f"{i}.png")
    return root


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty folder that is the current one: `data` and `dst` are names in it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def advised(message: str) -> set[str]:
    """Return the options that an error names, less those of another command that it gives as a whole line."""
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", re.sub(r"customcnn \w+[^.;]*", "", message)))


def options(name: str) -> set[str]:
    """Return the options of a command."""
    own = {option for given in cli.commands[name].params for option in (*given.opts, *given.secondary_opts)}
    return own | {"--help"}


@pytest.fixture
def fails(here, shell) -> Callable[..., str]:
    """Return a function that runs a command line, holds that it fails as it should, and gives the error's text."""

    def run(*words: object) -> str:
        before = contents(here, folders=True)
        message = error_line(*shell(*words))
        assert advised(message) <= options(str(words[0])), "the command does not have what the error advises"
        assert contents(here, folders=True) == before, "something was left behind"
        return message

    return run


@pytest.fixture
def works(here, shell) -> Callable[..., tuple[str, str]]:
    """Return a function that runs a command line that must succeed and gives its two streams."""
    return lambda *words: printed(*shell(*words))


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run of one epoch of the network small on all and hem."""
    folder = tmp_path_factory.mktemp("trained")
    data = class_folders(folder / "data", PARTS)
    with pytest.raises(SystemExit) as ended:
        main(["train", str(data), *map(str, SMALL), "--out", str(folder / "run")])
    assert not ended.value.code
    return folder / "run"


SMALL: Words = ["--model", "small", "--epochs", 1, "--batch-size", 8, "--set", f"input_size={SIZE}"]
ON_CLASSES: dict[str, Words] = {
    "split": ["split", "data", "dst"],
    "crop": ["crop", "data", "dst", "--size", 10, "--no-check"],
    "augment": ["augment", "data", "dst", "--count", 24, "--workers", 1],
}
ON_PARTS: dict[str, Words] = {
    "audit": ["audit", "data", "--workers", 1],
    "train": ["train", "data", *SMALL, "--out", "dst"],
}
ON_FOLDERS = ON_CLASSES | ON_PARTS

every_command = pytest.mark.parametrize("name", [*ON_FOLDERS, "evaluate"])


@pytest.fixture
def command(trained) -> Callable[[str], Words]:
    """Return a function that gives the words of a command that reads the folder `data`."""
    return lambda name: (ON_FOLDERS | {"evaluate": ["evaluate", trained, "data", "--out", "dst"]})[name]


def data_for(name: str, here: Path) -> tuple[Path, str]:
    """Write what a command reads into `data`; return it and where in it the command looks: "" or "validation/"."""
    if name in ON_CLASSES:
        return class_folders(here / "data"), ""
    return class_folders(here / "data", PARTS), "validation/"


# ---------------------------------------------------------------- folders


@every_command
def test_a_missing_folder(fails, command, name):
    assert "'data', which is no" in fails(*command(name))


@every_command
def test_a_file_for_a_folder(here, fails, command, name):
    (here / "data").write_text("x")
    assert "'data', which is no" in fails(*command(name))


@every_command
def test_an_empty_folder(here, fails, command, name):
    (here / "data").mkdir()
    assert "Received: 'data', which holds none." in fails(*command(name))


@every_command
def test_empty_class_folders(here, fails, command, name):
    for label in CLASSES:
        (here / "data" / "train" / label).mkdir(parents=True)
    message = fails(*command(name))
    assert "Received: 'data', which holds none." in message or (
        "'train/all' (a class folder without images), 'train/hem' (a class folder without images)" in message
    )


@pytest.mark.parametrize("name", ["split", "augment", "train"])
def test_one_class(here, fails, command, name):
    parts = PARTS if name in ON_PARTS else ("",)
    for part in parts:
        (here / "data" / part / "all").mkdir(parents=True)
        picture(1).save(here / "data" / part / "all" / "1.png")
    message = fails(*command(name))
    assert message.startswith("Classification needs at least two classes. Received: 'data', 'all' only.")


def test_a_class_with_one_image(here, fails):
    class_folders(here / "data")
    (here / "data" / "few").mkdir()
    picture(9).save(here / "data" / "few" / "one.png")
    message = fails("split", "data", "dst")
    assert message.startswith(
        "Every part needs an image of every class. Received: class 'few' with 1 image, which gives"
    )
    by_group = fails("split", "data", "dst", "--by", "group", "--group-pattern", r"/(\w+)\.png")
    assert by_group.startswith("Every part needs a group of every class. Received: class 'few' with 1 group ")


@every_command
def test_what_does_not_belong_is_named_altogether(here, fails, command, name):
    root, prefix = data_for(name, here)
    inside = root / prefix / "all"
    (root / "readme.txt").write_text("x")
    (inside / "notes.txt").write_text("x")
    (inside / "inner").mkdir()
    message = fails(*command(name))
    assert f"'{prefix}all/inner' (a folder inside a class folder)" in message
    assert f"'{prefix}all/notes.txt' (not an image by its name)" in message
    assert "'readme.txt' (a file beside the class folders)" in message


def test_a_folder_that_is_not_split(here, fails, command):
    class_folders(here / "data")
    assert "customcnn split" in fails(*command("train"))


def test_a_folder_that_is_split_already(here, fails):
    class_folders(here / "data", PARTS)
    assert fails("split", "data", "dst").startswith("A folder is split once. Received: 'data', which has 'train'")


# ---------------------------------------------------------------- files


def png_of(width: int, height: int) -> bytes:
    """Return a small PNG file that claims a size, as a bomb does."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    lines = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")


def encoded(image: Image.Image, format: str, **options) -> bytes:
    data = io.BytesIO()
    image.save(data, format=format, **options)
    return data.getvalue()


FILES = {
    "zero bytes": (b"", "an empty file"),
    "truncated": (encoded(picture(1), "PNG")[:400], "damaged ("),
    "truncated BMP": (encoded(picture(1), "BMP")[:400], "damaged ("),
    "text": (b"These are not pixels.\n", "not an image of a known format"),
    "animated": (
        encoded(picture(1), "GIF", save_all=True, append_images=[picture(2), picture(3)]),
        "an animation or a stack of several pictures",
    ),
    "huge": (png_of(40_000, 40_000), "more than 50,000,000 pixels"),
    "float": (encoded(Image.fromarray(np.ones((SIZE, SIZE), np.float32)), "TIFF"), "floating-point pixels"),
    "EPS": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n", "not an image of a known format"),
}


@every_command
@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_no_picture(here, fails, command, name, kind):
    content, reason = FILES[kind]
    root, prefix = data_for(name, here)
    (root / prefix / "all" / ODD).write_bytes(content)
    message = fails(*command(name))
    assert reason in message
    assert "細胞.png" in message and "d\\ne" in message


@every_command
def test_a_link_to_nowhere(here, fails, command, name):
    root, prefix = data_for(name, here)
    (root / prefix / "all" / "gone.png").symlink_to("nowhere.png")
    assert "gone.png'" in fails(*command(name))


@pytest.mark.parametrize("name", ["split", "crop"])
def test_every_bad_file_is_named_and_skipped_on_demand(here, fails, works, command, name):
    root = class_folders(here / "data")
    for kind, (content, _) in FILES.items():
        (root / "hem" / f"{kind}.png").write_bytes(content)
    message = fails(*command(name))
    bad = [f"'hem/{kind}.png' ({reason}" for kind, (_, reason) in FILES.items()]
    more = f" and {len(bad) - 5} more"
    assert sum(text in message for text in bad) == 5 and more in message
    assert "--skip-bad" in message
    _, errors = works(*command(name), "--skip-bad")
    assert errors.startswith("Skipped: ")
    skipped = errors.splitlines()[0]
    assert sum(text in skipped for text in bad) == 5 and more in skipped
    assert len(list((here / "dst").rglob("*.png"))) == 12


def test_a_huge_picture_is_refused_and_not_loaded(here):
    """In a process with a gigabyte to spend; the pixels would take almost five."""
    root = class_folders(here / "data")
    (root / "all" / "huge.png").write_bytes(png_of(40_000, 40_000))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (2**30, 2**30))

    words = [sys.executable, "-m", "customcnn", "split", "data", "dst", "--workers", "1"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, preexec_fn=limit)
    assert done.returncode == 1
    assert re.fullmatch(r"Error: [^\n]*'all/huge\.png' \(more than 50,000,000 pixels\)[^\n]*\n", done.stderr)


@pytest.mark.parametrize("name", ["predict", "visualize"])
@pytest.mark.parametrize("kind", FILES)
def test_pictures_by_name(here, fails, trained, name, kind):
    content, reason = FILES[kind]
    (here / ODD).write_bytes(content)
    out: Words = ["--out", "dst"] if name == "visualize" else []
    assert reason in fails(name, trained, ODD, *out)


def test_damaged_pictures_cost_the_others_nothing(here, shell, works, trained):
    class_folders(here / "cells", count=2)
    good, folder = str(here / "cells" / "all" / "1.png"), here / "cells" / "all"
    for number in range(7):
        (folder / f"bad{number}.png").write_bytes((folder / "0.png").read_bytes()[:60])
    (here / "one").mkdir()
    (here / "one" / "bad.png").write_bytes(b"")
    words = ["predict", trained, folder]
    status, output, errors = shell(*words, here / "one")
    assert status == 1 and [line.split("  ")[0] for line in output.splitlines()] == [str(folder / "0.png"), good]
    error = errors.splitlines()[-1]
    assert error.startswith("Error: Images are single pictures of a known format. Received: '")
    assert "bad4.png', damaged (" in error and error.endswith(
        " and 3 more. The 2 others are answered. Remove them or use --skip-bad."
    )
    assert "bad5" not in error and "use --skip-bad" in error
    output, errors = works(*words, "--skip-bad")
    assert len(output.splitlines()) == 2 and errors.count("Skipped: ") == 1 and "bad4.png' (damaged" in errors
    assert "and 2 more" in errors
    output, _ = works(*words, "--skip-bad", "--json")
    found = json.loads(output)
    assert len(found["predictions"]) == 2 and len(found["skipped"]) == 7
    status, output, errors = shell("predict", trained, here / "one", "--skip-bad", "--json")
    assert (status, output) == (1, "") and "bad.png', an empty file" in errors, "nothing is left to be answered"


@pytest.mark.parametrize("name", ["predict", "visualize"])
def test_pictures_that_are_not_there(here, fails, trained, name):
    out: Words = ["--out", "dst"] if name == "visualize" else []
    (here / "empty").mkdir()
    assert "'no\\nwhere.png', which does not exist" in fails(name, trained, "no\nwhere.png", *out)
    assert "'empty', a folder without images" in fails(name, trained, "empty", *out)


READ_FOLDERS: dict[str, Words] = {
    "audit": ["audit", "data"],
    "augment": ["augment", "data", "dst", "--workers", 1],
    "calibrate": ["calibrate", "run", "data"],
    "crop": ["crop", "data", "dst", "--size", 10],
    "crossval": ["crossval", "data", "--model", "small", "--out", "dst"],
    "evaluate": ["evaluate", "run", "data"],
    "leakage": ["leakage", "data", "--group-pattern", "cnmc", "--out", "dst"],
    "pack": ["pack", "data", "--size", 22],
    "pretrain": ["pretrain", "data", "--model", "small", "--out", "dst"],
    "split": ["split", "data", "dst"],
    "train": ["train", "data", "--model", "small", "--out", "dst"],
    "tune": ["tune", "data", "--recipe", "search.toml", "--out", "dst"],
    "visualize": ["visualize", "run", "--data", "data", "--out", "dst"],
}
"""All commands that refuse what is no image in class folders."""


@pytest.mark.parametrize("name", READ_FOLDERS)
def test_what_does_not_belong_is_left_out_by_commands_that_can(here, shell, name):
    class_folders(here / "data", () if name == "split" else PARTS)
    stray = next((here / "data").rglob("all")) / "notes.txt"
    stray.write_text("x")
    (here / "search.toml").write_text('model = "small"\ninput_size = 22\n[search]\nseed = [1, 2]\n')
    message = error_line(*shell(*READ_FOLDERS[name]))
    assert "notes.txt" in message
    assert advised(message) <= options(name)
    assert ("--skip-bad" in message) == ("--skip-bad" in options(name))


@pytest.mark.parametrize("name", ["crop", "augment"])
def test_a_name_that_becomes_too_long_is_named(here, fails, name):
    class_folders(here / "data")
    long = "n" * 249 + (".bmp" if name == "augment" else ".jpg")
    picture(3).save(here / "data" / "all" / long)
    message = fails(*ON_CLASSES[name])
    assert message.startswith("A file's name has 255 bytes at most") and "nnnn" in message
    assert ".partial" not in message


# ---------------------------------------------------------------- pictures that are converted


def test_other_kinds_of_pixels_are_converted_and_that_is_said_once(here, works):
    root = class_folders(here / "data")
    rgb = picture(50)
    alpha = rgb.convert("RGBA")
    alpha.putalpha(rgb.convert("L"))
    deep = Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257)
    kinds = {
        "deep.png": deep,
        "grey.bmp": rgb.convert("L"),
        "palette.png": rgb.convert("P"),
        "cmyk.tiff": rgb.convert("CMYK"),
        "alpha.png": alpha,
    }
    for label in CLASSES:
        for name, image in kinds.items():
            image.save(root / label / name)
    works("split", "data", "parts", "--ratio", 0.5)
    _, errors = works("crop", "parts", "cropped", "--size", SIZE)
    assert errors == "" or "onverted" in errors
    _, errors = works("augment", "cropped", "augmented", "--count", 24, "--workers", 1)
    assert len(re.findall("onverted", errors)) <= 1
    _, errors = works("train", "parts", *SMALL, "--out", "run")
    said = [line for line in errors.splitlines() if "onverted" in line]
    assert said == [
        "Note: converted to 8-bit RGB: 2 of mode CMYK, 2 of mode I;16, 2 of mode L, 2 of mode P, 2 of mode RGBA."
    ]
    with (here / "parts" / "manifest.csv").open(newline="") as file:
        assert sum(Path(row["path"]).name in kinds for row in csv.DictReader(file)) == 10


# ---------------------------------------------------------------- names


@pytest.mark.docs
def test_odd_names_go_all_the_way(here, works):
    """Spaces, quotes, newlines and unicode: in the folder's name, the class's and the file's."""
    root = here / "my 'data'\n"
    names = [ODD, "-dash.png", "comma, semi;.png", "percent%20.png", "star*?[1].png", os.fsdecode(b"stray\xff.png")]
    for label in ("a\nb", 'ü "q"'):
        (root / label).mkdir(parents=True)
        for number, name in enumerate(names):
            picture(len(label) * 10 + number).save(root / label / name)
    works("split", root, "parts", "--ratio", 0.5)
    works("crop", "parts", "cropped", "--size", SIZE)
    works("augment", "cropped", "augmented", "--count", 12, "--workers", 1)
    works("audit", "augmented", "--workers", 1)
    works("train", "augmented", *SMALL, "--out", "run", "--set", "positive=a\nb")
    works("evaluate", "run", "augmented", "--resamples", 5)
    works("train", "augmented", "--out", "run", "--resume", "--epochs", 2)
    works("predict", "run", root / "a\nb")
    works("visualize", "run", root / "a\nb" / ODD)
    with (here / "run" / "predictions.csv").open(newline="", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    assert {Path(row["path"]).name for row in rows} <= set(names)
    assert {row["label"] for row in rows} == {"a\nb", 'ü "q"'}


# ---------------------------------------------------------------- destinations


@pytest.mark.parametrize("name", [*ON_CLASSES, "samples"])
def test_a_destination_in_use(here, fails, command, name):
    class_folders(here / "data")
    words: Words = ["samples", "dst", "--subjects", 2, "--cells", 2] if name == "samples" else command(name)
    (here / "dst").mkdir()
    (here / "dst" / "thesis.txt").write_text("x")
    assert re.fullmatch(r"Destination '.*dst' is not empty\. Use --replace to write over it\.", fails(*words))
    (here / "dst" / "thesis.txt").unlink()
    (here / "dst").rmdir()
    (here / "dst").write_text("x")
    for option in ([], ["--replace"]):
        assert fails(*words, *option).endswith("dst', which is a file. Choose another name.")


@pytest.mark.parametrize("name", ON_CLASSES)
@pytest.mark.parametrize("dst", ["data", "data/dst", "data/all", "."])
def test_a_destination_in_the_source(here, fails, command, name, dst):
    class_folders(here / "data")
    words = [dst if word == "dst" else word for word in command(name)]
    fails(*words, "--replace")


def test_runs_in_the_way(here, fails, command):
    class_folders(here / "data", PARTS)
    (here / "dst").mkdir()
    (here / "dst" / "thesis.txt").write_text("x")
    assert fails(*command("train")).startswith("Run 'dst' exists. Use --resume to go on with it, or --replace")
    assert fails(*command("train"), "--replace").startswith(
        "--replace deletes runs only. Received: 'dst', which is no run"
    )
    assert fails(*command("train"), "--resume").startswith(
        "--resume goes on with a run. Received: 'dst', which is none."
    )


def test_a_demo_in_the_way(here, fails):
    (here / "dst").mkdir()
    (here / "dst" / "thesis.txt").write_text("x")
    assert fails("demo", "dst").startswith("Destination 'dst' is not empty.")
    assert fails("demo", "dst", "--replace").startswith("--replace deletes a demo only.")
    assert fails("demo", "other", "--model", "nosuch").startswith("The model must be one of ")


@pytest.fixture(params=["read-only", "a file above it"])
def refusing(request, here) -> Path:
    """A place where nothing can be made."""
    if request.param == "a file above it":
        (here / "file").write_text("x")
        return here / "file" / "dst"
    if os.geteuid() == 0:
        return Path("/sys/customcnn")  # not even root makes folders there
    (here / "read-only").mkdir(mode=0o500)
    return here / "read-only" / "dst"


@pytest.mark.parametrize("name", [*ON_CLASSES, "samples", "train", "evaluate", "visualize"])
def test_a_destination_that_refuses(here, fails, command, trained, name, refusing):
    class_folders(here / "data", PARTS if name in (*ON_PARTS, "evaluate") else ())
    if name == "samples":
        words: Words = ["samples", "dst", "--subjects", 2, "--cells", 2, "--size", 64, "--workers", 1]
    elif name == "visualize":
        words = ["visualize", trained, "data/all/1.png", "--out", "dst"]
    else:
        words = command(name)
    message = without_packs(fails, here, *[refusing if word == "dst" else word for word in words])
    assert message.startswith("The system refused a file operation: ")
    assert message.endswith(" Check the space and the permissions there.")


def without_packs(fails: Callable[..., str], here: Path, *words: object) -> str:
    """Run a failing command line; a whole pack beside the data is no remains: the next try uses it."""
    try:
        return fails(*words)
    except AssertionError as error:
        packs = list(here.glob("data/.customcnn/pack-*"))
        if "left behind" not in str(error) or not packs or not all((pack / "pack.json").is_file() for pack in packs):
            raise
        return fails(*words)


@contextmanager
def full_disk(left: int) -> Iterator[None]:
    """Let no file grow beyond a size: writing more fails as on a full disk, if with another word."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (left, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("name", [*ON_CLASSES, "samples", "train"])
def test_a_full_destination(here, fails, command, name):
    class_folders(here / "data", PARTS if name == "train" else ())
    words: Words = (
        ["samples", "dst", "--subjects", 2, "--cells", 2, "--size", 64] if name == "samples" else command(name)
    )
    with full_disk(1000 if name != "crop" else 300):
        message = fails(*words, "--workers", 1)
    assert message.startswith("The system refused a file operation: File too large.")


def test_a_disk_that_fills_up_while_training(here, works, shell):
    """The pack and the recipe fit, the network does not: nothing half-written is left, and --resume goes on."""
    class_folders(here / "data", PARTS)
    words: Words = ["train", "data", *SMALL, "--out", "dst"]
    with full_disk(100_000):
        ended = shell(*words)
    assert error_line(*ended).startswith("The system refused a file operation: ")
    assert not [path for path in here.rglob("*") if "partial" in path.name or path.suffix == ".keras"]
    works(*words, "--resume")


def test_a_worker_process_on_a_full_disk(here, fails):
    class_folders(here / "data")
    with full_disk(1000):
        message = fails("augment", "data", "dst", "--count", 8, "--workers", 2)
    assert message.startswith("The system refused a file operation: File too large.")


# ---------------------------------------------------------------- numbers and patterns


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--ratio", "0"], "Received: --ratio 0."),
        (["--ratio", "1"], "Received: --ratio 1."),
        (["--ratio", "1.5"], "Received: --ratio 1.5."),
        (["--ratio", "-.5"], "Received: --ratio -0.5."),
        (["--ratio", "nan"], "Received: --ratio nan."),
        (["--ratio", "0.001"], "Every part needs an image of every class."),
        (["--val", "0"], "Received: --val 0."),
        (["--test", "1"], "Received: --test 1."),
        (["--ratio", ".8", "--val", ".3"], "sum to 1"),
        (["--val", ".5", "--test", ".5"], "above 0"),
        (["--group-pattern", "UID"], "A group pattern has one capturing group"),
        (["--group-pattern", "(a)(b)"], "which has 2"),
        (["--group-pattern", "(a"], "A group pattern is a regular expression. Received: '(a' ("),
        (["--group-pattern", "(zzz)"], "gives no image in 'data' a group"),
        (["--group-pattern", "cnmc"], "gives no image in 'data' a group"),
        (["--group-pattern", "(0)"], "gives no group to 10 of them: 'all/1.png'"),
        (["--groups", "no\n.csv"], "Received: 'no\\n.csv'"),
        (["--groups", "data/all/0.png"], "Received: 'data/all/0.png'"),
        (["--groups", "half.csv"], "gives no group to 11 of them"),
        (["--groups", "other.csv"], "without path, group"),
        (["--by", "group"], "Use --group-pattern"),
        (["--by", "group", "--group-pattern", "(png)"], "Every part needs a group of every class."),
        (["--workers", "0"], "Received: 0."),
        (["--seed", "-1", "--workers", "-1"], "Received: -1."),
    ],
)
def test_split_with(here, fails, words, text):
    class_folders(here / "data")
    (here / "half.csv").write_text("path,group\nall/0.png,1\n")
    (here / "other.csv").write_text("file,subject\nall/0.png,1\n")
    assert text in fails("split", "data", "dst", *words)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--count", "0"], "Received: 0."),
        (["--count", "-5"], "Received: -5."),
        (["--count", "1"], "Received: 1."),
        (["--probability", "1.5"], "Received: 1.5."),
        (["--probability", "nan"], "Received: nan."),
        (["--rotate", "90"], "Received: 90."),
        (["--zoom", "0.5"], "Received: 0.5."),
        (["--workers", "0"], "Received: 0."),
    ],
)
def test_augment_with(here, fails, words, text):
    class_folders(here / "data")
    assert text in fails("augment", "data", "dst", *words)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--size", "0"], "Received: --size 0."),
        (["--size", "-4"], "Received: --size -4."),
        (["--size", "1000"], "Received: --size 1000 for 'all/0.png' (22 x 22)"),
        (["--size", "10"], "which cuts more from 'all/0.png' ("),
    ],
)
def test_crop_with(here, fails, words, text):
    for label in CLASSES:
        (here / "data" / label).mkdir(parents=True)
        cell = Image.new("RGB", (SIZE, SIZE))
        cell.paste("purple", (4, 8, 18, 12))
        cell.save(here / "data" / label / "0.png")
    assert text in fails("crop", "data", "dst", *words)


@pytest.mark.parametrize(
    "words",
    [
        ["--subjects", "0"],
        ["--subjects", "-1"],
        ["--cells", "0"],
        ["--size", "1"],
        ["--size", "0"],
        ["--workers", "0"],
    ],
)
def test_samples_with(fails, words):
    message = fails("samples", "dst", "--subjects", 1, "--cells", 1, "--size", 64, *words)
    assert f"Received: {words[0]} {words[1]}." in message or f"Received: {words[1]}." in message


# ---------------------------------------------------------------- recipes, networks, runs


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--recipe", "unknown.toml"], "Received: 'epoch' in 'unknown.toml'. Did you mean epochs?"),
        (["--recipe", "text.toml"], "A recipe is a TOML file. Received: 'text.toml' ("),
        (["--recipe", "nowhere.toml"], "A recipe is a TOML file. Received: 'nowhere.toml' ("),
        (["--recipe", "data"], "A recipe is a TOML file. Received: 'data' ("),
        (["--set", "epoch=3"], "Received: 'epoch' in the command line. Did you mean epochs?"),
        (["--set", "epochs"], "--set takes key=value. Received: 'epochs'."),
        (["--set", "seed=x"], "Recipe key seed is a whole number. Received: 'x'"),
        (["--epochs", "0"], "Recipe key epochs: 1 or more. Received: 0."),
        (["--batch-size", "-1"], "Recipe key batch_size: 1 or more. Received: -1."),
        (["--set", "learning_rate=0"], "Recipe key learning_rate: a number above 0. Received: 0.0."),
        (["--model", "smal"], "Received: 'smal'. Did you mean small?"),
        (["--set", "input_size=21"], "small needs an input of at least 22 x 22 pixels. Received: 21 x 21."),
        (["--set", "positive=blast"], "The positive class is one of two. Received: 'blast'"),
        (["--set", "loss=categorical_crossentropy"], "The loss fits the output: "),
        (["--workers", "0"], "Received: 0."),
    ],
)
def test_train_with(here, fails, words, text):
    class_folders(here / "data", PARTS)
    (here / "unknown.toml").write_text('model = "small"\nepoch = 3\n')
    (here / "text.toml").write_text("Dear diary,\n")
    base = [] if "--recipe" in words else SMALL
    assert text in without_packs(fails, here, "train", "data", *base, "--out", "dst", *words)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["nosuch"], "The model must be one of "),
        (["small", "--input-size", "21"], "at least 22 x 22 pixels. Received: 21 x 21."),
        (["small", "--input-size", "-1"], "Received: -1 x -1."),
        (["small", "--classes", "1"], "Received: 1."),
    ],
)
def test_summary_with(fails, words, text):
    assert text in fails("summary", *words)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--resamples", "0"], "Received: --resamples 0."),
        (["--resamples", "-1"], "Received: --resamples -1."),
        (["--out", "data/train/all/1.png"], "A destination is a folder. Received: 'data/train/all/1.png', which is a"),
        (["--workers", "0"], "Received: 0."),
        (["--groups", "nowhere.csv"], "Received: 'nowhere.csv'"),
    ],
)
def test_evaluate_with(here, fails, trained, words, text):
    class_folders(here / "data", PARTS)
    assert text in fails("evaluate", trained, "data", "--out", "dst", *words)


@pytest.mark.parametrize("name", ["evaluate", "predict", "visualize"])
def test_what_is_no_run(here, fails, name):
    root = class_folders(here / "data")
    target = root if name == "evaluate" else root / "all" / "1.png"
    for run in ("nowhere", "data"):
        assert fails(name, run, target).startswith(f"A run is a folder made by customcnn train. Received: '{run}'.")
    (here / "run").mkdir()
    (here / "run" / "recipe.toml").write_text('model = "small"\n')
    assert "without best.keras: no epoch has ended." in fails(name, "run", target)
    (here / "run" / "best.keras").write_bytes(b"PK")
    assert fails(name, "run", target).startswith("A saved network is a .keras file written by customcnn.")


def test_a_run_of_another_network(here, fails, works):
    class_folders(here / "data", PARTS)
    works("train", "data", *SMALL, "--out", "run")
    message = fails("train", "data", "--resume", "--out", "run", "--model", "alexnet")
    assert message.startswith("A run is resumed with its own recipe. Received: model 'alexnet' where it was 'small'.")
    class_folders(here / "other", PARTS, count=3)
    message = fails("train", "other", "--resume", "--out", "run", "--epochs", 2)
    assert message.startswith("A run is resumed on its own images. Received: 'other', not as in ")
    (here / "other" / "train" / "all").rename(here / "other" / "train" / "blast")
    (here / "other" / "validation" / "all").rename(here / "other" / "validation" / "blast")
    message = fails("evaluate", "run", "other")
    assert message.startswith(
        "Data has the classes of the run. Received: 'blast' in 'other', where 'run' knows 'all', 'hem'."
    )
    assert fails("evaluate", "run", "data", "--part", "test").startswith(
        "--part names a part of the data. Received: test;"
    )


# ---------------------------------------------------------------- in a process of its own


@pytest.mark.parametrize(
    "words",
    [
        ["split", "nowhere", "dst"],
        ["augment", "data", "dst", "--count", "-1"],
        ["augment", "damaged", "dst", "--count", "24", "--workers", "2"],
        ["train", "data", "--recipe", "unknown.toml", "--out", "dst"],
        ["predict", "data", "x.png"],
    ],
)
def test_the_whole_process(here, words):
    """As a user meets it: one line, status 1, no traceback from the interpreter, a worker or a thread."""
    class_folders(here / "data")
    class_folders(here / "damaged")
    (here / "damaged" / "hem" / ODD).write_bytes(encoded(picture(1), "PNG")[:400])
    (here / "unknown.toml").write_text("epoch = 3\n")
    before = contents(here, folders=True)
    done = subprocess.run(
        [sys.executable, "-m", "customcnn", *words], capture_output=True, text=True, check=False, cwd=here
    )
    error_line(done.returncode, done.stdout, done.stderr)
    assert contents(here, folders=True) == before


def test_a_killed_augmentation_is_not_taken_for_a_whole_one(here, fails):
    """What a kill leaves has another name than the destination; another command's error does not delete it."""
    class_folders(here / "data")
    (here / ".dst.partial").mkdir()
    (here / ".dst.partial" / RESUME_FILE).write_text("{}")
    assert "Received: 0." in fails("augment", "data", "dst", "--count", 0)
