"""Each rule for opset 1 to 6, number by number; numpy and onnx's evaluator are the judges."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from ferplus_tvm.errors import UnsupportedModelError
from ferplus_tvm.importer.legacy import upgrade_legacy
from tests.models import raw_tensor, value

X = np.random.default_rng(3).uniform(1, 2, (2, 3, 4, 5)).astype(np.float32)


def upgraded(op: str, inputs: str, stored: dict[str, Any], **attributes: Any) -> onnx.ModelProto:
    node = helper.make_node(op, inputs.split(), ["y"], **attributes)
    tensors = [raw_tensor(name, np.asarray(array)) for name, array in stored.items()]
    made = helper.make_graph([node], "g", [value("x", X.shape)], [value("y", None)], tensors)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 5)], ir_version=8)
    upgrade_legacy(model)
    model.opset_import[0].version = 7
    return model


def result(model: onnx.ModelProto) -> NDArray[Any]:
    model.graph.output[0].CopyFrom(onnx.ValueInfoProto(name="y"))
    (found,) = ReferenceEvaluator(model).run(None, {"x": X})
    return np.asarray(found)


@pytest.mark.parametrize(
    ("shape", "axis", "aligned"),
    [((3,), 1, (3, 1, 1)), ((3, 4), 1, (3, 4, 1)), ((2,), 0, (2, 1, 1, 1)), ((4, 5), 2, (4, 5)),
     ((5,), -1, (5,)), ((), 1, ())],
)  # fmt: skip
@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
def test_1_broadcast_along_an_axis(
    op: str, shape: tuple[int, ...], axis: int, aligned: tuple[int, ...]
) -> None:
    b = np.random.default_rng(4).uniform(1, 2, shape).astype(np.float32)
    model = upgraded(op, "x b", {"b": b}, axis=axis, broadcast=1)
    function = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}[op]
    np.testing.assert_allclose(result(model), function(X, b.reshape(aligned)), rtol=1e-6)
    assert [node.op_type for node in model.graph.node][-1] == op
    assert not model.graph.node[-1].attribute


def test_1_an_axis_that_does_not_fit_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match=r"Add node.*axis 3"):
        upgraded("Add", "x b", {"b": np.ones((4, 5), np.float32)}, axis=3, broadcast=1)


def test_2_shape_attribute() -> None:
    assert np.array_equal(result(upgraded("Reshape", "x", {}, shape=[2, 60])), X.reshape(2, 60))


def test_3_is_test() -> None:
    model = upgraded("Dropout", "x", {}, is_test=1, ratio=0.5)
    assert [a.name for a in model.graph.node[0].attribute] == ["ratio"]


def test_4_consumed_inputs() -> None:
    model = upgraded("Relu", "x", {}, consumed_inputs=[0])
    assert np.array_equal(result(model), X)
    assert not model.graph.node[0].attribute


def test_5_broadcast_of_gemm() -> None:
    model = upgraded("Gemm", "x w c", {}, broadcast=1, transB=1)
    assert [a.name for a in model.graph.node[0].attribute] == ["transB"]


def test_6_type_by_text() -> None:
    model = upgraded("Cast", "x", {}, to="INT32")
    assert model.graph.node[0].attribute[0].i == TensorProto.INT32
    assert np.array_equal(result(model), X.astype(np.int32))
    with pytest.raises(UnsupportedModelError, match="'FLOTE'"):
        upgraded("Cast", "x", {}, to="FLOTE")


def test_an_operator_without_a_rule_is_left_alone() -> None:
    model = upgraded("Clip", "x", {}, min=1.5, max=1.75)
    assert {a.name for a in model.graph.node[0].attribute} == {"min", "max"}
    assert np.array_equal(result(model), X.clip(1.5, 1.75))
