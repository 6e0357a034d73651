"""The one protocol between the compiler and the kernels for a kind of device.

A backend is a folder beside this file.  For a workload it offers candidates, each a configuration
of one of its kernels; it estimates their cost, lays the weights out and emits the calls that
compute the workload.  Lowering and tuning know nothing else of a device.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.kernels import winograd
from ferplus_tvm.kernels.workloads import Conv, Dense, Workload

SPACE_VERSION = 1
"""The version of workloads and configurations, which a tuning log names.

It grows with every change after which a recorded configuration would mean something else.
"""


class Algorithm(StrEnum):
    """How a kernel computes its workload."""

    DIRECT = "direct convolution"
    WINOGRAD_F2 = "Winograd F(2,3)"
    WINOGRAD_F4 = "Winograd F(4,3)"
    WINOGRAD_F6 = "Winograd F(6,3)"
    IMPLICIT_GEMM = "implicit GEMM"
    GEMM = "GEMM"
    GEMV = "GEMV"
    MAX_POOL = "max pool"
    AVERAGE_POOL = "average pool"

    @classmethod
    def winograd(cls, m: int) -> Algorithm:
        """Return F(m, 3)."""
        return cls(f"Winograd F({m},3)")


WINOGRAD = {Algorithm.winograd(m): m for m in (2, 4, 6)}
"""The m of each of Winograd's algorithms."""


class Config(Protocol):
    """A configuration of a kernel: a frozen dataclass whose fields are whole numbers."""

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm of the kernel that it belongs to."""
        ...


class Halo(NamedTuple):
    """Rows and columns of zeros that are stored around every image of an activation."""

    top: int = 0
    left: int = 0
    bottom: int = 0
    right: int = 0

    def around(
        self, batch: int, height: int, width: int, channels: int
    ) -> tuple[int, int, int, int]:
        """Return the stored shape of an activation (N, H, W, C)."""
        return (
            batch,
            height + self.top + self.bottom,
            width + self.left + self.right,
            channels,
        )


NO_HALO = Halo()


@dataclass(frozen=True)
class TensorSpec:
    """The shape and type of a tensor between two kernels."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class KernelCall:
    """One call of a compiled function, which reads an activation and weights and writes another.

    Attributes
    ----------
    symbol
        The function's name in the compiled module.
    operands
        What it takes after the activation: none, or some of ``weight`` and ``bias``, which is in
        the shape of `Activated.bias_shape`.
    output
        What it writes.
    define
        Returns the PrimFunc for an input that comes in another shape of the same memory.
    """

    symbol: str
    operands: tuple[str, ...]
    output: TensorSpec
    define: Callable[[Sequence[int]], Any]


@dataclass(frozen=True)
class Position:
    """Where in a network a workload stands, as far as a kernel has to know.

    Attributes
    ----------
    in_halo, out_halo
        The zeros around the activations that are read and written.
    last
        Whether the output is the network's.
    """

    in_halo: Halo = NO_HALO
    out_halo: Halo = NO_HALO
    last: bool = False


@dataclass(frozen=True)
class Choice:
    """What computes a workload that nothing was tuned for, and what it was compared with."""

    config: Config
    why: str


class Backend(ABC):
    """The kernels for a kind of device."""

    @property
    @abstractmethod
    def channel_multiple(self) -> int:
        """What the stored channels are a multiple of."""

    @property
    @abstractmethod
    def reads_faces(self) -> bool:
        """Whether every kernel can read the faces, and not only a convolution's."""

    @property
    @abstractmethod
    def fp16_weights(self) -> bool:
        """Whether dense weights that are float16 numbers are stored as such."""

    @property
    @abstractmethod
    def tolerance(self) -> float:
        """How far a kernel's answer may be off the reference, relative to the largest value."""

    @property
    @abstractmethod
    def activation_type(self) -> str:
        """The type of an activation between two kernels."""

    @property
    @abstractmethod
    def function_attributes(self) -> Mapping[str, int]:
        """The attributes of the Relax functions that call the kernels."""

    @property
    @abstractmethod
    def config_types(self) -> Mapping[Algorithm, type[Any]]:
        """The class of each algorithm's configurations."""

    @abstractmethod
    def choose(self, w: Workload) -> Choice:
        """Return the configuration with the least estimated time among those of proven kernels."""

    @abstractmethod
    def presets(self, w: Conv | Dense) -> list[Config]:
        """Return what seems the best configuration of each algorithm: where tuning begins."""

    @abstractmethod
    def candidates(self, w: Conv | Dense) -> list[Config]:
        """Return every configuration that makes sense."""

    @abstractmethod
    def cost(self, w: Workload, config: Config) -> float:
        """Return the estimated time in milliseconds."""

    @abstractmethod
    def tunable(self, w: Workload, config: Config) -> bool:
        """Whether there is anything to choose for a workload."""

    @abstractmethod
    def fuses_pooling(self, config: Config) -> bool:
        """Whether the kernel computes a convolution's pooling too, in the same call."""

    @abstractmethod
    def in_halo(self, w: Workload, config: Config) -> Halo:
        """Return the zeros that the kernel wants around the activation that it reads."""

    @abstractmethod
    def weight_layout(self, w: Conv | Dense, config: Config) -> str:
        """Return the name of the layout that the kernel wants its weights in."""

    @abstractmethod
    def pack(self, w: Conv | Dense, config: Config, weight: NDArray[np.float32]) -> NDArray[Any]:
        """Lay a weight out, (CO,CI,KH,KW) of a convolution or (K,O) of a dense layer."""

    @abstractmethod
    def emit(self, w: Workload, config: Config, at: Position) -> list[KernelCall]:
        """Return the calls that compute the workload, one after the other."""

    @abstractmethod
    def activation(self, x: NDArray[np.float32]) -> NDArray[Any]:
        """Return an activation as the kernels store it between each other."""

    @abstractmethod
    def name(self, w: Workload) -> str:
        """Return what the kernel of a workload is called in reports."""


def executed_flops(w: Workload, config: Config) -> int:
    """Return the operations that an algorithm executes, Winograd's transforms not counted."""
    m = WINOGRAD.get(config.algorithm)
    return winograd.flops(w, m) if m is not None and isinstance(w, Conv) else w.flops


def describe(config: Config) -> str:
    """Return the fields of a configuration in words."""
    return " ".join(f"{name}={value}" for name, value in vars(config).items())
