"""Choose a kernel for every layer, lay out its weights, and write the new Relax module.

One function per batch size, ``main_batch{N}(x, weights...)``, all over one list of weights: two
functions that want the same layout of a weight share it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.errors import ModelShapeError
from ferplus_tvm.kernels import conv2d, dense, max_pool, padded, winograd
from ferplus_tvm.manifest import Kernel
from ferplus_tvm.rewrite.choose import Choice, choose, only_dense, only_max_pool
from ferplus_tvm.rewrite.match import ConvLayer, DenseLayer, Layer, PoolLayer
from ferplus_tvm.targets import VectorUnit

Schedule = Callable[[Any], Any]
"""Takes an unscheduled IRModule; returns a tuned ``Schedule`` of it, or None."""


@dataclass(frozen=True)
class Placed:
    """The rewritten model: a module of kernel calls, the weights it takes, and what was chosen."""

    module: Any
    weights: dict[str, NDArray[np.float32]]
    functions: dict[int, str]
    arguments: dict[int, tuple[str, ...]]
    kernels: tuple[Kernel, ...]


@dataclass
class _Emitter:
    """The state of writing one function: where the activations are and what shape they have."""

    unit: VectorUnit
    tuned: Schedule
    builder: Any
    batch: int
    weights: dict[str, NDArray[np.float32]]
    names: list[str]
    calls: list[tuple[Any, tuple[str, ...], tuple[int, ...]]] = field(default_factory=list)
    kernels: list[Kernel] = field(default_factory=list)
    # (height, width, model's channels) of a map, or (features,) of a vector
    shape: tuple[int, ...] = (64, 64, 1)
    stored: int = 1

    def weight(self, name: str, make: Callable[[], NDArray[np.float32]]) -> str:
        """Add a weight under a name that tells its layout, unless it is there already."""
        if name not in self.weights:
            self.weights[name] = make()
        self.names.append(name)
        return name

    def call(
        self,
        layer: Layer,
        kernel: ModuleType,
        workload: Any,
        config: Any,
        arguments: tuple[str, ...],
        out_shape: tuple[int, ...],
        algorithm: str,
        choice: Choice,
        fused: str | None = None,
    ) -> None:
        """Schedule a kernel, by its tuning record or its preset, and call it."""
        from tvm import IRModule, s_tir

        definition = kernel.define(workload, config)
        sch = self.tuned(IRModule({"main": definition}))
        tuned = sch is not None
        if sch is None:
            sch = s_tir.Schedule(definition)
            kernel.schedule(sch, workload, config)
        function = sch.mod["main"].with_attr("global_symbol", workload.name)
        self.calls.append(
            (self.builder.add_func(function, workload.name), arguments, (self.batch, *out_shape))
        )
        tiling = "tuning record" if tuned else _spell(config)
        self.kernels.append(
            Kernel(
                layer.name,
                fused,
                self.batch,
                workload.name,
                algorithm,
                tiling,
                tuned,
                choice.why,
                choice.milliseconds,
            )
        )


def place(
    layers: Sequence[Layer], batch_sizes: Sequence[int], unit: VectorUnit, tuned: Schedule
) -> Placed:
    """Write one function per batch size; ``tuned`` looks a kernel's tuning record up.

    Raises
    ------
    ModelShapeError
        Where a layer's weight does not fit the map that reaches it.
    """
    from tvm import relax

    builder = relax.BlockBuilder()
    weights: dict[str, NDArray[np.float32]] = {}
    functions: dict[int, str] = {}
    arguments: dict[int, tuple[str, ...]] = {}
    kernels: list[Kernel] = []
    for batch in batch_sizes:
        emitter = _Emitter(unit, tuned, builder, batch, weights, [])
        left = list(layers)
        while left:
            layer = left.pop(0)
            if isinstance(layer, ConvLayer):
                pool = left[0] if left and isinstance(left[0], PoolLayer) else None
                if _emit_conv(emitter, layer, pool):
                    del left[0]
            elif isinstance(layer, DenseLayer):
                _emit_dense(emitter, layer, last=not left)
            else:
                _emit_pool(emitter, layer)
        functions[batch] = f"main_batch{batch}"
        arguments[batch] = tuple(emitter.names)
        kernels += emitter.kernels
        _write(emitter, functions[batch])
    return Placed(builder.get(), weights, functions, arguments, tuple(kernels))


def _emit_conv(e: _Emitter, layer: ConvLayer, pool: PoolLayer | None) -> bool:
    """Emit a convolution; return whether it took in the pooling that follows it."""
    out_channels, in_channels, *kernel = layer.weight.shape
    height, width, channels = _map(layer.name, e.shape)
    _expect(layer.name, "channels", in_channels, channels)
    stored = padded(out_channels, e.unit.lanes)
    workload = conv2d.Workload(
        batch=e.batch,
        height=height,
        width=width,
        in_channels=e.stored,
        out_channels=stored,
        kernel=(kernel[0], kernel[1]),
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        relu=layer.relu,
        affine=layer.affine,
    )
    _expect_window(layer.name, workload)
    choice = choose(workload, e.unit)
    grow = ((0, stored - out_channels), (0, e.stored - in_channels), (0, 0), (0, 0))
    bias = e.weight(f"{layer.name}.bias", lambda: np.pad(layer.bias, grow[0]))
    if not choice.tile:
        direct = conv2d.Config.preset(workload, e.unit)
        weight = e.weight(
            f"{layer.name}.weight.direct{direct.tile}",
            lambda: conv2d.pack_weight(np.pad(layer.weight, grow), direct),
        )
        e.shape, e.stored = (workload.out_height, workload.out_width, out_channels), stored
        out_shape = (*e.shape[:2], stored)
        name = "direct convolution"
        e.call(layer, conv2d, workload, direct, (weight, bias), out_shape, name, choice)
        return False

    if pool is not None and not winograd.takes_pool(pool.kernel, pool.stride, pool.padding):
        pool = None
    workload = replace(workload, pool=pool is not None)
    config = winograd.Config.preset(workload, e.unit, choice.tile)
    weight = e.weight(
        f"{layer.name}.weight.winograd{choice.tile}x{config.channels}",
        lambda: winograd.pack_weight(np.pad(layer.weight, grow), config),
    )
    shrink = 2 if workload.pool else 1
    e.shape = (workload.out_height // shrink, workload.out_width // shrink, out_channels)
    e.stored = stored
    if 0 in e.shape:
        raise ModelShapeError(
            f"the layer {pool.name if pool else layer.name!r} leaves nothing of the "
            f"{workload.out_height}x{workload.out_width} map: expected a model for 64x64 faces"
        )
    out_shape = (*e.shape[:2], stored)
    name = f"Winograd F({choice.tile},3)"
    fused = pool.name if pool is not None else None
    e.call(layer, winograd, workload, config, (weight, bias), out_shape, name, choice, fused)
    return workload.pool


def _emit_pool(e: _Emitter, layer: PoolLayer) -> None:
    height, width, channels = _map(layer.name, e.shape)
    workload = max_pool.Workload(
        batch=e.batch,
        height=height,
        width=width,
        channels=e.stored,
        kernel=layer.kernel,
        stride=layer.stride,
        padding=layer.padding,
    )
    _expect_window(layer.name, workload)
    config = max_pool.Config.preset(workload, e.unit)
    e.shape = (workload.out_height, workload.out_width, channels)
    out_shape = (*e.shape[:2], e.stored)
    choice = only_max_pool(workload, e.unit)
    e.call(layer, max_pool, workload, config, (), out_shape, "max pool", choice)


def _emit_dense(e: _Emitter, layer: DenseLayer, last: bool) -> None:
    in_features, out_features = layer.weight.shape
    _expect(layer.name, "features", in_features, int(np.prod(e.shape)))
    stored = padded(out_features, e.unit.lanes)
    stored_in = e.stored * int(np.prod(e.shape[:-1]))
    workload = dense.Workload(
        batch=e.batch,
        in_features=stored_in,
        out_features=stored,
        # The scores are handed out as they are; what only the next kernel reads stays padded.
        outputs=out_features if last else stored,
        relu=layer.relu,
    )
    config = dense.Config.preset(workload, e.unit)
    shape, channels = e.shape, e.stored

    def lay_out() -> NDArray[np.float32]:
        weight = layer.weight
        if len(shape) == 3:
            weight = _channels_last(weight, shape, channels)
        grow = ((0, stored_in - weight.shape[0]), (0, stored - out_features))
        return dense.pack_weight(np.pad(weight, grow), config)

    weight = e.weight(f"{layer.name}.weight.dense{config.tile}", lay_out)
    bias = e.weight(f"{layer.name}.bias", lambda: np.pad(layer.bias, (0, stored - out_features)))
    e.shape, e.stored = (out_features,), stored
    out_shape = (workload.outputs,)
    choice = only_dense(workload, e.unit)
    e.call(layer, dense, workload, config, (weight, bias), out_shape, "dense", choice)


def _channels_last(
    weight: NDArray[np.float32], shape: tuple[int, ...], stored: int
) -> NDArray[np.float32]:
    """Reorder rows from channels first to channels last, with zero rows for padded channels."""
    height, width, channels = shape
    rows = weight.reshape(channels, height, width, -1).transpose(1, 2, 0, 3)
    rows = np.pad(rows, ((0, 0), (0, 0), (0, stored - channels), (0, 0)))
    return rows.reshape(height * width * stored, -1)


def _map(layer: str, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return height, width and channels of the map that reaches a layer."""
    if len(shape) != 3:
        raise ModelShapeError(
            f"the layer {layer!r} takes a map, but a vector of {shape[0]} features reaches it: "
            "expected the dense layers last"
        )
    return (shape[0], shape[1], shape[2])


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


def _spell(config: Any) -> str:
    return " ".join(f"{name}={value}" for name, value in vars(config).items())


def _write(e: _Emitter, name: str) -> None:
    """Write the calls as a Relax function; a reshape between map and vector is only a view."""
    from tvm import relax

    x = relax.Var("x", relax.TensorType((e.batch, 1, 64, 64), "float32"))
    parameters = {
        weight: relax.Var(f"weight{position}", relax.TensorType(e.weights[weight].shape, "float32"))
        for position, weight in enumerate(e.names)
    }
    with e.builder.function(name, [x, *parameters.values()]):
        with e.builder.dataflow():
            current = e.builder.emit(relax.op.reshape(x, (e.batch, 64, 64, 1)))
            for position, (kernel, arguments, shape) in enumerate(e.calls):
                if len(shape) == 2 and current.ty.ndim == 4:
                    current = e.builder.emit(relax.op.reshape(current, (e.batch, -1)))
                operands = [current, *(parameters[argument] for argument in arguments)]
                call = relax.call_tir(kernel, operands, relax.TensorType(shape, "float32"))
                last = position == len(e.calls) - 1
                current = e.builder.emit_output(call) if last else e.builder.emit(call)
        e.builder.emit_func_output(current)
