"""Plan a network for one batch size: a kernel with its configuration for every layer.

A plan knows shapes but touches no weights.  Every map lies channels last, between two kernels in
the halo of zeros that its reader wants, so that nothing but the faces is copied into one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ferplus_tvm.kernels.cpu import dense, direct, max_pool, winograd
from ferplus_tvm.kernels.cpu.tensorir import NO_HALO, Halo
from ferplus_tvm.kernels.workloads import Dense, Pool, exact_in_fp16
from ferplus_tvm.lowering.choose import Choice, choose, only_dense, only_max_pool
from ferplus_tvm.lowering.layers import ConvLayer, DenseLayer, Layer, PoolLayer
from ferplus_tvm.lowering.walk import Record, Walk, expect_indices, misfit, recorded, takes_pool
from ferplus_tvm.targets import VectorUnit
from ferplus_tvm.tuning import space

_MOST_OF_A_CONFIG = 1 << 20


@dataclass(frozen=True)
class Step:
    """One kernel call.

    fused
        a pooling that the kernel takes in, or None.
    in_shape
        (height, width, model's channels) of the map that reaches the layer, or (features,).
    in_stored
        the stored channels of that map, or the stored features.
    recorded_as
        what a tuning record of the layer is kept under: the layer with the pooling that some
        kernels take in; None where there is nothing to tune.
    in_halo, out_halo
        zeros around the maps read and written.
    """

    layer: Layer
    fused: PoolLayer | None
    workload: Any
    config: Any
    choice: Choice
    tuned: bool
    in_shape: tuple[int, ...]
    in_stored: int
    recorded_as: space.Layer | None
    in_halo: Halo = NO_HALO
    out_halo: Halo = NO_HALO

    @property
    def algorithm(self) -> str:
        """What the kernel does, in words."""
        if isinstance(self.layer, DenseLayer):
            return "dense"
        if isinstance(self.layer, PoolLayer):
            return "max pool"
        tile = self.choice.tile
        return f"Winograd F({tile},3)" if tile else "direct convolution"

    @property
    def wanted_halo(self) -> Halo:
        """The zeros that the kernel wants around the map it reads."""
        if not isinstance(self.layer, ConvLayer):
            return NO_HALO
        if self.choice.tile:
            return winograd.halo(self.workload, self.config)
        return direct.halo(self.workload)

    @property
    def out_shape(self) -> tuple[int, ...]:
        """The stored shape of the output, without the batch."""
        w = self.workload
        if isinstance(w, Dense):
            return (w.outputs,)
        channels = w.channels if isinstance(w, Pool) else w.out_channels
        shrink = 2 if self.fused else 1
        height, width = w.out_height // shrink, w.out_width // shrink
        return self.out_halo.around(w.batch, height, width, channels)[1:]

    def define(self, x_shape: tuple[int, ...]) -> Any:
        """Return the kernel's PrimFunc for an input that comes in a shape of the same memory."""
        if isinstance(self.layer, DenseLayer):
            return dense.define(self.workload, self.config, x_shape)
        if isinstance(self.layer, PoolLayer):
            return max_pool.define(self.workload, self.config, self.out_halo, x_shape)
        if self.choice.tile:
            return winograd.define(self.workload, self.config, self.out_halo)
        return direct.define(self.workload, self.config, self.in_halo, self.out_halo, x_shape)


def plan(layers: Sequence[Layer], batch: int, unit: VectorUnit, record: Record) -> list[Step]:
    """Return the steps of a network, in order.

    Raises
    ------
    ModelShapeError
        Where a layer's weight does not fit the map that reaches it.
    TuningLogError
        Where a tuning record's configuration does not fit its layer.
    """
    steps: list[Step] = _Planner(batch, unit.lanes, unit, record).along(layers)
    # The faces come without a halo, and each map with the one that its reader wants.
    wanted = [NO_HALO, *(step.wanted_halo for step in steps[1:]), NO_HALO]
    with_halos = [
        replace(step, in_halo=before, out_halo=after)
        for step, before, after in zip(steps, wanted, wanted[1:], strict=False)
    ]
    for step in with_halos:
        expect_indices(step.layer.name, batch, step.out_shape)
    return with_halos


@dataclass
class _Planner(Walk):
    """The walk along the layers, with the CPU that is planned for."""

    unit: VectorUnit
    record: Record

    def conv(self, layer: ConvLayer, follower: PoolLayer | None) -> Step:
        """Plan a convolution, with the pooling that follows if its kernel takes it in."""
        workload = self.conv_workload(layer)
        pooled = replace(workload, pool=follower is not None and takes_pool(follower))
        record = self.record(pooled)
        choice = choose(workload, self.unit, None if record is None else record.get("tile", 0))
        if record is not None and choice.tile != record.get("tile", 0):
            raise misfit(workload.name, f"there is no algorithm {record['tile']} for it")
        config: Any
        if choice.tile:
            workload = pooled
            config = winograd.Config.preset(workload, self.unit, choice.tile)
        else:
            config = direct.Config.preset(workload, self.unit)
        if record is not None:
            config = recorded(space.config_of, {"tile": 0, **record}, workload.name)
            _expect_fit(config, workload, self.unit, workload.out_channels)
        fused = follower if workload.pool else None
        step = self.step(layer, workload, config, choice, record is not None, pooled, fused)
        self.pass_conv(layer, workload, fused)
        return step

    def pool(self, layer: PoolLayer) -> Step:
        """Plan a pooling."""
        workload = self.pool_workload(layer)
        config = max_pool.Config.preset(workload, self.unit)
        choice = only_max_pool(workload, self.unit)
        step = self.step(layer, workload, config, choice, tuned=False)
        self.pass_pool(workload)
        return step

    def dense(self, layer: DenseLayer, last: bool) -> Step:
        """Plan a dense layer."""
        half = self.unit.fp16 and exact_in_fp16(layer.weight)
        workload = self.dense_workload(layer, last, half)
        record = self.record(workload)
        config = dense.Config.preset(workload, self.unit)
        if record is not None:
            config = recorded(space.config_of, record, workload.name)
            _expect_fit(config, workload, self.unit, workload.out_features)
        choice = only_dense(workload, self.unit)
        step = self.step(layer, workload, config, choice, record is not None, workload)
        self.pass_dense(layer)
        return step

    def step(
        self,
        layer: Layer,
        workload: Any,
        config: Any,
        choice: Choice,
        tuned: bool,
        recorded_as: space.Layer | None = None,
        fused: PoolLayer | None = None,
    ) -> Step:
        """Return a step for what reaches it now."""
        return Step(
            layer, fused, workload, config, choice, tuned, self.shape, self.stored, recorded_as
        )


def _expect_fit(config: Any, workload: Any, unit: VectorUnit, out_channels: int) -> None:
    """See that a recorded configuration is one that the kernel can be emitted with."""
    kernel = workload.name
    if config.lanes != unit.lanes:
        raise misfit(
            kernel, f"it is for vectors of {config.lanes} floats, this target has {unit.lanes}"
        )
    for name, value in vars(config).items():
        least = 0 if name in ("block", "prefetch") else 1
        if not least <= value <= _MOST_OF_A_CONFIG:
            raise misfit(kernel, f"its {name} is {value}")
    rows = config.width if isinstance(config, direct.Config) else config.rows
    if rows * config.vectors > unit.registers:
        raise misfit(kernel, f"{rows * config.vectors} sums exceed {unit.registers} registers")
    if out_channels % config.panel:
        raise misfit(kernel, f"panels of {config.panel} channels do not divide {out_channels}")
    if isinstance(config, winograd.Config) and config.block > winograd.tiles(workload, config.tile):
        raise misfit(kernel, f"its block of {config.block} is more than there are tiles")
