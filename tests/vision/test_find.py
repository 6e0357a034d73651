"""Where a detector looks, and what becomes of what it finds."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ferplus_tvm.vision.detections import Detection
from ferplus_tvm.vision.find import FindOptions, find_faces
from tests.vision.support import group_photo, montage, overlap, yunet

POINTS = ((1.0, 1.0), (2.0, 1.0), (1.5, 2.0), (1.0, 3.0), (2.0, 3.0))


def test_a_group_is_found_where_it_is_the_largest_first() -> None:
    image, boxes = group_photo()

    found = find_faces(np.asarray(image), yunet, FindOptions())

    assert len(found) == 3
    for face, box in zip(found, boxes, strict=True):
        assert overlap(face.box, box) > 0.75


def test_small_faces_are_found_in_larger_scales_and_none_twice() -> None:
    places = [(20, 30, 0.9), (640, 40, 0.3), (800, 500, 0.12), (200, 600, 0.09), (500, 600, 0.1)]
    image, boxes = montage((1000, 700), *places)
    picture = np.asarray(image)

    large = find_faces(picture, yunet, FindOptions())
    every = find_faces(picture, yunet, FindOptions(small_faces=True))

    assert len(large) < len(every)
    for box in boxes:
        assert sum(overlap(face.box, box) > 0.5 for face in every) == 1
    wrong = [face for face in every if all(overlap(face.box, box) < 0.5 for box in boxes)]
    assert all(face.score < 0.8 for face in wrong)  # a detector errs, but no face is cut in two


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_turned_photo_gives_the_turned_faces(quarters: int) -> None:
    image, _ = group_photo()
    picture = np.asarray(image)
    options = FindOptions(any_rotation=True)
    height, width = picture.shape[:2]

    turned = find_faces(np.rot90(picture, quarters), yunet, options)

    plain = find_faces(picture, yunet, options)
    assert len(turned) == len(plain) == 3
    for one, other in zip(turned, plain, strict=True):
        points = other.points
        for _ in range(quarters):  # a quarter to the left: (x, y) becomes (y, width - x)
            points = tuple((y, width - x) for x, y in points)
            width, height = height, width
        if quarters % 2:
            width, height = height, width
        np.testing.assert_allclose(one.points, points, atol=0.5)
        low, high = np.min(one.points, axis=0), np.max(one.points, axis=0)
        assert (low > one.box[:2]).all()
        assert (high < np.add(one.box[:2], one.box[2:])).all()


class Recorded:
    """A detector that finds the same in every picture, and keeps the sizes of what it saw."""

    def __init__(self, *found: Detection) -> None:
        self.found = list(found)
        self.sizes: list[tuple[int, int]] = []

    def __call__(self, picture: NDArray[np.uint8]) -> list[Detection]:
        assert picture.dtype == np.uint8 and picture.shape[2] == 3
        self.sizes.append((picture.shape[1], picture.shape[0]))
        return self.found


def test_the_longer_side_is_shrunk_and_boxes_are_in_pixels_of_the_photo() -> None:
    detect = Recorded(Detection((10, 20, 30, 40), POINTS, 0.9))

    (face,) = find_faces(np.zeros((1200, 2560, 3), np.uint8), detect, FindOptions())

    assert detect.sizes == [(640, 300)]
    assert face.box == (40, 80, 120, 160) and face.points[1] == (8, 4) and face.score == 0.9


def test_a_small_photo_is_looked_at_as_it_is() -> None:
    detect = Recorded()
    find_faces(np.zeros((100, 200, 3), np.uint8), detect, FindOptions())
    assert detect.sizes == [(200, 100)]


def test_tiles_cover_the_photo_and_are_never_larger_than_the_longer_side() -> None:
    detect = Recorded()
    find_faces(np.zeros((400, 1500, 3), np.uint8), detect, FindOptions(small_faces=True))
    assert len(detect.sizes) > 10
    assert all(max(size) <= 640 for size in detect.sizes)


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (5000, 2)])
def test_photos_of_any_shape_are_looked_at(size: tuple[int, int]) -> None:
    options = FindOptions(small_faces=True, any_rotation=True)
    assert find_faces(np.zeros((*size, 3), np.uint8), yunet, options) == []


def test_what_is_small_unsure_or_outside_is_left_out() -> None:
    kept = Detection((10, 10, 30, 30), POINTS, 0.7)
    detect = Recorded(
        kept,
        Detection((100, 10, 23, 90), POINTS, 0.9),
        Detection((10, 60, 30, 30), POINTS, 0.65),
        Detection((180, 10, 60, 60), POINTS, 0.9),
    )
    options = FindOptions(min_face=24, min_score=0.7)
    assert find_faces(np.zeros((200, 200, 3), np.uint8), detect, options) == [kept]


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_face": 0},
        {"min_face": float("nan")},
        {"min_score": 1.1},
        {"max_side": 63},
        {"max_side": 640.5},
    ],
)
def test_options_out_of_their_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        FindOptions(**wrong)  # type: ignore[arg-type]
