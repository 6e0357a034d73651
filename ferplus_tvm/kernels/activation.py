"""The activation of a layer with weights: none, ReLU, leaky ReLU, or bounds for each channel.

No activation ever falls, so that it may be taken before a max pooling or after it.  Bounds lie with
the bias, which is then (3, C): bias, lower bound, upper bound.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray


class Activated:
    """What a convolution and a dense layer have in common, both of them dataclasses.

    Attributes
    ----------
    op
        The operator's name in a key.
    relu
        Whether values below zero are multiplied by ``slope``.
    slope
        0, or more for a leaky ReLU.
    bounded
        Whether values are clipped to a lower and an upper bound of their channel.
    """

    op: ClassVar[str]
    relu: bool
    slope: float
    bounded: bool

    @property
    def key(self) -> dict[str, Any]:
        """What a tuning record is kept under: the operator, and every field.

        Slope and bounds that a layer has not are left out, as records did before there were any.
        """
        fields = asdict(self)  # type: ignore[call-overload]
        for name, nothing in (("slope", 0.0), ("bounded", False)):
            if fields[name] == nothing:
                del fields[name]
        return {"op": self.op, **fields}

    def bias_shape(self, channels: int) -> tuple[int, ...]:
        """Return the shape of the bias of so many stored channels."""
        return (3, channels) if self.bounded else (channels,)

    def activated(self, y: NDArray[np.float64], bias: NDArray[Any]) -> NDArray[np.float64]:
        """Return y (..., C) with bias and activation, in float64."""
        shift, lower, upper = bias if self.bounded else (bias, -np.inf, np.inf)
        y = y + shift
        if self.relu:
            y = np.maximum(y, 0) + (self.slope * np.minimum(y, 0) if self.slope else 0)
        return np.minimum(np.maximum(y, lower), upper)
