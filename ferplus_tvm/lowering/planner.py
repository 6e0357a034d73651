"""Plan a network for one batch size: a kernel with its configuration for every layer.

The planner infers shapes along the layers and touches no weights.  Activations are channels last; a
kernel writes its output in the halo that the next one wants, so that nothing but the input faces is
ever copied into one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace

from ferplus_tvm.errors import ModelShapeError
from ferplus_tvm.kernels.backend import NO_HALO, Backend, Config, Halo, KernelCall, Position
from ferplus_tvm.kernels.workloads import (
    FUSED_POOLING,
    Conv,
    Dense,
    Pool,
    Workload,
    exact_in_fp16,
    padded,
)
from ferplus_tvm.lowering.layers import ConvLayer, DenseLayer, Layer, LayeredModel, PoolLayer

MOST_VALUES = 1 << 30
"""Of a map, or of a layer's weights: indices are 32 bits, and a halo adds to them."""

Lookup = Callable[[Workload], Config | None]
"""Returns the recorded configuration of a workload, or None."""


@dataclass(frozen=True)
class PlannedLayer:
    """A layer with its kernel.

    Attributes
    ----------
    pooling
        The pooling that the kernel computes too, or None.
    workload
        What the kernel computes.
    key
        The workload that a tuning record is kept under: with the pooling that some kernels fuse.
    tuned
        Whether the configuration comes from a record.
    why
        What the configuration was compared with.
    in_shape
        (height, width, the model's channels) of the input, or (features,).
    in_stored
        The stored channels of the input, or its stored features.
    calls
        The calls that compute it, one after the other.
    """

    layer: Layer
    pooling: PoolLayer | None
    workload: Workload
    key: Workload
    config: Config
    tuned: bool
    why: str
    in_shape: tuple[int, ...]
    in_stored: int
    calls: tuple[KernelCall, ...] = ()


def plan(model: LayeredModel, batch: int, backend: Backend, lookup: Lookup) -> list[PlannedLayer]:
    """Return the layers of a model with their kernels, in order.

    Raises
    ------
    ModelShapeError
        If a layer does not fit what reaches it.
    TuningLogError
        If ``lookup`` finds a record that does not fit its layer.
    """
    planned = _choose(model, batch, backend, lookup)
    # The faces come without a halo, and each activation with the one that its reader wants.
    halos = [NO_HALO, *(_wanted(backend, each) for each in planned[1:]), NO_HALO]
    found = []
    for at, each in enumerate(planned):
        position = Position(halos[at], halos[at + 1], last=at == len(planned) - 1)
        calls = tuple(backend.emit(each.workload, each.config, position))
        w = each.workload
        if at == 0 and isinstance(w, Conv):  # which copies the faces into their padding
            padded_faces = Halo(*w.padding).around(batch, w.height, w.width, w.in_channels)
            _expect_indices(each.layer.name, batch, padded_faces)
        for call in calls:
            _expect_indices(each.layer.name, batch, call.output.shape)
        found.append(replace(each, calls=calls))
    return found


def _choose(
    model: LayeredModel, batch: int, backend: Backend, lookup: Lookup
) -> list[PlannedLayer]:
    shapes = _ShapeInference(model.input_shape, batch, backend.channel_multiple)
    planned: list[PlannedLayer] = []
    left = list(model.layers)
    if not backend.reads_faces and not isinstance(left[0], ConvLayer):
        name = _free(f"{left[0].name}.input", {layer.name for layer in left})
        left.insert(0, ConvLayer.identity(name, model.input_shape[0]))
    while left:
        layer = left.pop(0)
        shape, stored = shapes.shape, shapes.stored
        pooling = _fusable(left) if isinstance(layer, ConvLayer) else None
        key: Workload
        if isinstance(layer, ConvLayer):
            key = replace(shapes.conv(layer), pool=pooling is not None)
        elif isinstance(layer, DenseLayer):
            fp16 = backend.fp16_weights and exact_in_fp16(layer.weight)
            key = shapes.dense(layer, last=not left, fp16_weights=fp16)
        else:
            key = shapes.pool(layer)
        choice, config = backend.choose(key), None
        if backend.tunable(key, choice.config):
            config = lookup(key)
        tuned, why = config is not None, choice.why
        if config is None:
            config = choice.config
        else:
            why = f"tuned; {why}"
        workload = key
        if isinstance(key, Conv) and not backend.fuses_pooling(config):
            workload, pooling = replace(key, pool=False), None
        if pooling is not None:
            del left[0]
        shapes.advance(layer, workload, pooling)
        planned.append(
            PlannedLayer(layer, pooling, workload, key, config, tuned, why, shape, stored)
        )
    return planned


def _wanted(backend: Backend, planned: PlannedLayer) -> Halo:
    return backend.in_halo(planned.workload, planned.config)


def _fusable(followers: Sequence[Layer]) -> PoolLayer | None:
    """Return the pooling right behind a convolution, if a kernel could compute it too."""
    follower = followers[0] if followers else None
    if isinstance(follower, PoolLayer):
        window = (follower.kernel, follower.stride, follower.padding)
        return follower if follower.kind == "max" and window == FUSED_POOLING else None
    return None


