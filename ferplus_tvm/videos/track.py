"""Who is who from one frame to the next.

Faces are told apart by where they are, how they move, and 8 x 8 grey values of each, compared with
those of the last second.  That is no recognition of persons: nothing of it is kept once somebody
is lost, and who comes back later gets a new number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.vision.crop import Box

Look = NDArray[np.float32]
"""A face's 64 grey values, of mean 0 and length 1."""

LOST = 1.0
"""Seconds after which a person who is not seen is lost."""

_LATE = 0.1
"""Seconds by which one frame of each second may come late."""

_REACH = 0.6
"""How far a face may be from where it is expected, in widths of it: at once, and ..."""

_SPEED = 4.0
"""... more for each second in which it was not seen, but ..."""

_FARTHEST = 2.0
"""... never farther."""

_GROWTH = 2.0
"""The ratio of the sizes of two boxes that are the same face, at most."""

_ALIKE = 0.5
"""The least correlation of two looks of one person within a second.

Measured: above 0.9 from frame to frame and 0.6 in half a second, but for one pair in a hundred; of
two people in FER+ 0.1, and below 0.5 for nine pairs in ten.
"""

_SURE = 0.3
"""How much further a face must be from anybody else; a width of it is 1."""

_MEMORY = 0.1
"""Seconds over which velocities are averaged: boxes jitter."""

_SIDE = 8


@dataclass
class _Track:
    """One person, as last seen."""

    number: int
    box: Box
    look: Look | None
    time: float
    velocity: tuple[float, float] = (0.0, 0.0)  # pixels a second
    known: bool = False  # whether the velocity is

    def expected(self, time: float) -> Box:
        """Return where the face is expected at a time."""
        x, y, width, height = self.box
        past = time - self.time
        return x + self.velocity[0] * past, y + self.velocity[1] * past, width, height

    def seen(self, time: float, box: Box, look: Look | None) -> None:
        """Take note of where the face is."""
        past = time - self.time
        if past > 0:
            new = 1 - math.exp(-past / _MEMORY) if self.known else 1.0
            here, there = _centre(box), _centre(self.box)
            x, y = ((now - then) / past for now, then in zip(here, there, strict=True))
            self.velocity = (
                (1 - new) * self.velocity[0] + new * x,
                (1 - new) * self.velocity[1] + new * y,
            )
            self.known = True
        self.box, self.time = box, time
        self.look = self.look if look is None else look


class Tracker:
    """Gives faces numbers: the same to the same person, from 1, and none twice.

    A face belongs to the person who is expected closest to it, by a velocity that stays the same,
    and whose last look is like it.  Who is not seen for a second is lost; and where two may as well
    be each other, both get new numbers, so that nothing of one is taken for the other's.
    """

    def __init__(self) -> None:
        self._tracks: list[_Track] = []
        self._last = 0

    def update(
        self,
        time: float,
        boxes: Sequence[Box],
        looks: Sequence[Look | None] | None = None,
        cut: bool = False,
    ) -> list[int]:
        """Return the number of the person for each face in the next frame.

        Parameters
        ----------
        time
            Seconds; not before the last one.
        boxes
            Left, top, width and height of each face.
        looks
            What `looks_of` returns for them; by default places alone count.
        cut
            Whether the scene has changed since the last frame: then no face is one of before.
        """
        looks = [None] * len(boxes) if looks is None else looks
        if cut:
            self._tracks.clear()
        self._tracks = [each for each in self._tracks if time - each.time <= LOST + _LATE]
        costs = np.array(
            [
                [_cost(track, time, *face) for face in zip(boxes, looks, strict=True)]
                for track in self._tracks
            ]
        ).reshape(len(self._tracks), len(boxes))
        pairs = _pairs(costs)
        unsure = _unsure(costs, pairs)
        kept = [track for at, track in enumerate(self._tracks) if at not in unsure]
        found = {face: self._tracks[at] for at, face in pairs.items() if at not in unsure}
        for face, (box, look) in enumerate(zip(boxes, looks, strict=True)):
            if face in found:
                found[face].seen(time, box, look)
            else:
                self._last += 1
                found[face] = _Track(self._last, box, look, time)
                kept.append(found[face])
        self._tracks = kept
        return [found[face].number for face in range(len(boxes))]


def _pairs(costs: NDArray[np.float64]) -> dict[int, int]:
    """Return the face of each row's person, if any: the best pair first."""
    pairs: dict[int, int] = {}
    for place in np.argsort(costs, axis=None, kind="stable"):
        at, face = divmod(int(place), costs.shape[1])
        if costs[at, face] < math.inf and at not in pairs and face not in pairs.values():
            pairs[at] = face
    return pairs


def _unsure(costs: NDArray[np.float64], pairs: dict[int, int]) -> set[int]:
    """Return the persons who may as well be each other, so that nobody can tell."""
    unsure = set()
    for at, face in pairs.items():
        for other in range(len(costs)):
            if other == at:
                continue
            now, exchanged = costs[at, face], costs[other, face]
            if other in pairs:
                now = now + costs[other, pairs[other]]
                exchanged = exchanged + costs[at, pairs[other]]
            if exchanged < now + _SURE:
                unsure |= {at, other}
    return unsure


def looks_of(crops: NDArray[np.float32]) -> list[Look | None]:
    """Return the look of each face, from crops (N, C, S, S); None where there is nothing to see."""
    step = crops.shape[-1] // _SIDE
    if step == 0:
        return [None] * len(crops)
    grey = crops.mean(1)[:, : step * _SIDE, : step * _SIDE]
    small = grey.reshape(-1, _SIDE, step, _SIDE, step).mean((2, 4)).reshape(-1, _SIDE * _SIDE)
    small = small - small.mean(1, keepdims=True)
    lengths = np.linalg.norm(small, axis=1)
    return [
        each / length if length > _SIDE else None
        for each, length in zip(small, lengths, strict=True)
    ]


def _cost(track: _Track, time: float, box: Box, look: Look | None) -> float:
    """Return how far a face is from that of a person, or infinity if it is another's."""
    expected, past = track.expected(time), time - track.time
    size, other = (math.sqrt(each[2] * each[3]) for each in (expected, box))
    if max(size, other) > _GROWTH * min(size, other):
        return math.inf
    far = math.dist(_centre(expected), _centre(box)) / max(size, other)
    if far > min(_REACH + _SPEED * past, _FARTHEST):
        return math.inf
    cost = far + 1 - overlap(expected, box)
    if look is not None and track.look is not None:
        alike = float(look @ track.look)
        cost = math.inf if alike < _ALIKE else cost + 1 - alike
    return cost


def overlap(one: Box, other: Box) -> float:
    """Return the intersection over union of two boxes."""
    across = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    down = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    common = max(0.0, across) * max(0.0, down)
    return common / (one[2] * one[3] + other[2] * other[3] - common)


def _centre(box: Box) -> tuple[float, float]:
    return box[0] + box[2] / 2, box[1] + box[3] / 2
