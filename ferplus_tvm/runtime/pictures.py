"""What an engine does with whole pictures: find the faces in them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.artifact.detector import DetectorFunction
from ferplus_tvm.errors import InputError, NoDetectorError
from ferplus_tvm.runtime.opened import OpenedLibrary
from ferplus_tvm.vision.detections import Detection, decode
from ferplus_tvm.vision.find import FindOptions

Picture = NDArray[np.uint8]
"""uint8 (H, W, 3), RGB."""


class WholePictures:
    """The methods of an engine for whole pictures."""

    _library: OpenedLibrary

    def detect(self, picture: Picture, *, min_score: float = 0.6) -> list[Detection]:
        """Return the faces in a picture, by the library's own detector.

        Parameters
        ----------
        picture
            An upright picture as uint8 (H, W, 3), RGB.  One that is larger than all of the sizes
            that the detector was compiled for is shrunk to one of them.
        min_score
            The least score of a face, 0..1.

        Returns
        -------
        list of Detection
            In pixels of the picture, the surest first; of boxes that overlap by more than 0.3
            (intersection over union) the surest one.

        Raises
        ------
        NoDetectorError
            If the library was compiled without a detector.
        InputError
            If it is no such picture.
        EngineClosedError
            If the engine was closed.
        """
        library = self._library
        detector = library.manifest.detector
        if detector is None:
            raise _no_detector(library)
        if not 0 <= min_score <= 1:
            raise ValueError(f"min_score is {min_score!r}: expected a number in 0..1")
        _expect_picture(picture)
        function = _fitting(detector.functions, *picture.shape[:2])
        fitted, scale = _fitted(picture, function)
        values = library.submit(lambda session: session.detect(fitted, function.size)).result()
        return decode(values, *function.size, detector.strides, min_score, scale)

    def _expect_sides(self, max_side: int) -> None:
        """Refuse a larger side than the library's detector has: it would be shrunk again."""
        detector = self._library.manifest.detector
        largest = max(map(max, detector.sizes)) if detector else max_side
        if max_side > max(largest, FindOptions.max_side):
            side = -(-max_side // detector.strides[-1]) * detector.strides[-1] if detector else 0
            raise NoDetectorError(
                f"max_side is {max_side}, but the face detector of {self._library.path} looks at "
                f"pictures of at most {largest} pixels a side: compile it with --detector-size "
                f"{side}x{side} (in Python detector=[({side}, {side})]), or set small_faces in "
                "place of max_side"
            )


def _no_detector(library: OpenedLibrary) -> NoDetectorError:
    if library.gpu is not None:
        return NoDetectorError(
            f"{library.path} is used on a GPU, and face detectors run on CPUs only so far: load it "
            "with device='cpu', compiled for a CPU with --detector, or give predict the faces alone"
        )
    return NoDetectorError(
        f"{library.path} has no face detector, which whole pictures need: compile it with "
        "--detector (in Python detector=True), or give predict the faces alone"
    )


def _expect_picture(picture: Picture) -> None:
    found = f"{type(picture).__name__}"
    if isinstance(picture, np.ndarray):
        found = f"{picture.dtype} {picture.shape}"
        if picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3:
            if min(picture.shape) > 0:
                return
            found += ", without a pixel"
    raise InputError(f"detect takes an RGB picture as uint8 (H, W, 3), but got {found}")


def _fitting(functions: Sequence[DetectorFunction], height: int, width: int) -> DetectorFunction:
    """Return the smallest size that holds a picture, or the one that shrinks it the least."""
    holding = [each for each in functions if each.height >= height and each.width >= width]
    if holding:
        return holding[0]
    return max(functions, key=lambda each: min(each.height / height, each.width / width))


def _fitted(picture: Picture, function: DetectorFunction) -> tuple[Picture, float]:
    """Return a picture that fits the function's size, and by what it was shrunk."""
    height, width = picture.shape[:2]
    scale = min(1.0, function.height / height, function.width / width)
    if scale < 1:
        from PIL import Image

        # One scale for both sides, so that boxes need one: what a rounded side leaves is black.
        inner = (max(int(width * scale), 1), max(int(height * scale), 1))
        box = (0.0, 0.0, min(inner[0] / scale, width), min(inner[1] / scale, height))
        image = Image.fromarray(picture)
        picture = np.asarray(image.resize(inner, Image.Resampling.BILINEAR, box, reducing_gap=1))
    return picture, scale
