"""The steps from a raw frame to one with faces: find and follow them, score and smooth them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from ferplus_tvm.videos.frame import Frame
from ferplus_tvm.videos.smooth import Smoother
from ferplus_tvm.videos.source import RawFrame
from ferplus_tvm.videos.track import LOST, Tracker, looks_of
from ferplus_tvm.vision.analyze import Floats, PhotoSteps, crops_of
from ferplus_tvm.vision.crop import roll_of
from ferplus_tvm.vision.detections import Detection
from ferplus_tvm.vision.find import find_faces
from ferplus_tvm.vision.photo import Face

T = TypeVar("T")

_AT_ONCE = 8
"""Frames, and faces, that make one batch."""

_BYTES = 64 << 20
"""Of the pictures of one batch."""


_SOON = 0.15
"""Seconds after which the detector looks anyway.

A face that goes to and fro in a second, as far as it is wide, is a tenth off between two looks.
"""


@dataclass(frozen=True, slots=True)
class FoundFrame:
    """A frame whose faces are found, followed and cropped, and not yet scored."""

    raw: RawFrame
    detections: list[Detection]
    tracks: list[int]
    crops: Floats


class _Held(Generic[T]):
    """An iterator whose error waits until all that came before it is answered."""

    def __init__(self, items: Iterator[T]) -> None:
        self._items = items
        self._error: Exception | None = None

    def __iter__(self) -> Iterator[T]:
        try:
            yield from self._items
        except Exception as error:
            self._error = error

    def end(self) -> None:
        """Raise the error, if there was one."""
        if self._error is not None:
            raise self._error


def found(frames: Iterator[RawFrame], steps: PhotoSteps, detect_every: int) -> Iterator[FoundFrame]:
    """Find the faces in frames, and tell who is who.

    Parameters
    ----------
    frames
        In order.
    steps
        What is done with a picture.
    detect_every
        The detector looks at every N-th frame, or sooner where frames are far apart.  In
        those between, a face lies between where it was and where it will be.
    """
    tracker = Tracker()
    last: FoundFrame | None = None
    waiting: list[RawFrame] = []

    def ended() -> Iterator[FoundFrame]:
        """Detect faces in the last frame that waits, and place them in those before."""
        nonlocal last
        raw = waiting.pop()
        detections = find_faces(raw.picture, steps.detect, steps.find)
        crops = crops_of(raw.picture, detections, steps.face_shape)
        boxes = [each.box for each in detections]
        tracks = tracker.update(raw.time, boxes, looks_of(crops), raw.cut)
        now = FoundFrame(raw, detections, tracks, crops)
        for each in waiting:
            yield _between(each, last or now, now, steps.face_shape)
        waiting.clear()
        last = now
        yield now

    held = _Held(frames)
    for raw in held:
        if raw.cut and waiting:
            yield from ended()
        waiting.append(raw)
        new = last is None or raw.cut or raw.time - last.raw.time >= _SOON
        if new or len(waiting) == detect_every:
            yield from ended()
    if waiting:
        yield from ended()
    held.end()


def _between(
    raw: RawFrame, before: FoundFrame, after: FoundFrame, face_shape: tuple[int, int, int]
) -> FoundFrame:
    """Place the faces of those who are seen before and after a frame."""
    span = after.raw.time - before.raw.time
    part = (raw.time - before.raw.time) / span if span > 0 else 0.0
    old = dict(zip(before.tracks, before.detections, strict=True))
    both = [
        (_mixed(old[track], one, part), track)
        for one, track in zip(after.detections, after.tracks, strict=True)
        if track in old
    ]
    detections = [one for one, _ in both]
    crops = crops_of(raw.picture, detections, face_shape)
    return FoundFrame(raw, detections, [track for _, track in both], crops)


def _mixed(one: Detection, other: Detection, part: float) -> Detection:
    """Return what lies between two faces."""

    def mixed(first: Any, second: Any) -> Any:
        return tuple((1 - part) * a + part * b for a, b in zip(first, second, strict=True))

    box = mixed(one.box, other.box)
    points = ()
    if len(one.points) == len(other.points):
        points = tuple(mixed(a, b) for a, b in zip(one.points, other.points, strict=True))
    return Detection(box, points, min(one.score, other.score))


def scored(
    frames: Iterator[FoundFrame],
    steps: PhotoSteps,
    smooth: float,
    source: str,
    ready: Callable[[], bool] | None,
) -> Iterator[Frame]:
    """Score the faces of several frames in one batch, and smooth what the model says of each.

    Parameters
    ----------
    frames
        In order.
    steps
        What is done with a picture.
    smooth
        Seconds of the mean.
    source
        What the frames say of where they come from.
    ready
        Whether another frame is there, without waiting for it, or worth waiting for; None makes
        each frame a batch.
    """
    smoothers: dict[int, tuple[float, Smoother]] = {}
    for batch in _batches(frames, ready):
        predictions = iter(steps.predict(np.concatenate([each.crops for each in batch])))
        for each in batch:
            raw, faces = each.raw, []
            for one, track in zip(each.detections, each.tracks, strict=True):
                prediction = next(predictions)
                _, smoother = smoothers.get(track, (0, Smoother(smooth)))
                smoothers[track] = raw.time, smoother
                smoothed = smoother.add(raw.time, prediction)
                roll = roll_of(one.points)
                faces.append(
                    Face(one.box, one.points, one.score, roll, prediction, track, smoothed)
                )
            height, width = raw.picture.shape[:2]
            yield Frame(raw.index, raw.time, width, height, tuple(faces), raw.picture, source)
        lost = batch[-1].raw.time - 2 * LOST
        smoothers = {track: each for track, each in smoothers.items() if each[0] > lost}


def _batches(
    frames: Iterator[FoundFrame], ready: Callable[[], bool] | None
) -> Iterator[list[FoundFrame]]:
    """Put frames together until they hold faces enough."""
    batch: list[FoundFrame] = []
    held = _Held(frames)
    for frame in held:
        batch.append(frame)
        full = (
            len(batch) == _AT_ONCE
            or sum(len(each.detections) for each in batch) >= _AT_ONCE
            or sum(each.raw.picture.nbytes for each in batch) >= _BYTES
        )
        if full or ready is None or not ready():
            yield batch
            batch = []
    if batch:
        yield batch
    held.end()
