"""What a kernel computes: shapes, operations, bytes, and the answer in float64 with numpy.

A workload says nothing of algorithm, layout or tiling, so that every way to compute a layer has the
same workload; it is also what a tuning record is kept under (`Conv.key`).  Activations are
channels last, and channel counts are those that are stored: padded to what the target wants.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.kernels.activation import Activated

Padding = tuple[int, int, int, int]
"""Rows and columns of padding: top, left, bottom, right."""

Affine = tuple[float, float] | tuple[tuple[float, ...], tuple[float, ...]]
"""``(a, b)`` where x is taken as ``(x - a) * b``: two numbers, or two for every channel."""


@dataclass(frozen=True)
class Conv(Activated):
    """A 2D convolution with bias, optional activation and optional 2x2 max pooling.

    Attributes
    ----------
    height, width, in_channels
        The shape of an image of the input.
    padding
        Zeros around the input, after ``affine`` was applied.
    affine
        How the input is scaled, or None.
    pool
        Whether the output is the maxima of 2x2 windows at steps of 2 of the convolution's.
    """

    op = "conv2d"

    batch: int
    height: int
    width: int
    in_channels: int
    out_channels: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: Padding
    dilation: tuple[int, int]
    relu: bool
    affine: Affine | None = None
    pool: bool = False
    slope: float = 0.0
    bounded: bool = False

    @property
    def out_height(self) -> int:
        """Rows of the convolution's output, before pooling."""
        reach = self.dilation[0] * (self.kernel[0] - 1) + 1
        return (self.height + self.padding[0] + self.padding[2] - reach) // self.stride[0] + 1

    @property
    def out_width(self) -> int:
        """Columns of the convolution's output, before pooling."""
        reach = self.dilation[1] * (self.kernel[1] - 1) + 1
        return (self.width + self.padding[1] + self.padding[3] - reach) // self.stride[1] + 1

    @property
    def out_shape(self) -> tuple[int, int, int, int]:
        """The output's shape (N, H, W, C), after pooling."""
        shrink = 2 if self.pool else 1
        return (
            self.batch,
            self.out_height // shrink,
            self.out_width // shrink,
            self.out_channels,
        )

    @property
    def name(self) -> str:
        """A readable name: kernel, input, channels, batch."""
        kernel = "x".join(map(str, self.kernel))
        shape = f"{self.height}x{self.width}"
        channels = f"{self.in_channels}to{self.out_channels}"
        pooled = "_pooled" if self.pool else ""
        return f"conv{kernel}_{shape}_{channels}{pooled}_batch{self.batch}"

    @property
    def scaling(self) -> list[tuple[float, float]]:
        """The two numbers of ``affine`` for every input channel, or none."""
        if self.affine is None:
            return []
        subtract, multiply = (np.broadcast_to(each, self.in_channels) for each in self.affine)
        return list(zip(subtract.tolist(), multiply.tolist(), strict=True))

    @property
    def flops(self) -> int:
        """Floating point operations of the direct algorithm: two per multiply-add."""
        taps = self.kernel[0] * self.kernel[1] * self.in_channels
        return 2 * self.batch * self.out_height * self.out_width * self.out_channels * taps

    @property
    def activations(self) -> int:
        """How many values are read and written, weights aside."""
        read = self.batch * self.height * self.width * self.in_channels
        return read + math.prod(self.out_shape)

    def reference(
        self, x: NDArray[Any], weight: NDArray[Any], bias: NDArray[Any]
    ) -> NDArray[np.float64]:
        """Compute the layer in float64 from x (N,H,W,CI), weight (CO,CI,KH,KW) and the bias."""
        values = x.astype(np.float64)
        if self.affine is not None:
            subtract, multiply = np.transpose(self.scaling)
            values = (values - subtract) * multiply
        top, left, bottom, right = self.padding
        p = np.pad(values, ((0, 0), (top, bottom), (left, right), (0, 0)))
        y = np.zeros((self.batch, self.out_height, self.out_width, self.out_channels))
        for ky in range(self.kernel[0]):
            for kx in range(self.kernel[1]):
                rows = slice(ky * self.dilation[0], None, self.stride[0])
                columns = slice(kx * self.dilation[1], None, self.stride[1])
                window = p[:, rows, columns][:, : self.out_height, : self.out_width]
                taps = weight[:, :, ky, kx].T.astype(np.float64)
                y += (window.reshape(-1, window.shape[-1]) @ taps).reshape(y.shape)
        y = self.activated(y, bias)
        return self.pooling.reference(y) if self.pool else y

    @property
    def pooling(self) -> Pool:
        """The pooling of ``pool`` as a workload of its own."""
        return Pool(self.batch, self.out_height, self.out_width, self.out_channels, *FUSED_POOLING)


