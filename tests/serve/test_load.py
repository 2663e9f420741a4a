"""Twenty clients who send good and bad things at once: nobody gets a fault of the server, and it does not grow."""

import json
import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from customcnn.inference.classifier import Classifier
from tests.support.served import Client, Files, Reply, bomb, cell, in_process, multipart, png, saved_run

pytest.importorskip("gradio")
pytestmark = pytest.mark.browser

CLIENTS, REQUESTS, ROUNDS = 20, 750, 4

NOISE = 1e-6  # of a probability, as in test_serve.py

GROWTH = 40 * 2**20
"""Bytes that the last two rounds may add to the more of the first two: what allocators keep grows in these, and goes up
and down from then on. Of the sixty large bodies that two rounds send, two that stay would be more."""

LARGE = bytes(30_000_000)

NAMES = ("../../etc/passwd", "..\\..\\boot.ini", "/etc/shadow", "%2e%2e%2fa.png", "a\r\nX-Injected: 1", "-rf.png", "")

Sent = tuple[str, Callable[[], Reply], int]
"""A kind, the request, and the number of the image that is to be answered; -1 for none."""


def resident(process: int) -> int:
    """Return the bytes of memory that a process holds."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def requests(client: Client, images: list[bytes], count: int, seed: int) -> list[Sent]:
    """Return a mix of requests, the same for a seed."""
    rng = random.Random(seed)

    def one(files: Files) -> Callable[[], Reply]:
        return lambda: client.predict(files)

    def other(body: bytes, kind: str) -> Callable[[], Reply]:
        return lambda: client.ask("POST", "/predict", body, {"content-type": kind} if kind else {})

    found: list[Sent] = []
    for _ in range(count):
        number = rng.randrange(len(images))
        good, draw = images[number], rng.random()
        if draw < 0.60:
            found.append(("good", one([(f"cell {number}.png", good)]), number))
        elif draw < 0.70:
            broken = rng.choice([good[: rng.randrange(len(good) - 1)], rng.randbytes(5000), b"", b"GIF89a", b"%PDF-"])
            found.append(("broken", one([("broken.png", broken)]), -1))
        elif draw < 0.74:
            found.append(("large", one([("large.bmp", LARGE)]), -1))
        elif draw < 0.80:
            found.append(("bomb", one([("bomb.png", bomb(rng.choice([100_000, 20_000, 8_000])))]), -1))
        elif draw < 0.90:
            found.append(("path", one([(rng.choice(NAMES), good)]), number))
        else:
            kind = rng.choice(["application/json", "image/png", "text/html", "multipart/form-data", ""])
            body = rng.choice([good, json.dumps({"file": "x"}).encode(), multipart([("a.png", good)])])
            found.append(("type", other(body, kind), -1))
    return found


STATUS = {"good": {200}, "path": {200}, "broken": {422}, "bomb": {422}, "large": {413}, "type": {415}}


def test_three_thousand_requests_of_twenty_clients(tmp_path):
    run = saved_run(tmp_path / "run")
    images = [png(cell(number, 100 + 10 * number)) for number in range(15)]
    known = Classifier(run)
    wanted = [found.as_dict() for found in known.predict(images)]
    counts: Counter[tuple[str, int]] = Counter()
    answered, farthest, sizes = 0, 0.0, []
    with in_process(run, home=tmp_path) as (client, process, folder), ThreadPoolExecutor(CLIENTS) as pool:
        for number_of_round in range(ROUNDS):
            sent = requests(client, images, REQUESTS, seed=number_of_round)
            for (kind, _, number), reply in zip(sent, pool.map(lambda one: one[1](), sent), strict=True):
                counts[kind, reply.status] += 1
                assert reply.status in STATUS[kind], (kind, reply.status, reply.body[:300])
                if reply.status != 200:
                    assert "\n" not in reply.json["detail"]
                    continue
                (found,) = reply.json["predictions"]
                assert not {"/", "\\", "\r", "\n"} & set(found["file"].replace("\\r\\n", ""))
                shares, right = found["probabilities"], wanted[number]["probabilities"]
                farthest = max(farthest, *(abs(shares[label] - right[label]) for label in right))
                assert {k: v for k, v in found.items() if k not in ("file", "probabilities")} == {
                    k: v for k, v in wanted[number].items() if k not in ("file", "probabilities")
                }
                answered += 1
            sizes.append(resident(process.pid))
        assert client.get("/healthz").status == 200
        assert process.poll() is None
        assert [path for path in folder.rglob("*") if path.is_file()] == [], "images are kept"
    print(dict(counts), f"farthest {farthest:.1e}", [f"{size / 2**20:.0f} MiB" for size in sizes])
    assert sum(counts.values()) == ROUNDS * REQUESTS and answered > ROUNDS * REQUESTS / 2
    assert all(any(kind == name for kind, _ in counts) for name in STATUS)
    assert farthest < NOISE
    assert sizes[-1] - max(sizes[:2]) < GROWTH
    log = (tmp_path / "log.txt").read_text()
    assert "Traceback" not in log and "Error" not in log and "passwd" not in log


def test_the_mix_is_the_same_for_a_seed():
    client = Client(0)
    twice = [[kind for kind, *_ in requests(client, [png(np.zeros((9, 9, 3), np.uint8))], 99, 4)] for _ in range(2)]
    assert twice[0] == twice[1] and set(twice[0]) == set(STATUS)
