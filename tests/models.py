"""
The FER+ network with random weights, as different tools write it down.

``make_weights`` draws one dict of arrays; every builder turns such a dict into a model of the
same network, so that all of them give the same scores.  ``width`` divides the channels: 8 makes
a network that is quick to build, compile and run, 1 the real size.

``official`` follows the names, the order and the attributes of the model zoo's files (model.onnx
of emotion_ferplus, opset 2, 7 and 8); the others follow PyTorch and common converters.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from tests.network import (
    CONVOLUTIONS,
    DENSE,
    FEATURES,
    INPUT,
    OUTPUT,
    TIDY_OPS,
    Weights,
    faces,
    make_weights,
    raw_tensor,
    value,
)
from tests.official import official

__all__ = [
    "COMPILED",
    "CONVOLUTIONS",
    "DENSE",
    "FEATURES",
    "INPUT",
    "NEWEST",
    "OUTPUT",
    "SCALINGS",
    "TIDY_OPS",
    "VARIANTS",
    "Weights",
    "constants_in_nodes",
    "dropout_masks",
    "external_data",
    "faces",
    "identities",
    "make_weights",
    "official",
    "pytorch_style",
    "raw_tensor",
    "stored_as",
    "transposed_weights",
    "untidy_declarations",
    "value",
]

# --- the same network from other tools -------------------------------------------------------

Step = tuple[str, NDArray[np.float32]]
SCALINGS: dict[str, list[Step]] = {
    "sub-div": [("Sub", np.float32(127.5)), ("Div", np.float32(127.5))],
    "div-sub-div": [("Div", np.float32(255)), ("Sub", np.float32(0.5)), ("Div", np.float32(0.5))],
    "mul-add": [("Mul", np.float32([1 / 127.5])), ("Add", np.float32([[[[-1]]]]))],
    "add-mul": [("Add", np.float32([[[-127.5]]])), ("Mul", np.float32([[[[1 / 127.5]]]]))],
    "reversed-sub": [("RSub", np.float32(127.5)), ("Mul", np.float32(-1 / 127.5))],
}  # fmt: skip


class _Builder:
    """Collects nodes and initializers, and names values one after the other."""

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.nodes: list[NodeProto] = []
        self.stored: dict[str, NDArray[Any]] = {}

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = f"/{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [f"{name}_out"], name=name, **attributes))
        return f"{name}_out"

    def store(self, name: str, array: NDArray[Any]) -> str:
        self.stored[name] = array
        return name

    def unsqueeze(self, source: str) -> str:
        if self.opset < 13:
            return self.add("Unsqueeze", source, axes=[0])
        return self.add("Unsqueeze", source, self.store("axes", np.array([0], np.int64)))

    def flatten(self, source: str, how: str, batch: int | str, rows: int) -> str:
        """Write the step from (N, C, 4, 4) to (N, rows) in one of the ways that exporters have."""
        if how == "flatten":
            return self.add("Flatten", source, axis=1)
        if how == "shape-gather-concat":  # x.view(x.size(0), -1)
            count = self.store("zero", np.array(0, np.int64))
            first = self.unsqueeze(self.add("Gather", self.add("Shape", source), count, axis=0))
            rest = self.store("minus_one", np.array([-1], np.int64))
            return self.add("Reshape", source, self.add("Concat", first, rest, axis=0))
        target = {
            "zero": [0, -1],
            "minus-one": [-1, rows],
            "number": [batch if isinstance(batch, int) else 1, -1],
        }[how]
        return self.add("Reshape", source, self.store("target", np.array(target, np.int64)))


def pytorch_style(
    weights: Weights,
    opset: int = 17,
    *,
    batch: int | str = "batch_size",
    flatten: str = "flatten",
    scaling: str = "sub-div",
    dense: str = "gemm-transposed",
    norm: str = "none",
    activation: str = "Relu",
) -> onnx.ModelProto:
    """
    Build the network as ``torch.onnx.export`` writes it, with choices for each part.

    ``flatten`` names a way of `_Builder.flatten`, ``scaling`` one of SCALINGS, ``dense`` is
    "gemm-transposed", "gemm" or "matmul", ``norm`` is "none", "bias" or "no-bias" (whether the
    convolutions before the BatchNormalization have one), ``activation`` is "Relu" or "Clip".
    """
    build = _Builder(opset)
    rng = np.random.default_rng(7)

    def relu(source: str) -> str:
        if activation == "Relu":
            return build.add("Relu", source)
        if opset < 11:
            return build.add("Clip", source, min=0.0)
        return build.add("Clip", source, build.store("low", np.array(0, np.float32)))

    current = "input"
    for index, (op, number) in enumerate(SCALINGS[scaling]):
        name = build.store(f"scaling_{index}", np.asarray(number, np.float32))
        operands = (name, current) if op == "RSub" else (current, name)
        current = build.add(op.removeprefix("R"), *operands)
    for index, layer in enumerate(FEATURES):
        if len(layer) == 2:
            current = build.add("MaxPool", current, kernel_shape=[2, 2], strides=[2, 2])
            continue
        weight, bias = weights[layer[3]], weights[layer[4]].reshape(-1)
        prefix, extra = f"features.{index}", {}
        if norm != "none":
            weight, bias, extra = _unfold(rng, weight, bias, keep_bias=norm == "bias")
        inputs = [build.store(f"{prefix}.weight", weight)]
        if norm != "no-bias":
            inputs.append(build.store(f"{prefix}.bias", bias))
        current = build.add("Conv", current, *inputs, kernel_shape=[3, 3], pads=[1, 1, 1, 1],
                            strides=[1, 1], dilations=[1, 1], group=1)  # fmt: skip
        if extra:
            names = [build.store(f"{prefix}.{key}", array) for key, array in extra.items()]
            current = build.add("BatchNormalization", current, *names, epsilon=1e-3)
        current = relu(current)
    first = weights["Parameter1367"]
    rows = first.size // first.shape[-1]
    current = build.flatten(current, flatten, batch, rows)
    for index, (_, _, active, _, weight_name, bias_name) in enumerate(DENSE):
        matrix = weights[weight_name].reshape(-1, weights[weight_name].shape[-1])
        bias = build.store(f"classifier.{index}.bias", weights[bias_name])
        name = f"classifier.{index}.weight"
        if dense == "matmul":
            product = build.add("MatMul", current, build.store(name, matrix))
            current = build.add("Add", bias, product)
        elif dense == "gemm":
            current = build.add("Gemm", current, build.store(name, matrix), bias)
        else:
            current = build.add("Gemm", current, build.store(name, matrix.T), bias, alpha=1.0,
                                beta=1.0, transB=1)  # fmt: skip
        if active is not None:
            current = relu(current)
    build.nodes[-1].output[0] = "scores"
    graph = helper.make_graph(
        build.nodes, "main_graph", [value("input", [batch, 1, 64, 64])],
        [value("scores", [batch, 8])],
        [raw_tensor(name, array) for name, array in build.stored.items()],
    )  # fmt: skip
    return helper.make_model(
        graph,
        ir_version=10 if opset < 25 else onnx.IR_VERSION,
        opset_imports=[helper.make_opsetid("", opset)],
        producer_name="pytorch",
    )


def _unfold(
    rng: np.random.Generator, weight: NDArray[Any], bias: NDArray[Any], *, keep_bias: bool
) -> tuple[NDArray[Any], NDArray[Any], dict[str, NDArray[Any]]]:
    """Take a convolution apart into one and a BatchNormalization (epsilon 1e-3) after it."""
    channels = weight.shape[0]
    scale, variance = rng.uniform(0.5, 2, (2, channels))
    mean = rng.normal(0, 0.5, channels)
    own = rng.normal(0, 0.5, channels) if keep_bias else np.zeros(channels)
    factor = scale / np.sqrt(variance + 1e-3)
    shift = bias - (own - mean) * factor
    parameters = {"scale": scale, "shift": shift, "mean": mean, "var": variance}
    return (
        (weight / factor[:, None, None, None]).astype(np.float32),
        own.astype(np.float32),
        {key: array.astype(np.float32) for key, array in parameters.items()},
    )


# --- changes to a finished model -------------------------------------------------------------


def constants_in_nodes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Move every initializer into a Constant node."""
    constants = [
        helper.make_node("Constant", [], [tensor.name], value=tensor)
        for tensor in model.graph.initializer
    ]
    return _with_nodes_first(model, constants, [])


