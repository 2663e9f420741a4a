"""How the cost of the commands grows with the number of files: CPU time a file, and memory."""

import json
import math
import os
import resource
import shutil
import struct
import sys
import tempfile
import threading
import time
import traceback
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.race import machine, machine_line

EDGE, CROPPED = 16, 12  # pixels: a file is smaller than a block of the disk

LABELS = ("all", "hem")
PER_SUBJECT = 20  # images: with more files there are more subjects

PLANTED = 100
"""Every so many images, one is the quarter turn of the image before it."""

PIECE = 10_000  # images drawn at a time
SAMPLED_EVERY = 0.05  # seconds between two looks at the memory
MIB = 2**20


@dataclass(frozen=True)
class Cost:
    """What one command took for one number of files.

    Attributes:
        command: its name.
        files: how many.
        wall: seconds.
        cpu: seconds, user and system, of the process and its workers.
        base: bytes of anonymous memory of the process and its workers before the work.
        peak: the same at most, during the work; what is memory-mapped from files is not in it.
        resident: bytes, the process's or a worker's largest resident set, whichever is larger; maps of files are in it.
        found: what the command says of its work.
        failed: why there is nothing; "" where there is.
    """

    command: str
    files: int
    wall: float = 0.0
    cpu: float = 0.0
    base: int = 0
    peak: int = 0
    resident: int = 0
    found: str = ""
    failed: str = ""


