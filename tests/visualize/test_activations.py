"""Activation maps: the layers that are shown, by hand, and the files and the page that show them."""

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from customcnn.errors import CustomCNNError
from customcnn.html.page import Html, Section, bars, data_uri, facts, figure, page, preformatted, table
from customcnn.plots.tiles import BROKEN_COLOR, tile_picture
from customcnn.visualize import activation_layers, activation_maps, write_activations

LOW = (68, 1, 84)  # the lower end of viridis


def network(size=12, classes=2):
    """Return input -> scale -> conv a -> norm -> pool -> conv b -> dense, with the same weights each time."""
    import keras

    k = keras.layers
    image = keras.Input((size, size, 3), name="image")
    x = k.Rescaling(1 / 255, name="scale")(image)
    x = k.Conv2D(4, 3, padding="same", name="a")(x)
    x = k.BatchNormalization(name="norm")(x)
    x = k.MaxPooling2D(2, name="pool")(x)
    x = k.Conv2D(2, 1, activation="tanh", name="b")(x)
    x = k.Dense(classes, activation="softmax", name="out")(k.Flatten(name="flat")(x))
    model = keras.Model(image, x, name="plain")
    rng = np.random.default_rng(1)
    model.set_weights([rng.uniform(-1, 1, w.shape) if w.ndim > 1 else w for w in model.get_weights()])
    return model


