"""Chains of separable convolutions: each a pointwise (1x1) and a depthwise 3x3 one, in one pass.

Pattern
    t[y,x,o] = p[o] + sum over i of s[y,x,i] * q[i,o], and zero beyond the map
    z[y,x,o] = activation(b[o] + sum over ky,kx of t[y+ky-1,x+kx-1,o] * d[ky,kx,o])
    where s is a map; or the sum of a map and one of half its size, each pixel repeated; or the
    rectified 3x3 convolution with stride 2 of a picture of three bytes a pixel.  The result is z
    or its 2x2 maxima; within a chain it is the s of the next workload.
Buffers
    s (1, H, W, CI), z (1, H, W, CO), maxima (1, H/2, W/2, CO), picture (1, 2H, 2W, 3) in uint8;
    all weights in one array, for every vector unit alike: q as (CO/16, CI, 16), p (CO), d (9, CO),
    b (CO), and those of the picture (27, CI) and (CI): float32, 64-byte aligned; CI and CO are
    multiples of 16.
Registers
    The pointwise convolution is `tensorir.RegisterTile`.  The depthwise one has nine weights and a
    few sums, and loads each value of t once for all sums of a row that want it.
Caches
    A task computes a run of rows of the last result, row by row through the whole chain.  Of every
    t it keeps four rows in a ring, and of every s within the chain one row or two, which stay in L2:
    maps are written at the end of a chain alone.  The rows beyond a run that each workload wants
    are computed by two tasks.
Not used
    Tiles of columns, which would stay in L1: they compute borders twice, and are no faster.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

CHANNELS = 16
"""What the channels of every map are a multiple of, so that they are whole vectors everywhere."""

SIGMOIDS = 2
"""The channels of a head that go through a sigmoid: the first ones."""


@dataclass(frozen=True)
class Separable:
    """The workload.

    Attributes
    ----------
    height, width
        Of the maps s and z.
    in_channels, out_channels
        Those of s and of z.
    source
        What s is, as the module's docstring says.
    activation
        What z goes through: ``"sigmoid"`` for the first `SIGMOIDS` channels alone.
    pool
        Whether the result is the 2x2 maxima of z.
    whole
        Whether z is written besides its maxima, by the last one of a chain.
    """

    height: int
    width: int
    in_channels: int
    out_channels: int
    source: Literal["map", "sum", "picture"]
    activation: Literal["relu", "sigmoid"]
    pool: bool = False
    whole: bool = False

    @property
    def inputs(self) -> tuple[tuple[tuple[int, ...], str], ...]:
        """The shape and type of each input."""
        here = ((1, self.height, self.width, self.in_channels), "float32")
        half = ((1, self.height // 2, self.width // 2, self.in_channels), "float32")
        picture = ((1, 2 * self.height, 2 * self.width, 3), "uint8")
        return {"map": (here,), "sum": (here, half), "picture": (picture,)}[self.source]

    @property
    def shrink(self) -> int:
        """How many times as high and wide z is as the result."""
        return 2 if self.pool else 1

    @property
    def outputs(self) -> list[tuple[int, ...]]:
        """The shape of the result, and that of z if it is written as well."""
        shrinks = (self.shrink, 1) if self.whole else (self.shrink,)
        return [
            (1, self.height // shrink, self.width // shrink, self.out_channels)
            for shrink in shrinks
        ]

    @property
    def weights(self) -> dict[str, tuple[int, ...]]:
        """The shape of each weight, as `pack` takes it."""
        shapes: dict[str, tuple[int, ...]] = {
            "pointwise": (self.out_channels, self.in_channels, 1, 1),
            "pointwise_bias": (self.out_channels,),
            "depthwise": (self.out_channels, 1, 3, 3),
            "depthwise_bias": (self.out_channels,),
        }
        if self.source == "picture":
            shapes |= {"picture": (self.in_channels, 3, 3, 3), "picture_bias": (self.in_channels,)}
        return shapes

    @property
    def weight_count(self) -> int:
        """The number of all weights together."""
        return sum(math.prod(shape) for shape in self.weights.values())


def pack(w: Separable, weights: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """Lay the weights out as the kernel takes them, one behind the other."""
    packed = []
    for name in w.weights:
        array = weights[name]
        if name == "pointwise":
            array = array.reshape(w.out_channels // CHANNELS, CHANNELS, w.in_channels)
            array = array.transpose(0, 2, 1)
        elif array.ndim == 4:
            array = array.transpose(2, 3, 1, 0)
        packed.append(array.ravel())
    return np.concatenate(packed)


def output_shapes(chains: Sequence[Sequence[Separable]]) -> list[tuple[int, ...]]:
    """Return the shapes of what the kernel of some chains writes."""
    results = [chain[-1].outputs for chain in chains]
    if len(results) == 1:
        return results[0]
    rows = sum(height * width for ((_, height, width, _),) in results)
    return [(1, rows, chains[0][-1].out_channels)]
