"""Plan a network for one batch size: a kernel with its configuration for every layer.

A plan knows shapes but touches no weights.  Every map lies channels last, between two kernels in
the border of zeros that its reader wants, so that nothing but the faces is copied into one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ferplus_tvm.errors import ModelShapeError, TuningLogError
from ferplus_tvm.kernels import conv2d, dense, max_pool, padded, winograd
from ferplus_tvm.kernels.tensorir import NO_BORDER, Border
from ferplus_tvm.rewrite.choose import Choice, choose, only_dense, only_max_pool
from ferplus_tvm.rewrite.match import ConvLayer, DenseLayer, Layer, PoolLayer
from ferplus_tvm.targets import VectorUnit
from ferplus_tvm.tuning import space

_MOST_OF_A_CONFIG = 1 << 20
_MOST_VALUES = 1 << 30  # indices are 32 bits, and a border adds to them

Record = Callable[[space.Layer], space.Config | None]
"""Takes a layer; returns the configuration that a tuning log holds for it, or None."""


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
    in_border, out_border
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
    in_border: Border = NO_BORDER
    out_border: Border = NO_BORDER

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
    def wanted_border(self) -> Border:
        """The zeros that the kernel wants around the map it reads."""
        if not isinstance(self.layer, ConvLayer):
            return NO_BORDER
        if self.choice.tile:
            return winograd.border(self.workload, self.config)
        return conv2d.border(self.workload)

    @property
    def out_shape(self) -> tuple[int, ...]:
        """The stored shape of the output, without the batch."""
        w = self.workload
        if isinstance(w, dense.Workload):
            return (w.outputs,)
        channels = w.channels if isinstance(w, max_pool.Workload) else w.out_channels
        shrink = 2 if self.fused else 1
        height, width = w.out_height // shrink, w.out_width // shrink
        return self.out_border.around(w.batch, height, width, channels)[1:]

    def define(self, x_shape: tuple[int, ...]) -> Any:
        """Return the kernel's PrimFunc for an input that comes in a shape of the same memory."""
        if isinstance(self.layer, DenseLayer):
            return dense.define(self.workload, self.config, x_shape)
        if isinstance(self.layer, PoolLayer):
            return max_pool.define(self.workload, self.config, self.out_border, x_shape)
        if self.choice.tile:
            return winograd.define(self.workload, self.config, self.out_border)
        return conv2d.define(self.workload, self.config, self.in_border, self.out_border, x_shape)


def plan(layers: Sequence[Layer], batch: int, unit: VectorUnit, record: Record) -> list[Step]:
    """Return the steps of a network, in order.

    Raises
    ------
    ModelShapeError
        Where a layer's weight does not fit the map that reaches it.
    TuningLogError
        Where a tuning record's configuration does not fit its layer.
    """
    planner = _Planner(batch, unit, record)
    steps = []
    left = list(layers)
    while left:
        layer = left.pop(0)
        if isinstance(layer, ConvLayer):
            follower = left[0] if left and isinstance(left[0], PoolLayer) else None
            step = planner.conv(layer, follower)
            if step.fused:
                del left[0]
        elif isinstance(layer, DenseLayer):
            step = planner.dense(layer, last=not left)
        else:
            step = planner.pool(layer)
        steps.append(step)
    # The faces come without a border, and each map with the one that its reader wants.
    wanted = [NO_BORDER, *(step.wanted_border for step in steps[1:]), NO_BORDER]
    bordered = [
        replace(step, in_border=before, out_border=after)
        for step, before, after in zip(steps, wanted, wanted[1:], strict=False)
    ]
    for step in bordered:
        _expect_indices(step, batch)
    return bordered


