"""The CUDA kernels behind the protocol of `kernels.backend`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.kernels.backend import (
    NO_HALO,
    WINOGRAD,
    Algorithm,
    Backend,
    Choice,
    Config,
    Halo,
    KernelCall,
    Position,
)
from ferplus_tvm.kernels.cuda import (
    CHANNELS,
    activation_type,
    cost,
    dense,
    direct,
    implicit_gemm,
    pool,
    winograd,
)
from ferplus_tvm.kernels.cuda.launch import Launch
from ferplus_tvm.kernels.workloads import Conv, Dense, Pool, Workload
from ferplus_tvm.targets import TOLERANCE, Gpu, Precision

_GHZ = 1.75  # only to express cycles as a time


@dataclass(frozen=True)
class CudaBackend(Backend):
    """The kernels for a GPU and a precision."""

    gpu: Gpu
    precision: Precision

    @property
    def channel_multiple(self) -> int:
        """What the stored channels are a multiple of: 16 bytes hold those of one pixel."""
        return CHANNELS

    @property
    def reads_faces(self) -> bool:
        """Whether every kernel can read the faces: only the direct convolution can."""
        return False

    @property
    def fp16_weights(self) -> bool:
        """Whether dense weights that are float16 numbers are stored as such."""
        return True

    @property
    def tolerance(self) -> float:
        """How far a kernel's answer may be off the reference, relative to the largest value."""
        return TOLERANCE[self.precision]

    @property
    def activation_type(self) -> str:
        """The type of an activation between two kernels."""
        return activation_type(self.precision)

    @property
    def function_attributes(self) -> Mapping[str, int]:
        """The attributes of the Relax functions.

        The first parameter changes with each call, the others never: RewriteCUDAGraph asks.
        """
        return {"num_input": 1}

    @property
    def config_types(self) -> Mapping[Algorithm, type[Any]]:
        """The class of each algorithm's configurations."""
        return {
            Algorithm.DIRECT: direct.Config,
            Algorithm.IMPLICIT_GEMM: implicit_gemm.Config,
            **dict.fromkeys(WINOGRAD, winograd.Config),
            Algorithm.GEMV: dense.Gemv,
            Algorithm.GEMM: dense.Gemm,
            Algorithm.MAX_POOL: pool.Config,
            Algorithm.AVERAGE_POOL: pool.AverageConfig,
        }

    def choose(self, w: Workload) -> Choice:
        """Return the configuration with the least estimated time; never Winograd's."""
        if isinstance(w, Pool):
            return Choice(pool.Config.preset(w), "the only kernel for it")
        if isinstance(w, Conv) and direct.applies(w):
            return Choice(direct.Config(), "too few input channels for a GEMM")
        if isinstance(w, Conv):
            tilings = implicit_gemm.candidates(w, self.gpu, self.precision)
            return Choice(self._best(w, [*tilings]), "the GEMM's least estimated time")
        return Choice(self._best(w, self.candidates(w)), "the least estimated time")

    def presets(self, w: Conv | Dense) -> list[Config]:
        """Return what is used untuned, and what seems the best of each other algorithm."""
        chosen = self.choose(w).config
        if isinstance(w, Dense) or direct.applies(w):
            return [chosen]
        of_winograd: dict[Algorithm, list[Config]] = {}
        for config in winograd.candidates(w, self.gpu, self.precision):
            of_winograd.setdefault(config.algorithm, []).append(config)
        return [chosen, *(self._best(w, configs) for configs in of_winograd.values())]

    def candidates(self, w: Conv | Dense) -> list[Config]:
        """Return every configuration that makes sense."""
        if isinstance(w, Dense):
            return [*dense.candidates(w, self.gpu, self.precision)]
        if direct.applies(w):
            return [direct.Config()]
        return [
            *implicit_gemm.candidates(w, self.gpu, self.precision),
            *winograd.candidates(w, self.gpu, self.precision),
        ]

    def cost(self, w: Workload, config: Config) -> float:
        """Return the estimated milliseconds at 1.75 GHz."""
        return self._cycles(w, config) / (1e6 * _GHZ)

    def tunable(self, w: Workload, config: Config) -> bool:
        """Whether there is anything to choose: for all but poolings and the first layer."""
        return not isinstance(w, Pool) and config.algorithm is not Algorithm.DIRECT

    def fuses_pooling(self, config: Config) -> bool:
        """Whether the kernel computes a convolution's pooling too: all of them do."""
        return True

    def in_halo(self, w: Workload, config: Config) -> Halo:
        """Return no halo: the kernels read zeros where an activation ends."""
        return NO_HALO

    def weight_layout(self, w: Conv | Dense, config: Config) -> str:
        """Return the name of a layout; one serves all batch sizes and tilings of an algorithm."""
        if isinstance(config, winograd.Config):
            return f"winograd{config.tile}"
        if isinstance(w, Dense):
            return dense.weight_type(w, self.precision, _dense(config))
        return "direct" if isinstance(config, direct.Config) else self.precision

    def pack(self, w: Conv | Dense, config: Config, weight: NDArray[np.float32]) -> NDArray[Any]:
        """Lay a weight out."""
        if isinstance(w, Dense):
            return dense.pack_weight(weight, dense.weight_type(w, self.precision, _dense(config)))
        if isinstance(config, winograd.Config):
            return winograd.pack_weight(weight, config.tile)
        if isinstance(config, direct.Config):
            return direct.pack_weight(weight)
        return implicit_gemm.pack_weight(weight, self.precision)

    def emit(self, w: Workload, config: Config, at: Position) -> list[KernelCall]:
        """Return the calls, each of which launches a kernel."""
        return [launch.call(at.last) for launch in self.launches(w, config, at.last)]

    def launches(self, w: Workload, config: Config, last: bool = False) -> list[Launch]:
        """Return the launches that compute a workload; the ``last`` layer writes float32."""
        if isinstance(w, Pool):
            return [pool.launch(w, self.precision)]
        if isinstance(w, Dense):
            return dense.launches(w, _dense(config), self.precision, last)
        if isinstance(config, winograd.Config):
            return winograd.launches(w, config)
        if isinstance(config, implicit_gemm.Config):
            return implicit_gemm.launches(w, config, self.precision)
        return [direct.launch(w, self.precision)]

    def activation(self, x: NDArray[np.float32]) -> NDArray[Any]:
        """Return x rounded to the precision and in its type."""
        return implicit_gemm.rounded(x, self.precision).astype(self.activation_type)

    def name(self, w: Workload) -> str:
        """Return the workload's name with the precision."""
        return f"{w.name}_{self.precision}"

    def _best(self, w: Conv | Dense, configs: list[Config]) -> Config:
        return min(configs, key=lambda config: self._cycles(w, config))

    def _cycles(self, w: Workload, config: Config) -> float:
        if isinstance(w, Conv) and isinstance(config, winograd.Config):
            return cost.of_winograd(w, self.gpu, config)
        if isinstance(w, Conv) and isinstance(config, implicit_gemm.Config):
            return cost.of_gemm(w, self.gpu, self.precision, config)
        if isinstance(w, Dense) and isinstance(config, dense.Gemm):
            return cost.of_gemm(dense.gemm_of(w), self.gpu, self.precision, config)
        if isinstance(w, Dense) and isinstance(config, dense.Gemv):
            stored = dense.weight_type(w, self.precision, config)
            return cost.of_gemv(w, self.gpu, config, 2 if stored == "float16" else 4)
        return cost.LAUNCH


def _dense(config: Config) -> dense.Config:
    assert isinstance(config, dense.Gemv | dense.Gemm)
    return config
