"""The CPU kernels behind the protocol of `kernels.backend`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
    TensorSpec,
)
from ferplus_tvm.kernels.cpu import cost, dense, direct, pool, winograd, winograd_kernel
from ferplus_tvm.kernels.winograd import applies, transformed_weights
from ferplus_tvm.kernels.workloads import Conv, Dense, Pool, Workload
from ferplus_tvm.targets import TOLERANCE, VectorUnit

# F(6,3) has an estimate too good where its weights crowd L2: beyond so many of them it was measured
# to be 5 % faster than F(4,3) on a quiet machine, and 10 % slower where neighbours use the caches.
_MOST_WEIGHTS_OF_F6 = 192 << 10


@dataclass(frozen=True)
class CpuBackend(Backend):
    """The kernels for a vector unit; all arithmetic is float32."""

    unit: VectorUnit

    @property
    def channel_multiple(self) -> int:
        """What the stored channels are a multiple of: whole vectors."""
        return self.unit.lanes

    @property
    def reads_faces(self) -> bool:
        """Whether every kernel can read the faces: they are float32, of any number of channels."""
        return True

    @property
    def fp16_weights(self) -> bool:
        """Whether dense weights that are float16 numbers are stored as such."""
        return self.unit.fp16

    @property
    def tolerance(self) -> float:
        """How far a kernel's answer may be off the reference, relative to the largest value."""
        return TOLERANCE["float32"]

    @property
    def activation_type(self) -> str:
        """The type of an activation between two kernels."""
        return "float32"

    @property
    def function_attributes(self) -> Mapping[str, int]:
        """The attributes of the Relax functions: none."""
        return {}

    @property
    def config_types(self) -> Mapping[Algorithm, type[Any]]:
        """The class of each algorithm's configurations."""
        return {
            Algorithm.DIRECT: direct.Config,
            **dict.fromkeys(WINOGRAD, winograd.Config),
            Algorithm.GEMM: dense.Config,
            Algorithm.MAX_POOL: pool.Config,
            Algorithm.AVERAGE_POOL: pool.AverageConfig,
        }

    def choose(self, w: Workload) -> Choice:
        """Return the algorithm with the least estimated time, and the estimates."""
        if isinstance(w, Pool):
            return Choice(pool.Config.preset(w, self.unit), "the only kernel for it")
        if isinstance(w, Dense):
            return Choice(dense.Config.preset(w, self.unit), "the only kernel for it")
        costs = {config: self.cost(w, config) for config in self.presets(w)}
        compared = ", ".join(f"{config.algorithm} {ms:.2f} ms" for config, ms in costs.items())
        offered = [config for config in costs if not _crowds_the_caches(w, config)]
        crowded = "" if len(offered) == len(costs) else ", F(6,3)'s weights crowd the caches"
        return Choice(min(offered, key=costs.__getitem__), f"estimated {compared}{crowded}")

    def presets(self, w: Conv | Dense) -> list[Config]:
        """Return the configuration of each algorithm that is used untuned."""
        if isinstance(w, Dense):
            return [dense.Config.preset(w, self.unit)]
        presets: list[Config] = [direct.Config.preset(w, self.unit)]
        if applies(w):
            presets += [winograd.Config.preset(w, self.unit, m) for m in WINOGRAD.values()]
        return presets

    def candidates(self, w: Conv | Dense) -> list[Config]:
        """Return every configuration that fits the registers and the caches."""
        if isinstance(w, Dense):
            return [*dense.candidates(w, self.unit)]
        found: list[Config] = [*direct.candidates(w, self.unit)]
        if applies(w):
            for m in WINOGRAD.values():
                found += winograd.candidates(w, self.unit, m)
        return found

    def cost(self, w: Workload, config: Config) -> float:
        """Return the estimated milliseconds on one core at 3 GHz."""
        if isinstance(w, Pool):
            return cost.of_pool(w, self.unit)
        if isinstance(w, Dense):
            return cost.of_dense(w, self.unit)
        if isinstance(config, winograd.Config):
            return cost.of_winograd(w, config, self.unit)
        return cost.of_direct(w, self.unit)

    def tunable(self, w: Workload, config: Config) -> bool:
        """Whether there is anything to choose: for all but poolings."""
        return not isinstance(w, Pool)

    def fuses_pooling(self, config: Config) -> bool:
        """Whether the kernel computes a convolution's pooling too: Winograd's do."""
        return isinstance(config, winograd.Config)

    def in_halo(self, w: Workload, config: Config) -> Halo:
        """Return the zeros that a convolution wants around its input."""
        if not isinstance(w, Conv):
            return NO_HALO
        return winograd.halo(w, config) if isinstance(config, winograd.Config) else direct.halo(w)

    def weight_layout(self, w: Conv | Dense, config: Config) -> str:
        """Return the name of a layout; Winograd's and dense ones are those of every vector unit."""
        if isinstance(config, winograd.Config):
            return f"winograd{config.tile}"
        return f"direct{config.panel}" if isinstance(config, direct.Config) else "dense"

    def pack(self, w: Conv | Dense, config: Config, weight: NDArray[np.float32]) -> NDArray[Any]:
        """Lay a weight out."""
        if isinstance(w, Dense):
            return dense.pack_weight(w, weight)
        if isinstance(config, winograd.Config):
            return winograd.pack_weight(weight, config.tile)
        assert isinstance(config, direct.Config)
        return direct.pack_weight(weight, config)

    def emit(self, w: Workload, config: Config, at: Position) -> list[KernelCall]:
        """Return one call, or two where a pooling is not fused."""
        if isinstance(w, Conv) and w.pool and not self.fuses_pooling(config):
            return [
                *self.emit(replace(w, pool=False), config, replace(at, out_halo=NO_HALO)),
                *self.emit(w.pooling, self.choose(w.pooling).config, replace(at, in_halo=NO_HALO)),
            ]

        def define(x_shape: Sequence[int]) -> Any:
            if isinstance(config, dense.Config):
                assert isinstance(w, Dense)
                return dense.define(w, config, x_shape)
            if isinstance(config, pool.Config):
                assert isinstance(w, Pool)
                return pool.define(w, config, at.out_halo, x_shape)
            assert isinstance(w, Conv)
            if isinstance(config, winograd.Config):
                return winograd_kernel.define(w, config, at.out_halo)
            assert isinstance(config, direct.Config)
            return direct.define(w, config, at.in_halo, at.out_halo, x_shape)

        if isinstance(w, Dense):
            shape: tuple[int, ...] = w.out_shape
        else:
            shape = at.out_halo.around(*w.out_shape)
        halo = f"_border{'x'.join(map(str, at.out_halo))}" if any(at.out_halo) else ""
        operands = () if isinstance(w, Pool) else ("weight", "bias")
        return [KernelCall(f"{w.name}{halo}", operands, TensorSpec(shape, "float32"), define)]

    def activation(self, x: NDArray[np.float32]) -> NDArray[Any]:
        """Return x: activations are float32."""
        return x

    def name(self, w: Workload) -> str:
        """Return the workload's name."""
        return w.name


def _crowds_the_caches(w: Conv, config: Config) -> bool:
    crowding = config.algorithm is Algorithm.WINOGRAD_F6
    return crowding and transformed_weights(w, 6) > _MOST_WEIGHTS_OF_F6