def picture(size=12, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def test_maps_by_hand():
    import keras

    image = keras.Input((2, 2, 3))
    conv = keras.layers.Conv2D(2, 1, activation="relu", name="conv")
    pool = keras.layers.AveragePooling2D(2, name="pool")
    model = keras.Model(image, pool(conv(image)))
    # Channel 0: red minus 100; channel 1: green plus blue.
    conv.set_weights([np.array([[[[1, 0], [0, 1], [0, 1]]]]), np.array([-100, 0])])
    pixels = np.array([[[110, 1, 2], [90, 3, 4]], [[150, 5, 6], [100, 7, 248]]], dtype=np.uint8)
    maps = activation_maps(model, pixels)
    assert list(maps) == ["conv", "pool"]
    np.testing.assert_allclose(maps["conv"][..., 0], [[10, 0], [50, 0]])
    np.testing.assert_allclose(maps["conv"][..., 1], [[3, 7], [11, 255]])
    np.testing.assert_allclose(maps["pool"], [[[15, 69]]])


def test_channels_first_are_moved_last():
    import keras

    image = keras.Input((4, 6, 3))
    first = keras.layers.Permute((3, 1, 2))(image)
    pool = keras.layers.MaxPooling2D(2, data_format="channels_first", name="pool")(first)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    maps = activation_maps(keras.Model(image, pool), pixels)
    np.testing.assert_array_equal(maps["pool"], pixels.reshape(2, 2, 3, 2, 3).max(axis=(1, 3)))


def test_maps_are_what_the_layers_give():
    import keras

    model, image = network(), picture()
    names = ["a", "pool", "b"]
    assert [layer.name for layer in activation_layers(model)] == names
    maps = activation_maps(model, image)
    assert list(maps) == names
    assert [m.shape for m in maps.values()] == [(12, 12, 4), (6, 6, 4), (6, 6, 2)]
    for name, found in maps.items():
        part = keras.Model(model.input, model.get_layer(name).output)
        given = keras.ops.convert_to_numpy(part(image[None].astype("float32"), training=False))
        np.testing.assert_allclose(found, given[0], rtol=1e-5, atol=1e-5)


def test_the_model_stays_as_it_was(tmp_path):
    import keras

    model, image = network(), picture()
    model.compile("sgd", "categorical_crossentropy")
    config, before = model.to_json(), model.get_weights()
    for _ in range(2):
        activation_maps(model, image)
    assert model.to_json() == config
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    model.save(tmp_path / "model.keras")
    again = activation_maps(keras.models.load_model(tmp_path / "model.keras"), image)
    np.testing.assert_allclose(again["b"], activation_maps(model, image)["b"], rtol=1e-5, atol=1e-6)


def test_every_kind_of_layer_branches_and_models_inside_models():
    import keras

    k = keras.layers
    inner_in = keras.Input((8, 8, 4))
    inner = keras.Model(
        inner_in, k.MaxPooling2D(name="p")(k.Conv2D(5, 3, padding="same", name="c")(inner_in)), name="in"
    )
    middle_in = keras.Input((8, 8, 4))
    middle = keras.Model(middle_in, k.SeparableConv2D(6, 3, name="sep")(inner(middle_in)), name="mid")
    sequence = keras.Sequential([k.Input((8, 8, 4)), k.Conv2D(6, 3, strides=2, name="s"), k.ReLU()], name="seq")
    head_in = keras.Input((6,))
    head = keras.Model(head_in, k.Dense(2)(head_in), name="head")  # has no map to show

    image = keras.Input((16, 16, 3))
    shared = k.Conv2D(3, 1, name="shared")
    x = shared(shared(image))
    x = k.concatenate([k.DepthwiseConv2D(3, padding="same", name="dw")(x), k.Conv2D(1, 1, name="one")(x)])
    x = k.AveragePooling2D(2, name="avg")(x)
    y = k.Conv2DTranspose(6, 2, name="up")(middle(x))
    z = k.GlobalAveragePooling2D(name="gap")(keras.ops.relu(y))
    model = keras.Model(image, [head(z), k.GlobalMaxPooling2D()(sequence(x))])

    maps = activation_maps(model, picture(16))
    assert set(maps) == {
        "shared", "shared:2", "dw", "one", "avg", "mid/in/c", "mid/in/p", "mid/sep", "seq/s", "up"
    }  # fmt: skip
    assert (
        maps["mid/in/c"].shape == (8, 8, 5) and maps["mid/sep"].shape == (2, 2, 6) and maps["seq/s"].shape == (3, 3, 6)
    )
    order = list(maps)
    assert order[:2] == ["shared", "shared:2"] and order.index("mid/in/c") < order.index("mid/sep") < order.index("up")
    assert {layer.name for layer in activation_layers(model)} == {name.split("/")[-1].split(":")[0] for name in maps}
    # The maps of an inner model are those of the values that reach it.
    expected = inner.get_layer("c")(keras.ops.convert_to_tensor(maps["avg"][None]))
    np.testing.assert_allclose(maps["mid/in/c"], keras.ops.convert_to_numpy(expected)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_networks_of_half_precision(policy):
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        maps = activation_maps(network(), picture())
    finally:
        keras.config.set_dtype_policy(before)
    for activation in maps.values():
        pixels, _ = tile_picture(activation)
        assert not (pixels == BROKEN_COLOR).all(axis=2).any()
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 10


def test_a_network_that_overflowed_is_shown_as_such(tmp_path):
    model = network()
    kernel, bias = model.get_layer("a").get_weights()
    bias[1], bias[2], kernel[..., 2] = np.nan, 7, 0
    model.get_layer("a").set_weights([kernel, bias])
    _, first, *_ = write_activations(model, picture(), tmp_path, title="x")
    pixels = np.asarray(Image.open(first))
    side = (pixels.shape[0] - 2) // 2  # four channels, two by two
    assert (pixels[:side, -side:] == BROKEN_COLOR).all()
    assert (pixels[-side:, :side] == LOW).all()
    assert "1 of them flat, 144 values not finite" in (tmp_path / "index.html").read_text()


@pytest.mark.parametrize(
    "image", [np.zeros((12, 12, 3), np.float32), np.zeros((10, 12, 3), np.uint8), np.zeros((12, 12), np.uint8)]
)
def test_an_image_of_another_size_or_type_is_refused(image):
    with pytest.raises(ValueError, match=r"The network takes a uint8 image \(12, 12, 3\)\. Received: "):
        activation_maps(network(), image)


def test_a_network_without_maps_is_refused():
    import keras

    image = keras.Input((4, 4, 3))
    model = keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten()(image)), name="dense")
    with pytest.raises(CustomCNNError, match=r"^Activation maps need .* Received: the model 'dense', .* Choose .*\.$"):
        activation_maps(model, picture(4))


def test_the_package_network(tmp_path):
    from customcnn.models import build_model

    model = build_model("small", input_size=64)
    written = write_activations(model, picture(64), tmp_path, title="small")
    assert len(written) == 2 + len(activation_layers(model))
    assert len(written) > 5


# ---------------------------------------------------------------- files and the page


