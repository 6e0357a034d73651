"""What becomes of raw pixels before the first layer, by the graph and by what is stated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import numpy_helper

from ferplus_tvm.artifact.scaling import WHITE, Scaling
from ferplus_tvm.importer import ImportedModel

# What the first layer of a network gets from black to white: some units of 1, or of the standard
# deviation, or grey levels less a mean; but neither hundreds of units nor hundredths.
_LEAST_SPAN, _LARGEST_SPAN = 1 / 16, 256.0
_FEW_UNITS = 16.0


@dataclass(frozen=True)
class InputScaling:
    """The step (x - offset) * factor.

    Attributes
    ----------
    offset, factor
        float64 [1], or [C] with a number for each channel.
    """

    offset: NDArray[np.float64]
    factor: NDArray[np.float64]

    @classmethod
    def of_graph(cls, model: ImportedModel) -> InputScaling:
        """Return what a tidy graph does to its input before the first layer."""
        graph = model.proto.graph
        stored = {each.name: each for each in graph.initializer}
        numbers = {"Sub": np.zeros(1), "Mul": np.ones(1)}
        for node in graph.node:
            if node.op_type not in numbers:
                break
            numbers[node.op_type] = np.ravel(
                numpy_helper.to_array(stored[node.input[1]]).astype(np.float64)
            )
        return cls(numbers["Sub"], numbers["Mul"])

    @classmethod
    def of_scaling(cls, scaling: Scaling) -> InputScaling:
        """Return what a scaling that is stated does to raw pixels."""
        return cls(*map(np.array, scaling.affine()))

    @property
    def nothing(self) -> bool:
        """Whether it changes nothing."""
        return not self.offset.any() and bool((self.factor == 1).all())

    @property
    def scales(self) -> bool:
        """Whether it makes a few units of 255 grey levels, which a second step would not do."""
        return bool((np.abs(self.factor) < _FEW_UNITS / WHITE).all())

    def after(self, first: InputScaling) -> InputScaling:
        """Return this step after another one."""
        return InputScaling(first.offset + self.offset / first.factor, first.factor * self.factor)

    def fits(self) -> bool:
        """Tell whether raw pixels become numbers that a network may have been trained on."""
        span = WHITE * np.abs(self.factor)
        usual = (span >= _LEAST_SPAN) & (span <= _LARGEST_SPAN)
        of_unit_range = (self.offset != 0) & (np.abs(self.offset) <= 1)  # a mean such as 0.5
        return bool(usual.all() and not of_unit_range.any())

    def is_close(self, other: InputScaling) -> bool:
        """Tell whether two steps are the same but for rounding."""
        return np.allclose(self.offset, other.offset, rtol=1e-3, atol=1e-3) and np.allclose(
            self.factor, other.factor, rtol=1e-3
        )

    def __str__(self) -> str:
        ends = np.sort([-self.offset * self.factor, (WHITE - self.offset) * self.factor], axis=0)
        ends += 0.0  # no -0
        return f"{ends[0].min():.4g}..{ends[1].max():.4g}"
