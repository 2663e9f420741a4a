"""The drawing of an architecture: what is one box, what repeats, where boxes stand; on every network of the table."""

import numpy as np
import pytest
from PIL import Image

from customcnn.models import build_model, list_models
from customcnn.visualize.diagram import draw_diagram
from customcnn.visualize.diagram_layout import plan
from tests.support.networks import SIBLINGS

QUICK = ("small", "residual", "alexnet")
EVERY = [
    spec.name if spec.name in QUICK else pytest.param(spec.name, marks=pytest.mark.backend)
    for spec in list_models()
    if spec.name not in SIBLINGS
]


def words(units):
    return [[(box.words, box.before, box.extras) for box in unit.boxes] for unit in units]


def test_a_chain_by_hand():
    units = plan(build_model("small", input_size=64))
    assert words(units) == [
        [("image", [], [])],
        [("3×3 conv, 32", ["scale"], ["ReLU"])],
        [("max 2×2 /2", [], [])],
        [("3×3 conv, 64", [], ["ReLU"])],
        [("max 2×2 /2", [], [])],
        [("3×3 conv, 64", [], ["ReLU"])],
        [("max 2×2 /2", [], ["flatten"])],
        [("dense 64", [], ["ReLU"])],
        [("dense 1", [], ["sigmoid"])],
    ]
    assert [unit.boxes[-1].shape for unit in units][1:4] == [(62, 62, 32), (31, 31, 32), (29, 29, 64)]


def test_a_residual_block_by_hand():
    units = plan(build_model("residual", input_size=64))
    block = units[2]
    assert words([block]) == [[("3×3 conv, 32", [], ["BN", "ReLU"]), ("3×3 conv, 32", [], ["BN"]), ("+", [], ["ReLU"])]]
    assert [(box.row, box.lane) for box in block.boxes] == [(0, 0), (1, 0), (2, 0)]
    assert [(edge.source, edge.target, edge.lane) for edge in block.edges] == [
        (-1, 0, 0),
        (0, 1, 0),
        (-1, 2, 1),
        (1, 2, 0),
    ]
    assert (block.rows, block.lanes) == (3, 2)


def test_repeats_are_drawn_once():
    flat = plan(build_model("mobilenet", input_size=64))
    pairs = [(unit.times, unit.members) for unit in flat if unit.times > 1]
    assert (5, 2) in pairs and (5, 0) in pairs  # a depthwise and a pointwise convolution, five times


@pytest.mark.backend
def test_blocks_have_the_papers_numbers():
    deep = plan(build_model("resnet50", input_size=64))
    assert [unit.times for unit in deep if unit.times > 1] == [2, 3, 5, 2]  # each behind a first one of its own
    dense = plan(build_model("densenet121", input_size=64))
    assert [unit.times for unit in dense if unit.times > 1] == [6, 12, 24, 16]


@pytest.mark.parametrize("name", EVERY)
def test_every_network_of_the_table(name, tmp_path):
    spec = next(spec for spec in list_models() if spec.name == name)
    model = build_model(name, input_size=max(spec.minimum_size, 32))
    units = plan(model)
    assert sum(box.weights for unit in units for box in unit.boxes) == model.count_params()
    for unit in units:
        places = [(box.row, box.lane) for box in unit.boxes[:-1]]
        assert len(set(places)) == len(places), "no box covers another"
        for edge in unit.edges:
            above = unit.boxes[edge.source].row if edge.source >= 0 else -1
            through = {(row, edge.lane) for row in range(above + 1, unit.boxes[edge.target].row)}
            assert not through & set(places), "no line passes through a box"
    assert len(units) < 60
    path = draw_diagram(model, tmp_path / "x.png", notes=["a note"])
    pixels = np.asarray(Image.open(path).convert("RGB"))
    assert max(pixels.shape) < 6000
    assert len(np.unique(pixels.reshape(-1, 3)[::7], axis=0)) > 5


def test_a_model_inside_is_one_box(tmp_path):
    from customcnn.training.ensemble import soft_vote

    members = [build_model("small", input_size=32), build_model("one-conv", input_size=16)]
    units = plan(soft_vote(members, [0.5, 0.5], (32, 32)))
    named = [box.words for unit in units for box in unit.boxes if box.kind == "model"]
    assert sorted(named) == ["member1_small", "member2_one-conv"]
    draw_diagram(soft_vote(members, [0.5, 0.5], (32, 32)), tmp_path / "x.png")


def test_the_same_network_gives_the_same_bytes(tmp_path):
    model = build_model("residual", input_size=32)
    one, two = (draw_diagram(model, tmp_path / name).read_bytes() for name in ("1.png", "2.png"))
    assert one == two
