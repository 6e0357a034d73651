"""The same network from every tool becomes the same tidy graph with the same scores."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from ferplus_tvm.importer import load_model
from tests.importer.support import assert_same_to_the_compiler, run
from tests.models import (
    COMPILED,
    INPUT,
    OUTPUT,
    TIDY_OPS,
    VARIANTS,
    external_data,
    faces,
    make_weights,
    official,
)

WEIGHTS = make_weights()
FACES = faces(3)
REFERENCE = np.concatenate([run(official(WEIGHTS), FACES[i : i + 1]) for i in range(3)])
TOLERANCE = 1e-5 * np.abs(REFERENCE).max()


def test_the_test_network_tells_faces_apart() -> None:
    assert 1 < np.abs(REFERENCE).max() < 100
    assert len(set(REFERENCE.argmax(axis=1))) > 1


@pytest.mark.parametrize("name", VARIANTS)
def test_variant_becomes_the_tidy_graph_of_the_same_network(name: str) -> None:
    imported = load_model(VARIANTS[name](WEIGHTS).SerializeToString())
    assert [node.op_type for node in imported.proto.graph.node] == TIDY_OPS
    onnx.checker.check_model(imported.proto, full_check=True)
    for batch in (1, 3):
        scores = run(imported.proto, FACES[:batch])
        np.testing.assert_allclose(scores, REFERENCE[:batch], rtol=0, atol=TOLERANCE)


@functools.cache
def tidy(name: str) -> onnx.ModelProto:
    return load_model(VARIANTS[name](WEIGHTS).SerializeToString()).proto


@pytest.mark.parametrize("name", [name for name in VARIANTS if name not in COMPILED])
def test_the_compiler_sees_of_a_variant_what_it_sees_of_one_that_is_compiled(name: str) -> None:
    assert_same_to_the_compiler(
        tidy(name), tidy("batchnorm" if "batchnorm" in name else "official-8")
    )


def test_the_compiler_sees_the_same_of_weights_in_another_file(tmp_path: Path) -> None:
    external_data(WEIGHTS, tmp_path / "model.onnx")
    assert_same_to_the_compiler(load_model(tmp_path / "model.onnx").proto, tidy("pytorch-17"))


def test_another_graph_is_not_the_same_to_the_compiler() -> None:
    def changed(change: Callable[[onnx.GraphProto], object]) -> onnx.ModelProto:
        model = onnx.ModelProto.FromString(tidy("official-8").SerializeToString())
        change(model.graph)
        return model

    def scale(graph: onnx.GraphProto) -> None:
        last = onnx.numpy_helper.to_array(graph.initializer[-1])
        graph.initializer[-1].raw_data = (last * np.float32(1.001)).tobytes()

    assert_same_to_the_compiler(changed(lambda graph: None), tidy("official-8"))
    for change in (
        scale,
        lambda graph: graph.node.pop(),
        lambda graph: graph.node[2].attribute.pop(),
        lambda graph: graph.node[3].input.__setitem__(0, graph.node[1].output[0]),
    ):
        with pytest.raises(AssertionError):
            assert_same_to_the_compiler(changed(change), tidy("official-8"))


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "official-2"])
def test_variant_is_what_its_own_file_computes(name: str) -> None:
    model = VARIANTS[name](WEIGHTS)
    fixed = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    x = faces(fixed or 3, seed=5)
    try:
        expected = run(model, x)
    except Exception as error:
        if "opset" not in str(error).lower():
            raise
        pytest.skip("this onnxruntime is older than the newest opset")
    scores = run(load_model(model.SerializeToString()).proto, x)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_names_hash_and_opset_are_those_of_the_file(tmp_path: Path) -> None:
    data = official(WEIGHTS, 7).SerializeToString()
    path = tmp_path / "my-model.onnx"
    path.write_bytes(data)
    imported = load_model(path)
    assert (imported.input_name, imported.output_name) == (INPUT, OUTPUT)
    assert imported.opset == 7
    assert imported.name == "my-model"
    assert imported.sha256 == hashlib.sha256(data).hexdigest()
    assert load_model(str(path)) == imported
    assert load_model(data).name == "CNTKGraph"
    layers = [node.name for node in imported.proto.graph.node]
    assert layers[:4] == ["Minus340", "Block352", "Convolution362", "ReLU366"]
    assert layers[-1] == "Times690"


def test_weights_arrive_unchanged() -> None:
    graph = load_model(official(WEIGHTS).SerializeToString()).proto.graph
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    assert np.array_equal(stored[graph.node[2].input[1]], WEIGHTS["Parameter3"])
    assert np.array_equal(stored[graph.node[2].input[2]], WEIGHTS["Parameter4"].ravel())
    assert stored[graph.node[0].input[1]] == 127.5
    first_dense = next(node for node in graph.node if node.op_type == "Gemm")
    matrix = WEIGHTS["Parameter1367"]
    assert np.array_equal(stored[first_dense.input[1]], matrix.reshape(-1, matrix.shape[-1]))


def test_external_data_is_read_and_hashed(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    external_data(WEIGHTS, path)
    assert path.stat().st_size < (tmp_path / "model.onnx.data").stat().st_size
    imported = load_model(path)
    scores = run(imported.proto, FACES)
    np.testing.assert_allclose(scores, REFERENCE, rtol=0, atol=TOLERANCE)
    data = bytearray((tmp_path / "model.onnx.data").read_bytes())
    data[0] ^= 1
    (tmp_path / "model.onnx.data").write_bytes(data)
    assert load_model(path).sha256 != imported.sha256


def test_the_full_official_network_is_as_large_as_the_real_file() -> None:
    # model zoo: emotion-ferplus-8.onnx has 35040571 bytes
    model = official(make_weights(width=1))
    data = model.SerializeToString()
    assert abs(len(data) - 35_040_571) <= 183
    imported = load_model(data)
    assert [node.op_type for node in imported.proto.graph.node] == TIDY_OPS
    x = faces(1)
    expected = run(data, x)
    np.testing.assert_allclose(
        run(imported.proto, x), expected, rtol=0, atol=1e-5 * np.abs(expected).max()
    )


def test_the_bundled_model_imports() -> None:
    path = Path(__file__).parents[2] / "ferplus_tvm/zoo/data/ferplus-bundled.onnx"
    imported = load_model(path)
    assert [node.op_type for node in imported.proto.graph.node] == TIDY_OPS
    x = faces(1)
    expected = run(path.read_bytes(), x)
    np.testing.assert_allclose(
        run(imported.proto, x), expected, rtol=0, atol=1e-5 * np.abs(expected).max()
    )
