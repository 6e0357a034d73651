"""Photos in, faces with predictions out: over any detector and any model."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.errors import InputError
from ferplus_tvm.faces.options import CheckedOptions
from ferplus_tvm.faces.postprocess import Prediction
from ferplus_tvm.vision.crop import SIDE, Picture, crop, roll_of
from ferplus_tvm.vision.detections import Detection
from ferplus_tvm.vision.find import Detect, FindOptions, find_faces
from ferplus_tvm.vision.photo import Face, Photo
from ferplus_tvm.vision.read import read_picture
from ferplus_tvm.vision.reduced import Scaled, read_at_least

Floats = NDArray[np.float32]
Predict = Callable[[Floats], list[Prediction]]
"""Faces, float32 (N, C, S, S) -> a prediction for each."""

_SHARP = 1.5
"""Pixels of a photo, at least, for one of a crop: with fewer, probabilities change by over 1 %."""

_WORTH = 4
"""The part of a JPEG that is looked at, at most: a half saves less than sharp faces cost then."""


@dataclass(frozen=True)
class PhotoSteps:
    """What is done with a whole photo.

    Attributes
    ----------
    detect
        Finds faces.
    predict
        Predicts any number of faces.
    face_shape
        (C, S, S) of a face, as ``predict`` takes it.
    find
        Which faces are looked for.
    reading
        How photos are read.
    """

    detect: Detect
    predict: Predict
    face_shape: tuple[int, int, int]
    find: FindOptions
    reading: CheckedOptions


@dataclass(frozen=True)
class _Found:
    """A photo whose faces are found and cropped, and not yet predicted."""

    photo: Photo
    detections: list[Detection]
    crops: Floats


def analyze_each(
    photos: Sequence[tuple[Any, str]], steps: PhotoSteps, stop: bool
) -> list[Photo | InputError]:
    """Return the faces of each photo, or why it cannot be used.

    Photos are read one after the other, and only the crops of their faces are kept until all of
    them are predicted in one batch.

    Parameters
    ----------
    photos
        Pictures, each with what messages call it.
    steps
        What is done with each.
    stop
        Whether to raise the first error.

    Raises
    ------
    InputError
        If ``stop`` and a photo cannot be used.
    """
    found = [_find(item, name, steps, stop) for item, name in photos]
    usable = [each for each in found if isinstance(each, _Found)]
    crops = [each.crops for each in usable if len(each.crops)]
    predictions = iter(steps.predict(np.concatenate(crops)) if crops else [])
    answers: list[Photo | InputError] = []
    for each in found:
        if isinstance(each, InputError):
            answers.append(each)
            continue
        faces = tuple(
            Face(one.box, one.points, one.score, roll_of(one.points), next(predictions))
            for one in each.detections
        )
        answers.append(replace(each.photo, faces=faces))
    return answers


def crops_of(
    picture: Picture, detections: Sequence[Detection], face_shape: tuple[int, int, int]
) -> Floats:
    """Crop faces for the model: float32 (N, C, S, S)."""
    channels, size, _ = face_shape
    crops = np.empty((len(detections), *face_shape), np.float32)
    for number, one in enumerate(detections):
        roll = roll_of(one.points)
        crops[number] = crop(picture, one.box, roll, size=size, channels=channels)
    return crops


def _find(item: Any, name: str, steps: PhotoSteps, stop: bool) -> _Found | InputError:
    try:
        enough = math.inf if steps.find.small_faces else steps.find.max_side
        seen = read_at_least(item, name, steps.reading, enough, least_part=_WORTH)
        detections = _faces_in(seen, steps)
        side = _sharp_side(seen, detections, steps.face_shape[1])
        if side > max(seen.picture.shape):
            seen = read_at_least(item, name, steps.reading, side)
    except InputError as error:
        if stop:
            raise
        return error
    if callable(getattr(item, "read", None)):  # a file, which is at its end now
        again = functools.partial(_same, seen.picture)
    else:
        again = functools.partial(read_picture, item, name, steps.reading)
    photo = Photo(_source(item, name), seen.width, seen.height, (), again)
    there = [seen.in_picture(one) for one in detections]
    return _Found(photo, detections, crops_of(seen.picture, there, steps.face_shape))


def _faces_in(seen: Scaled, steps: PhotoSteps) -> list[Detection]:
    """Find faces, in pixels of the photo."""
    least = max(steps.find.smallest / seen.part, 1)
    found = find_faces(seen.picture, steps.detect, replace(steps.find, min_face=least))
    return [seen.in_photo(one) for one in found]


def _sharp_side(seen: Scaled, detections: Sequence[Detection], size: int) -> float:
    """Return how many pixels of the photo's longer side keep the crops of all faces sharp."""
    smallest = min((SIDE * min(one.box[2:]) for one in detections), default=math.inf)
    return max(seen.width, seen.height) * min(1, _SHARP * size / smallest)


def _same(picture: Picture) -> Picture:
    return picture


def _source(item: Any, name: str) -> str:
    return os.fsdecode(item) if isinstance(item, str | os.PathLike) else name
