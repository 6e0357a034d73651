"""A graph with branches as a Relax function ``name(x, weights...)``, operator by operator.

As for a tidy graph, weights are parameters, never constants: the library maps them from its own
file, where the functions of several input sizes share them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from ferplus_tvm.errors import UnsupportedModelError
from ferplus_tvm.importer.graph import Graph, Node
from ferplus_tvm.importer.relax import BLOCK_BUILDER_LOCK
from ferplus_tvm.importer.window import Window, window_of
from ferplus_tvm.importer.wording import first_line


@dataclass(frozen=True)
class GeneralFunction:
    """A Relax function, and the weights that it takes.

    Attributes
    ----------
    module
        An ``IRModule`` that holds the function alone.
    weights
        The weights by name, in the order of the parameters after the input.
    """

    module: Any
    weights: dict[str, NDArray[np.float32]]


def to_relax(graph: Graph, name: str, input_type: str = "float32") -> GeneralFunction:
    """Translate a graph of fixed shapes.

    Parameters
    ----------
    graph
        The graph; its input's first dimension is the batch, of 1.
    name
        The name of the function.
    input_type
        The type of the input's elements.

    Raises
    ------
    UnsupportedModelError
        For an operator, or a use of one, that is not among those below.
    """
    from tvm import relax

    weights: dict[str, NDArray[np.float32]] = {}
    variables: dict[str, Any] = {}
    for node in graph.nodes:
        for wanted, at in (("weight", 1), ("bias", 2)) if node.op == "Conv" else ():
            value = graph.constants.get(node.inputs[at]) if len(node.inputs) > at else None
            if value is None and at == 1:
                raise _refusal(node, "has weights that are computed")
            if value is not None:
                content = value.reshape((1, -1, 1, 1)) if wanted == "bias" else value
                stored = f"{node.name}.{wanted}"
                weights[stored] = content
                variables[stored] = relax.Var(stored, relax.TensorType(content.shape, "float32"))
    x = relax.Var("x", relax.TensorType((1, *graph.input_shape), input_type))
    builder = relax.BlockBuilder()
    values = {graph.input: x}
    translator = _Translator(graph, values, variables, builder.emit)
    refusal: UnsupportedModelError | None = None
    with BLOCK_BUILDER_LOCK, builder.function(name, [x, *variables.values()]):
        with builder.dataflow():
            # A refusal is raised below, since TVM wants its blocks closed.
            try:
                for node in graph.nodes:
                    values[node.outputs[0]] = translator.translate(node)
            except UnsupportedModelError as error:
                refusal = error
            except Exception as error:  # of many classes, from TVM
                reason = first_line(error).split(". ")[0]
                refusal = _refusal(node, f"does not fit what it reads ({reason})")
            result = builder.emit_output(x if refusal else values[graph.output])
        builder.emit_func_output(result)
    if refusal is not None:
        raise refusal
    return GeneralFunction(builder.get(), weights)


@dataclass(frozen=True)
class _Translator:
    """Translates the nodes of a graph.

    Attributes
    ----------
    graph
        The graph.
    values
        What has been translated, by the names of the values.
    weights
        The parameters.
    emit
        Binds an expression to a variable, which then knows its shape.
    """

    graph: Graph
    values: dict[str, Any]
    weights: dict[str, Any]
    emit: Callable[[Any], Any]

    def translate(self, node: Node) -> Any:
        from tvm.relax import op

        inputs = [self.values[name] for name in node.inputs if name in self.values]
        given = node.attributes
        match node.op:
            case "Conv":
                return self._conv(node, inputs[0])
            case "Relu":
                return self.emit(op.nn.relu(inputs[0]))
            case "Sigmoid":
                return self.emit(op.sigmoid(inputs[0]))
            case "Add" if len(inputs) == 2:
                return self.emit(op.add(*inputs))
            case "Concat" if len(inputs) == len(node.inputs):
                return self.emit(op.concat(inputs, given["axis"]))
            case "Transpose":
                return self.emit(op.permute_dims(inputs[0], given["perm"]))
            case "Reshape":
                return self.emit(op.reshape(inputs[0], self._new_shape(node, inputs[0])))
            case "MaxPool":
                return self._max_pool(node, inputs[0])
            case "Resize":
                return self._resize(node, inputs[0])
            case "Cast" if given["to"] == TensorProto.FLOAT:
                return self.emit(op.astype(inputs[0], "float32"))
        raise _refusal(node, "is an operator, or a use of one, that is not supported in a branch")

    def _conv(self, node: Node, x: Any) -> Any:
        from tvm.relax import op

        weight = self.weights[f"{node.name}.weight"]
        window = self._window(node, x, _shape(weight)[2:])
        made = op.nn.conv2d(
            x,
            weight,
            strides=list(window.strides),
            padding=list(window.pads),
            dilation=list(window.dilations),
            groups=int(node.attributes.get("group", 1)),
        )
        made = self._expected(node, made, window)
        bias = self.weights.get(f"{node.name}.bias")
        return made if bias is None else self.emit(op.add(made, bias))

    def _max_pool(self, node: Node, x: Any) -> Any:
        from tvm.relax import op

        window = self._window(node, x, tuple(node.attributes["kernel_shape"]))
        made = op.nn.max_pool2d(
            x,
            pool_size=list(window.kernel),
            strides=list(window.strides),
            padding=list(window.pads),
            dilation=list(window.dilations),
            ceil_mode=bool(node.attributes.get("ceil_mode", 0)),
        )
        return self._expected(node, made, window)

    def _expected(self, node: Node, made: Any, window: Window) -> Any:
        """Emit maps, which have to be of the size that ONNX says."""
        made = self.emit(made)
        if _shape(made)[2:] != window.output:
            raise _refusal(node, "has a window that lies beyond what it reads")
        return made

    def _window(self, node: Node, x: Any, kernel: tuple[int, ...]) -> Window:
        size = _shape(x)[2:]
        if len(size) != 2 or len(kernel) != 2:
            raise _refusal(node, "has another number of dimensions than two")
        return window_of(node, (kernel[0], kernel[1]), (size[0], size[1]))

    def _resize(self, node: Node, x: Any) -> Any:
        """Return maps enlarged by whole factors, each pixel repeated."""
        from tvm.relax import op

        for axis, factor in enumerate(whole_factors(self.graph, node, _shape(x)), 2):
            if factor > 1:
                x = self.emit(op.repeat(x, factor, axis))
        return x

    def _new_shape(self, node: Node, x: Any) -> tuple[int, ...]:
        """Return the shape that a Reshape asks for, whose 0 keeps a dimension."""
        wanted = [int(size) for size in _stored(self.graph, node, 1)]
        old = _shape(x)
        keep = not node.attributes.get("allowzero", 0)
        if not wanted or any(size == 0 and (not keep or at >= len(old))
                             for at, size in enumerate(wanted)):  # fmt: skip
            raise _refusal(node, "has a shape that is computed, or cannot be")
        return tuple(size or old[at] for at, size in enumerate(wanted))


def whole_factors(graph: Graph, node: Node, shape: tuple[int, ...]) -> tuple[int, int]:
    """Return by what a Resize node enlarges height and width, each pixel repeated.

    Raises
    ------
    UnsupportedModelError
        If it does something else.
    """
    given = {"mode": "nearest", "nearest_mode": "round_prefer_floor",
             "coordinate_transformation_mode": "half_pixel", **node.attributes}  # fmt: skip
    scales = _stored(graph, node, 2)
    sizes = _stored(graph, node, 3)
    if sizes.size == 4 and not scales.size:
        scales = sizes / np.array(shape)
    # With whole factors these ways of counting all repeat each pixel.
    repeats = given["mode"] == "nearest" and (
        (given["coordinate_transformation_mode"] == "asymmetric"
         and given["nearest_mode"] == "floor")
        or (given["coordinate_transformation_mode"] == "half_pixel"
            and given["nearest_mode"].startswith("round"))
    )  # fmt: skip
    whole = len(shape) == 4 == scales.size and (scales == scales.round()).all()
    if not repeats or not whole or (scales[:2] != 1).any() or (scales < 1).any():
        raise _refusal(node, "resizes in another way than by repeating whole pixels")
    return int(scales[2]), int(scales[3])


def _stored(graph: Graph, node: Node, at: int) -> NDArray[Any]:
    """Return a stored input, empty where it is left out."""
    name = node.inputs[at] if len(node.inputs) > at else ""
    if name and name not in graph.constants:
        raise _refusal(node, f"computes its input {name!r} from others")
    return graph.constants.get(name, np.empty(0))


def _shape(x: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in x.ty.shape)


def _refusal(node: Node, what: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{node} {what}: expected Conv, Relu, Sigmoid, Add, Concat, Transpose, Reshape, MaxPool "
        "and Resize by whole factors, as an export for inference with a fixed input has them"
    )
