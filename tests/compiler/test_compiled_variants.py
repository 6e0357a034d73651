"""The compiled library of every variant gives what onnxruntime gives for the original file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

import ferplus_tvm as fer
from tests.importer.support import run
from tests.models import VARIANTS, external_data, faces, make_weights, official

WEIGHTS = make_weights()
BATCHES = (1, 2, 3, 8, 37)


def original_scores(model: onnx.ModelProto, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run the original file with onnxruntime, in tensors of the batch that it fixes, if any."""
    fixed = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    if not fixed:
        return run(model, x)
    blank = np.concatenate([x, np.zeros((-len(x) % fixed, 1, 64, 64), np.float32)])
    parts = [run(model, blank[at : at + fixed]) for at in range(0, len(blank), fixed)]
    return np.concatenate(parts)[: len(x)]


def assert_same_scores(library: Path, model: onnx.ModelProto) -> None:
    with fer.load(library) as engine:
        for batch in BATCHES:
            x = faces(batch, seed=batch)
            expected = original_scores(model, x)
            scores = engine.scores(x)
            np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-4 * abs(expected).max())
            np.testing.assert_array_equal(scores.argsort(axis=1), expected.argsort(axis=1))


@pytest.mark.parametrize("name", VARIANTS)
def test_compiled_variant(name: str, tmp_path: Path) -> None:
    model = VARIANTS[name](WEIGHTS)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    # One batch size serves every number of faces; two of the variants get the default three.
    sizes = (1, 8, 32) if name in ("official-8", "pytorch-17") else (8,)
    result = fer.compile(tmp_path / "model.onnx", output=tmp_path / "m.so", batch_sizes=sizes)
    # onnxruntime refuses opset 2 and may be older than the newest opset: the same network then.
    comparable = official(WEIGHTS) if name == "official-2" else model
    try:
        original_scores(comparable, faces(1))
    except Exception as error:
        if "opset" not in str(error).lower():
            raise
        comparable = official(WEIGHTS)
    assert_same_scores(result.path, comparable)


def test_compiled_model_with_external_data(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    external_data(WEIGHTS, path)
    result = fer.compile(path, output=tmp_path / "m.so", batch_sizes=(1, 8))
    assert_same_scores(result.path, official(WEIGHTS))
