"""Write the new Relax module: kernel calls, and the weights laid out as they want them.

One function per batch size, ``main_batch{N}(x, weights...)``, all over one list of weights: two
functions that want the same layout of a weight share it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.artifact.manifest import Kernel
from ferplus_tvm.kernels.cpu import dense, direct, winograd
from ferplus_tvm.lowering.layers import ConvLayer, DenseLayer, Layer
from ferplus_tvm.lowering.layout import channels_last
from ferplus_tvm.lowering.plan import Step, plan
from ferplus_tvm.lowering.walk import Record
from ferplus_tvm.targets import VectorUnit


@dataclass(frozen=True)
class Placed:
    """The rewritten model: a module of kernel calls, the weights it takes, and what was chosen."""

    module: Any
    weights: dict[str, NDArray[Any]]
    functions: dict[int, str]
    arguments: dict[int, tuple[str, ...]]
    kernels: tuple[Kernel, ...]


def place(
    layers: Sequence[Layer], batch_sizes: Sequence[int], unit: VectorUnit, record: Record
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
    kernels: list[Kernel] = []
    for batch in batch_sizes:
        steps = plan(layers, batch, unit, record)
        operands = [_lay_out(step, weights) for step in steps]
        functions[batch] = f"main_batch{batch}"
        arguments[batch] = tuple(name for names in operands for name in names)
        kernels += [_describe(step, batch) for step in steps]
        _write(builder, functions[batch], batch, list(zip(steps, operands, strict=True)), weights)
    return Placed(builder.get(), weights, functions, arguments, tuple(kernels))


def _describe(step: Step, batch: int) -> Kernel:
    return Kernel(
        step.layer.name,
        step.fused.name if step.fused else None,
        batch,
        step.workload.name,
        step.algorithm,
        " ".join(f"{name}={value}" for name, value in vars(step.config).items()),
        step.recorded_as is not None,
        step.tuned,
        step.choice.why,
        step.choice.milliseconds,
        step.workload.flops,
        winograd.executed_flops(step.workload, step.choice.tile)
        if step.choice.tile
        else step.workload.flops,
        4 * step.workload.activations,
    )


def _lay_out(step: Step, weights: dict[str, NDArray[Any]]) -> tuple[str, ...]:
    """Add a step's weights under names that tell their layout, unless they are there already."""
    if isinstance(step.layer, ConvLayer):
        name, weight = _conv_weight(step, step.layer, weights)
    elif isinstance(step.layer, DenseLayer):
        name, weight = _dense_weight(step, step.layer, weights)
    else:
        return ()
    if weight is not None:
        weights[name] = weight
    bias = f"{step.layer.name}.bias"
    if bias not in weights:
        stored = step.workload.out_channels if isinstance(step.layer, ConvLayer) else None
        stored = stored or step.workload.out_features
        weights[bias] = np.pad(step.layer.bias, (0, stored - step.layer.bias.size))
    return name, bias


def _conv_weight(
    step: Step, layer: ConvLayer, present: dict[str, NDArray[Any]]
) -> tuple[str, NDArray[Any] | None]:
    tile = step.choice.tile
    layout = f"winograd{tile}" if tile else f"direct{step.config.panel}"
    name = f"{layer.name}.weight.{layout}"
    if name in present:
        return name, None
    out_channels, in_channels, *_ = layer.weight.shape
    grow = (step.workload.out_channels - out_channels, step.in_stored - in_channels)
    weight = np.pad(layer.weight, ((0, grow[0]), (0, grow[1]), (0, 0), (0, 0)))
    packed = winograd.pack_weight(weight, tile) if tile else direct.pack_weight(weight, step.config)
    return name, packed


def _dense_weight(
    step: Step, layer: DenseLayer, present: dict[str, NDArray[Any]]
) -> tuple[str, NDArray[Any] | None]:
    name = f"{layer.name}.weight.dense"
    if name in present:
        return name, None
    weight = layer.weight
    if len(step.in_shape) == 3:
        weight = channels_last(weight, step.in_shape, step.in_stored)
    rows, columns = weight.shape
    w = step.workload
    grown = np.pad(weight, ((0, w.in_features - rows), (0, w.out_features - columns)))
    return name, dense.pack_weight(w, grown)


def _write(
    builder: Any,
    name: str,
    batch: int,
    calls: list[tuple[Step, tuple[str, ...]]],
    weights: dict[str, NDArray[Any]],
) -> None:
    """Write the calls as a Relax function.

    A kernel takes its input in the shape that the one before gives it: no reshape stands between.
    """
    from tvm import relax

    x = relax.Var("x", relax.TensorType((batch, 1, 64, 64), "float32"))
    names = [name for _, operands in calls for name in operands]
    parameters = {
        weight: relax.Var(
            f"weight{position}",
            relax.TensorType(weights[weight].shape, str(weights[weight].dtype)),
        )
        for position, weight in enumerate(names)
    }
    shapes = [(batch, 1, 64, 64), *((batch, *step.out_shape) for step, _ in calls)]
    kernels = []
    for (step, _), shape in zip(calls, shapes, strict=False):
        halo = "x".join(map(str, step.out_halo)) if any(step.out_halo) else ""
        symbol = step.workload.name + (f"_border{halo}" if halo else "")
        function = step.define(shape).with_attr("global_symbol", symbol)
        kernels.append(builder.add_func(function, symbol))
    with builder.function(name, [x, *parameters.values()]):
        with builder.dataflow():
            current = x
            for position, (kernel, (_, operands)) in enumerate(zip(kernels, calls, strict=True)):
                arguments = [current, *(parameters[operand] for operand in operands)]
                written = relax.TensorType(shapes[position + 1], "float32")
                call = relax.call_tir(kernel, arguments, written)
                last = position == len(calls) - 1
                current = builder.emit_output(call) if last else builder.emit(call)
        builder.emit_func_output(current)