def stored_as(model: onnx.ModelProto, kind: type[np.generic]) -> onnx.ModelProto:
    """Store every float32 array of more than one element as ``kind``, with a Cast for each."""
    casts, stored = [], []
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32 and array.size > 1:
            short = f"{tensor.name}_stored"
            casts.append(helper.make_node("Cast", [short], [tensor.name], to=TensorProto.FLOAT))
            tensor = raw_tensor(short, array.astype(kind))
        stored.append(tensor)
    return _with_nodes_first(model, casts, stored)


def transposed_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store every weight of two or more dimensions transposed, with a Transpose for each."""
    nodes, stored = [], []
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.ndim >= 2:
            turned = f"{tensor.name}_turned"
            order = list(range(array.ndim))[::-1]
            nodes.append(helper.make_node("Transpose", [turned], [tensor.name], perm=order))
            tensor = raw_tensor(turned, array.T)
        stored.append(tensor)
    return _with_nodes_first(model, nodes, stored)


def identities(model: onnx.ModelProto) -> onnx.ModelProto:
    """Put an Identity before every node, and one before the output."""
    nodes: list[NodeProto] = []
    for index, node in enumerate(model.graph.node):
        nodes.append(helper.make_node("Identity", [node.input[0]], [f"same_{index}"]))
        node.input[0] = f"same_{index}"
        nodes.append(node)
    nodes[-1].output[0] = "before_output"
    nodes.append(helper.make_node("Identity", ["before_output"], [model.graph.output[0].name]))
    return _with_nodes(model, nodes)


def dropout_masks(model: onnx.ModelProto) -> onnx.ModelProto:
    """Put a Dropout with a mask, which nobody reads, behind every Relu."""
    nodes: list[NodeProto] = []
    for index, node in enumerate(model.graph.node):
        nodes.append(node)
        if node.op_type == "Relu":
            target, node.output[0] = node.output[0], f"active_{index}"
            nodes.append(
                helper.make_node("Dropout", [f"active_{index}"], [target, f"mask_{index}"])
            )
    return _with_nodes(model, nodes)


def untidy_declarations(model: onnx.ModelProto) -> onnx.ModelProto:
    """Leave names of nodes empty, declare wrong shapes, and add initializers that nobody reads."""
    for node in model.graph.node:
        node.name = ""
    model.graph.value_info.append(value(model.graph.node[2].output[0], [7, 7]))
    model.graph.output[0].CopyFrom(value(model.graph.output[0].name, None))
    model.graph.initializer.append(raw_tensor("unused", np.zeros(3, np.float32)))
    strange = TensorProto(name="unused_text", data_type=TensorProto.STRING, dims=[1])
    strange.string_data.append(b"text")
    model.graph.initializer.append(strange)
    return model


def external_data(weights: Weights, path: Path) -> None:
    """Write the PyTorch style model to ``path`` with its weights in ``path``.data beside it."""
    onnx.save_model(
        pytorch_style(weights), path, save_as_external_data=True,
        location=f"{path.name}.data", size_threshold=64,
    )  # fmt: skip


def _with_nodes(model: onnx.ModelProto, nodes: list[NodeProto]) -> onnx.ModelProto:
    """Return ``model`` with other nodes."""
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    return model


def _with_nodes_first(
    model: onnx.ModelProto, nodes: list[NodeProto], stored: list[TensorProto]
) -> onnx.ModelProto:
    """Return ``model`` with other initializers and with nodes before its own."""
    copies = [TensorProto.FromString(tensor.SerializeToString()) for tensor in stored]
    model = _with_nodes(model, [*nodes, *model.graph.node])
    del model.graph.initializer[:]
    model.graph.initializer.extend(copies)
    return model


NEWEST = onnx.defs.onnx_opset_version()
VARIANTS: dict[str, Callable[[Weights], onnx.ModelProto]] = {
    "official-8": lambda w: official(w, 8),
    "official-8-mul": lambda w: official(w, 8, scaling="Mul"),
    "official-7": lambda w: official(w, 7),
    "official-2": lambda w: official(w, 2),
    "official-batch-8": lambda w: official(w, 8, batch=8),
    "pytorch-9": lambda w: pytorch_style(w, 9),
    "pytorch-11": lambda w: pytorch_style(w, 11),
    "pytorch-13": lambda w: pytorch_style(w, 13),
    "pytorch-17": pytorch_style,
    "pytorch-21": lambda w: pytorch_style(w, 21),
    "pytorch-newest": lambda w: pytorch_style(w, NEWEST),
    "pytorch-batch-1": lambda w: pytorch_style(w, batch=1),
    "reshape-zero": lambda w: pytorch_style(w, flatten="zero"),
    "reshape-minus-one": lambda w: pytorch_style(w, flatten="minus-one"),
    "reshape-number": lambda w: pytorch_style(w, flatten="number", batch=1),
    "reshape-computed": lambda w: pytorch_style(w, flatten="shape-gather-concat"),
    "reshape-computed-9": lambda w: pytorch_style(w, 9, flatten="shape-gather-concat"),
    "reshape-computed-newest": lambda w: pytorch_style(w, NEWEST, flatten="shape-gather-concat"),
    "gemm": lambda w: pytorch_style(w, dense="gemm"),
    "matmul": lambda w: pytorch_style(w, dense="matmul"),
    "batchnorm": lambda w: pytorch_style(w, norm="bias"),
    "batchnorm-no-bias": lambda w: pytorch_style(w, norm="no-bias"),
    "batchnorm-7": lambda w: pytorch_style(w, 7, norm="bias"),
    "batchnorm-9": lambda w: pytorch_style(w, 9, norm="bias"),
    "clip": lambda w: pytorch_style(w, activation="Clip"),
    "clip-7": lambda w: pytorch_style(w, 7, activation="Clip"),
    "clip-9": lambda w: pytorch_style(w, 9, activation="Clip"),
    "scaling-div-sub-div": lambda w: pytorch_style(w, scaling="div-sub-div"),
    "scaling-mul-add": lambda w: pytorch_style(w, scaling="mul-add"),
    "scaling-add-mul": lambda w: pytorch_style(w, scaling="add-mul"),
    "scaling-reversed-sub": lambda w: pytorch_style(w, scaling="reversed-sub"),
    "constants": lambda w: constants_in_nodes(pytorch_style(w)),
    "half": lambda w: stored_as(pytorch_style(w), np.float16),
    "half-official": lambda w: stored_as(_ir4(official(w)), np.float16),
    "double": lambda w: stored_as(pytorch_style(w), np.float64),
    "transposed": lambda w: transposed_weights(pytorch_style(w)),
    "identities": lambda w: identities(pytorch_style(w)),
    "dropout-masks": lambda w: dropout_masks(pytorch_style(w)),
    "untidy-declarations": lambda w: untidy_declarations(pytorch_style(w)),
}

# Those that are compiled and run; the compiler cannot tell the others from them.
COMPILED = ("official-8", "pytorch-17", "batchnorm")


def _ir4(model: onnx.ModelProto) -> onnx.ModelProto:
    """Take the initializers off the list of inputs, as IR 4 allows."""
    model.ir_version = 4
    del model.graph.input[1:]
    return model
