"""Who is who from one frame to the next: by where faces are and how they move, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ferplus_tvm.vision.crop import Box

LOST = 1.0
"""Seconds after which a person who is not seen is lost."""

_LATE = 0.1
"""Seconds by which one frame of each second may come late."""

_REACH = 0.6
"""How far a face may be from where it is expected, in widths of it: at once, and ..."""

_SPEED = 2.0
"""... more for each second without a look at it."""

_GROWTH = 2.0
"""The ratio of the sizes of two boxes that are the same face, at most."""

_MEMORY = 0.1
"""Seconds over which velocities are averaged: boxes jitter."""


@dataclass
class _Track:
    """One person, as last seen."""

    number: int
    box: Box
    time: float
    velocity: tuple[float, float] = (0.0, 0.0)  # pixels a second
    seen: int = 1

    def at(self, time: float) -> Box:
        """Return where the face is expected at a time."""
        x, y, width, height = self.box
        past = time - self.time
        return x + self.velocity[0] * past, y + self.velocity[1] * past, width, height

    def moved(self, time: float, box: Box) -> None:
        """Take note of where the face is seen."""
        past = time - self.time
        if past > 0:
            (x, y), (old_x, old_y) = _centre(box), _centre(self.box)
            speed = ((x - old_x) / past, (y - old_y) / past)
            # The first difference is all that is known; later ones correct it.
            new = 1.0 if self.seen == 1 else 1 - math.exp(-past / _MEMORY)
            self.velocity = (
                (1 - new) * self.velocity[0] + new * speed[0],
                (1 - new) * self.velocity[1] + new * speed[1],
            )
        self.box, self.time, self.seen = box, time, self.seen + 1


class Tracker:
    """Gives faces numbers: the same to the same person, from 1, and none twice.

    A face belongs to the person who is expected closest to it, by a velocity that stays the same.
    Who is not seen for more than a second is lost, and gets a new number when seen again.
    """

    def __init__(self) -> None:
        self._tracks: list[_Track] = []
        self._last = 0

    def update(self, time: float, boxes: Sequence[Box], cut: bool = False) -> list[int]:
        """Return the number of the person for each face in the next frame.

        Parameters
        ----------
        time
            Seconds; not before the last one.
        boxes
            Left, top, width and height of each face.
        cut
            Whether the scene has changed since the last frame: then no face is one of before.
        """
        if cut:
            self._tracks.clear()
        self._tracks = [each for each in self._tracks if time - each.time <= LOST + _LATE]
        pairs = []
        for track in self._tracks:
            expected, past = track.at(time), time - track.time
            for at, box in enumerate(boxes):
                cost = _cost(expected, box, past)
                if cost is not None:
                    pairs.append((cost, track.number, at, track))
        pairs.sort(key=lambda pair: pair[:3])
        found: dict[int, _Track] = {}
        taken: set[int] = set()
        for _, number, at, track in pairs:
            if at not in found and number not in taken:
                found[at] = track
                taken.add(number)
        for at, box in enumerate(boxes):
            if at in found:
                found[at].moved(time, box)
            else:
                self._last += 1
                found[at] = _Track(self._last, box, time)
                self._tracks.append(found[at])
        return [found[at].number for at in range(len(boxes))]


def _cost(expected: Box, box: Box, past: float) -> float | None:
    """Return how far a face is from where one is expected, or None if it is another."""
    size, other = math.sqrt(expected[2] * expected[3]), math.sqrt(box[2] * box[3])
    if max(size, other) > _GROWTH * min(size, other):
        return None
    (x, y), (other_x, other_y) = _centre(expected), _centre(box)
    far = math.hypot(x - other_x, y - other_y) / max(size, other)
    if far > _REACH + _SPEED * past:
        return None
    return far + 1 - overlap(expected, box)


def overlap(one: Box, other: Box) -> float:
    """Return the intersection over union of two boxes."""
    across = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    down = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    common = max(0.0, across) * max(0.0, down)
    return common / (one[2] * one[3] + other[2] * other[3] - common)


def _centre(box: Box) -> tuple[float, float]:
    return box[0] + box[2] / 2, box[1] + box[3] / 2
