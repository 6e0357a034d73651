"""Scores against float64: real faces and noise, weights as trained and weights that are awkward."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

import ferplus_tvm as fer
from ferplus_tvm.compiler import reference
from ferplus_tvm.importer import load_model
from ferplus_tvm.zoo import resolve
from tests.network import CONVOLUTIONS, Weights, make_weights
from tests.official import official

TOLERANCE = 1e-4  # of the largest score


def assert_close(library: Path, model: onnx.ModelProto, x: NDArray[np.float32]) -> None:
    expected = reference.scores(model, x)
    with fer.load(library) as engine:
        for batch in engine.manifest.batch_sizes:
            rows = np.arange(-(-len(x) // batch) * batch) % len(x)
            found = engine.scores(x[rows])
            error = np.abs(found - expected[rows]).max() / np.abs(expected).max()
            assert error <= TOLERANCE, f"off by {error:.1e} at batch {batch}"


def real_faces(sample: Path) -> NDArray[np.float32]:
    """Return the sample face as it is, and as other images of it would be."""
    face = Image.open(sample)
    width, height = face.size
    images = [
        face,
        ImageOps.mirror(face.convert("L")),
        face.rotate(15),
        face.crop((width // 8, height // 8, width * 7 // 8, height * 7 // 8)),
        ImageEnhance.Brightness(face.convert("RGB")).enhance(0.3),
        ImageEnhance.Contrast(face.convert("RGB")).enhance(3),
        face.resize((24, 24)),
    ]
    return fer.preprocess(images)


def noise() -> NDArray[np.float32]:
    random = np.random.default_rng(0)
    x = random.uniform(0, 255, (5, 1, 64, 64)).astype(np.float32)
    x[3], x[4] = 0, 255
    return x


def test_real_faces_and_noise_on_weights_as_trained(library: Path, sample_face: Path) -> None:
    model = load_model(resolve("bundled")).proto
    assert_close(library, model, np.concatenate([real_faces(sample_face), noise()]))


def awkward(weights: Weights, seed: int = 0) -> Weights:
    """Scale channels between two convolutions by a thousandth to a thousand, and back in the next.

    The network computes the same, since a ReLU lets a positive factor through, but its weights and
    activations are of very different size by channel.
    """
    random = np.random.default_rng(seed)
    changed = dict(weights)
    names = [(layer[3], layer[4]) for layer in CONVOLUTIONS]
    for (weight, bias), (following, _) in itertools.pairwise(names):
        factors = 10 ** random.uniform(-3, 3, len(changed[weight])).astype(np.float32)
        changed[weight] = changed[weight] * factors[:, None, None, None]
        changed[bias] = changed[bias] * factors[:, None, None]
        changed[following] = changed[following] / factors[:, None, None]
    return changed


@pytest.mark.parametrize(
    # Weights as trained, above, are as plain as random ones.
    "scale",
    ["awkward", pytest.param("plain", marks=pytest.mark.long)],
)
def test_random_weights_of_full_width(tmp_path: Path, sample_face: Path, scale: str) -> None:
    weights = make_weights(seed=1, width=1)
    path = tmp_path / "model.onnx"
    onnx.save(official(awkward(weights) if scale == "awkward" else weights), path)
    result = fer.compile(path, output=tmp_path / "m.so", batch_sizes=(1, 8))
    x = np.concatenate([real_faces(sample_face)[:3], noise()])
    assert_close(result.path, load_model(path).proto, x)