@dataclass
class _Planner:
    """What reaches the next layer: its shape, with the model's channels, and what is stored."""

    batch: int
    unit: VectorUnit
    record: Record
    shape: tuple[int, ...] = (64, 64, 1)
    stored: int = 1

    def conv(self, layer: ConvLayer, follower: PoolLayer | None) -> Step:
        """Plan a convolution, with the pooling that follows if its kernel takes it in."""
        out_channels, in_channels, *kernel = layer.weight.shape
        height, width, channels = self.map(layer.name)
        _expect(layer.name, "channels", in_channels, channels)
        workload = conv2d.Workload(
            batch=self.batch,
            height=height,
            width=width,
            in_channels=self.stored,
            out_channels=padded(out_channels, self.unit.lanes),
            kernel=(kernel[0], kernel[1]),
            stride=layer.stride,
            padding=layer.padding,
            dilation=layer.dilation,
            relu=layer.relu,
            affine=layer.affine,
        )
        _expect_window(layer.name, workload)
        if follower and winograd.takes_pool(follower.kernel, follower.stride, follower.padding):
            pooled = replace(workload, pool=True)
        else:
            pooled = workload
        record = self.record(pooled)
        choice = choose(workload, self.unit, None if record is None else record.get("tile", 0))
        if record is not None and choice.tile != record.get("tile", 0):
            raise _misfit(workload.name, f"there is no algorithm {record['tile']} for it")
        config: Any
        if choice.tile:
            workload = pooled
            config = winograd.Config.preset(workload, self.unit, choice.tile)
        else:
            config = conv2d.Config.preset(workload, self.unit)
        if record is not None:
            config = _recorded(type(config), record, workload.name)
            _expect_fit(config, workload, self.unit, workload.out_channels)
        fused = follower if workload.pool else None
        step = self.step(layer, workload, config, choice, record is not None, pooled, fused)
        shrink = 2 if fused else 1
        self.shape = (workload.out_height // shrink, workload.out_width // shrink, out_channels)
        self.stored = workload.out_channels
        if 0 in self.shape:
            raise ModelShapeError(
                f"the layer {fused.name if fused else layer.name!r} leaves nothing of the "
                f"{workload.out_height}x{workload.out_width} map: expected a model for 64x64 faces"
            )
        return step

    def pool(self, layer: PoolLayer) -> Step:
        """Plan a pooling."""
        height, width, channels = self.map(layer.name)
        workload = max_pool.Workload(
            batch=self.batch,
            height=height,
            width=width,
            channels=self.stored,
            kernel=layer.kernel,
            stride=layer.stride,
            padding=layer.padding,
        )
        _expect_window(layer.name, workload)
        config = max_pool.Config.preset(workload, self.unit)
        choice = only_max_pool(workload, self.unit)
        step = self.step(layer, workload, config, choice, tuned=False)
        self.shape = (workload.out_height, workload.out_width, channels)
        return step

    def dense(self, layer: DenseLayer, last: bool) -> Step:
        """Plan a dense layer; only the last one writes just what the model has."""
        in_features, out_features = layer.weight.shape
        _expect(layer.name, "features", in_features, int(np.prod(self.shape)))
        stored = padded(out_features, self.unit.lanes)
        workload = dense.Workload(
            batch=self.batch,
            in_features=self.stored * int(np.prod(self.shape[:-1])),
            out_features=stored,
            # The scores are handed out as they are; what only the next kernel reads stays padded.
            outputs=out_features if last else stored,
            relu=layer.relu,
            half=self.unit.half and dense.exact_in_half(layer.weight),
        )
        record = self.record(workload)
        config = dense.Config.preset(workload, self.unit)
        if record is not None:
            config = _recorded(dense.Config, record, workload.name)
            _expect_fit(config, workload, self.unit, stored)
        choice = only_dense(workload, self.unit)
        step = self.step(layer, workload, config, choice, record is not None, workload)
        self.shape, self.stored = (out_features,), stored
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

    def map(self, layer: str) -> tuple[int, int, int]:
        """Return height, width and channels of the map that reaches a layer."""
        if len(self.shape) != 3:
            raise ModelShapeError(
                f"the layer {layer!r} takes a map, but a vector of {self.shape[0]} features "
                "reaches it: expected the dense layers last"
            )
        return (self.shape[0], self.shape[1], self.shape[2])


def _expect_indices(step: Step, batch: int) -> None:
    """See that a map's values can be counted in 32 bits, as the kernels do."""
    values = batch * math.prod(step.out_shape)
    if values > _MOST_VALUES:
        raise ModelShapeError(
            f"the layer {step.layer.name!r} makes {values} values at batch {batch}: expected at "
            f"most {_MOST_VALUES}; compile for smaller batches, which serve any number of faces"
        )


def _recorded(config: Any, record: space.Config, kernel: str) -> Any:
    try:
        return config(**{name: value for name, value in record.items() if name != "tile" or value})
    except TypeError as error:
        raise _misfit(kernel, f"{error}") from None


def _expect_fit(config: Any, workload: Any, unit: VectorUnit, out_channels: int) -> None:
    """See that a recorded configuration is one that the kernel can be emitted with."""
    kernel = workload.name
    if config.lanes != unit.lanes:
        raise _misfit(
            kernel, f"it is for vectors of {config.lanes} floats, this target has {unit.lanes}"
        )
    for name, value in vars(config).items():
        least = 0 if name in ("block", "prefetch") else 1
        if not least <= value <= _MOST_OF_A_CONFIG:
            raise _misfit(kernel, f"its {name} is {value}")
    rows = config.width if isinstance(config, conv2d.Config) else config.rows
    if rows * config.vectors > unit.registers:
        raise _misfit(kernel, f"{rows * config.vectors} sums exceed {unit.registers} registers")
    if out_channels % config.panel:
        raise _misfit(kernel, f"panels of {config.panel} channels do not divide {out_channels}")
    if isinstance(config, winograd.Config) and config.block > winograd.tiles(workload, config.tile):
        raise _misfit(kernel, f"its block of {config.block} is more than there are tiles")


def _misfit(kernel: str, why: str) -> TuningLogError:
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


def _expect_window(layer: str, workload: conv2d.Workload | max_pool.Workload) -> None:
    if workload.out_height < 1 or workload.out_width < 1:
        window, size = workload.kernel, (workload.height, workload.width)
        raise ModelShapeError(
            f"the layer {layer!r} has a {window[0]}x{window[1]} window that does not fit the "
            f"{size[0]}x{size[1]} map that reaches it: expected a model for 64x64 faces"
        )
