"""What a face detector of the YuNet family computes, turned into faces.

The network says of every place of three grids, whose cells are 8, 16 and 32 pixels wide, whether
there is a face around it, and where.  Boxes that are of the same face are then left out but the
best one (non-maximum suppression).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.artifact.detector import VALUES

Floats = NDArray[np.float32]

OVERLAP = 0.3
"""The intersection over union beyond which two boxes are taken for one face."""

MOST = 5000
"""The candidates that are looked at, the best ones."""


@dataclass(frozen=True, slots=True)
class Detection:
    """A face that was found in a picture.

    Immutable, hashable, comparable and picklable; all numbers are plain Python ones, in pixels of
    the picture, whose first pixel begins at (0, 0).

    Attributes
    ----------
    box
        (x, y, width, height) of the face; x and y are those of its upper left corner.  A face at
        the edge may reach out of the picture.
    points
        (x, y) of the right eye, the left eye, the tip of the nose, and the right and the left
        corner of the mouth: the person's own right, which is on the left of the picture.
    score
        How sure the detector is, 0..1.
    """

    box: tuple[float, float, float, float]
    points: tuple[tuple[float, float], ...]
    score: float


def decode(
    values: Floats,
    height: int,
    width: int,
    strides: Sequence[int],
    min_score: float,
    scale: float = 1.0,
) -> list[Detection]:
    """Return the faces in what the network computed, the surest first.

    Parameters
    ----------
    values
        float32 (A, 16), for each place of the grids, one grid after the other and each row by row:
        the probability that it belongs to a face, that there is an object, the centre's offset
        from the place and the logarithm of the size, x before y, and the offsets of five points;
        offsets and sizes in cells.
    height, width
        The size of the network's input in pixels.
    strides
        The cell size of each grid in pixels.
    min_score
        The least score of a face, 0..1: the geometric mean of its two probabilities.
    scale
        The size of the network's input over that of the picture, by which all is divided.
    """
    places, cells = _grids(height, width, tuple(strides))
    if values.shape != (len(cells), VALUES):
        raise ValueError(f"values are {values.shape}: expected {(len(cells), VALUES)}")
    # Nearly all places are passed over by a product alone, with room for its rounding.
    with np.errstate(over="ignore", invalid="ignore"):
        found = np.flatnonzero(values[:, 0] * values[:, 1] >= 0.999 * min_score**2)
    probabilities = np.clip(values[found, :2], 0, 1)
    scores = np.sqrt(probabilities[:, 0] * probabilities[:, 1])
    sure = np.flatnonzero(scores >= min_score)
    sure = sure[np.argsort(-scores[sure], kind="stable")][:MOST]
    found, scores = found[sure], scores[sure]
    offsets, place, cell = values[found, 2:], places[found], cells[found, None]
    with np.errstate(over="ignore"):  # of a size that is infinite, no face is made below
        size = np.exp(offsets[:, 2:4]) * cell / scale
    boxes = np.hstack([(place + offsets[:, :2]) * cell / scale - size / 2, size])
    points = (place[:, None] + offsets[:, 4:].reshape(-1, 5, 2)) * cell[:, None] / scale
    finite = np.isfinite(boxes).all(1) & np.isfinite(points).all((1, 2))
    boxes, points, scores = boxes[finite], points[finite], scores[finite]
    return [
        Detection(
            tuple(boxes[at].tolist()),
            tuple(map(tuple, points[at].tolist())),
            float(scores[at]),
        )
        for at in distinct(boxes)
    ]


def placed(face: Detection, scale: float, left: float, top: float) -> Detection:
    """Return a face enlarged by a factor, and then moved to the right and down."""
    x, y, width, height = face.box
    return Detection(
        (x * scale + left, y * scale + top, width * scale, height * scale),
        tuple((x * scale + left, y * scale + top) for x, y in face.points),
        face.score,
    )


def distinct(boxes: Floats, overlap: float = OVERLAP) -> list[int]:
    """Return which boxes (x, y, width, height) stay where the earlier of two alike is kept.

    Parameters
    ----------
    boxes
        float (N, 4), the surest first.
    overlap
        The largest intersection over union of two that stay.
    """
    boxes = boxes.astype(np.float64)
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    area = boxes[:, 2] * boxes[:, 3]
    kept = []
    left = np.arange(len(boxes))
    while len(left):
        first, left = int(left[0]), left[1:]
        kept.append(first)
        sides = np.minimum(high[first], high[left]) - np.maximum(low[first], low[left])
        common = np.clip(sides, 0, None).prod(1)
        left = left[common <= overlap * (area[first] + area[left] - common)]
    return kept


@functools.lru_cache(16)
def _grids(height: int, width: int, strides: tuple[int, ...]) -> tuple[Floats, Floats]:
    """Return (column, row) of every place, and the size of its cell."""
    places, cells = [], []
    for stride in strides:
        rows, columns = np.indices((height // stride, width // stride), np.float32)
        places.append(np.stack([columns, rows], -1).reshape(-1, 2))
        cells.append(np.full(rows.size, stride, np.float32))
    return np.concatenate(places), np.concatenate(cells)
