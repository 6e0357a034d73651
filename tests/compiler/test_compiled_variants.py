"""Compiled libraries of models from several tools give what onnxruntime gives for the files.

Three are enough: ``tests/importer/test_variants.py`` shows that the tidy graph of every variant is
that of one of these, which is all that the compiler sees of a file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import ferplus_tvm as fer
from tests.importer.support import run
from tests.models import COMPILED, VARIANTS, external_data, faces, make_weights

WEIGHTS = make_weights()
BATCHES = (1, 2, 3, 8, 37)
# One batch size serves every number of faces.
SIZES = {"official-8": (1, 8, 32), "pytorch-17": (1, 8), "batchnorm": (8,)}


def test_each_of_them_is_compiled_here() -> None:
    assert set(SIZES) == set(COMPILED)


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_variant(name: str, tmp_path: Path) -> None:
    model = VARIANTS[name](WEIGHTS)
    path = tmp_path / "model.onnx"
    if name == "pytorch-17":
        external_data(WEIGHTS, path)  # the same with its weights in another file
    else:
        onnx.save(model, path)
    result = fer.compile(path, output=tmp_path / "m.so", batch_sizes=SIZES[name])
    fixed = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    with fer.load(result.path) as engine:
        for batch in BATCHES:
            x = faces(batch, seed=batch)
            step = fixed or batch
            parts = [run(model, x[at : at + step]) for at in range(0, batch, step)]
            expected = np.concatenate(parts)
            scores = engine.scores(x)
            np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-4 * abs(expected).max())
            np.testing.assert_array_equal(scores.argsort(axis=1), expected.argsort(axis=1))