@dataclass(frozen=True)
class Dense(Activated):
    """A dense layer with bias and optional activation.

    Attributes
    ----------
    out_features
        How many columns the stored weight has.
    outputs
        How many of them are wanted, from the first on.
    fp16_weights
        Whether the weights are stored as float16; for those that lose nothing by it.
    """

    op = "dense"

    batch: int
    in_features: int
    out_features: int
    outputs: int
    relu: bool
    fp16_weights: bool = False
    slope: float = 0.0
    bounded: bool = False

    @property
    def out_shape(self) -> tuple[int, int]:
        """The output's shape."""
        return (self.batch, self.outputs)

    @property
    def name(self) -> str:
        """A readable name: features, type of the weights, batch."""
        half = "_half" if self.fp16_weights else ""
        return f"dense_{self.in_features}to{self.outputs}{half}_batch{self.batch}"

    @property
    def weight_type(self) -> str:
        """The type of a stored weight."""
        return "float16" if self.fp16_weights else "float32"

    @property
    def weight_bytes(self) -> int:
        """Bytes of a stored weight."""
        return 2 if self.fp16_weights else 4

    @property
    def flops(self) -> int:
        """Floating point operations: two per multiply-add."""
        return 2 * self.batch * self.in_features * self.out_features

    @property
    def activations(self) -> int:
        """How many values are read and written, weights aside."""
        return self.batch * (self.in_features + self.outputs)

    def reference(
        self, x: NDArray[Any], weight: NDArray[Any], bias: NDArray[Any]
    ) -> NDArray[np.float64]:
        """Compute the layer in float64 from x (N,K), weight (K,O) and the bias."""
        y = x.astype(np.float64) @ weight.astype(np.float64)
        return self.activated(y, bias)[:, : self.outputs]


@dataclass(frozen=True)
class Pool:
    """A 2D pooling: the maximum of each window, its padding left out, or its average.

    An average pooling has no padding.
    """

    batch: int
    height: int
    width: int
    channels: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: Padding
    kind: Literal["max", "average"] = "max"

    @property
    def out_height(self) -> int:
        """Rows of the output."""
        rows = self.height + self.padding[0] + self.padding[2]
        return (rows - self.kernel[0]) // self.stride[0] + 1

    @property
    def out_width(self) -> int:
        """Columns of the output."""
        columns = self.width + self.padding[1] + self.padding[3]
        return (columns - self.kernel[1]) // self.stride[1] + 1

    @property
    def out_shape(self) -> tuple[int, int, int, int]:
        """The output's shape (N, H, W, C)."""
        return (self.batch, self.out_height, self.out_width, self.channels)

    @property
    def name(self) -> str:
        """A readable name: window, input, channels, batch."""
        kernel = "x".join(map(str, self.kernel))
        shape = f"{self.height}x{self.width}_{self.channels}"
        return f"{self.kind}pool{kernel}_{shape}_batch{self.batch}"

    @property
    def flops(self) -> int:
        """Comparisons or additions."""
        return math.prod(self.out_shape) * self.kernel[0] * self.kernel[1]

    @property
    def activations(self) -> int:
        """How many values are read and written."""
        return self.batch * self.height * self.width * self.channels + math.prod(self.out_shape)

    def reference(self, x: NDArray[Any]) -> NDArray[Any]:
        """Compute the pooling of x (N,H,W,C) with numpy, in the type of x."""
        top, left, bottom, right = self.padding
        around = ((0, 0), (top, bottom), (left, right), (0, 0))
        p = np.pad(x, around, constant_values=-np.inf)
        windows = np.lib.stride_tricks.sliding_window_view(p, self.kernel, axis=(1, 2))
        windows = windows[:, :: self.stride[0], :: self.stride[1]]
        pool = np.mean if self.kind == "average" else np.max
        return np.asarray(pool(windows, axis=(-2, -1)))


Workload = Conv | Dense | Pool
"""What any kernel computes."""

FUSED_POOLING = ((2, 2), (2, 2), (0, 0, 0, 0))
"""Window, stride and padding of the pooling that a convolution's kernel can include."""


def padded(channels: int, multiple: int) -> int:
    """Return how many channels are stored for ``channels``: the next multiple."""
    return -(-channels // multiple) * multiple


def exact_in_fp16(weight: NDArray[np.float32]) -> bool:
    """Whether every weight is a float16 number."""
    with np.errstate(over="ignore"):
        return bool((weight.astype(np.float16).astype(np.float32) == weight).all())
