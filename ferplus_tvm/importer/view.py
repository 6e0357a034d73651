"""How a value of the file lies on the value that the last layer made.

Transpose, Reshape, Squeeze, Slice and their like only move values.  A `View` says for each place
of the file's value which value of the layer stands there, whatever operators led to it: so two
Transposes cancel out, and the one before the dense layers is an order of their rows.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.importer.steps import Floats, Shape

Positions = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class View:
    """A value of the file on the value of a layer, both for one face.

    Attributes
    ----------
    base
        The shape of the layer's value: (C, H, W) or (K,).
    shape
        The shape of the file's value without the batch.
    moved
        For each place of the file's value the flat index into the layer's; None where it is the
        layer's value in the same order, in whatever shape.
    batched
        Whether the batch is there, as the first dimension; a Squeeze of one face takes it away.
    """

    base: Shape
    shape: Shape
    moved: Positions | None = None
    batched: bool = True

    @classmethod
    def of(cls, base: Shape) -> View:
        """Return the view of a layer's value as it is."""
        return cls(base, base)

    @property
    def rank(self) -> int:
        """The number of dimensions in the file."""
        return len(self.shape) + self.batched

    @property
    def positions(self) -> Positions:
        """The flat indices, written out."""
        if self.moved is not None:
            return self.moved
        return np.arange(math.prod(self.shape)).reshape(self.shape)

    def at(self, positions: Positions) -> View:
        """Return a view of the same value with other positions."""
        plain = positions.size == math.prod(self.base) and np.array_equal(
            positions.reshape(-1), np.arange(positions.size)
        )
        return View(self.base, positions.shape, None if plain else positions, self.batched)

    def reshaped(self, shape: Shape, *, batched: bool = True) -> View:
        """Return the view in another shape of as many values."""
        moved = None if self.moved is None else self.moved.reshape(shape)
        return View(self.base, shape, moved, batched)

    def channels(self) -> list[int] | None:
        """Return which channel of the layer each of the view's is, where the maps are whole.

        None if the view is no (C, H, W), or if its maps are not those of the layer.
        """
        if len(self.base) != 3 or self.shape[1:] != self.base[1:] or len(self.shape) != 3:
            return None
        if self.moved is None:
            return list(range(self.base[0]))
        area = math.prod(self.base[1:])
        maps = self.moved.reshape(-1, area)
        if (maps[:, 0] % area).any() or not (maps - maps[:, :1] == np.arange(area)).all():
            return None
        return [int(first) // area for first in maps[:, 0]]

    def maps(self) -> tuple[int, list[int]] | None:
        """Return the axis of the channels, 0 or 2, and which channel of the layer each of them is.

        None if the maps are not those of the layer, with their channels first or last.
        """
        if len(self.shape) != 3:
            return None
        for axis in (0, 2):
            channels = self.at(np.moveaxis(self.positions, axis, 0)).channels()
            if channels is not None:
                return axis, channels
        return None

    def with_maps(self, channels: list[int], base: Shape) -> View:
        """Return the view of these channels of a layer with another map."""
        if channels == list(range(base[0])):
            return View.of(base)
        whole = np.arange(math.prod(base)).reshape(base)
        return View.of(base).at(whole[channels])

    def axes(self) -> tuple[int, ...] | None:
        """Return the order in which the layer's axes lie in the view; None if none gives it."""
        if len(self.base) != 3 or len(self.shape) != 3:
            return None
        whole = np.arange(math.prod(self.base)).reshape(self.base)
        for order in itertools.permutations(range(3)):
            turned = whole.transpose(order)
            if turned.shape == self.shape and np.array_equal(turned, self.positions):
                return order
        return None

    def per_channel(self, array: NDArray[Any]) -> Floats | None:
        """Return constants that meet the view as one number per channel of the layer.

        None if they do not broadcast to the view, or differ within a channel.  A channel that
        the view leaves out gets a 0.
        """
        channels = self.base[0]
        if array.size == 1 and array.ndim <= self.rank:
            return np.full(channels, float(array.reshape(())))
        if array.ndim > self.rank or (array.ndim == self.rank and self.batched
                                      and array.shape[0] != 1):  # fmt: skip
            return None
        if array.ndim == self.rank and self.batched:
            array = array[0]
        aligned = array.reshape((1,) * (len(self.shape) - array.ndim) + array.shape)
        if any(n not in (1, size) for n, size in zip(aligned.shape, self.shape, strict=True)):
            return None
        if self.moved is None and self.shape == self.base and aligned.size == aligned.shape[0]:
            return np.broadcast_to(aligned.reshape(-1), channels).astype(np.float64)
        owner = self.positions // math.prod(self.base[1:])
        spread = np.broadcast_to(aligned.astype(np.float64), self.shape)
        numbers = np.zeros(channels)
        numbers[owner] = spread
        return numbers if np.array_equal(numbers[owner], spread, equal_nan=True) else None
