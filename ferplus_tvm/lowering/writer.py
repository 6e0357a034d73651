"""Write the lowered module: a Relax function of kernel calls for each batch size, and its weights.

All functions, ``main_batch{N}(x, weights...)``, take their weights from one set: two that want the
same layout of a weight share it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.artifact.manifest import Kernel
from ferplus_tvm.errors import ModelShapeError
from ferplus_tvm.importer.relax import BLOCK_BUILDER_LOCK
from ferplus_tvm.kernels.backend import Backend, describe, executed_flops
from ferplus_tvm.kernels.workloads import Conv, Dense, Pool
from ferplus_tvm.lowering.layers import DenseLayer, LayeredModel, PoolLayer
from ferplus_tvm.lowering.planner import MOST_VALUES, Lookup, PlannedLayer, plan


@dataclass(frozen=True)
class LoweredModel:
    """A model as kernel calls.

    Attributes
    ----------
    module
        The ``tvm.IRModule``: a Relax function for each batch size, and the kernels' PrimFuncs.
    weights
        By name, laid out as the kernels want them.
    functions
        The function of each batch size.
    arguments
        The names of the weights that each batch size's function takes after the input.
    kernels
        What was chosen for each layer at each batch size.
    """

    module: Any
    weights: dict[str, NDArray[Any]]
    functions: dict[int, str]
    arguments: dict[int, tuple[str, ...]]
    kernels: tuple[Kernel, ...]


def lower(
    model: LayeredModel, batch_sizes: Sequence[int], backend: Backend, lookup: Lookup
) -> LoweredModel:
    """Lower a model; ``lookup`` finds the recorded configuration of a workload.

    Raises
    ------
    ModelShapeError
        If a layer does not fit what reaches it.
    TuningLogError
        If a tuning record does not fit its layer.
    """
    with BLOCK_BUILDER_LOCK:
        return _lower(model, batch_sizes, backend, lookup)


def _lower(
    model: LayeredModel, batch_sizes: Sequence[int], backend: Backend, lookup: Lookup
) -> LoweredModel:
    from tvm import relax

    builder = relax.BlockBuilder()
    weights: dict[str, NDArray[Any]] = {}
    functions: dict[int, str] = {}
    arguments: dict[int, tuple[str, ...]] = {}
    kernels: list[Kernel] = []
    for batch in batch_sizes:
        planned = plan(model, batch, backend, lookup)
        operands = [_lay_out(each, backend, weights) for each in planned]
        functions[batch] = f"main_batch{batch}"
        arguments[batch] = tuple(name for names in operands for name in names.values())
        kernels += [_describe(each, batch, backend) for each in planned]
        attributes = backend.function_attributes
        faces = _faces(batch, model.input_shape)
        _write(builder, functions[batch], faces, planned, operands, weights, attributes)
    return LoweredModel(builder.get(), weights, functions, arguments, tuple(kernels))


def _describe(planned: PlannedLayer, batch: int, backend: Backend) -> Kernel:
    workload, config = planned.workload, planned.config
    item_bytes = np.dtype(backend.activation_type).itemsize
    return Kernel(
        layer=planned.layer.name,
        fused=planned.pooling.name if planned.pooling else None,
        batch=batch,
        kernel=backend.name(workload),
        algorithm=str(config.algorithm),
        tiling=describe(config),
        tunable=backend.tunable(workload, config),
        tuned=planned.tuned,
        why=planned.why,
        milliseconds=backend.cost(workload, config),
        flops=workload.flops,
        executed_flops=executed_flops(workload, config),
        activation_bytes=item_bytes * workload.activations,
    )


def _lay_out(
    planned: PlannedLayer, backend: Backend, weights: dict[str, NDArray[Any]]
) -> dict[str, str]:
    """Add a layer's weights, unless they are there; return the name of its weight and its bias."""
    layer, w = planned.layer, planned.workload
    if isinstance(layer, PoolLayer) or isinstance(w, Pool):
        return {}
    names = {
        "weight": f"{layer.name}.weight.{backend.weight_layout(w, planned.config)}",
        "bias": f"{layer.name}.bias",
    }
    if names["weight"] not in weights:
        packed = backend.pack(w, planned.config, _stored_weight(planned, w))
        if packed.size > MOST_VALUES:
            raise ModelShapeError(
                f"the layer {layer.name!r} has {packed.size} weights as its kernel wants them: "
                f"expected at most {MOST_VALUES}; pool the map before it, or have fewer outputs"
            )
        weights[names["weight"]] = packed
    if names["bias"] not in weights:
        stored = w.out_channels if isinstance(w, Conv) else w.out_features
        rows = layer.bias if layer.bounds is None else np.vstack([layer.bias, layer.bounds])
        none = [(0, 0)] * (rows.ndim - 1)
        weights[names["bias"]] = np.pad(rows, [*none, (0, stored - layer.bias.size)])
    return names


