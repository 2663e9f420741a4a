"""Test-time augmentation: which views there are, and their mean by hand."""

from collections.abc import Iterable, Iterator

import numpy as np
import pytest

from customcnn.inference.tta import averaged, averaged_probabilities, views


def pictures(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def eight_views(image: np.ndarray) -> list[np.ndarray]:
    """The same by transposing and mirroring."""
    both = (image, image.transpose(1, 0, 2))
    return [one[::down, ::across] for one in both for down in (1, -1) for across in (1, -1)]


def corner(images: np.ndarray) -> np.ndarray:
    """A network that looks at the upper left pixel only."""
    return images[:, 0, 0, :2].astype(np.float32)


def test_squares_have_eight_views():
    images = pictures(3, 5, 5)
    found = views(images)
    np.testing.assert_array_equal(found[0], images)
    assert all(view.flags.c_contiguous for view in found)
    for number, image in enumerate(images):
        expected = {view.tobytes() for view in map(np.ascontiguousarray, eight_views(image))}
        assert {view[number].tobytes() for view in found} == expected and len(expected) == 8


def test_other_shapes_have_four():
    image = pictures(1, 4, 7)
    found = views(image)
    assert [view.shape for view in found] == [image.shape] * 4
    expected = {np.ascontiguousarray(view).tobytes() for view in eight_views(image[0]) if view.shape == image.shape[1:]}
    assert {view.tobytes() for view in found} == expected


@pytest.mark.parametrize(("height", "width"), [(5, 5), (4, 7)])
def test_the_mean_by_hand(height, width):
    images = pictures(3, height, width)
    corners = images[:, [0, 0, -1, -1], [0, -1, 0, -1], :2]  # every view has one of the four in its upper left
    np.testing.assert_allclose(averaged_probabilities(corner, images), corners.mean(axis=1), rtol=1e-6)


def test_a_turned_image_has_the_same_mean():
    images = pictures(2, 6, 6)
    turned = np.rot90(images, axes=(1, 2))[:, :, ::-1]
    np.testing.assert_allclose(averaged_probabilities(corner, turned), averaged_probabilities(corner, images))


def test_batches_keep_their_order_where_a_network_takes_some_ahead():
    def ahead(batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        waiting = []
        for batch in batches:
            waiting.append(corner(batch))
            if len(waiting) > 5:
                yield waiting.pop(0)
        yield from waiting

    batches = [pictures(count, 5, 5, seed) for seed, count in enumerate((2, 4, 1))]
    found = list(averaged(ahead)(iter(batches)))
    assert [len(one) for one in found] == [2, 4, 1]
    for one, batch in zip(found, batches, strict=True):
        np.testing.assert_array_equal(one, averaged_probabilities(corner, batch))
    assert list(averaged(ahead)([])) == []
