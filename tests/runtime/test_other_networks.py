"""A library of another network than FER+: RGB faces of 48 x 48 pixels, five classes."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import ferplus_tvm as fer
from ferplus_tvm.errors import InputError
from tests.artifacts import assert_sentence
from tests.importer.networks import pixels
from tests.importer.support import run
from tests.rgb import LABELS, network


@pytest.fixture(scope="module")
def rgb(rgb_library: Path) -> Iterator[fer.Engine]:
    with fer.load(rgb_library) as opened:
        yield opened


def assert_close(scores: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    assert scores.shape == expected.shape and scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_array_equal(scores.argsort(axis=1), expected.argsort(axis=1))


def test_an_engine_tells_the_shape_and_the_labels_of_its_library(rgb: fer.Engine) -> None:
    assert rgb.face_shape == (3, 48, 48) and rgb.labels == LABELS
    assert rgb.manifest.input_shape == ("N", 3, 48, 48)
    assert rgb.manifest.output_shape == ("N", 5)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_scores_are_those_of_onnxruntime(rgb: fer.Engine, count: int) -> None:
    x = pixels(count, 3, 48)

    assert_close(rgb.scores(x), run(network(), x))


def test_channels_last_memory_gives_the_same_bits(rgb: fer.Engine) -> None:
    x = pixels(3, 3, 48)
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)

    assert rgb.scores(last).tobytes() == rgb.scores(x).tobytes()
    assert rgb.scores(x[:0]).shape == (0, 5)


def test_a_picture_is_answered_in_colour_by_the_librarys_own_labels(rgb: fer.Engine) -> None:
    colour = np.moveaxis(np.round(pixels(1, 3, 48)[0]).astype(np.uint8), 0, -1)
    expected = run(network(), np.moveaxis(colour, -1, 0)[None].astype(np.float32))

    result = rgb.predict(Image.fromarray(colour))

    assert_close(np.asarray([result.scores], np.float32), expected)
    assert result.label == LABELS[int(expected.argmax())]
    assert tuple(result.probabilities) == LABELS
    assert result.class_ids == tuple(np.argsort(-expected[0]))
    assert result == rgb.predict(colour[..., ::-1], channel_order="BGR")
    assert fer.postprocess(rgb.scores(np.moveaxis(colour, -1, 0)[None]), rgb.labels) == [result]


def test_a_batch_is_answered_in_its_own_shape_also_where_nothing_can_be_used(
    rgb: fer.Engine, sample_face: Path
) -> None:
    skipped, answer = rgb.predict_batch([b"no picture", sample_face], on_error="skip")
    assert skipped is None and answer == rgb.predict(sample_face)
    assert rgb.predict_batch([b"no picture"], on_error="skip") == [None]
    assert rgb.predict_batch([]) == []


@pytest.mark.parametrize("shape", [(1, 1, 64, 64), (1, 48, 48, 3), (1, 3, 64, 64), (3, 48, 48)])
def test_another_shape_is_refused_by_the_shape_of_the_library(
    rgb: fer.Engine, shape: tuple[int, ...]
) -> None:
    with pytest.raises(InputError) as caught:
        rgb.scores(np.full(shape, 100))

    assert_sentence(str(caught.value), "(N, 3, 48, 48)", str(shape))


def test_another_process_opens_it_alike_and_it_verifies(rgb: fer.Engine) -> None:
    x = pixels(3, 3, 48)
    with pickle.loads(pickle.dumps(rgb)) as copy:
        assert copy.scores(x).tobytes() == rgb.scores(x).tobytes()
    assert fer.verify(rgb.path).error < 1e-5
