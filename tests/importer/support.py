"""Small graphs for the tests of single rules, and onnxruntime as the independent judge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from ferplus_tvm.importer.graph import Graph, Node
from ferplus_tvm.importer.upgrade import IR_VERSION, OPSET
from tests.models import faces


def run(model: onnx.ModelProto | bytes, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the first output of ``model`` on its first input, by onnxruntime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    data = model if isinstance(model, bytes) else model.SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    result: NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: x})[0]
    return result


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
    return Graph(made, arrays, "x", "y", batch, "test")


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
