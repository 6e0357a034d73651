"""Boxes of faces from any detector, checked: what is none would be answered all the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ferplus_tvm.errors import InputError, one_line
from ferplus_tvm.vision.crop import Point
from ferplus_tvm.vision.detections import Detection

_XYWH = "expected boxes as (x, y, width, height) in pixels"

# Numbers in a row: a box; with a score; with five points and a score, as cv2.FaceDetectorYN.
_BOX, _SCORED, _WITH_POINTS = 4, 5, 15


def as_detections(boxes: Sequence[Any] | ArrayLike, width: int, height: int) -> list[Detection]:
    """Read boxes of faces.

    Parameters
    ----------
    boxes
        Of N faces: objects with ``box`` and perhaps ``points`` and ``score``, such as `Detection`;
        or real numbers (N, 4): x, y, width and height in pixels of the upright picture; (N, 5): a
        score behind them; or (N, 15): five points and a score, as ``cv2.FaceDetectorYN`` gives
        them.  None, as OpenCV gives for no face, counts as none.
    width, height
        Those of the picture, in pixels.

    Returns
    -------
    list of Detection
        In order.  What gives no points has none, and what gives no score has 1.

    Raises
    ------
    InputError
        If they are of another shape or not finite; a box has no size, lies outside of the picture
        or is far larger than it; or they look like corners, or like parts of the picture's size.
    """
    found = read_boxes(boxes)
    _check(np.array([each.box for each in found]).reshape(-1, 4), width, height)
    return found


def read_boxes(boxes: Any) -> list[Detection]:
    """Read boxes as `as_detections` does, wherever they lie."""
    if boxes is None:
        return []
    if isinstance(boxes, list | tuple) and boxes and all(hasattr(each, "box") for each in boxes):
        rows = _numbers([each.box for each in boxes])
        if rows.shape[1] != _BOX:
            raise InputError(f"the boxes have {rows.shape[1]} numbers each; {_XYWH}")
        return [
            Detection(_box(row), _points(each), _score(each))
            for row, each in zip(rows, boxes, strict=True)
        ]
    rows = _numbers(boxes)
    if len(rows) and rows.shape[1] not in (_BOX, _SCORED, _WITH_POINTS):
        raise InputError(f"the boxes have the shape {rows.shape}; {_XYWH}, of shape (N, 4)")
    return [
        Detection(
            _box(row),
            _pairs(row[4:14]) if len(row) == _WITH_POINTS else (),
            float(row[-1]) if len(row) > _BOX else 1.0,
        )
        for row in rows
    ]


def _numbers(boxes: Any) -> NDArray[np.float64]:
    """Read rows of finite numbers."""
    try:
        array = np.asarray(boxes)
    except Exception as error:  # ragged lists, whatever __array__ raises
        reason = one_line(error).split(". ")[0]
        raise InputError(f"the boxes cannot be read ({reason}); {_XYWH}") from error
    if array.size == 0:
        return np.empty((0, _BOX))
    if array.dtype.kind not in "iuf":
        raise InputError(f"the boxes hold {array.dtype}; {_XYWH}")
    rows = array[np.newaxis] if array.ndim == 1 else array
    if rows.ndim != 2:
        raise InputError(f"the boxes have the shape {array.shape}; {_XYWH}, of shape (N, 4)")
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        raise InputError(f"box {int(np.argmin(finite)) + 1} holds NaN or infinity; {_XYWH}")
    return rows.astype(np.float64)


def _check(boxes: NDArray[np.float64], width: int, height: int) -> None:
    """Refuse boxes that are none of this picture."""
    if not len(boxes):
        return
    size = np.array([width, height])
    said = f"{_XYWH} of a picture of {width} x {height}"
    if np.abs(boxes).max() <= 1 < min(width, height):
        raise InputError(
            f"the boxes hold numbers up to {np.abs(boxes).max():g}, as if they were parts of the "
            f"picture's size; {said}: multiply them by it"
        )
    corner, extent = boxes[:, :2], boxes[:, 2:]
    middle = corner + extent / 2
    outside = ((middle < 0) | (middle > size)).any(axis=1)
    # A face at the edge may leave the picture, but its box is about as wide as high.
    aspect = extent[:, 0] / np.maximum(extent[:, 1], 1e-9)
    odd = (corner + extent - size > extent / 4).any(axis=1) & ((aspect < 0.5) | (aspect > 1.5))
    leaves = np.asarray(outside | odd)
    inside = (corner >= 0) & (corner < extent) & (extent <= size + 1)
    if leaves.any() and inside.all():  # if the last two are right and bottom
        raise InputError(
            f"box {_said(boxes, leaves)} leaves the picture, and all of them look like "
            f"corners (left, top, right, bottom); {said}: subtract left and top from the others"
        )
    for wrong, what in (
        ((extent <= 0).any(axis=1), "has no size"),
        ((extent > 2 * size.max()).any(axis=1), "is far larger than the picture"),
        (outside, "lies outside of the picture"),
    ):
        if wrong.any():
            raise InputError(f"box {_said(boxes, np.asarray(wrong))} {what}; {said}")


def _said(boxes: NDArray[np.float64], wrong: NDArray[np.bool_]) -> str:
    """Give the number of the first wrong box, and its numbers."""
    at = int(np.argmax(wrong))
    return f"{at + 1} of {len(boxes)}, ({', '.join(f'{number:g}' for number in boxes[at])}),"


def _box(row: NDArray[np.float64]) -> tuple[float, float, float, float]:
    x, y, width, height = row[:4].tolist()
    return x, y, width, height


def _pairs(numbers: NDArray[np.float64]) -> tuple[Point, ...]:
    pairs = numbers.reshape(-1, 2).tolist()
    return tuple((x, y) for x, y in pairs)


def _points(item: Any) -> tuple[Point, ...]:
    given = getattr(item, "points", None)
    if given is None or len(given) == 0:
        return ()
    try:
        points = np.asarray(given, np.float64).reshape(-1, 2)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"the points of a face cannot be read ({one_line(error)}); expected (x, y) of each"
        ) from error
    if not np.isfinite(points).all():
        raise InputError("the points of a face hold NaN or infinity; expected pixels")
    return _pairs(points)


def _score(item: Any) -> float:
    score = getattr(item, "score", None)
    return 1.0 if score is None else float(score)