def _stored_weight(planned: PlannedLayer, w: Conv | Dense) -> NDArray[np.float32]:
    """Return a weight for the stored channels, those beyond the model's own zero."""
    layer = planned.layer
    assert not isinstance(layer, PoolLayer)
    weight = layer.weight
    if isinstance(layer, DenseLayer) and len(planned.in_shape) == 3:
        weight = _channels_last(weight, planned.in_shape, planned.in_stored)
    stored = (
        (w.out_channels, w.in_channels) if isinstance(w, Conv) else (w.in_features, w.out_features)
    )
    grow = [(0, want - have) for want, have in zip(stored, weight.shape, strict=False)]
    return np.pad(weight, [*grow, *[(0, 0)] * (weight.ndim - 2)])


def _channels_last(
    weight: NDArray[np.float32], shape: tuple[int, ...], stored: int
) -> NDArray[np.float32]:
    """Reorder rows from channels first to channels last, with zero rows for padded channels."""
    height, width, channels = shape
    rows = weight.reshape(channels, height, width, -1).transpose(1, 2, 0, 3)
    rows = np.pad(rows, ((0, 0), (0, 0), (0, stored - channels), (0, 0)))
    return rows.reshape(height * width * stored, -1)


def _faces(batch: int, shape: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Return the shape of the faces: channels last, or of one channel, where both are one order."""
    channels, height, width = shape
    return (batch, 1, height, width) if channels == 1 else (batch, height, width, channels)


def _write(
    builder: Any,
    name: str,
    faces: tuple[int, int, int, int],
    planned: Sequence[PlannedLayer],
    operands: Sequence[dict[str, str]],
    weights: dict[str, NDArray[Any]],
    attributes: Mapping[str, int],
) -> None:
    """Write the calls of a plan as a Relax function.

    A kernel takes its input in the shape that the one before gives it: no reshape stands between.
    """
    from tvm import relax

    x = relax.Var("x", relax.TensorType(faces, "float32"))
    parameters: dict[str, Any] = {}
    for names in operands:
        for weight in names.values():
            content = weights[weight]
            parameters[weight] = relax.Var(
                f"weight{len(parameters)}",
                relax.TensorType(content.shape, str(content.dtype)),
            )
    shape: tuple[int, ...] = faces
    calls = []
    for each, names in zip(planned, operands, strict=True):
        for call in each.calls:
            function = call.define(shape).with_attr("global_symbol", call.symbol)
            taken = [parameters[names[operand]] for operand in call.operands]
            calls.append((builder.add_func(function, call.symbol), taken, call.output))
            shape = call.output.shape
    with builder.function(name, [x, *parameters.values()], attrs=dict(attributes)):
        with builder.dataflow():
            current = x
            for at, (kernel, taken, output) in enumerate(calls):
                written = relax.TensorType(output.shape, output.dtype)
                call_tir = relax.call_tir(kernel, [current, *taken], written)
                last = at == len(calls) - 1
                current = builder.emit_output(call_tir) if last else builder.emit(call_tir)
        builder.emit_func_output(current)
