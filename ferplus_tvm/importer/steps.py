"""The network as a list of steps, from the faces to the scores, on maps (C, H, W) or rows (K,).

The reader makes such a list of a graph, the rules under passes/ shorten it, and the writer makes
the tidy graph of it.  What is folded is computed in float64, and rounded once by the writer;
weights that nothing is folded into stay the file's own, to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.importer.window import Window

Shape = tuple[int, ...]
Floats = NDArray[np.floating[Any]]


@dataclass(eq=False)
class Affine:
    """x * scale + shift, with one number for each channel of maps or each value of rows.

    Attributes
    ----------
    shape
        The shape of one face's value after the step, for every kind of step.
    scale, shift
        Both float64 [C] or [K].
    scaled_by, shifted_by
        The names of the nodes in the file; one of them may be empty.
    """

    shape: Shape
    scale: Floats
    shift: Floats
    scaled_by: str = ""
    shifted_by: str = ""

    @property
    def name(self) -> str:
        """The name of the node in the file, for every kind of step."""
        return self.shifted_by or self.scaled_by


@dataclass(eq=False)
class Clip:
    """min(max(x, low), high), with a bound for each channel or value; ReLU is the one from 0.

    Attributes
    ----------
    low, high
        Both [C] or [K]; infinite where there is no bound.
    """

    name: str
    shape: Shape
    low: Floats
    high: Floats

    @property
    def is_relu(self) -> bool:
        """Whether it clips at 0 from below and nowhere else."""
        return not self.low.any() and bool(np.isposinf(self.high).all())


@dataclass(eq=False)
class Leaky:
    """x where it is positive, slope * x elsewhere.

    Attributes
    ----------
    slope
        [C] or [K].
    """

    name: str
    shape: Shape
    slope: Floats

    @property
    def is_plain(self) -> bool:
        """Whether all slopes are one number that is not negative, as LeakyRelu has it."""
        return bool((self.slope == self.slope[0]).all()) and self.is_increasing

    @property
    def is_increasing(self) -> bool:
        """Whether no slope is negative, so that larger values stay larger or as large."""
        return bool((self.slope >= 0).all())


Activation = Clip | Leaky


@dataclass(eq=False)
class Conv:
    """A convolution with weight [O, I/group, kh, kw] and bias [O]."""

    name: str
    shape: Shape
    weight: Floats
    bias: Floats
    window: Window
    group: int


@dataclass(eq=False)
class Dense:
    """x @ weight + bias of rows, with weight [K, O] and bias [O]."""

    name: str
    shape: Shape
    weight: Floats
    bias: Floats


@dataclass(eq=False)
class Pool:
    """Pooling; ``op`` is MaxPool or AveragePool, and the latter has no pads."""

    name: str
    shape: Shape
    op: str
    window: Window


@dataclass(eq=False)
class Pad:
    """A border of ``value`` around maps; pads are (top, left, bottom, right)."""

    name: str
    shape: Shape
    pads: tuple[int, int, int, int]
    value: float


@dataclass(eq=False)
class Flatten:
    """Maps (C, H, W) to rows (C*H*W,)."""

    name: str
    shape: Shape


Step = Affine | Clip | Leaky | Conv | Dense | Pool | Pad | Flatten


@dataclass(eq=False)
class Chain:
    """The steps of a network.

    Attributes
    ----------
    input_shape
        (channels, height, width) of a face.
    steps
        In order; each takes the shape that the one before it gives.
    notes
        Sentences for the user about what was left out.
    broadcasts
        Whether one channel meets stored numbers of several somewhere.
    """

    input_shape: Shape
    steps: list[Step]
    notes: list[str] = field(default_factory=list)
    broadcasts: bool = False

    def shape_before(self, index: int) -> Shape:
        """Return the shape that the step at ``index`` takes."""
        return self.steps[index - 1].shape if index else self.input_shape


def identity(name: str, shape: Shape) -> Conv | Dense:
    """Return a layer that hands its input on: a depthwise convolution of 1x1, or a dense one."""
    return layer_of(Affine(shape, np.ones(shape[0]), np.zeros(shape[0]), name))


def layer_of(affine: Affine) -> Conv | Dense:
    """Return a scale and shift as a layer: a depthwise convolution of 1x1, or a dense one."""
    if len(affine.shape) == 1:
        return Dense(affine.name, affine.shape, np.diag(affine.scale), affine.shift)
    channels, height, width = affine.shape
    window = Window((1, 1), (1, 1), (1, 1), (0, 0, 0, 0), (height, width))
    weight = affine.scale.reshape(channels, 1, 1, 1)
    return Conv(affine.name, affine.shape, weight, affine.shift, window, channels)
