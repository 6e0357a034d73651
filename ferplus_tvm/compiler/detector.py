"""The face detector's part of a compilation: its reference, its functions, what is said of it."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.artifact import reference_inputs
from ferplus_tvm.artifact.detector import (
    LARGEST_SIDE,
    Detector,
    DetectorCheck,
    DetectorFunction,
    places,
)
from ferplus_tvm.compiler import general_reference
from ferplus_tvm.importer.detector import HEADS, STRIDES, ImportedDetector, load_detector
from ferplus_tvm.importer.general_relax import GeneralFunction, to_relax
from ferplus_tvm.importer.graph import Graph
from ferplus_tvm.lowering.general import lower_general
from ferplus_tvm.lowering.separable import lower_separable
from ferplus_tvm.lowering.separable_match import match_separable
from ferplus_tvm.targets import ResolvedTarget
from ferplus_tvm.zoo import DETECTOR
from ferplus_tvm.zoo import verify as verify_model
from ferplus_tvm.zoo.registry import notice_of

Size = tuple[int, int]
"""(height, width) of a picture in pixels."""

SIZES: tuple[Size, ...] = (
    (320, 320),
    *((384, 640), (640, 384)),  # of videos, 16:9
    *((480, 640), (640, 480)),  # of photos
    (640, 640),
)
"""The sizes that a detector is compiled for by default: a picture's longer side is brought to 640.

What a picture leaves of its size is computed too: one that fits costs 40 % less than a square.
"""

TOLERANCE = 1e-4
"""How far it may be off the reference, in probabilities and in cells of the grids."""

_SEED = 20230300  # the month in which these weights were published; any number would do
_PLACES = 24  # that are compared in each grid


def sizes_of(wanted: bool | Iterable[Size]) -> tuple[Size, ...]:
    """Return the sizes that are asked for, from the smallest to the largest; none for False.

    Raises
    ------
    ValueError
        For a height or width that is no multiple of 32 or out of 32..4096, or no sizes.
    TypeError
        For sizes that are not pairs of whole numbers.
    """
    if isinstance(wanted, bool):
        return SIZES if wanted else ()
    try:
        sizes = {(operator.index(height), operator.index(width)) for height, width in wanted}
    except (TypeError, ValueError):
        raise TypeError(
            f"detector is {wanted!r}: expected True, or picture sizes (height, width) in whole "
            "pixels, such as [(480, 640)]"
        ) from None
    last = STRIDES[-1]
    for size in sizes:
        if any(side % last or not last <= side <= LARGEST_SIDE for side in size):
            raise ValueError(
                f"the detector's size has the height {size[0]} and the width {size[1]}: expected "
                f"multiples of {last} in {last}..{LARGEST_SIDE}"
            )
    if not sizes:
        raise ValueError("the detector has no sizes: expected some, such as [(640, 640)], or True")
    return tuple(sorted(sizes, key=lambda size: (size[0] * size[1], size)))


@dataclass(frozen=True)
class LoweredDetector:
    """A detector as kernel calls for one target.

    Attributes
    ----------
    module
        The ``tvm.IRModule``: a Relax function for each size, and the kernels' PrimFuncs.
    weights
        By name.
    arguments
        The names of the weights that each size's function takes after the picture.
    """

    module: Any
    weights: dict[str, NDArray[np.float32]]
    arguments: dict[Size, tuple[str, ...]]


class CompiledDetector:
    """The bundled detector, for some sizes."""

    def __init__(self, sizes: Sequence[Size]) -> None:
        """Read the bundled model and compute its references.

        Raises
        ------
        DownloadError, ModelFileError
            If the file is not there or not the one promised.
        """
        self._imported = load_detector(verify_model(DETECTOR))
        self._sizes = sizes
        self._checks = {size: _check(self._imported, size) for size in sizes}

    def lower(self, target: ResolvedTarget) -> LoweredDetector:
        """Return the functions of all sizes for a CPU."""
        import tvm

        module = tvm.IRModule()
        weights: dict[str, NDArray[np.float32]] = {}
        arguments: dict[Size, tuple[str, ...]] = {}
        for size in self._sizes:
            function = _lowered(self._imported.graph(*size), _name(size), target)
            named = {
                f"{self._imported.name}.{name}": each for name, each in function.weights.items()
            }
            arguments[size] = tuple(named)
            weights.update(named)
            module.update(function.module)
        return LoweredDetector(module, weights, arguments)

    def describe(self, lowered: LoweredDetector, index: Mapping[str, int]) -> Detector:
        """Return what is said of a target's detector, whose weights have these numbers."""
        return Detector(
            model_name=self._imported.name,
            model_sha256=self._imported.sha256,
            notice=notice_of(DETECTOR),
            strides=STRIDES,
            functions=tuple(
                DetectorFunction(
                    name=_name(size),
                    height=size[0],
                    width=size[1],
                    weights=tuple(index[name] for name in lowered.arguments[size]),
                    check=self._checks[size],
                )
                for size in self._sizes
            ),
        )


def _lowered(graph: Graph, name: str, target: ResolvedTarget) -> GeneralFunction:
    """Return a function in kernels of ours, or in TVM's where the network is another one."""
    network = match_separable(graph)
    if network is not None:
        return lower_separable(network, name, target)
    function = to_relax(graph, name, "uint8")
    return replace(function, module=lower_general(function.module, name, target))


def _name(size: Size) -> str:
    return f"detect_{size[0]}x{size[1]}"


def _check(detector: ImportedDetector, size: Size) -> DetectorCheck:
    """Return the acceptance test for a size, not yet run."""
    picture = reference_inputs.picture(_SEED, *size)
    bgr = picture[np.newaxis, ..., ::-1].transpose(0, 3, 1, 2)
    found = general_reference.outputs(detector.sized(*size), bgr)
    grids = [
        np.concatenate([found[f"{head}_{stride}"][0] for head in HEADS], axis=1)
        for stride in STRIDES
    ]
    values = np.concatenate(grids)
    assert len(values) == places(*size, STRIDES)
    start = np.cumsum([0, *map(len, grids)])
    # The first and the last place of each grid, and some between.
    rows = sorted(
        {
            int(first + at)
            for first, grid in zip(start[:-1], grids, strict=True)
            for at in np.linspace(0, len(grid) - 1, _PLACES).round()
        }
    )
    reference = tuple(tuple(map(float, values[row])) for row in rows)
    return DetectorCheck(_SEED, tuple(rows), reference, TOLERANCE, error=None)
