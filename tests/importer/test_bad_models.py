"""ONNX models that are not FER+ end in one sentence that names the part and the next step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from ferplus_tvm.errors import ModelError, ModelFileError, ModelShapeError, UnsupportedModelError
from ferplus_tvm.importer import load_model
from tests.models import VARIANTS, make_weights, pytorch_style, raw_tensor, value

WEIGHTS = make_weights(width=64)


def model(**options: Any) -> ModelProto:
    return pytorch_style(WEIGHTS, **options)


def node(made: ModelProto, op: str, index: int = 0) -> NodeProto:
    return [n for n in made.graph.node if n.op_type == op][index]


def tensor(made: ModelProto, name: str) -> TensorProto:
    return next(t for t in made.graph.initializer if t.name == name)


def append(made: ModelProto, op: str, extra: tuple[str, ...] = (), **attributes: Any) -> None:
    """Put an operator behind the scores; it then makes the output."""
    made.graph.node[-1].output[0] = "raw"
    made.graph.node.append(
        helper.make_node(op, ["raw", *extra], ["scores"], name="last", **attributes)
    )


def insert(made: ModelProto, op: str, **attributes: Any) -> None:
    """Put an operator behind the first Relu."""
    at = list(made.graph.node).index(node(made, "Relu"))
    target = made.graph.node[at].output[0]
    made.graph.node[at].output[0] = "between"
    domain = attributes.pop("domain", "")
    new = helper.make_node(op, ["between"], [target], name="odd", domain=domain, **attributes)
    made.graph.node.insert(at + 1, new)


def refused(made: ModelProto, error: type[ModelError], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        load_model(made.SerializeToString())
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "kind", "found"),
    [
        (["N", 2, 64, 64], TensorProto.FLOAT, r"'input' of float32 \(N, 2, 64, 64\)"),
        (["N", 1, 48, 64], TensorProto.FLOAT, r"\(N, 1, 48, 64\)"),
        (["N", 64, 64, 2], TensorProto.FLOAT, r"\(N, 64, 64, 2\)"),
        (["N", 4097], TensorProto.FLOAT, r"\(N, 4097\)"),
        (["N", 12288], TensorProto.FLOAT, r"\(N, 12288\)"),
        (["N", 225, 225], TensorProto.FLOAT, r"\(N, 225, 225\)"),
        ([64], TensorProto.FLOAT, r"\(64\)"),
        (["N", 1, 64, 64], TensorProto.INT8, r"'input' of int8"),
        (["N", 1, 64, 64], TensorProto.BOOL, r"'input' of bool"),
    ],
)
def test_wrong_input(shape: list[Any], kind: int, found: str) -> None:
    made = model()
    made.graph.input[0].CopyFrom(value("input", shape, kind))
    refused(made, ModelShapeError, rf"{found}.*exactly one of float32 \(N, C, S, S\)")


def test_two_inputs_in_use() -> None:
    made = model()
    made.graph.input.append(value("other", ["N", 1, 64, 64]))
    made.graph.node.append(helper.make_node("Add", ["input", "other"], ["sum"]))
    node(made, "Conv").input[0] = "sum"
    refused(made, ModelShapeError, "'input'.*'other'")


def test_an_input_that_nobody_reads_does_not_matter() -> None:
    made = model()
    made.graph.input.append(value("is_training", [], TensorProto.BOOL))
    assert load_model(made.SerializeToString()).input_name == "input"


@pytest.mark.parametrize("shape", [None, ["N", 1, "H", "W"], [8, 1, 64, 64], [None] * 4])
def test_open_dimensions_of_the_input_fit(shape: list[Any] | None) -> None:
    made = model()
    made.graph.input[0].CopyFrom(value("input", shape))
    dims = load_model(made.SerializeToString()).proto.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in dims] == ["N", 1, 64, 64]


@pytest.mark.parametrize(
    ("op", "domain"),
    [("QLinearConv", ""), ("QLinearMatMul", ""), ("QuantizeLinear", ""), ("DequantizeLinear", ""),
     ("DynamicQuantizeLinear", ""), ("QLinearAdd", "com.microsoft"),
     ("MatMulNBits", "com.microsoft"), ("ConvInteger", "")],
)  # fmt: skip
def test_quantized(op: str, domain: str) -> None:
    made = model()
    insert(made, op, domain=domain)
    refused(made, UnsupportedModelError, f"quantized.*{op} node 'odd'.*later release.*float32")


@pytest.mark.parametrize("op", ["Sigmoid", "Exp", "Elu", "LRN"])
def test_unsupported_operator(op: str) -> None:
    made = model()
    insert(made, op, **({"size": 3} if op == "LRN" else {}))
    refused(made, UnsupportedModelError, f"{op} node 'odd' is not supported")


@pytest.mark.parametrize(
    ("op", "attributes", "message"),
    [
        (
            "MaxPool",
            {"dilations": [2, 2], "pads": [0, 0, 1, 1]},
            "MaxPool node .*without dilations",
        ),
        ("MaxPool", {"ceil_mode": 1, "pads": [0, 0, 1, 1]}, "MaxPool node .*rounding up"),
        ("Conv", {"auto_pad": "SOME"}, "Conv node .*auto_pad='SOME'"),
        ("Conv", {"pads": [1, 1]}, "Conv node .*pads"),
        ("Gemm", {"transA": 1}, "Gemm node"),
    ],
)
def test_unsupported_attribute(op: str, attributes: dict[str, Any], message: str) -> None:
    made = model()
    changed = node(made, op)
    for name, setting in attributes.items():
        for index in reversed(range(len(changed.attribute))):
            if changed.attribute[index].name == name:
                del changed.attribute[index]
        changed.attribute.append(helper.make_attribute(name, setting))
    refused(made, UnsupportedModelError, message)


def test_mean_picture() -> None:
    made = model()
    mean = np.linspace(0, 255, 64 * 64, dtype=np.float32).reshape(1, 1, 64, 64)
    tensor(made, "scaling_0").CopyFrom(raw_tensor("scaling_0", mean))
    refused(made, UnsupportedModelError, r"Sub node '/sub_0'.*\(1, 1, 64, 64\)")


def test_branches() -> None:
    made = model()
    first, second = node(made, "Relu"), node(made, "Relu", 1)
    join = helper.make_node("Add", [second.output[0], first.output[0]], ["sum"])
    at = list(made.graph.node).index(second)
    made.graph.node.insert(at + 1, join)
    node(made, "MaxPool").input[0] = "sum"
    refused(made, UnsupportedModelError, "is read by Conv node .* and Add node .*without branches")


def test_batchnorm_per_activation() -> None:
    made = VARIANTS["batchnorm-9"](WEIGHTS)
    made.opset_import[0].version = 8
    for item in made.graph.node:
        if item.op_type == "BatchNormalization":
            item.attribute.append(helper.make_attribute("spatial", 0))
    refused(made, UnsupportedModelError, "BatchNormalization node .*spatial=0")


def test_control_flow() -> None:
    made = model()
    body = helper.make_graph(
        [helper.make_node("Relu", ["raw"], ["z"])], "b", [], [value("z", None)]
    )
    made.graph.initializer.append(raw_tensor("flag", np.array(True)))
    made.graph.node[-1].output[0] = "raw"
    made.graph.node.append(
        helper.make_node("If", ["flag"], ["scores"], "choice", then_branch=body, else_branch=body)
    )
    refused(made, UnsupportedModelError, "If node 'choice' is control flow")


def test_sparse_weights() -> None:
    made = model()
    name = node(made, "Conv").input[1]
    made.graph.initializer.remove(tensor(made, name))
    sparse = made.graph.sparse_initializer.add()
    sparse.values.CopyFrom(raw_tensor(name, np.ones(1, np.float32)))
    sparse.indices.CopyFrom(raw_tensor("indices", np.zeros(1, np.int64)))
    sparse.dims.extend([1 << 40])
    refused(made, UnsupportedModelError, "sparse")


@pytest.mark.parametrize("kind", [np.int32, np.int8])
def test_weights_that_are_not_float32(kind: type[np.generic]) -> None:
    made = model()
    name = node(made, "Conv").input[1]
    array = numpy_helper.to_array(tensor(made, name)).astype(kind)
    tensor(made, name).CopyFrom(raw_tensor(name, array))
    refused(made, UnsupportedModelError, f"'{name}'.*{np.dtype(kind)}.*float32")


def test_weights_of_a_type_without_numbers() -> None:
    made = model()
    name = node(made, "Conv").input[2]
    count = len(numpy_helper.to_array(tensor(made, name)))
    text = TensorProto(name=name, data_type=TensorProto.STRING, dims=[count])
    text.string_data.extend([b"1"] * count)
    tensor(made, name).CopyFrom(text)
    refused(made, UnsupportedModelError, f"'{name}' is of string")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("variant", ["pytorch-17", "constants", "batchnorm"])
def test_weights_that_are_not_finite(variant: str, bad: float) -> None:
    made = VARIANTS[variant](WEIGHTS)
    name = "features.0.var" if variant == "batchnorm" else "features.3.weight"
    owners = [t for t in made.graph.initializer if t.name == name]
    owners += [n.attribute[0].t for n in made.graph.node if n.output[0] == name]
    (owner,) = owners
    array = numpy_helper.to_array(owner).copy()
    array.flat[0] = bad
    owner.CopyFrom(raw_tensor(name, array))
    refused(made, UnsupportedModelError, f"'{name}' holds 1 of .* NaN or infinite")


def test_a_negative_variance_is_found() -> None:
    made = VARIANTS["batchnorm"](WEIGHTS)
    array = numpy_helper.to_array(tensor(made, "features.0.var"))
    tensor(made, "features.0.var").CopyFrom(raw_tensor("features.0.var", -array))
    refused(made, UnsupportedModelError, "BatchNormalization node.*NaN")


def test_cycle() -> None:
    made = model()
    node(made, "Conv", 1).input[0] = node(made, "Relu", 4).output[0]
    refused(made, ModelFileError, "depends on its own output")


def test_missing_value() -> None:
    made = model()
    made.graph.initializer.remove(tensor(made, "features.3.weight"))
    refused(made, ModelFileError, "Conv node .* reads 'features.3.weight', which nothing produces")


def test_value_defined_twice() -> None:
    made = model()
    made.graph.initializer.append(tensor(made, "features.3.weight"))
    refused(made, ModelFileError, "'features.3.weight' is defined 2 times")


def test_nodes_out_of_order_are_sorted() -> None:
    made = model()
    shuffled = [NodeProto.FromString(n.SerializeToString()) for n in made.graph.node][::-1]
    del made.graph.node[:]
    made.graph.node.extend(shuffled)
    tidy = load_model(made.SerializeToString()).proto
    assert tidy == load_model(model().SerializeToString()).proto


def test_layers_that_do_not_fit_together() -> None:
    made = model()
    node(made, "Conv", 3).input[0] = node(made, "Conv", 0).output[0]
    refused(made, ModelShapeError, r"Conv node '/conv_9' has weights of shape \(2, 2, 3, 3\)")


def test_opset_of_the_future() -> None:
    made = model()
    made.opset_import[0].version = onnx.defs.onnx_opset_version() + 1
    refused(made, UnsupportedModelError, "newer onnx, or export the model with opset 17")


def test_no_standard_opset() -> None:
    made = model()
    made.opset_import[0].domain = "ai.onnx.ml"
    refused(made, ModelFileError, "no version of the ONNX operator set")


@pytest.mark.parametrize(
    "change",
    [
        lambda n: n.input.append("input"),
        lambda n: n.attribute.append(helper.make_attribute("a", 1)),
    ],
)
def test_a_node_that_is_not_valid(change: Callable[[NodeProto], None]) -> None:
    made = model()
    change(node(made, "Relu"))
    refused(made, ModelFileError, "not valid ONNX")


def test_far_too_many_nodes() -> None:
    made = model()
    made.graph.node.extend([helper.make_node("Relu", ["input"], [f"r{i}"]) for i in range(6000)])
    refused(made, UnsupportedModelError, "operators and at most 5000")


def test_an_output_that_is_a_constant() -> None:
    made = model()
    made.graph.node[-1].input[0] = "rows"
    made.graph.initializer.append(raw_tensor("rows", np.ones((1, 16), np.float32)))
    refused(made, ModelShapeError, "inputs in use are none")
