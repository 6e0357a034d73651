"""The steps from a raw frame to one with faces: find and follow them, score and smooth them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ferplus_tvm.video.frame import Frame
from ferplus_tvm.video.smooth import Smoother
from ferplus_tvm.video.source import RawFrame
from ferplus_tvm.video.track import LOST, Tracker
from ferplus_tvm.vision.analyze import Floats, PhotoSteps, crops_of
from ferplus_tvm.vision.crop import roll_of
from ferplus_tvm.vision.detections import Detection
from ferplus_tvm.vision.find import find_faces
from ferplus_tvm.vision.photo import Face

_AT_ONCE = 8
"""Frames, and faces, that make one batch."""

_BYTES = 64 << 20
"""Of the pictures of one batch."""


@dataclass(frozen=True, slots=True)
class FoundFrame:
    """A frame whose faces are found, followed and cropped, and not yet scored."""

    raw: RawFrame
    detections: list[Detection]
    tracks: list[int]
    crops: Floats


def found(frames: Iterator[RawFrame], steps: PhotoSteps) -> Iterator[FoundFrame]:
    """Find the faces in frames, and tell who is who."""
    tracker = Tracker()
    for raw in frames:
        detections = find_faces(raw.picture, steps.detect, steps.find)
        tracks = tracker.update(raw.time, [each.box for each in detections], raw.cut)
        crops = crops_of(raw.picture, detections, steps.face_shape)
        yield FoundFrame(raw, detections, tracks, crops)


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
    for frame in frames:
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
