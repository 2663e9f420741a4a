"""The engine "arrays": numpy and Pillow, one image after the other, without state."""

import math
from dataclasses import replace

import numpy as np
from PIL import Image

from customcnn.augmentation.draws import Amounts, draw, draw_turns
from customcnn.augmentation.settings import Augmentation, Transform
from customcnn.images.dihedral import copy_pixels, turned_view

GREY = np.array([0.299, 0.587, 0.114], np.float32)
"""Shares of red, green and blue in grey: ITU-R BT.601, as in Pillow."""


def arrays_transform(augmentation: Augmentation) -> Transform:
    """Return the function that changes a batch, see `make_transform`."""

    def transform(images: np.ndarray, key: tuple[int, ...]) -> np.ndarray:
        images = np.asarray(images)  # of a memory map every slice is one too, and slow to make
        changed = np.empty(images.shape, np.uint8)
        if only_turns:
            turn_batch(augmentation, images, key, changed)
            return changed
        for place, amounts in enumerate(draw(augmentation, key, len(images))):
            changed[place] = change(images[place], amounts)
        return changed

    only_turns = replace(augmentation, flip="none", quarter_turns=False) == Augmentation()
    return transform


def turn_batch(augmentation: Augmentation, images: np.ndarray, key: tuple[int, ...], changed: np.ndarray) -> None:
    """Flip and turn every image of a batch, as `change` does by the amounts that `draw` gives.

    Args:
        augmentation: of which `flip` and `quarter_turns` alone are looked at.
        images: uint8 (N, H, W, 3).
        key: of the draws.
        changed: uint8 (N, H, W, 3), written to.
    """
    drawn = zip(*(values.tolist() for values in draw_turns(augmentation, key, len(images))), strict=True)
    for image, target, (left_right, top_bottom, quarters) in zip(images, changed, drawn, strict=True):
        copy_pixels(turned_view(image, left_right, top_bottom, quarters), target)


def change(image: np.ndarray, amounts: Amounts) -> np.ndarray:
    """Change one image: turned over, moved, toned, coloured, in this order; steps that change nothing are left out.

    Args:
        image: uint8 (H, W, 3).
        amounts: by how much.

    Returns:
        uint8 (H, W, 3).
    """
    image = turn_over(image, amounts)
    if (amounts.angle, amounts.zoom, amounts.right, amounts.down, amounts.window) != (0, 1, 0, 0, 1):
        image = move(image, amounts)
    if (amounts.brightness, amounts.contrast, amounts.gamma) != (1, 1, 1):
        image = tone(image, amounts)
    if (amounts.saturation, amounts.hue) != (1, 0):
        image = colour(image, amounts)
    return image


def turn_over(image: np.ndarray, amounts: Amounts) -> np.ndarray:
    """Flip left to right, then top to bottom, then turn by quarters; the pixels stay the same.

    An image that is not square keeps its shape: it is turned by 180 degrees for 180 and 270, not at all for 0 and 90.

    Args:
        image: uint8 (H, W, 3).
        amounts: by how much.

    Returns:
        uint8 (H, W, 3).
    """
    turned = np.empty_like(image, order="C")
    copy_pixels(turned_view(image, amounts.mirrored, amounts.upside_down, amounts.quarter_turns), turned)
    return turned


def move(image: np.ndarray, amounts: Amounts) -> np.ndarray:
    """Rotate, zoom, shift and cut the window out: one affine map, so that pixels are interpolated once.

    Bilinear; Pillow cuts the fraction of the result off. The border is reflected outwards first, as far as the map
    reaches (d c b a | a b c d | d c b a): black corners would tell a network how an image was turned.

    Args:
        image: uint8 (H, W, 3).
        amounts: by how much.

    Returns:
        uint8 (H, W, 3).
    """
    height, width = image.shape[:2]
    map_ = affine_map(amounts, height, width)
    corners = [(0, 0), (width, 0), (0, height), (width, height)]
    left, right = _reach([map_[0] * x + map_[1] * y + map_[2] for x, y in corners], width)
    top, bottom = _reach([map_[3] * x + map_[4] * y + map_[5] for x, y in corners], height)
    padded = np.pad(image, ((top, bottom), (left, right), (0, 0)), mode="symmetric")
    data = (*map_[:2], map_[2] + left, *map_[3:5], map_[5] + top)
    moved = Image.fromarray(padded).transform((width, height), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)
    return np.asarray(moved)


