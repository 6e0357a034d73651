"""The float64 reference against onnx's own evaluator and against onnxruntime."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from ferplus_tvm.compiler.reference import scores
from ferplus_tvm.errors import UnsupportedModelError
from ferplus_tvm.importer import load_model
from ferplus_tvm.importer.graph import Graph
from tests.chains import Chain, faces
from tests.importer.support import run
from tests.models import faces as grey_faces
from tests.models import make_weights, official

CHAINS = {
    "dense": Chain().sub(127.5).mul(1 / 127.5).flatten().dense("a", 5).relu("r").dense("b"),
    "conv": Chain().mul(3).conv("a", 3).relu("r").conv("b", 2).flatten().dense("d"),
    "strides": Chain().conv("a", 3, strides=(3, 2), pads=(0, 1, 2, 0)).flatten().dense("d"),
    "dilations": Chain()
    .conv("a", 3, kernel=(2, 3), dilations=(3, 2), pads=(1, 0, 2, 3))
    .flatten()
    .dense("d"),
    "groups": Chain().conv("a", 4).conv("b", 6, group=2).conv("c", 6, group=6).flatten().dense("d"),
    "three channels": Chain(3, 33)
    .sub([0.1, 0.2, -0.3])
    .mul([2, 1, 0.5])
    .conv("a", 4, strides=(2, 2))
    .leaky("l", 0.125)
    .average("p", (3, 2), (2, 2))
    .conv("b", 5)
    .clip("c", "Max", "Min")
    .average("whole map")
    .flatten()
    .dense("d", 7)
    .clip("e", "Max", "Min")
    .dense("f", 3),
    "pools": Chain().conv("a", 3).pool("p").pool("q", (3, 3), (2, 2), [1] * 4).flatten().dense("d"),
}


def doubled(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with every tensor in float64."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    for tensor in copy.graph.initializer:
        array = numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    for value in (*copy.graph.input, *copy.graph.output):
        value.type.tensor_type.elem_type = TensorProto.DOUBLE
    return copy


def assert_close(found: NDArray[np.float64], expected: NDArray[np.float64], share: float) -> None:
    assert found.shape == expected.shape
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=0, atol=share * np.abs(expected).max())


@pytest.mark.parametrize("name", CHAINS)
def test_it_is_what_onnx_specifies(name: str) -> None:
    model = CHAINS[name].model()
    channels, size, _ = Graph.from_model(model).input_shape
    x = faces(2, 0, channels, size)
    (expected,) = ReferenceEvaluator(doubled(model)).run(None, {"x": x.astype(np.float64)})
    assert_close(scores(model, x), expected, 1e-12)


@pytest.mark.parametrize("batch", [1, 5])
def test_it_is_what_onnxruntime_computes_but_for_float32(batch: int) -> None:
    chain = Chain().conv("a", 3).pool("p", (3, 3), (2, 1), (2, 0, 1, 2)).conv("b", 7)
    model = chain.flatten().dense("d").model()
    x = faces(batch)
    assert_close(scores(model, x), run(model, x).astype(np.float64), 1e-5)


def test_an_operator_of_no_tidy_graph_is_refused_by_node() -> None:
    model = Chain().conv("a", 3).relu("odd").flatten().dense("d").model()
    model.graph.node[1].op_type = "Sigmoid"
    with pytest.raises(UnsupportedModelError, match="Sigmoid node 'odd' has no reference"):
        scores(model, faces(1))


def test_an_imported_model_gives_what_its_file_gives() -> None:
    file = official(make_weights())
    x = grey_faces(1)
    found = scores(load_model(file.SerializeToString()).proto, x)
    # Thirteen layers deep, float32 is off by a few 1e-5.
    assert_close(found, run(file, x).astype(np.float64), 1e-4)
