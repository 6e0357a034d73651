"""What the model zoo's document of FER+ says to do before and behind the model, beside what we do.

The document loads the image, has Pillow resize it to 64 x 64 by Lanczos' filter, and lets
``np.resize`` make (1, 1, 64, 64) of whatever numbers that gives.  Behind the model it takes the
softmax, and the class ids by ``np.argsort`` from the end.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import ferplus_tvm as fer
from ferplus_tvm.data import SAMPLE_FACE


def documented_preprocess(path: Path) -> NDArray[np.uint8]:
    resized = Image.open(path).resize((64, 64), Image.Resampling.LANCZOS)
    return np.resize(np.array(resized), (1, 1, 64, 64))


def documented_postprocess(scores: NDArray[np.floating[Any]]) -> NDArray[np.intp]:
    exponentials = np.exp(scores - scores.max())
    return np.argsort(np.squeeze(exponentials / exponentials.sum()))[::-1]


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_preprocess_by_np_resize(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "face.png"
    Image.open(SAMPLE_FACE).convert(mode).resize((64, 64)).save(path)
    expected = documented_preprocess(path)
    np.testing.assert_array_equal(fer.preprocess(path, resample="numpy"), expected)
    ours = fer.preprocess(path)
    if mode == "L":  # np.resize changes nothing
        np.testing.assert_array_equal(ours, expected)
    else:  # it takes the colours of the upper rows for pixels of the whole
        assert np.abs(ours - expected).mean() > 10


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_preprocess_of_a_picture_of_another_size(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "face.png"
    Image.open(SAMPLE_FACE).convert(mode).resize((200, 150)).save(path)
    small = Image.open(path).resize((64, 64), Image.Resampling.LANCZOS)
    found = fer.preprocess(small, resample="numpy")
    np.testing.assert_array_equal(found, documented_preprocess(path))


@pytest.mark.parametrize("shape", [(8,), (1, 8), (1, 8, 1, 1)], ids=str)
def test_postprocess_gives_the_class_ids_in_decreasing_order_of_probability(
    shape: tuple[int, ...],
) -> None:
    for seed in range(20):
        scores = np.random.default_rng(seed).normal(0, 5, shape).astype(np.float32)
        (found,) = fer.postprocess(scores)
        assert list(found.class_ids) == documented_postprocess(scores).tolist()


def test_the_classes_are_the_documented_ones() -> None:
    table = {"neutral": 0, "happiness": 1, "surprise": 2, "sadness": 3}
    table |= {"anger": 4, "disgust": 5, "fear": 6, "contempt": 7}
    assert {label: at for at, label in enumerate(fer.EMOTIONS)} == table


def test_the_whole_way_is_the_documented_one(
    engine: fer.Engine, onnx_scores: Any, tmp_path: Path
) -> None:
    path = tmp_path / "face.png"
    Image.open(SAMPLE_FACE).convert("L").save(path)
    given = documented_preprocess(path).astype(np.float32)
    expected = documented_postprocess(onnx_scores(given))
    small = Image.open(path).resize((64, 64), Image.Resampling.LANCZOS)
    assert list(engine.predict(small, resample="numpy").class_ids) == expected.tolist()
