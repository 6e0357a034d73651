"""The crop of a face, beside what geometry says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

import ferplus_tvm as fer
from ferplus_tvm.vision.crop import Box, crop, roll_of

HEIGHT, WIDTH = 300, 400
_Y, _X = np.mgrid[:HEIGHT, :WIDTH] + 0.5
SLOPES = np.round(np.stack([_X * 0.5, _Y * 0.7, 30 + _X * 0.2 + _Y * 0.3], -1)).astype(np.uint8)
NOISE = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def expected(box: Box, turn: float, side: float, size: int) -> NDArray[np.float64]:
    """Give the slopes at the pixels' centres of a square that is turned clockwise."""
    x, y, width, height = box
    steps = ((np.arange(size) + 0.5) / size - 0.5) * side
    across, down = np.meshgrid(steps, steps)
    angle = math.radians(turn)
    at_x = x + width / 2 + across * math.cos(angle) - down * math.sin(angle)
    at_y = y + height / 2 + across * math.sin(angle) + down * math.cos(angle)
    return np.stack([at_x * 0.5, at_y * 0.7, 30 + at_x * 0.2 + at_y * 0.3])


@pytest.mark.parametrize("size", [32, 64, 224])
@pytest.mark.parametrize(
    ("roll", "turn"), [(None, 0), (0, 0), (-15, 0), (25, 25), (-40, -40), (179, 179), (-130, -130)]
)
@pytest.mark.parametrize(
    "box", [(150.3, 100.7, 60.0, 80.0), (190, 130, 9.5, 12), (160, 80, 90, 130)]
)
def test_it_is_a_square_of_1_3_widths_around_the_centre_with_roll_undone(
    box: Box, roll: float | None, turn: float, size: int
) -> None:
    wide = box[3] if 45 < abs(turn) < 135 else box[2]  # a face that lies is as wide as its box high
    found = crop(SLOPES, box, roll, size=size, channels=3)

    assert found.shape == (3, size, size) and found.dtype == np.float32
    # The picture holds whole levels, so that a pixel may be off by a half and a hair.
    np.testing.assert_allclose(found, expected(box, turn, 1.3 * wide, size), rtol=0, atol=0.8)


def test_a_face_that_lies_is_as_wide_as_its_box_is_high() -> None:
    box = (100.0, 100.0, 90.0, 60.0)
    found = crop(SLOPES, box, 90, channels=3)
    np.testing.assert_allclose(found, expected(box, 90, 1.3 * 60, 64), rtol=0, atol=0.8)


@pytest.mark.parametrize("roll", [0, 30])
@pytest.mark.parametrize("box", [(-20, -30, 80, 90), (350, 240, 80, 90), (-100, 20, 600, 300)])
def test_beyond_the_picture_its_edge_is_repeated(box: Box, roll: float) -> None:
    beyond = 500
    padded = np.pad(NOISE, ((beyond, beyond), (beyond, beyond), (0, 0)), mode="edge")
    moved = (box[0] + beyond, box[1] + beyond, *box[2:])

    np.testing.assert_allclose(crop(NOISE, box, roll), crop(padded, moved, roll), rtol=0, atol=1e-3)


def test_it_is_what_predict_makes_of_the_same_square() -> None:
    """But for the outermost pixels: the crop's filter looks beyond the square."""
    box = (150.0, 100.0, 100.0, 110.0)  # a square of 130 pixels around (200, 155)
    square = fer.preprocess(NOISE[90:220, 135:265])[0]

    np.testing.assert_allclose(crop(NOISE, box)[:, 2:-2, 2:-2], square[:, 2:-2, 2:-2], atol=1e-2)


def test_grey_is_the_luma_of_the_colours() -> None:
    box = (150.0, 100.0, 50.0, 60.0)
    red, green, blue = crop(NOISE, box, 33, channels=3).astype(np.float64)

    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    np.testing.assert_allclose(crop(NOISE, box, 33)[0], luma, rtol=0, atol=1e-3)


@pytest.mark.parametrize("roll", [0, 25, 90])
@pytest.mark.parametrize("width", [180, 431, 700])
def test_fine_patterns_become_grey_and_no_moire(roll: float, width: int) -> None:
    board = np.indices((1000, 1000)).sum(0) % 2 * np.uint8(255)
    picture = np.repeat(board[..., None], 3, -1)

    found = crop(picture, (500 - width / 2, 500 - width / 2, width, width), roll)

    np.testing.assert_allclose(found, 127.5, rtol=0, atol=20)


def test_roll_is_clockwise_as_one_sees_it() -> None:
    right, left = (100.0, 50.0), (140.0, 50.0)
    assert roll_of([right, left]) == 0
    assert roll_of([right, (140.0, 90.0)]) == pytest.approx(45)  # the left eye is lower
    assert roll_of([left, right]) == pytest.approx(180)
    assert roll_of([]) is None
