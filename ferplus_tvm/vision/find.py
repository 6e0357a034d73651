"""Find the faces in a picture: at which scales and in which positions a detector looks at it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, SupportsIndex

import numpy as np

from ferplus_tvm.vision.boxes import as_detections
from ferplus_tvm.vision.crop import Box, Picture, Point
from ferplus_tvm.vision.detections import Detection, distinct

_SEEN = 20
"""Pixels of a face's width at which a detector finds it well."""

_LARGEST_SCALE = 2.0
"""Beyond twice its own size a picture shows a detector no more."""

_OVERLAP = 0.2
"""Of neighbouring tiles, in widths of a tile.  A larger face is found at the scale before."""

_PART = 0.7
"""How much of a box lies within a larger one if it is a part of the same face."""


Detect = Callable[[Picture], list[Detection]]
"""Finds the faces of a picture of at most ``max_side`` pixels a side."""


class Detector(Protocol):
    """Whatever finds faces in an RGB picture, uint8 (H, W, 3): the engine's own, or any other."""

    def __call__(self, picture: Picture, /) -> Any:
        """Return what `ferplus_tvm.vision.boxes.as_detections` takes."""


def checked(detector: Detector) -> Detect:
    """Return a detector that checks the boxes of another."""

    def detect(picture: Picture) -> list[Detection]:
        height, width = picture.shape[:2]
        return as_detections(detector(picture), width, height)

    return detect


@dataclass(frozen=True)
class FindOptions:
    """Which faces are looked for.

    Attributes
    ----------
    min_face
        The least width and height of a face, in pixels of the picture; by default 24, or 10 with
        ``small_faces``.
    min_score
        The least score of a face, 0..1.
    small_faces
        Whether to look at the picture in larger scales too, in tiles, until a face of ``min_face``
        pixels is 20 pixels wide.  The number of tiles grows with the size of the picture.
    any_rotation
        Whether to look at the picture in four positions.  A detector of upright faces finds some
        that lie, but places their points wrongly; the surest position of each face counts.
    max_side
        To how many pixels a longer side is shrunk, at least 64.  A detector finds faces of a
        certain range of sizes, and in a photo at full size the large ones are beyond it.
    """

    min_face: float | None = None
    min_score: float = 0.6
    small_faces: bool = False
    any_rotation: bool = False
    max_side: int = 640

    def __post_init__(self) -> None:
        if self.min_face is not None and not 1 <= self.min_face < math.inf:
            raise ValueError(f"min_face is {self.min_face!r}; expected pixels, at least 1")
        if not 0 <= self.min_score <= 1:
            raise ValueError(f"min_score is {self.min_score!r}; expected a number in 0..1")
        if not isinstance(self.max_side, SupportsIndex) or self.max_side < 64:
            raise ValueError(f"max_side is {self.max_side!r}; expected whole pixels, at least 64")

    @property
    def smallest(self) -> float:
        """The least width and height of a face, in pixels."""
        if self.min_face is None:
            return 10 if self.small_faces else 24
        return self.min_face


def find_faces(picture: Picture, detect: Detect, options: FindOptions) -> list[Detection]:
    """Return the faces in a picture, the largest first.

    Parameters
    ----------
    picture
        An upright picture, uint8 (H, W, 3), RGB.
    detect
        The detector.
    options
        Which faces are looked for.

    Returns
    -------
    list of Detection
        In pixels of the picture; boxes may leave it, but their centres do not.
    """
    height, width = picture.shape[:2]
    found = list(_looks(picture, detect, options))
    for quarters in (1, 2, 3) if options.any_rotation else ():
        turned = np.ascontiguousarray(np.rot90(picture, quarters))
        for face in _looks(turned, detect, options):
            found.append(_turned_back(face, quarters, width, height))
    kept = [
        face
        for face in found
        if face.score >= options.min_score
        and min(face.box[2:]) >= options.smallest
        and 0 <= face.box[0] + face.box[2] / 2 <= width
        and 0 <= face.box[1] + face.box[3] / 2 <= height
    ]
    if options.small_faces or options.any_rotation:
        kept = _merged(kept)
    return sorted(kept, key=lambda face: (-face.box[2] * face.box[3], face.box))


