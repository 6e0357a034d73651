"""Write the new Relax module for a GPU: launches, and the weights laid out as they want them.

One layout of a layer's weights serves every batch size and tiling of an algorithm and a precision;
dense layers are read in another one for few faces, where their weights are half-precision numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.artifact.manifest import Kernel as Description
from ferplus_tvm.kernels.cpu import winograd as cpu_winograd
from ferplus_tvm.kernels.cuda import CHANNELS, convolution, dense, implicit_gemm, max_pool, winograd
from ferplus_tvm.kernels.cuda.launch import Kernel
from ferplus_tvm.kernels.workloads import exact_in_fp16
from ferplus_tvm.lowering.layers import ConvLayer, DenseLayer, Layer, PoolLayer
from ferplus_tvm.lowering.layout import channels_last
from ferplus_tvm.lowering.place import Placed
from ferplus_tvm.lowering.walk import Record, Walk, expect_indices, misfit, recorded, takes_pool
from ferplus_tvm.targets import Gpu, Precision
from ferplus_tvm.tuning import space
from ferplus_tvm.tuning.gpu import config_of

_LAUNCH = float(implicit_gemm.LAUNCH_CYCLES)
_GHZ = 1.75  # only to express cycles as a time

Operand = tuple[str, Callable[[], NDArray[Any]]]
"""A name that tells the layout, and what lays the operand out: once for all batch sizes."""


@dataclass(frozen=True)
class Step:
    """One layer: its launches, with the weights that they take.

    recorded_as
        what a tuning record of the layer is kept under; None where there is nothing to tune.
    weight, bias
        what they are called and laid out by, or None for a pooling.
    """

    layer: Layer
    fused: PoolLayer | None
    workload: Any
    config: Any
    launches: list[Kernel]
    tuned: bool
    why: str
    cycles: float
    recorded_as: space.Layer | None = None
    weight: Operand | None = None
    bias: Operand | None = None

    @property
    def algorithm(self) -> str:
        """What the launches do, in words."""
        if isinstance(self.layer, PoolLayer):
            return "max pool"
        if self.config is None:
            return "direct convolution"
        if isinstance(self.config, dense.Config):
            return "dense"
        if isinstance(self.config, winograd.Config):
            return f"Winograd F({self.config.tile},3)"
        product = "implicit GEMM" if isinstance(self.layer, ConvLayer) else "GEMM"
        return f"{product}, split sums" if self.config.split > 1 else product


def place(
    layers: Sequence[Layer],
    batch_sizes: Sequence[int],
    gpu: Gpu,
    precision: Precision,
    record: Record,
) -> Placed:
    """Write one function per batch size; ``record`` looks a layer's tuning record up.

    Raises
    ------
    ModelShapeError
        Where a layer's weight does not fit the map that reaches it.
    TuningLogError
        Where a tuning record does not fit its layer.
    """
    from tvm import relax

    builder = relax.BlockBuilder()
    weights: dict[str, NDArray[Any]] = {}
    functions: dict[int, str] = {}
    arguments: dict[int, tuple[str, ...]] = {}
    kernels: list[Description] = []
    for batch in batch_sizes:
        steps = plan(layers, batch, gpu, precision, record)
        for step in steps:
            for named in (step.weight, step.bias):
                if named is not None and named[0] not in weights:
                    weights[named[0]] = named[1]()
        functions[batch] = f"main_batch{batch}"
        arguments[batch] = _write(builder, functions[batch], batch, steps, weights)
        kernels += [_describe(step, batch, precision) for step in steps]
    return Placed(builder.get(), weights, functions, arguments, tuple(kernels))


def plan(
    layers: Sequence[Layer], batch: int, gpu: Gpu, precision: Precision, record: Record
) -> list[Step]:
    """Return the steps of a network, in order."""
    steps: list[Step] = _Planner(batch, CHANNELS, gpu, precision, record).along(layers)
    for step in steps:
        for launch in step.launches:
            expect_indices(step.layer.name, 1, launch.output.shape)
    return steps


@dataclass
class _Planner(Walk):
    """The walk along the layers, with the GPU that is planned for."""

    gpu: Gpu
    precision: Precision
    record: Record

    def conv(self, layer: ConvLayer, follower: PoolLayer | None) -> Step:
        """Plan a convolution, with the pooling that follows if its kernel takes it in."""
        fused = follower if follower is not None and takes_pool(follower) else None
        workload = replace(self.conv_workload(layer), pool=fused is not None)

        def weight() -> NDArray[Any]:
            out_channels, in_channels, *_ = layer.weight.shape
            grow = (workload.out_channels - out_channels, workload.in_channels - in_channels)
            whole = np.pad(layer.weight, ((0, grow[0]), (0, grow[1]), (0, 0), (0, 0)))
            return convolution.pack_weight(workload, whole, self.precision, config)

        config: convolution.Config | None = None
        tuned, why, cycles = False, "too few input channels for a product", _LAUNCH
        if not implicit_gemm.is_direct(workload):
            record = self.record(workload)
            tuned = record is not None
            why = "tuned" if tuned else "the product's least estimated time"
            if record is None:
                config = implicit_gemm.Config.preset(workload, self.gpu, self.precision)
            else:
                offered = convolution.space(workload, self.gpu, self.precision)
                config = _recorded(offered, record, workload.name)
            cycles = convolution.cycles(workload, self.gpu, self.precision, config)
        self.pass_conv(layer, workload, fused)
        return Step(
            layer,
            fused,
            workload,
            config,
            convolution.kernels(workload, config, self.precision),
            tuned,
            why,
            cycles,
            None if config is None else workload,
            (f"{layer.name}.weight.{convolution.weight_kind(self.precision, config)}", weight),
            _bias(layer, workload.out_channels),
        )

    def pool(self, layer: PoolLayer) -> Step:
        """Plan a pooling."""
        workload = self.pool_workload(layer)
        launches = [max_pool.kernel(workload, self.precision)]
        self.pass_pool(workload)
        return Step(layer, None, workload, None, launches, False, "the only kernel for it", _LAUNCH)

    def dense(self, layer: DenseLayer, last: bool) -> Step:
        """Plan a dense layer."""
        half = exact_in_fp16(layer.weight)
        workload = self.dense_workload(layer, last, half)
        record = self.record(workload)
        config: dense.Config | implicit_gemm.Config
        if record is None:
            config = dense.preset(workload, self.gpu, self.precision)
        else:
            offered = dense.space(workload, self.gpu, self.precision)
            config = _recorded(offered, record, workload.name)
        kind = dense.weight_kind(workload, self.precision, config)
        shape, stored = self.shape, self.stored  # of what reaches it

        def weight() -> NDArray[Any]:
            whole = layer.weight
            if len(shape) == 3:
                whole = channels_last(whole, shape, stored)
            grow = (workload.in_features - whole.shape[0], workload.out_features - whole.shape[1])
            return dense.pack_weight(np.pad(whole, ((0, grow[0]), (0, grow[1]))), kind)

        self.pass_dense(layer)
        return Step(
            layer,
            None,
            workload,
            config,
            dense.kernels(workload, config, self.precision, last),
            record is not None,
            "tuned" if record is not None else "the least estimated time",
            dense.cycles(workload, self.gpu, self.precision, config),
            workload,
            (f"{layer.name}.weight.{kind}", weight),
            _bias(layer, workload.out_features),
        )


def _recorded(offered: Sequence[Any], record: space.Config, kernel: str) -> Any:
    """Return the configuration that a tuning record holds, if it is one of those offered."""
    config = recorded(config_of, record, kernel)
    if config not in offered:
        raise misfit(kernel, f"{config} is not a tiling of it")
    return config


def _bias(layer: ConvLayer | DenseLayer, stored: int) -> Operand:
    return f"{layer.name}.bias", lambda: np.pad(layer.bias, (0, stored - layer.bias.size))


def _describe(step: Step, batch: int, precision: Precision) -> Description:
    tiling = {} if step.config is None else vars(step.config)
    return Description(
        step.layer.name,
        step.fused.name if step.fused else None,
        batch,
        f"{step.workload.name}_{precision}",
        step.algorithm,
        " ".join(f"{name}={value}" for name, value in tiling.items()),
        step.recorded_as is not None,
        step.tuned,
        step.why,
        step.cycles / (1e6 * _GHZ),
        step.workload.flops,
        cpu_winograd.executed_flops(step.workload, step.config.tile)
        if isinstance(step.config, winograd.Config)
        else step.workload.flops,
        (2 if precision == "float16" else 4) * step.workload.activations,
    )


def _write(
    builder: Any, name: str, batch: int, steps: Sequence[Step], weights: dict[str, NDArray[Any]]
) -> tuple[str, ...]:
    """Write the launches as a Relax function; return the names of the weights that it takes."""
    from tvm import relax

    x = relax.Var("x", relax.TensorType((batch, 1, 64, 64), "float32"))
    taken: dict[str, Any] = {}
    for step in steps:
        for named in (step.weight, step.bias):
            if named is not None:
                weight, value = named[0], weights[named[0]]
                taken[weight] = relax.Var(
                    f"weight{len(taken)}", relax.TensorType(value.shape, str(value.dtype))
                )
    shape: tuple[int, ...] = (batch, 1, 64, 64)
    calls = []
    for at, step in enumerate(steps):
        for launch in step.launches:
            takes = {"weight": step.weight, "bias": step.bias}
            operands = [
                taken[named[0]]
                for array in launch.arguments[:-1]
                if array.name != "x" and (named := takes[array.name]) is not None
            ]
            symbol = launch.name + ("_last" if at == len(steps) - 1 else "")
            function = launch.define(shape).with_attr("global_symbol", symbol)
            calls.append((builder.add_func(function, symbol), operands, launch.output))
            shape = launch.output.shape
    # The first parameter changes with each call, the others never: what RewriteCUDAGraph asks.
    attributes = {"num_input": 1}
    with builder.function(name, [x, *taken.values()], attrs=attributes):
        with builder.dataflow():
            current = x
            for position, (kernel, operands, output) in enumerate(calls):
                written = relax.TensorType(output.shape, output.dtype)
                call = relax.call_tir(kernel, [current, *operands], written)
                last = position == len(calls) - 1
                current = builder.emit_output(call) if last else builder.emit(call)
        builder.emit_func_output(current)
    return tuple(taken)