def draw(folder: Path, count: int, seed: int = 0) -> None:
    """Write images of blotches as PNG into `folder/all` and `folder/hem`, named after their subjects as C-NMC's are.

    All differ; one in PLANTED is another one turned, of another subject.
    """
    for label in LABELS:
        (folder / label).mkdir(parents=True)
    subjects = -(-count // PER_SUBJECT)
    for start in range(0, count, PIECE):
        rng = np.random.default_rng((seed, start))
        many = min(PIECE, count - start)
        blotches = rng.integers(0, 160, (many, 8, 8, 3), dtype=np.uint8).repeat(2, axis=1).repeat(2, axis=2)
        pixels = blotches + rng.integers(0, 96, (many, EDGE, EDGE, 3), dtype=np.uint8)
        frame = (EDGE - CROPPED) // 2
        inside = (slice(None), slice(frame, -frame), slice(frame, -frame))
        framed = np.zeros_like(pixels)  # black: of a million images without, a crop would cut some foreground away
        framed[inside] = pixels[inside]
        pixels = framed
        for number in range(start, start + many):
            here = number - start
            image = np.rot90(pixels[here - 1]) if number % PLANTED == PLANTED - 1 else pixels[here]
            label = LABELS[number // PER_SUBJECT % 2]
            subject = (number // PER_SUBJECT + (number % PLANTED == PLANTED - 1) * 2) % subjects
            name = f"UID_{subject + 1}_{number + 1}_1_{label}.png"
            (folder / label / name).write_bytes(png(image))


def png(pixels: np.ndarray) -> bytes:
    """Encode uint8 (H, W, 3) as PNG, uncompressed: faster than any library's encoder for so few pixels."""
    height, width, _ = pixels.shape
    lines = np.zeros((height, 1 + 3 * width), np.uint8)  # each line begins with the number of its filter: none
    lines[:, 1:] = pixels.reshape(height, -1)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(lines.tobytes(), 0)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def run_scan(folder: Path) -> str:
    """Read the names in a folder, and the groups in them."""
    return f"{len(_read(folder / 'cells').records)} records"


def run_split(folder: Path, by: str = "image") -> str:
    """Split by image, with copies."""
    from customcnn.data.split import shares, split_folder

    result = split_folder(_read(folder / "cells"), folder / "made", shares(), by=by)
    return ", ".join(f"{part} {len(result.manifest.part(part).records)}" for part in result.manifest.parts)


def run_crop(folder: Path) -> str:
    """Crop about the centre."""
    from customcnn.data.crop import crop_folder

    return f"{len(crop_folder(_read(folder / 'cells'), folder / 'made', CROPPED).manifest.records)} images"


def run_augment(folder: Path) -> str:
    """Turn and flip the training images until there are as many samples as there were files."""
    from customcnn.data.augment import augment_folder
    from customcnn.data.manifest import scan

    parts = scan(folder / "parts")
    return f"{len(augment_folder(parts, folder / 'made', len(parts.records)).manifest.records)} images"


def run_pack(folder: Path) -> str:
    """Decode every image into one array."""
    from customcnn.data.pack import pack

    return f"{len(pack(_read(folder / 'cells'), (EDGE, EDGE)).images)} images"


def run_audit(folder: Path) -> str:
    """Look for what the parts of a split share."""
    from customcnn.audit import audit, report

    found = audit(_read(folder / "parts"))
    report(found)
    return f"{len(found.near_duplicates)} near-duplicates, {len(found.shared_groups)} shared groups"


def run_evaluate(folder: Path) -> str:
    """Score a tiny network on all images, bootstrap included; the pack is there, as after a training."""
    from customcnn.evaluation.evaluate import evaluate
    from customcnn.runs.run_dir import RunDir

    found = evaluate(RunDir(folder / "run"), _read(folder / "cells"), out=folder / "made", device="cpu")
    return f"accuracy {found.metrics['accuracy']['value']:.3f}, {found.metrics['interval']['method']}"


def _read(folder: Path) -> Any:
    from customcnn.data.manifest import scan, with_group_pattern

    return with_group_pattern(scan(folder, skip_bad=True), "cnmc")


def make_parts(folder: Path) -> str:
    """Split the images by hard links."""
    from customcnn.data.manifest import scan
    from customcnn.data.split import shares, split_folder

    if not (folder / "parts").exists():
        split_folder(scan(folder / "cells"), folder / "parts", shares(), link="hard")
    return ""


def make_run(folder: Path) -> str:
    """Save a network of one convolution as if it had been trained on the training images."""
    import keras

    from customcnn.data.manifest import scan
    from customcnn.models import build_model
    from customcnn.recipe.recipe import load_recipe
    from customcnn.runs.run_dir import RunDir
    from customcnn.runs.saved_model import ModelInfo, save_model

    make_parts(folder)
    run_pack(folder)
    run = RunDir(folder / "run")
    run.path.mkdir()
    keras.utils.set_random_seed(0)
    model = build_model("one-conv", classes=len(LABELS), input_size=EDGE)
    save_model(model, ModelInfo("one-conv", list(LABELS), (EDGE, EDGE), LABELS[0], epoch=1), run.best)
    run.recipe.write_text(load_recipe(None, {"model": "one-conv", "input_size": EDGE}).to_toml())
    scan(folder / "parts").write(run.manifest)
    return ""


Work = Callable[[Path], str]  # in a data folder; it returns what it says of itself
COMMANDS: dict[str, tuple[Work, Work | None]] = {
    "scan": (run_scan, None),
    "split": (run_split, None),
    "split-by-group": (partial(run_split, by="group"), None),
    "crop": (run_crop, None),
    "augment": (run_augment, make_parts),
    "pack": (run_pack, None),
    "audit": (run_audit, make_parts),
    "evaluate": (run_evaluate, make_run),
}
"""Each command's work, and what comes before it unmeasured; both run in processes of their own."""


def measure(command: str, folder: Path, count: int) -> Cost:
    """Run one command on the files in a folder; what it makes is deleted afterwards."""
    work, prepare = COMMANDS[command]
    try:
        if prepare is not None:
            before = _in_process(prepare, folder)
            if isinstance(before, str):
                return Cost(command, count, failed=before)
        found = _in_process(work, folder)
        return Cost(command, count, failed=found) if isinstance(found, str) else Cost(command, count, **found)
    finally:
        for name in ("made", "run", "cells/.customcnn"):
            shutil.rmtree(folder / name, ignore_errors=True)


def _in_process(work: Work, folder: Path) -> dict[str, Any] | str:
    """Return what some work in a process of its own cost; or, as text, why it failed."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_child, args=(work, folder, theirs))  # not a daemon: it may have workers
    process.start()
    theirs.close()
    try:
        ours.recv()
        with watched(process.pid or 0) as memory:
            ours.send("go")
            answer = ours.recv()
    except EOFError:
        return "its process died"
    finally:
        process.join()
    return answer if isinstance(answer, str) else {**answer, "base": memory[0], "peak": memory[1]}


def _child(work: Work, folder: Path, pipe: Connection) -> None:
    pipe.send("ready")
    pipe.recv()
    before, began = _cpu(), time.perf_counter()
    try:
        found = work(folder)
    except Exception as error:
        traceback.print_exc()
        pipe.send(f"{type(error).__name__}: {error}".splitlines()[0])
        return
    wall = time.perf_counter() - began
    resident = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    pipe.send({"wall": wall, "cpu": _cpu() - before, "resident": resident * 1024, "found": found})


def _cpu() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@contextmanager
def watched(process: int) -> Iterator[list[int]]:
    """Sample the anonymous memory of a process and all below it: yield its bytes before, and at most until the end."""
    found = [anonymous(process)] * 2
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(SAMPLED_EVERY):
            found[1] = max(found[1], anonymous(process))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()


def anonymous(process: int) -> int:
    """Return the bytes of anonymous memory of a process and all below it; 0 for one that has ended."""
    total, waiting = 0, [process]
    while waiting:
        place = Path("/proc") / str(waiting.pop())
        try:
            lines = (place / "status").read_text().splitlines()
            total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))
            for task in (place / "task").iterdir():
                waiting += [int(child) for child in (task / "children").read_text().split()]
        except (OSError, ValueError):
            continue  # it ended meanwhile
    return total


def exponent(costs: Sequence[Cost]) -> float:
    """Return the slope of log CPU time on log files between the two largest sizes: 1 for a straight line; else NaN."""
    last = _largest_two(costs)
    if len(last) < 2 or min(cost.cpu for cost in last) <= 0:
        return math.nan
    return math.log(last[1].cpu / last[0].cpu) / math.log(last[1].files / last[0].files)


def bytes_a_file(costs: Sequence[Cost]) -> float:
    """Return by how many bytes the peak of memory grew with each file between the two largest sizes; else NaN."""
    last = _largest_two(costs)
    return math.nan if len(last) < 2 else (last[1].peak - last[0].peak) / (last[1].files - last[0].files)


def _largest_two(costs: Sequence[Cost]) -> list[Cost]:
    return sorted((cost for cost in costs if not cost.failed), key=lambda cost: cost.files)[-2:]


def table(costs: Sequence[Cost]) -> str:
    """Return a Markdown table: CPU time a file and the peak of memory by size, and how both grow."""
    sizes = sorted({cost.files for cost in costs})
    heads = [*(f"µs a file at {n:,}" for n in sizes), "exponent", *(f"MiB at {n:,}" for n in sizes), "bytes a file"]
    lines = ["| | " + " | ".join(heads) + " |", "| --- " * (len(heads) + 1) + "|"]
    for command in dict.fromkeys(cost.command for cost in costs):
        own = {cost.files: cost for cost in costs if cost.command == command}
        good = {n: cost for n, cost in own.items() if not cost.failed}
        cells = [f"{good[n].cpu / n * 1e6:,.0f}" if n in good else "failed" if n in own else "" for n in sizes]
        cells.append(f"{exponent([*own.values()]):.2f}")
        cells += [f"{good[n].peak / MIB:,.0f}" if n in good else "" for n in sizes]
        cells.append(f"{bytes_a_file([*own.values()]):,.0f}")
        lines.append(f"| {command} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(costs: Sequence[Cost], path: Path) -> None:
    """Draw CPU seconds and the peak of memory over the number of files, all axes logarithmic."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    both = figure.subplots(1, 2)
    for axes, what, values in zip(
        both,
        ("CPU time (s)", "anonymous memory at most (MiB)"),
        (lambda cost: cost.cpu, lambda cost: cost.peak / MIB),
        strict=True,
    ):
        for command in dict.fromkeys(cost.command for cost in costs):
            own = sorted((c for c in costs if c.command == command and not c.failed), key=lambda cost: cost.files)
            axes.loglog([cost.files for cost in own], [values(cost) for cost in own], marker="o", label=command)
        axes.set(xlabel="files", ylabel=what)
        axes.grid(visible=True, which="major", alpha=0.3)
    both[0].legend(loc="upper left", fontsize="small")
    figure.savefig(path, dpi=120)


def _sizes(_: click.Context, __: click.Parameter, text: str) -> list[int]:
    try:
        sizes = sorted({int(part) for part in text.split(",")})
    except ValueError:
        sizes = []
    if not sizes or sizes[0] < PLANTED:
        raise click.BadParameter(f"numbers of {PLANTED} or more, with commas between them. Received: {text}.")
    return sizes


def _names(_: click.Context, __: click.Parameter, text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in COMMANDS]:
        raise click.BadParameter(f"names of {', '.join(COMMANDS)}. Received: {', '.join(unknown)}.")
    return names


@click.command()
@click.option("--sizes", default="1000,10000,100000", show_default=True, callback=_sizes, help="Numbers of files.")
@click.option("--commands", default=",".join(COMMANDS), show_default=True, callback=_names, help="Which of them.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where the files are made.  [default: TMPDIR]")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write everything as JSON.")
@click.option("--plot", "picture", type=click.Path(path_type=Path, dir_okay=False), help="Draw it as PNG.")
def main(sizes: list[int], commands: list[str], folder: Path | None, out: Path | None, picture: Path | None) -> None:
    """Measure how time and memory of the commands grow with the number of files. They need 8 KB each, or less."""
    costs = []
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    for size in sizes:
        with tempfile.TemporaryDirectory(dir=folder, prefix="scale-") as name:
            print(f"drawing {size:,} files", file=sys.stderr, flush=True)
            draw(Path(name) / "cells", size)
            for command in commands:
                costs.append(measure(command, Path(name), size))
                last = costs[-1]
                what = (
                    last.failed or f"{last.wall:.1f} s, CPU {last.cpu:.1f} s, {last.peak / MIB:.0f} MiB, {last.found}"
                )
                print(f"{command}: {what}", file=sys.stderr, flush=True)
                if out is not None:
                    whole = {"machine": machine(), "results": [asdict(cost) for cost in costs]}
                    out.write_text(json.dumps(whole, indent=2) + "\n")
    print(f"\n{machine_line()}\n\n{table(costs)}\n")
    if picture is not None:
        plot(costs, picture)
