"""Boxes of any detector, and what is none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ferplus_tvm.errors import InputError
from ferplus_tvm.vision.boxes import as_detections
from ferplus_tvm.vision.detections import Detection
from tests.artifacts import assert_sentence

BOX = (100.0, 50.0, 60.0, 80.0)
POINTS = ((110.0, 80.0), (140.0, 80.0), (125.0, 95.0), (112.0, 110.0), (138.0, 110.0))
ROW = [*BOX, *(number for point in POINTS for number in point), 0.9]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([BOX, BOX], [Detection(BOX, (), 1.0)] * 2),
        (np.array([BOX], np.float32), [Detection(BOX, (), 1.0)]),
        (np.array(BOX, np.int32), [Detection(BOX, (), 1.0)]),
        ([[*BOX, 0.5]], [Detection(BOX, (), 0.5)]),
        (np.array([ROW]), [Detection(BOX, POINTS, 0.9)]),
        ([Detection(BOX, POINTS, 0.7)], [Detection(BOX, POINTS, 0.7)]),
        ([SimpleNamespace(box=np.array(BOX))], [Detection(BOX, (), 1.0)]),
        (
            [SimpleNamespace(box=BOX, points=np.array(POINTS), score=None)],
            [Detection(BOX, POINTS, 1)],
        ),
        ([], []),
        ((), []),
        (np.empty((0, 4)), []),
        (None, []),
        ([(-20, -30, 100, 120)], [Detection((-20, -30, 100, 120), (), 1.0)]),  # at the edge
        ([(560, 380, 120, 140)], [Detection((560, 380, 120, 140), (), 1.0)]),
    ],
)
def test_forms_of_boxes(given: Any, expected: list[Detection]) -> None:
    assert as_detections(given, 640, 480) == expected


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([(100, 50, 0, 80)], "has no size"),
        ([(100, 50, 60, -80)], "has no size"),
        ([(700, 50, 60, 80)], "lies outside of the picture"),
        ([(-90, 50, 60, 80)], "lies outside of the picture"),
        ([(-3000, -3000, 6400, 6400)], "far larger than the picture"),
        ([(0.2, 0.1, 0.3, 0.4)], "as if they were parts of the picture's size"),
        ([(10, 20, 70, 90), (400, 300, 460, 380)], "look like corners"),
        ([(300, 100, 420, 250), (500, 100, 590, 210)], "look like corners"),
        ([(100, 50, float("nan"), 80)], "holds NaN or infinity"),
        ([(100, 50, 60)], "(1, 3)"),
        ([(100, 50, 60, 80), (1, 2)], "cannot be read"),
        (np.zeros((2, 2, 4)), "(2, 2, 4)"),
        ("face", "x, y, width, height"),
        ([SimpleNamespace(box=(1, 2, 3))], "3 numbers"),
        ([SimpleNamespace(box=BOX, points=[(1, float("inf"))])], "points"),
    ],
)
def test_what_is_no_box_is_refused(given: Any, said: str) -> None:
    with pytest.raises(InputError) as caught:
        as_detections(given, 640, 480)
    assert_sentence(str(caught.value), said)
