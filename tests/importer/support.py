"""Small graphs for the tests of single rules, and onnxruntime as the independent judge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from ferplus_tvm.importer.graph import Graph, Node
from ferplus_tvm.importer.upgrade import IR_VERSION, OPSET
from tests.models import faces


def run(
    model: onnx.ModelProto | bytes, x: NDArray[np.float32], *, literally: bool = False
) -> NDArray[np.float32]:
    """Return the first output of ``model`` on its first input, by onnxruntime.

    ``literally`` keeps it from what it may change in the results, such as int8 arithmetic.
    """
    options = onnxruntime.SessionOptions()
    if literally:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    data = model if isinstance(model, bytes) else model.SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    result: NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: x})[0]
    return result


def assert_same_to_the_compiler(found: onnx.ModelProto, expected: onnx.ModelProto) -> None:
    """Two tidy graphs are the same but for names, and for roundings of what a rule has computed.

    Weights of dense layers are equal to the last bit, since the compiler looks whether they are
    half-precision numbers.
    """
    sides = [_values(found.graph), _values(expected.graph)]
    for ends in ("input", "output"):
        types = [[each.type for each in getattr(m.graph, ends)] for m in (found, expected)]
        assert types[0] == types[1]
    assert found.opset_import == expected.opset_import
    assert len(found.graph.node) == len(expected.graph.node)
    for a, b in zip(found.graph.node, expected.graph.node, strict=True):
        assert a.op_type == b.op_type
        attributes = [
            {each.name: helper.get_attribute_value(each) for each in n.attribute} for n in (a, b)
        ]
        assert attributes[0] == attributes[1]
        assert len(a.input) == len(b.input)
        for names in zip(a.input, b.input, strict=True):
            value, wanted = (side[name] for side, name in zip(sides, names, strict=True))
            assert type(value) is type(wanted)
            if isinstance(value, int):
                assert value == wanted
                continue
            assert (value.shape, value.dtype) == (wanted.shape, wanted.dtype)
            tolerance = 0 if a.op_type == "Gemm" else 1e-5 * np.abs(wanted).max()
            np.testing.assert_allclose(value, wanted, rtol=0, atol=tolerance)
    outputs = [
        side[each.graph.output[0].name] for side, each in zip(sides, (found, expected), strict=True)
    ]
    assert outputs[0] == outputs[1]


def _values(graph: onnx.GraphProto) -> dict[str, Any]:
    """Return what each name is: a stored array, or the number of the node that computes it."""
    values: dict[str, Any] = {graph.input[0].name: -1}
    values |= {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    values |= {node.output[0]: at for at, node in enumerate(graph.node)}
    return values


def graph(
    *nodes: tuple[Any, ...], batch: int | None = None, **constants: NDArray[Any] | float
) -> Graph:
    """Build a graph from x to y; a node is (operator, inputs, outputs[, attributes])."""
    made = [
        Node(op, f"{op}_{index}", inputs.split(" "), outputs.split(" "), *(dict(a) for a in rest))
        for index, (op, inputs, outputs, *rest) in enumerate(nodes)
    ]
    arrays = {
        name: np.asarray(v, np.float32) if isinstance(v, float) else np.asarray(v)
        for name, v in constants.items()
    }
    return Graph(made, arrays, "x", "y", (1, 64, 64), batch, "test")


def values(made: Graph, rank: int, batch: int = 2) -> NDArray[np.float32]:
    """Run a graph whose output has ``rank`` dimensions on ``batch`` faces."""
    dims: tuple[Any, ...] = (None,) * rank
    return run(made.to_model(OPSET, IR_VERSION, ("N", 1, 64, 64), dims), faces(batch))


def ops(made: Graph) -> list[str]:
    return [node.op for node in made.nodes]


def assert_left_alone(rule: Callable[[Graph], bool], made: Graph) -> None:
    """The rule says that it changed nothing, and it did not."""
    before = [(n.op, list(n.inputs), list(n.outputs), dict(n.attributes)) for n in made.nodes]
    names = list(made.constants)
    assert rule(made) is False
    assert before == [(n.op, n.inputs, n.outputs, n.attributes) for n in made.nodes]
    assert names == list(made.constants)


def assert_rewrites(
    rule: Callable[[Graph], bool], made: Graph, rank: int, tolerance: float = 1e-6
) -> None:
    """The rule changes the graph, keeps its values, and has nothing left to do afterwards."""
    before = values(made, rank)
    assert np.ptp(before) > 0
    assert rule(made) is True
    after = values(made, rank)
    np.testing.assert_allclose(after, before, rtol=0, atol=tolerance * np.abs(before).max())
    assert rule(made) is False