class Reader(HTMLParser):
    """What a browser would find in a page: headings, images, addresses; and whether every tag is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.headings, self.images, self.addresses, self.ids = [], [], [], [], []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag not in ("meta", "img"):
            self.open.append(tag)
        if tag == "img":
            self.images.append(values)
        self.addresses += [values[key] for key in ("src", "href") if key in values]
        self.ids += [values["id"]] if "id" in values else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data
        if self.open and self.open[-1] in ("h1", "h2", "h3"):
            self.headings.append((self.open[-1], data))


def test_written_files(tmp_path):
    out = tmp_path / "deep" / "out"
    original = np.full((3000, 1500, 3), 90, np.uint8)
    written = write_activations(
        network(),
        picture(),
        out,
        title="Maps of <cell> & co",
        notes=["Drawn cells, not patients."],
        original=original,
        probabilities={"all": 0.875, "hem <i>": 0.125},
        about={"Image": "a/b\n.bmp"},
    )
    names = ["00_original.png", "00_input.png", "01_a.png", "02_pool.png", "03_b.png", "index.html"]
    assert [path.name for path in written] == names
    assert sorted(p.name for p in out.iterdir()) == sorted(names), "nothing else is left behind"
    np.testing.assert_array_equal(np.asarray(Image.open(out / "00_input.png")), picture())
    assert Image.open(out / "00_original.png").size == (500, 1000)

    text = (out / "index.html").read_text("utf-8")
    found = Reader(text)
    assert found.headings == [
        ("h1", "Maps of <cell> & co"), ("h2", "Image"), ("h2", "Prediction"), ("h2", "Activation maps"),
        ("h3", "1. a"), ("h3", "2. pool"), ("h3", "3. b"),
    ]  # fmt: skip
    assert [image["src"] for image in found.images] == [f"./{name}" for name in names[:-1]]
    assert all(image["alt"] for image in found.images)
    assert "4 maps of layer a, 2 in a row" in [image["alt"] for image in found.images]
    for part in (
        "Drawn cells, not patients.",
        "87.5%",
        "hem <i>",
        "12.5%",
        "a/b\\n.bmp",
        "1500×3000",
        "4 channels of 12×12",
    ):
        assert part in found.text


def test_the_same_model_and_image_give_the_same_bytes(tmp_path):
    model = network()
    first = write_activations(model, picture(), tmp_path / "1", title="x")
    second = write_activations(model, picture(), tmp_path / "2", title="x")
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


def test_a_page_needs_nothing_from_elsewhere():
    png = data_uri(b"\x89PNG")
    sections = [
        Section("One", ["Text & <text>", figure("a b/é:1.png", "A picture", "Its caption"), figure(png, "Another")]),
        Section(
            "Two", [table(["name", "n"], [["x", 1234], ["y", 0.5]]), facts({"k": "v"}), preformatted("a <b>\n  c")]
        ),
        Section("One", [bars({"all": float("nan"), "hem": 2.0})]),
    ]
    text = page("A <title>", sections, ["Note <one>", "Note two"])
    found = Reader(text)
    assert found.ids == ["one", "two", "one-2"]
    assert found.addresses == ["#one", "#two", "#one-2", "./a%20b/%C3%A9%3A1.png", "./a%20b/%C3%A9%3A1.png", png]
    assert "http" not in text and "//" not in text and "@import" not in text and "url(" not in text
    assert text.startswith("<!DOCTYPE html>") and '<html lang="en">' in text
    for part in ("A <title>", "Text & <text>", "Note <one>", "Note two", "1,234", "a <b>\n  c"):
        assert part in found.text
    assert 'role="note"' in text and text.index('role="note"') < text.index("<h2")
    assert "prefers-color-scheme: dark" in text and "@media print" in text


def test_a_page_without_notes_has_no_banner():
    assert "Warning" not in page("x", [Section("y")])


@given(st.text(), st.text())
def test_no_text_breaks_a_page_or_its_encoding(heading, text):
    found = page(heading, [Section(heading, [text, facts({text: heading})])], [text])
    found.encode("utf-8")
    assert len(Reader(found).open) == 0
    assert "<script" not in page("<script>", [Section("<script>", ["<script>"])], ["<script>"])


def test_stray_bytes_in_names():
    text = page("stray \udcff", [Section("s", [figure(Path("\udcff.png"), "stray \udcff")])])
    assert "./%FF.png" in text and "stray \\udcff" in text
    text.encode("utf-8")


def test_markup_is_not_escaped_twice():
    assert "<p><b>x</b></p>" not in page("t", [Section("s", [Html("<b>x</b>")])])
    assert "<b>x</b>" in page("t", [Section("s", [Html("<b>x</b>")])])
    assert "&lt;b&gt;" in page("t", [Section("s", ["<b>"])])


def test_a_table_row_has_a_cell_for_each_column():
    with pytest.raises(ValueError, match=r"one cell for each of 2 columns\. Received: 1 cells"):
        table(["a", "b"], [["x"]])
    with pytest.raises(ValueError, match="alternative text"):
        figure("a.png", " ")