def _free(name: str, taken: Set[str]) -> str:
    """Return a name near ``name`` that is not taken: weights are kept under it."""
    while name in taken:
        name += "_"
    return name


class _ShapeInference:
    """The shape of what reaches the next layer.

    Attributes
    ----------
    shape
        (height, width, the model's channels), or (features,).
    stored
        The stored channels, or the stored features.
    """

    def __init__(self, input_shape: tuple[int, int, int], batch: int, multiple: int) -> None:
        channels, height, width = input_shape
        self._faces = f"{height}x{width} faces"
        self._batch = batch
        self._multiple = multiple
        self.shape: tuple[int, ...] = (height, width, channels)
        self.stored = channels  # the faces come as they are

    def conv(self, layer: ConvLayer) -> Conv:
        """Return what a convolution computes."""
        out_channels, in_channels, *kernel = layer.weight.shape
        height, width, channels = self._image(layer.name)
        self._expect(layer.name, "channels", in_channels, channels)
        workload = Conv(
            batch=self._batch,
            height=height,
            width=width,
            in_channels=self.stored,
            out_channels=padded(out_channels, self._multiple),
            kernel=(kernel[0], kernel[1]),
            stride=layer.stride,
            padding=layer.padding,
            dilation=layer.dilation,
            relu=layer.relu,
            affine=layer.affine,
            slope=layer.slope,
            bounded=layer.bounds is not None,
        )
        self._expect_window(layer.name, workload)
        return workload

    def pool(self, layer: PoolLayer) -> Pool:
        """Return what a pooling computes."""
        height, width, _ = self._image(layer.name)
        workload = Pool(
            batch=self._batch,
            height=height,
            width=width,
            channels=self.stored,
            kernel=layer.kernel,
            stride=layer.stride,
            padding=layer.padding,
            kind=layer.kind,
        )
        self._expect_window(layer.name, workload)
        return workload

    def dense(self, layer: DenseLayer, last: bool, fp16_weights: bool) -> Dense:
        """Return what a dense layer computes; only the last one writes just what the model has."""
        in_features, out_features = layer.weight.shape
        self._expect(layer.name, "features", in_features, math.prod(self.shape))
        stored = padded(out_features, self._multiple)
        return Dense(
            batch=self._batch,
            in_features=self.stored * math.prod(self.shape[:-1]),
            out_features=stored,
            # The scores are handed out as they are; what only the next kernel reads stays padded.
            outputs=out_features if last else stored,
            relu=layer.relu,
            fp16_weights=fp16_weights,
            slope=layer.slope,
            bounded=layer.bounds is not None,
        )

    def advance(self, layer: Layer, workload: Workload, pooling: PoolLayer | None) -> None:
        """Go on behind a layer, and behind the pooling that its kernel computes too."""
        if isinstance(workload, Dense):
            assert isinstance(layer, DenseLayer)
            self.shape, self.stored = (layer.weight.shape[1],), workload.out_features
            return
        _, height, width, self.stored = workload.out_shape
        channels = layer.weight.shape[0] if isinstance(layer, ConvLayer) else self.shape[-1]
        self.shape = (height, width, channels)
        if 0 in self.shape:
            raise ModelShapeError(
                f"the layer {pooling.name if pooling else layer.name!r} leaves nothing of the "
                f"{workload.out_height}x{workload.out_width} map: expected a model for "
                f"{self._faces}"
            )

    def _image(self, layer: str) -> tuple[int, int, int]:
        """Return height, width and channels of the feature map that reaches a layer."""
        if len(self.shape) != 3:
            raise ModelShapeError(
                f"the layer {layer!r} takes a map, but a vector of {self.shape[0]} features "
                "reaches it: expected the dense layers last"
            )
        return (self.shape[0], self.shape[1], self.shape[2])

    def _expect(self, layer: str, what: str, wanted: int, found: int) -> None:
        if wanted != found:
            raise ModelShapeError(
                f"the layer {layer!r} takes {wanted} {what}, but {found} reach it: expected a "
                f"model for {self._faces}"
            )

    def _expect_window(self, layer: str, workload: Conv | Pool) -> None:
        if workload.out_height < 1 or workload.out_width < 1:
            window, size = workload.kernel, (workload.height, workload.width)
            raise ModelShapeError(
                f"the layer {layer!r} has a {window[0]}x{window[1]} window that does not fit the "
                f"{size[0]}x{size[1]} map that reaches it: expected a model for {self._faces}"
            )


def _expect_indices(layer: str, batch: int, shape: Sequence[int]) -> None:
    """See that a map's values can be counted in 32 bits, as the kernels do."""
    values = math.prod(shape)
    if values > MOST_VALUES:
        raise ModelShapeError(
            f"the layer {layer!r} makes {values} values at batch {batch}: expected at "
            f"most {MOST_VALUES}; compile for smaller batches, which serve any number of faces"
        )
