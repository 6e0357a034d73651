"""Walk along the layers of a network: what reaches each, its workload, and what it leaves.

A walk knows shapes but touches no weights.  What is planned for a CPU or a GPU builds on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ferplus_tvm.errors import ModelShapeError, TuningLogError
from ferplus_tvm.kernels import padded
from ferplus_tvm.kernels.cpu import winograd
from ferplus_tvm.kernels.workloads import Conv, Dense, Pool
from ferplus_tvm.lowering.layers import ConvLayer, DenseLayer, Layer, PoolLayer
from ferplus_tvm.tuning import space

_MOST_VALUES = 1 << 30  # indices are 32 bits, and a halo adds to them

Record = Callable[[space.Layer], space.Config | None]
"""Takes a layer; returns the configuration that a tuning log holds for it, or None."""


@dataclass
class Walk:
    """Where a walk stands.

    lanes
        what the stored channels are a multiple of.
    shape
        what reaches the next layer: (height, width, the model's channels), or (features,).
    stored
        the stored channels of it, or the stored features.
    """

    batch: int
    lanes: int
    shape: tuple[int, ...] = field(default=(64, 64, 1), init=False)
    stored: int = field(default=1, init=False)

    def along(self, layers: Sequence[Layer]) -> list[Any]:
        """Plan every layer, in order, and return the steps.

        Of what plans, ``conv`` gets the pooling behind a convolution or None, and says by ``fused``
        of its step whether its kernel takes it in; ``dense`` is told of the last layer.
        """
        planner: Any = self
        steps: list[Any] = []
        left = list(layers)
        while left:
            layer = left.pop(0)
            if isinstance(layer, ConvLayer):
                follower = left[0] if left and isinstance(left[0], PoolLayer) else None
                steps.append(planner.conv(layer, follower))
                if steps[-1].fused:
                    del left[0]
            elif isinstance(layer, DenseLayer):
                steps.append(planner.dense(layer, last=not left))
            else:
                steps.append(planner.pool(layer))
        return steps

    def conv_workload(self, layer: ConvLayer) -> Conv:
        """Return what a convolution computes.

        Raises
        ------
        ModelShapeError
            If it does not fit what reaches it.
        """
        out_channels, in_channels, *kernel = layer.weight.shape
        height, width, channels = self._map(layer.name)
        _expect(layer.name, "channels", in_channels, channels)
        workload = Conv(
            batch=self.batch,
            height=height,
            width=width,
            in_channels=self.stored,
            out_channels=padded(out_channels, self.lanes),
            kernel=(kernel[0], kernel[1]),
            stride=layer.stride,
            padding=layer.padding,
            dilation=layer.dilation,
            relu=layer.relu,
            affine=layer.affine,
        )
        _expect_window(layer.name, workload)
        return workload

    def pass_conv(self, layer: ConvLayer, workload: Conv, fused: PoolLayer | None) -> None:
        """Go on behind a convolution and the pooling that its kernel took in."""
        shrink = 2 if fused else 1
        height, width = workload.out_height // shrink, workload.out_width // shrink
        self.shape = (height, width, layer.weight.shape[0])
        self.stored = workload.out_channels
        if 0 in self.shape:
            raise ModelShapeError(
                f"the layer {fused.name if fused else layer.name!r} leaves nothing of the "
                f"{workload.out_height}x{workload.out_width} map: expected a model for 64x64 faces"
            )

    def pool_workload(self, layer: PoolLayer) -> Pool:
        """Return what a pooling computes."""
        height, width, _ = self._map(layer.name)
        workload = Pool(
            batch=self.batch,
            height=height,
            width=width,
            channels=self.stored,
            kernel=layer.kernel,
            stride=layer.stride,
            padding=layer.padding,
        )
        _expect_window(layer.name, workload)
        return workload

    def pass_pool(self, workload: Pool) -> None:
        """Go on behind a pooling."""
        self.shape = (workload.out_height, workload.out_width, self.shape[-1])

    def dense_workload(self, layer: DenseLayer, last: bool, half: bool) -> Dense:
        """Return what a dense layer computes; only the last one writes just what the model has."""
        in_features, out_features = layer.weight.shape
        _expect(layer.name, "features", in_features, int(np.prod(self.shape)))
        stored = padded(out_features, self.lanes)
        return Dense(
            batch=self.batch,
            in_features=self.stored * int(np.prod(self.shape[:-1])),
            out_features=stored,
            # The scores are handed out as they are; what only the next kernel reads stays padded.
            outputs=out_features if last else stored,
            relu=layer.relu,
            fp16_weights=half,
        )

    def pass_dense(self, layer: DenseLayer) -> None:
        """Go on behind a dense layer."""
        out_features = layer.weight.shape[1]
        self.shape, self.stored = (out_features,), padded(out_features, self.lanes)

    def _map(self, layer: str) -> tuple[int, int, int]:
        """Return height, width and channels of the map that reaches a layer."""
        if len(self.shape) != 3:
            raise ModelShapeError(
                f"the layer {layer!r} takes a map, but a vector of {self.shape[0]} features "
                "reaches it: expected the dense layers last"
            )
        return (self.shape[0], self.shape[1], self.shape[2])


def takes_pool(layer: PoolLayer) -> bool:
    """Whether a convolution's kernel can take in a pooling."""
    return winograd.takes_pool(layer.kernel, layer.stride, layer.padding)


def expect_indices(layer: str, batch: int, shape: Sequence[int]) -> None:
    """See that a map's values can be counted in 32 bits, as the kernels do."""
    values = batch * math.prod(shape)
    if values > _MOST_VALUES:
        raise ModelShapeError(
            f"the layer {layer!r} makes {values} values at batch {batch}: expected at "
            f"most {_MOST_VALUES}; compile for smaller batches, which serve any number of faces"
        )


def recorded(make: Callable[[space.Config], Any], record: space.Config, kernel: str) -> Any:
    """Return the configuration that is made of a tuning record."""
    try:
        return make(record)
    except TypeError as error:
        raise misfit(kernel, f"{error}") from None


def misfit(kernel: str, why: str) -> TuningLogError:
    """Return the error of a record that its kernel cannot be emitted with."""
    return TuningLogError(
        f"the tuning record of {kernel} does not fit it ({why}): tune again with this version, or "
        "leave the log out"
    )


def _expect(layer: str, what: str, wanted: int, found: int) -> None:
    if wanted != found:
        raise ModelShapeError(
            f"the layer {layer!r} takes {wanted} {what}, but {found} reach it from a 64x64 input: "
            "expected a model for 64x64 faces"
        )


def _expect_window(layer: str, workload: Conv | Pool) -> None:
    if workload.out_height < 1 or workload.out_width < 1:
        window, size = workload.kernel, (workload.height, workload.width)
        raise ModelShapeError(
            f"the layer {layer!r} has a {window[0]}x{window[1]} window that does not fit the "
            f"{size[0]}x{size[1]} map that reaches it: expected a model for 64x64 faces"
        )