def affine_map(amounts: Amounts, height: int, width: int) -> tuple[float, float, float, float, float, float]:
    """Return where in the image each point of the result lies.

    Seen from the centre, a point p of the result lies at s p + w before the window was cut out, at (s p + w - t) / z
    before shift and zoom, and is turned back by the angle from there. s is the window's share of the edges, w its
    centre, t the shift in pixels and z the zoom.

    Args:
        amounts: by how much.
        height, width: of the image, in pixels.

    Returns:
        (a, b, c, d, e, f): the point (x, y) of the result is the point (a x + b y + c, d x + e y + f) of the image, in
        pixels from the upper left corner; the first pixel's centre is (.5, .5).
    """
    share = amounts.window
    x = (amounts.across - 0.5) * (1 - share) * width - amounts.right * width
    y = (amounts.along - 0.5) * (1 - share) * height - amounts.down * height
    angle = math.radians(amounts.angle)
    cos, sin = math.cos(angle) / amounts.zoom, math.sin(angle) / amounts.zoom
    a, b, d, e = share * cos, -share * sin, share * sin, share * cos
    c = cos * x - sin * y + (width - a * width - b * height) / 2
    f = sin * x + cos * y + (height - d * width - e * height) / 2
    return a, b, c, d, e, f


def _reach(places: list[float], size: int) -> tuple[int, int]:
    """Return by how many pixels places lie before and behind 0..size, and one more: bilinear takes the next pixel."""
    before, behind = math.ceil(-min(places)), math.ceil(max(places) - size)
    return before + 1 if before > 0 else 0, behind + 1 if behind > 0 else 0


def tone(image: np.ndarray, amounts: Amounts) -> np.ndarray:
    """Change brightness, contrast and gamma: one table of 256 values, rounded once.

    v becomes brightness v; then m + contrast (v - m), where m is the mean of all values of the image by then; then
    255 (v / 255)^gamma. Values are cut to 0..255 after each.

    Args:
        image: uint8 (H, W, 3).
        amounts: by how much.

    Returns:
        uint8 (H, W, 3).
    """
    table = np.clip(np.arange(256) * amounts.brightness, 0, 255)
    if amounts.contrast != 1:
        mean = np.bincount(image.reshape(-1), minlength=256) @ table / image.size
        table = np.clip(mean + amounts.contrast * (table - mean), 0, 255)
    table = 255 * (table / 255) ** amounts.gamma
    # bytes.translate is some ten times as fast as indexing an array.
    pixels = image.tobytes().translate(np.rint(table).astype(np.uint8).tobytes())
    return np.frombuffer(pixels, np.uint8).reshape(image.shape)


def colour(image: np.ndarray, amounts: Amounts) -> np.ndarray:
    """Change saturation, then hue; values are cut to 0..255 in between and rounded at the end.

    v becomes g + saturation (v - g), where g is the pixel's grey. Then the hue of HSV is turned; value (the largest of
    R, G and B) and saturation stay.

    Args:
        image: uint8 (H, W, 3).
        amounts: by how much.

    Returns:
        uint8 (H, W, 3).
    """
    planes = np.ascontiguousarray(image.reshape(-1, 3).T).astype(np.float32)
    if amounts.saturation != 1:
        grey = GREY @ planes
        planes -= grey
        planes *= np.float32(amounts.saturation)
        planes += grey
        np.clip(planes, 0, 255, out=planes)
    if amounts.hue:
        planes = turn_hue(planes, amounts.hue)
    return np.rint(planes).astype(np.uint8).T.reshape(image.shape)


def turn_hue(planes: np.ndarray, share: float) -> np.ndarray:
    """Turn the hue of HSV.

    With the hue h in sixths of the circle, the largest value M and the distance C to the smallest, the new red is
    M - C clip(2 - |h - 3|, 0, 1), green M - C clip(|h - 2| - 1, 0, 1) and blue M - C clip(|h - 4| - 1, 0, 1).

    Args:
        planes: float32 (3, N), red, green and blue.
        share: of the colour circle; 1/3 makes red green.

    Returns:
        float32 (3, N).
    """
    red, green, blue = planes
    most = np.maximum(np.maximum(red, green), blue)
    chroma = most - np.minimum(np.minimum(red, green), blue)
    is_red, is_green = most == red, most == green
    hue = np.where(is_red, green - blue, np.where(is_green, blue - red, red - green))
    hue /= np.where(chroma > 0, chroma, np.float32(1))
    hue += np.where(is_red, np.float32(0), np.where(is_green, np.float32(2), np.float32(4)))
    hue += np.float32(6 * share)
    hue -= 6 * np.floor(hue * np.float32(1 / 6))
    turned = np.empty_like(planes)
    for plane, middle, sign in zip(turned, (3, 2, 4), (-1, 1, 1), strict=True):
        np.abs(hue - np.float32(middle), out=plane)
        plane *= sign
        plane += 2 if sign < 0 else -1
        np.clip(plane, 0, 1, out=plane)
        plane *= -chroma
        plane += most
    return turned
