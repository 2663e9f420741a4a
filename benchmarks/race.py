"""Race several ways to do the same work: each in a process of its own, in turn, several rounds; ratios, not seconds."""

import json
import os
import platform
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from customcnn.backend.devices import cpuinfo

PAUSE = 0.3
"""Seconds between two turns: thread pools spin for a while after their work, and would take it from the next."""

PACKAGES = (
    *("customcnn", "keras", "tensorflow", "torch", "jax", "openvino", "onnxruntime", "numpy", "pillow", "Augmentor"),
    *("ai-edge-litert", "onnx", "opencv-python-headless", "tf2onnx"),
)


@dataclass(frozen=True)
class Racer:
    """One way to do the work.

    Attributes:
        name: as it stands in the table.
        prepare: a function of a module's top level; called once, in a process of its own, it returns the function that
            does one round of the work and returns how many images that was.
        arguments: what `prepare` takes.
        environment: variables that are set before anything heavy is imported.
    """

    name: str
    prepare: Callable[..., Callable[[], int]]
    arguments: tuple[Any, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """What one racer came to.

    Attributes:
        name: of the racer.
        rates: images per second, one a round; empty where it could not run.
        failed: why it could not run; "" where it did.
    """

    name: str
    rates: list[float]
    failed: str = ""

    @property
    def median(self) -> float:
        """The median of the rates."""
        return statistics.median(self.rates)


def race(racers: Sequence[Racer], *, rounds: int, warmup: int = 1) -> list[Result]:
    """Run every racer `warmup` times unmeasured, then `rounds` times, one after the other in each round.

    A racer that cannot be prepared (a package that is not installed) is left out, and its result says why.
    """
    context = get_context("spawn")
    lanes = []
    for racer in racers:
        ours, theirs = context.Pipe()
        old = {key: os.environ.get(key) for key in racer.environment}
        os.environ.update(racer.environment)
        process = context.Process(target=_lane, args=(racer, theirs))  # not a daemon: a racer may have workers
        process.start()
        _restore(old)
        theirs.close()
        lanes.append((racer, process, ours))
        print(f"preparing {racer.name}", file=sys.stderr, flush=True)
        _turn(ours)  # prepared
        for _ in range(warmup):
            _turn(ours, go=True)
    rates: dict[str, list[float]] = {racer.name: [] for racer in racers}
    failed: dict[str, str] = {}
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
        for racer, _, pipe in lanes:
            if racer.name in failed:
                continue
            time.sleep(PAUSE)
            answer = _turn(pipe, go=True)
            if isinstance(answer, str):
                failed[racer.name] = answer
            else:
                images, seconds = answer
                rates[racer.name].append(images / seconds)
    for _, process, pipe in lanes:
        with suppress(BrokenPipeError):
            pipe.send("stop")
        process.join(10)
        process.kill()
    return [Result(racer.name, rates[racer.name], failed.get(racer.name, "")) for racer in racers]


def _turn(pipe: Connection, go: bool = False) -> Any:
    try:
        if go:
            pipe.send("go")
        return pipe.recv()
    except (EOFError, BrokenPipeError):
        return "its process died"


def _restore(old: dict[str, str | None]) -> None:
    for key, value in old.items():
        if value is None:
            os.environ.pop(key, None)
        else:
            os.environ[key] = value


def _lane(racer: Racer, pipe: Connection) -> None:
    failed = ""
    try:
        work = racer.prepare(*racer.arguments)
    except ImportError as error:
        failed = f"not installed: {error.name}"
    except Exception as error:
        failed = f"{type(error).__name__}: {error}".splitlines()[0]
        traceback.print_exc()
    pipe.send("ready")
    while pipe.recv() == "go":
        if failed:
            pipe.send(failed)
            continue
        began = time.perf_counter()
        try:
            images = work()
        except Exception as error:
            traceback.print_exc()
            pipe.send(f"{type(error).__name__}: {error}".splitlines()[0])
            continue
        pipe.send((images, time.perf_counter() - began))


def ratio(result: Result, base: Result) -> float:
    """Return the median over the rounds of how many times faster one is than the other in the same round."""
    return statistics.median(a / b for a, b in zip(result.rates, base.rates, strict=True))


def table(results: Sequence[Result], base: str) -> str:
    """Return a Markdown table: images per second, their spread, and the ratio to the racer called `base`."""
    by_name = {result.name: result for result in results}
    lines = [f"| | images/s | from - to | times {base} |", "| --- | --- | --- | --- |"]
    for result in results:
        if result.failed:
            lines.append(f"| {result.name} | not run: {result.failed} | | |")
            continue
        against = "" if by_name[base].failed else f"{ratio(result, by_name[base]):.2f}"
        spread = f"{_number(min(result.rates))} - {_number(max(result.rates))}"
        lines.append(f"| {result.name} | {_number(result.median)} | {spread} | {against} |")
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def report(title: str, results: Sequence[Result], base: str, out: Path | None, **facts: object) -> None:
    """Print the table, and write everything as JSON where `out` names a file."""
    print(f"\n{title}, {machine_line()}\n\n{table(results, base)}\n")
    if out is not None:
        found = [{"name": r.name, "rates": r.rates, "failed": r.failed} for r in results]
        whole = {"title": title, "base": base, "machine": machine(), **facts, "results": found}
        out.write_text(json.dumps(whole, indent=2) + "\n")


def machine() -> dict[str, object]:
    """Return what the figures depend on: processor, its instructions for deep learning, cores, versions, command."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "command": " ".join(["python -m benchmarks", *sys.argv[1:]]),
        "processor": cpuinfo("model name") or platform.processor() or platform.machine(),
        "instructions": [flag for flag in cpuinfo("flags").split() if flag.startswith(("amx", "avx512_", "avx_"))],
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
        "packages": versions,
    }


def machine_line() -> str:
    """Return the machine in a few words."""
    found = machine()
    wide = [flag for flag in ("amx_bf16", "avx512_bf16", "avx512_vnni") if flag in str(found["instructions"])]
    return f"{found['cores']} cores of {found['processor']} ({', '.join(wide) or 'no bfloat16'})"
