"""The pieces of the server: batches, what waits in memory, cards, tables and examples."""

import asyncio
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from customcnn.cli import main
from customcnn.errors import CustomCNNError
from customcnn.inference.classifier import Classifier
from customcnn.runs.run_dir import RunDir
from tests.support.served import NOISE, SMALL, cell, image_files, png, saved_run

pytest.importorskip("gradio")

from customcnn.serve.app import result
from customcnn.serve.batching import BATCH, Batcher
from customcnn.serve.examples import example_uploads
from customcnn.serve.limits import Refused
from customcnn.serve.multipart import Upload
from customcnn.serve.result_cards import csv_table, results
from customcnn.serve.service import Answer, Service
from customcnn.serve.upload_store import SECONDS, Store


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunDir:
    return saved_run(tmp_path_factory.mktemp("serve") / "run")


@pytest.fixture(scope="module")
def classifier(run) -> Classifier:
    return Classifier(run)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    return image_files(tmp_path_factory.mktemp("files"))


# ---------------------------------------------------------------- batches


def test_a_batch_is_what_came_meanwhile_and_its_size_a_power_of_two():
    sizes, go = [], threading.Event()

    def compute(images: np.ndarray) -> np.ndarray:
        sizes.append(len(images))
        go.wait()
        return images[:, 0, 0, :1].astype(float)

    batcher = Batcher(compute, wait=0)
    first = batcher.submit(np.full((1, 1, 3), 255, np.uint8))
    while not sizes:
        time.sleep(0.001)
    others = [batcher.submit(np.full((1, 1, 3), number, np.uint8)) for number in range(27)]
    other = batcher.call(lambda: "work")
    go.set()
    assert [float(future.result()[0]) for future in (first, *others)] == [255, *range(27)]
    assert other.result() == "work"
    assert sizes == [1, BATCH, 8, 2, 1]
    batcher.close()
    with pytest.raises(RuntimeError):
        batcher.submit(np.zeros((1, 1, 3), np.uint8))


def test_a_failure_is_that_of_its_images_alone():
    def compute(images: np.ndarray) -> np.ndarray:
        if images.max() == 13:
            raise ValueError("unlucky")
        return images.reshape(len(images), -1)

    batcher = Batcher(compute, batch=1)
    futures = [batcher.submit(np.full((1, 1, 3), number, np.uint8)) for number in (12, 13, 14)]
    assert futures[0].result()[0] == 12 and futures[2].result()[0] == 14
    with pytest.raises(ValueError, match="unlucky"):
        futures[1].result()
    with pytest.raises(ZeroDivisionError):
        batcher.call(lambda: 1 / 0).result()
    batcher.close()


def test_the_size_of_a_batch_changes_nothing_but_noise(classifier):
    images = np.stack([classifier.pixels(cell(number)) for number in range(16)])
    alone = np.concatenate([classifier.probabilities(images[i : i + 1]) for i in range(16)])
    for size in (2, 4, 8, 16):
        parts = [classifier.probabilities(images[i : i + size]) for i in range(0, 16, size)]
        assert np.abs(np.concatenate(parts) - alone).max() < NOISE


# ---------------------------------------------------------------- pieces of the page


def test_images_wait_in_memory_and_are_taken_once(tmp_path):
    now = [0.0]
    store = Store(tmp_path, 100, lambda: now[0])
    names = store.put([Upload("a", bytes(40)), Upload("b", bytes(40))])
    assert len(set(names)) == 2 and not list(tmp_path.iterdir())
    with pytest.raises(Refused) as refused:
        store.put([Upload("c", bytes(21))])
    assert refused.value.status == 503
    assert [found.name for found in store.take([names[1], "other", names[1]])] == ["b"]
    now[0] = SECONDS + 1.0
    assert store.take(names) == [] and len(store) == 0


def test_cards_say_what_a_prediction_says(classifier):
    service = Service(classifier, SMALL)
    try:
        uploads = [Upload(f"<{number}>.png", png(cell(number))) for number in range(12)]
        uploads += [Upload("bad.png", b"no")]
        answers = asyncio.run(service.predict(uploads, shown=True))
    finally:
        service.close()
    page = results(answers, [None] * len(answers), len(answers), 1.0)
    assert page.count("<article") == 13 and page.count("not sure <small>") == sum(
        found.prediction is not None and found.prediction.sure is False for found in answers
    )
    assert "1 could not be read" in page and "<3>" not in page and "&lt;3&gt;" in page
    lines = csv_table(answers).splitlines()
    assert lines[0] == "file,label,probability_all,probability_hem,set_all,set_hem,sure,novelty,novel,error"
    assert len(lines) == 14 and lines[13].startswith('bad.png,,,,,,,,,"Images are single pictures')
    assert csv_table(answers[:1]).splitlines()[0].endswith("novelty,novel")


def test_an_image_of_another_size_is_said(run):
    classifier = Classifier(run)
    classifier.info = replace(classifier.info, sides=(60, 80))
    service = Service(classifier, SMALL)
    photograph = np.zeros((400, 90, 3), np.uint8)
    try:
        answers = asyncio.run(
            service.predict([Upload("a.png", png(photograph)), Upload("b.png", png(photograph[:80, :70]))])
        )
    finally:
        service.close()
    first, second = answers
    assert "'a.png' (90 x 400)" in first.warning and "sides have 60 to 80 pixels" in first.warning
    assert not second.warning and result(answers, ["known"])["warnings"] == ["known", first.warning]
    assert "(90 x 400)" in results(answers, [None, None], 2, 1.0)


def test_the_csv_is_that_of_predict(classifier, run, files, capsys):
    answers = [Answer(p.file, p) for p in classifier.predict([*files.values()])]
    with pytest.raises(SystemExit):
        main(["predict", str(run.path), *map(str, files.values()), "--format", "csv"])
    assert csv_table(answers).splitlines()[0] == capsys.readouterr().out.splitlines()[0]


def test_examples_are_drawn_for_those_who_know_such(classifier, tmp_path, files):
    drawn = example_uploads(classifier.info, None)
    assert len(drawn) == 6 and len({upload.data for upload in drawn}) == 6
    assert example_uploads(classifier.info, None) == drawn
    assert [upload.name for upload in example_uploads(classifier.info, files["cell 0.png"].parent)] == sorted(files)[:6]
    with pytest.raises(CustomCNNError):
        example_uploads(classifier.info, tmp_path / "missing")
