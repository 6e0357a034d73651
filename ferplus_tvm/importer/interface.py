"""Which input takes the faces, what one face may be, and the freeing of the batch dimension."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import onnx
from onnx import TensorProto, helper

from ferplus_tvm.artifact.validate import CHANNELS, SIZES
from ferplus_tvm.errors import ModelShapeError

BATCH = "N"

Face = tuple[int, int, int]
"""(channels, height, width)"""


class Layout(Enum):
    """How an input holds a face."""

    NCHW = "(N, C, S, S)"
    NHWC = "(N, S, S, C)"
    NHW = "(N, S, S)"
    ROWS = "(N, S*S)"


@dataclass(frozen=True)
class Interface:
    """What the file says of its input.

    Attributes
    ----------
    batch
        The batch size that the file fixed, None if it fixed none.
    dims
        The other dimensions, None for those that it leaves open; None if it says nothing.
    description
        The input in words.
    channels
        The number of channels that the caller states, or None.
    """

    batch: int | None
    dims: tuple[int | None, ...] | None
    description: str
    channels: int | None

    def faces(self) -> Iterator[tuple[Face, Layout]]:
        """Yield every face that the input may take, and how it holds it."""
        for layout in Layout:
            channels = CHANNELS if layout in (Layout.NCHW, Layout.NHWC) else (1,)
            for count in channels:
                if self.channels not in (None, count):
                    continue
                for size in self._sizes(layout, count):
                    yield (count, size, size), layout

    def _sizes(self, layout: Layout, channels: int) -> list[int]:
        """Return the sizes for which the dimensions fit a layout."""
        return [size for size in SIZES if self._fits(_dims(layout, channels, size))]

    def _fits(self, wanted: tuple[int, ...]) -> bool:
        if self.dims is None:
            return len(wanted) == 3
        return len(wanted) == len(self.dims) and all(
            found in (None, size) for found, size in zip(self.dims, wanted, strict=True)
        )


def _dims(layout: Layout, channels: int, size: int) -> tuple[int, ...]:
    """Return the dimensions of an input after the batch."""
    match layout:
        case Layout.NCHW:
            return (channels, size, size)
        case Layout.NHWC:
            return (size, size, channels)
        case Layout.NHW:
            return (size, size)
        case Layout.ROWS:
            return (size * size,)


def free_interface(model: onnx.ModelProto, channels: int | None = None) -> Interface:
    """Find the one input, by its type and shape, and free its batch dimension.

    The dimensions of the output are left open too, since files often declare none or another
    batch; the real number of scores is worked out later.

    Parameters
    ----------
    model
        A model after `check_structure`, changed in place.
    channels
        The number of channels that the caller states, or None.

    Raises
    ------
    ModelShapeError
        If no input fits, if there is more than one, or if the file has other channels.
    """
    graph = model.graph
    interface = _interface(graph.input[0]) if len(graph.input) == 1 else None
    if interface is None or next(interface.faces(), None) is None:
        _refuse_more_than_faces(graph.input)
        found = ", ".join(_describe(value) for value in graph.input) or "none"
        raise ModelShapeError(
            f"the model's inputs in use are {found}, and exactly one of float32 "
            f"{Layout.NCHW.value}, {Layout.NHWC.value}, {Layout.NHW.value} or {Layout.ROWS.value} "
            f"is expected, with C of 1 or 3 channels and S from {SIZES[0]} to {SIZES[-1]}: export "
            "the network for one square face per row"
        )
    interface = replace(interface, channels=channels)
    if next(interface.faces(), None) is None:
        raise ModelShapeError(
            f"the model's input is {interface.description}, and channels={channels} is stated: "
            "leave channels out, or export the network for faces of so many"
        )
    open_dims = [None] * 3 if interface.dims is None else list(interface.dims)
    _declare(graph.input[0], [BATCH, *open_dims])
    shape = graph.output[0].type.tensor_type.shape
    _declare(graph.output[0], [None] * (len(shape.dim) or 2))
    return interface


def _refuse_more_than_faces(inputs: Sequence[onnx.ValueInfoProto]) -> None:
    """Name the inputs beside the one that takes the faces, if there are such."""
    fitting = [v for v in inputs if (found := _interface(v)) and next(found.faces(), None)]
    others = ", ".join(_describe(value) for value in inputs if value not in fitting)
    if len(fitting) == 1 and others:
        raise ModelShapeError(
            f"the model reads {others} beside its faces, {_describe(fitting[0])}, and is given "
            "faces alone: export it with all other numbers stored in the file (tf2onnx leaves "
            "those of a Keras Normalization layer out; Rescaling has none)"
        )


def _declare(value: onnx.ValueInfoProto, dims: list[str | int | None]) -> None:
    """Declare a value as float32 with these dimensions, None for open ones."""
    value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, dims))


def _interface(value: onnx.ValueInfoProto) -> Interface | None:
    """Return what the file says of an input, None if it cannot be one for faces."""
    tensor = value.type.tensor_type
    if tensor.elem_type != TensorProto.FLOAT:
        return None
    if not tensor.HasField("shape"):
        return Interface(None, None, _describe(value), None)
    dims = [
        int(dim.dim_value) if dim.HasField("dim_value") and dim.dim_value >= 0 else None
        for dim in tensor.shape.dim
    ]
    if not dims or dims[0] == 0:
        return None
    return Interface(dims[0], tuple(dims[1:]), _describe(value), None)


def _describe(value: onnx.ValueInfoProto) -> str:
    """Return name, element type and dimensions of an input."""
    tensor = value.type.tensor_type
    if tensor.elem_type not in TensorProto.DataType.values():
        return f"{value.name!r} of an unknown type"
    kind = TensorProto.DataType.Name(tensor.elem_type).lower()
    kind = {"float": "float32", "double": "float64"}.get(kind, kind)
    dims = [
        str(dim.dim_value) if dim.HasField("dim_value") else dim.dim_param or "?"
        for dim in tensor.shape.dim
    ]
    return f"{value.name!r} of {kind} ({', '.join(dims)})"
