"""A face in a picture -> the crop that the model was trained on.

FER2013's faces were cropped by OpenCV's detector of its time, whose boxes are 1.3 times as wide as
YuNet's and have the same centre.  Of the crops that were measured on FER+'s validation faces this
one is the best (docs/photos.md has the figures).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Box = tuple[float, float, float, float]
"""Left, top, width and height in pixels; pixel (0, 0) reaches from 0 to 1 on both axes."""

Point = tuple[float, float]
"""x and y in pixels."""

Picture = NDArray[np.uint8]
"""An upright picture, (H, W, 3), RGB."""

SIDE = 1.3
"""The side of the square, in widths of the face."""

UPRIGHT = 20.0
"""Degrees of roll up to which a face is cropped as it is: FER+'s training turns faces so far."""

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as preprocess


def roll_of(points: Sequence[Point]) -> float | None:
    """Return by how much a face is turned in the plane of the picture.

    Parameters
    ----------
    points
        Right eye, left eye and more: the right one is the person's own, on the left of the picture
        where the face is upright.  Or none.

    Returns
    -------
    float or None
        Degrees, clockwise as one sees it, in -180..180; None without points.
    """
    if len(points) < 2:
        return None
    (right_x, right_y), (left_x, left_y) = points[:2]
    return math.degrees(math.atan2(left_y - right_y, left_x - right_x))


def crop(
    picture: Picture, box: Box, roll: float | None = None, *, size: int = 64, channels: int = 1
) -> NDArray[np.float32]:
    """Crop one face for the model.

    The crop is a square around the centre of the box, 1.3 times as wide as the face.  Where it
    leaves the picture, the picture's edge is repeated.  It is never squeezed.

    Parameters
    ----------
    picture
        An upright picture, uint8 (H, W, 3), RGB.
    box
        Left, top, width and height as a detector gives them; the centre lies in the picture.
    roll
        Degrees by which the face is turned clockwise.  Above 20 the crop is turned back.
    size
        Height and width of the crop, in pixels.
    channels
        1 for grey (luma), 3 for RGB.

    Returns
    -------
    numpy.ndarray
        float32 (channels, size, size), 0..255.
    """
    x, y, width, height = box
    turn = 0.0 if roll is None or abs(roll) <= UPRIGHT else roll
    # The box of a face that lies on its side is as high as the face is wide.
    lies = 45 < abs(turn) < 135
    side = SIDE * (height if lies else width)
    centre = (x + width / 2, y + height / 2)
    if turn:
        planes = _turned(picture, centre, side, turn, size, channels)
    else:
        planes = _straight(picture, centre, side, size, channels)
    # Float weights may sum to a hair over one.
    return np.asarray(np.clip(planes, 0, 255), np.float32)


def _straight(
    picture: Picture, centre: Point, side: float, size: int, channels: int
) -> NDArray[np.float32]:
    """Resample a square by Pillow's triangle filter, which widens with the scale."""
    from PIL import Image

    reach = side / 2 + max(side / size, 1) + 1  # the filter looks beyond the square
    planes, (left, top) = _region(picture, centre, reach, channels)
    x, y = centre[0] - left - side / 2, centre[1] - top - side / 2
    return np.stack(
        [
            np.asarray(
                Image.fromarray(plane).resize(
                    (size, size), Image.Resampling.BILINEAR, box=(x, y, x + side, y + side)
                )
            )
            for plane in planes
        ]
    )


def _turned(
    picture: Picture, centre: Point, side: float, roll: float, size: int, channels: int
) -> NDArray[np.float32]:
    """Resample a square that is turned, in steps of a pixel or less, and average the steps."""
    from PIL import Image

    # A large face is first averaged down to some two to four times the size.
    shrink = max(1, int(side / (2 * size)))
    reach = side / math.sqrt(2) + 2 * shrink + 1
    planes, (left, top) = _region(picture, centre, reach, channels)
    steps = max(1, math.ceil(side / shrink / size))
    step = side / shrink / (steps * size)
    x, y = (centre[0] - left) / shrink, (centre[1] - top) / shrink
    along_x, along_y = step * math.cos(math.radians(roll)), step * math.sin(math.radians(roll))
    half = steps * size / 2
    affine = (
        *(along_x, -along_y, x - half * (along_x - along_y)),
        *(along_y, along_x, y - half * (along_y + along_x)),
    )
    turned = []
    for plane in planes:
        image = Image.fromarray(plane)
        if shrink > 1:
            image = image.reduce(shrink)
        image = image.transform(
            (steps * size, steps * size),
            Image.Transform.AFFINE,
            affine,
            resample=Image.Resampling.BILINEAR,
        )
        turned.append(np.asarray(image.reduce(steps) if steps > 1 else image))
    return np.stack(turned)


def _region(
    picture: Picture, centre: Point, reach: float, channels: int
) -> tuple[NDArray[np.float32], tuple[int, int]]:
    """Cut out what lies around a point, edges repeated; return it and its left and top."""
    height, width = picture.shape[:2]
    left, right = math.floor(centre[0] - reach), math.ceil(centre[0] + reach)
    top, bottom = math.floor(centre[1] - reach), math.ceil(centre[1] + reach)
    inside: NDArray[Any] = picture[max(top, 0) : bottom, max(left, 0) : right].astype(np.float32)
    planes = (inside @ _LUMA)[np.newaxis] if channels == 1 else np.moveaxis(inside, -1, 0)
    beyond = (
        (0, 0),
        (max(0, -top), max(0, bottom - height)),
        (max(0, -left), max(0, right - width)),
    )
    if any(map(any, beyond)):
        planes = np.pad(planes, beyond, mode="edge")
    return np.ascontiguousarray(planes, np.float32), (left, top)