def _merged(faces: Sequence[Detection]) -> list[Detection]:
    """Keep the surest of those that are one face, and nothing that is only a part of another."""
    surest = sorted(faces, key=lambda face: -face.score)
    boxes = np.array([face.box for face in surest]).reshape(-1, 4)
    kept = distinct(boxes)
    surest, boxes = [surest[at] for at in kept], boxes[kept]
    low, high, area = boxes[:, :2], boxes[:, :2] + boxes[:, 2:], boxes[:, 2] * boxes[:, 3]
    sides = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)
    within = np.clip(sides, 0, None).prod(-1) > _PART * area[:, None]
    part = (within & (area > area[:, None])).any(axis=1)
    return [face for face, is_part in zip(surest, part, strict=True) if not is_part]


def _looks(picture: Picture, detect: Detect, options: FindOptions) -> Iterator[Detection]:
    """Yield the faces that are found in a picture as it stands, in all scales, perhaps twice."""
    for number, scale in enumerate(_scales(max(picture.shape[:2]), options)):
        largest = math.inf if number == 0 else _OVERLAP * options.max_side / scale
        for face in _at_scale(picture, scale, detect, options.max_side):
            if max(face.box[2:]) <= largest:
                yield face


def _scales(longest: int, options: FindOptions) -> Iterator[float]:
    """Yield the scales in which a picture is looked at, each at most twice the one before."""
    scale = min(1.0, options.max_side / longest)
    yield scale
    if options.small_faces:
        last = min(_SEEN / options.smallest, _LARGEST_SCALE)
        while scale < last:
            scale = min(2 * scale, last)
            yield scale


def _at_scale(picture: Picture, scale: float, detect: Detect, max_side: int) -> Iterator[Detection]:
    """Yield the faces that are found in one scale, tile by tile."""
    from PIL import Image

    height, width = picture.shape[:2]
    columns = _tiles(max(1, round(width * scale)), max_side)
    rows = _tiles(max(1, round(height * scale)), max_side)
    # Rounding may scale the axes differently by a hair.
    across, down = width / columns[-1][1], height / rows[-1][1]
    image = None
    for top, bottom in rows:
        for left, right in columns:
            if (right - left, bottom - top) == (width, height):
                tile = picture
            else:
                image = image or Image.fromarray(np.ascontiguousarray(picture))
                tile = np.asarray(
                    image.resize(
                        (right - left, bottom - top),
                        Image.Resampling.BILINEAR,
                        box=(left * across, top * down, right * across, bottom * down),
                        reducing_gap=1,  # averages whole pixels first: four times as fast
                    )
                )
            for face in detect(tile):
                x, y, w, h = face.box
                # What crosses an inner edge is whole in the next tile, or in the scale before.
                if (
                    (x < 0 < left)
                    or (y < 0 < top)
                    or (x + w > right - left and right < columns[-1][1])
                    or (y + h > bottom - top and bottom < rows[-1][1])
                ):
                    continue
                yield Detection(
                    ((x + left) * across, (y + top) * down, w * across, h * down),
                    tuple(((px + left) * across, (py + top) * down) for px, py in face.points),
                    face.score,
                )


def _tiles(length: int, largest: int) -> list[tuple[int, int]]:
    """Cut a length into overlapping tiles of at most ``largest`` pixels."""
    if length <= largest:
        return [(0, length)]
    count = math.ceil((length - _OVERLAP * largest) / ((1 - _OVERLAP) * largest))
    starts = [round(at * (length - largest) / (count - 1)) for at in range(count)]
    return [(start, start + largest) for start in starts]


def _turned_back(face: Detection, quarters: int, width: int, height: int) -> Detection:
    """Map a face that was found in ``np.rot90(picture, quarters)`` to the picture."""

    def back(x: float, y: float) -> Point:
        return {1: (width - y, x), 2: (width - x, height - y), 3: (y, height - x)}[quarters]

    x, y, w, h = face.box
    (one_x, one_y), (other_x, other_y) = back(x, y), back(x + w, y + h)
    box: Box = (
        *(min(one_x, other_x), min(one_y, other_y)),
        *(abs(one_x - other_x), abs(one_y - other_y)),
    )
    return Detection(box, tuple(back(*point) for point in face.points), face.score)
