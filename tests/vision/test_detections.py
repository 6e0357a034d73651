"""Decoding of what YuNet computes, beside its formula written out for each place."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest

from ferplus_tvm.vision.detections import Detection, decode, distinct

STRIDES = (8, 16, 32)


def nothing(height: int, width: int) -> np.ndarray:
    """Return the values of a picture without a face."""
    count = sum((height // stride) * (width // stride) for stride in STRIDES)
    return np.zeros((count, 16), np.float32)


def test_a_face_is_decoded_by_the_formula_of_its_place() -> None:
    values = nothing(64, 96)
    random = np.random.default_rng(0)
    # The place in the second row and third column of the grid of 16 pixels.
    at = (64 // 8) * (96 // 8) + 1 * (96 // 16) + 2
    values[at, :2] = 0.81, 0.64
    values[at, 2:] = random.normal(size=14)
    raw = [float(value) for value in values[at]]

    (face,) = decode(values, 64, 96, STRIDES, 0.6, scale=0.5)

    width, height = math.exp(raw[4]) * 16, math.exp(raw[5]) * 16
    left, top = (2 + raw[2]) * 16 - width / 2, (1 + raw[3]) * 16 - height / 2
    points = [((raw[6 + 2 * n] + 2) * 16 / 0.5, (raw[7 + 2 * n] + 1) * 16 / 0.5) for n in range(5)]
    box = [side / 0.5 for side in (left, top, width, height)]
    np.testing.assert_allclose(face.box, box, rtol=1e-5)
    np.testing.assert_allclose(face.points, points, rtol=1e-5)
    assert face.score == pytest.approx(0.9 * 0.8, rel=1e-6)


def test_the_surest_of_overlapping_faces_is_kept() -> None:
    values = nothing(64, 64)
    values[[0, 1, 40, 63], :2] = [[0.7, 0.7], [0.9, 0.9], [0.8, 0.8], [0.59, 0.59]]
    values[:2, 4:6] = np.log(3)  # boxes of three cells, whose middles are one cell apart

    found = decode(values, 64, 64, STRIDES, 0.6)

    assert [face.score for face in found] == pytest.approx([0.9, 0.8])
    assert decode(values, 64, 64, STRIDES, 0.85) == found[:1]
    assert decode(values, 64, 64, STRIDES, 0.95) == []


def test_probabilities_beyond_their_range_are_clipped() -> None:
    values = nothing(32, 32)
    values[0, :2] = 1.0001, 1.0001
    values[9, :2] = -0.5, -0.5

    (face,) = decode(values, 32, 32, STRIDES, 0.1)

    assert face.score == 1


def test_a_face_without_end_is_none() -> None:
    values = nothing(32, 32)
    values[:, :2] = 1
    values[0, 4] = 1000
    values[1, 7] = np.nan
    found = decode(values, 32, 32, STRIDES, 0.5)
    assert found and all(np.isfinite(face.box).all() for face in found)


def test_distinct_is_what_comparing_all_pairs_gives() -> None:
    random = np.random.default_rng(3)
    boxes = np.hstack([random.uniform(0, 100, (300, 2)), random.uniform(5, 40, (300, 2))])

    kept: list[int] = []
    for at, (x, y, w, h) in enumerate(boxes):
        for other in kept:
            x2, y2, w2, h2 = boxes[other]
            across = max(0.0, min(x + w, x2 + w2) - max(x, x2))
            down = max(0.0, min(y + h, y2 + h2) - max(y, y2))
            if across * down > 0.3 * (w * h + w2 * h2 - across * down):
                break
        else:
            kept.append(at)

    assert distinct(boxes.astype(np.float64)) == kept
    assert 10 < len(kept) < 300


def test_a_detection_is_plain_and_hashable() -> None:
    values = nothing(32, 32)
    values[3, :2] = 1
    (face,) = decode(values, 32, 32, STRIDES, 0.5)

    assert {type(number) for number in (*face.box, *sum(face.points, ()), face.score)} == {float}
    assert len(face.points) == 5
    assert pickle.loads(pickle.dumps(face)) == face
    assert len({face, Detection(face.box, face.points, face.score)}) == 1
