"""What a library says of the face detector in it.

Standard library only, as the manifests that hold it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

VALUES = 16
"""What the detector computes for a place: two probabilities, four of a box, ten of five points."""

LARGEST_SIDE = 4096
"""The largest height and width that a picture may have, in pixels."""


@dataclass(frozen=True)
class DetectorCheck:
    """The acceptance test for one size, which `ferplus_tvm.verify` repeats on any device.

    Attributes
    ----------
    seed
        What `ferplus_tvm.artifact.reference_inputs.picture` draws the picture with.
    places
        The rows of the output that are compared, increasing.
    reference
        These rows, computed in float64 from the model's own file.
    tolerance
        The largest difference allowed, in probabilities and in cells of the grid.
    error
        The difference measured when the library was compiled, or None if it could not run there.
    """

    seed: int
    places: tuple[int, ...]
    reference: tuple[tuple[float, ...], ...]
    tolerance: float
    error: float | None


@dataclass(frozen=True)
class DetectorFunction:
    """The entry point for pictures of one size.

    It takes uint8 (1, height, width, 3), RGB, and gives float32 (1, A, 16), of which
    `ferplus_tvm.vision.detections.decode` makes faces.

    Attributes
    ----------
    name
        Its name in the library's code.
    height, width
        The size of a picture in pixels, multiples of the largest stride.
    weights
        The weights that it takes after the picture, as indices into the manifest's tensors.
    check
        The acceptance test.
    """

    name: str
    height: int
    width: int
    weights: tuple[int, ...]
    check: DetectorCheck

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width


@dataclass(frozen=True)
class Detector:
    """The face detector of a library.

    Attributes
    ----------
    model_name, model_sha256
        The network, and the hash of its file.
    notice
        Its licence and those who hold it, which have to go with every copy.
    strides
        The size in pixels of the cells of each grid of places.
    functions
        The entry points, from the smallest picture to the largest.
    """

    model_name: str
    model_sha256: str
    notice: str
    strides: tuple[int, ...]
    functions: tuple[DetectorFunction, ...]

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of the pictures that it is compiled for."""
        return tuple(each.size for each in self.functions)

    def wrong(self, tensors: int) -> str | None:
        """Return what of it cannot be, in a library with so many tensors."""
        if not re.fullmatch(r"[0-9a-f]{64}", self.model_sha256) or not self.notice.strip():
            return "its detector has no model or no notice"
        strides = self.strides
        if not strides or strides[0] < 1 or strides != tuple(sorted(set(strides))):
            return "its detector's strides cannot be"
        areas = [height * width for height, width in self.sizes]
        if not areas or areas != sorted(areas) or len(set(self.sizes)) != len(areas):
            return "its detector's picture sizes are none, twice there or out of order"
        for each in self.functions:
            wrong = self._wrong_function(each, tensors)
            if wrong:
                return f"its detector's function {each.name!r} {wrong}"
        return None

    def _wrong_function(self, function: DetectorFunction, tensors: int) -> str | None:
        sides, check = function.size, function.check
        if any(not 0 < side <= LARGEST_SIDE or side % self.strides[-1] for side in sides):
            return "is for a size that cannot be"
        if not all(0 <= each < tensors for each in function.weights):
            return "takes weights that are not there"
        count = places(*sides, self.strides)
        rows = check.places
        if not rows or rows != tuple(sorted(set(rows))) or rows[0] < 0 or rows[-1] >= count:
            return "is checked at places that it has not"
        if [len(row) for row in check.reference] != [VALUES] * len(rows):
            return "has no reference of each place"
        if not 0 <= check.seed < 1 << 32 or not 0 < check.tolerance <= 1:
            return "has a check that cannot be"
        return None

    @classmethod
    def from_dict(cls, values: Any) -> Detector:
        """Read what `dataclasses.asdict` returned; what is something else raises many errors."""
        functions = tuple(_function(each) for each in values["functions"])
        return cls(**{**values, "strides": tuple(values["strides"]), "functions": functions})


def places(height: int, width: int, strides: Sequence[int]) -> int:
    """Return how many places the grids of a picture have."""
    return sum((height // stride) * (width // stride) for stride in strides)


def _function(value: dict[str, Any]) -> DetectorFunction:
    given = value["check"]
    rows = tuple(tuple(row) for row in given["reference"])
    check = DetectorCheck(**{**given, "places": tuple(given["places"]), "reference": rows})
    return DetectorFunction(**{**value, "weights": tuple(value["weights"]), "check": check})
