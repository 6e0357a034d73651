"""Where the scene changes."""

from __future__ import annotations

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ferplus_tvm.videos.cuts import Cuts
from tests.vision.support import HOPPER


def views(count: int, speed: float, brightness: float = 1.0) -> list[NDArray[np.uint8]]:
    """Return what a camera sees that moves over a photo."""
    photo = Image.open(HOPPER).convert("RGB")
    pictures = []
    for number in range(count):
        left = 20 + speed * number
        part = photo.crop((round(left), 60, round(left) + 320, 300))
        pictures.append((np.asarray(part) * brightness).astype(np.uint8))
    return pictures


def other(count: int) -> list[NDArray[np.uint8]]:
    """Return another scene: the photo upside down."""
    return [np.ascontiguousarray(picture[::-1]) for picture in views(count, 0.5)]


def cuts_in(pictures: list[NDArray[np.uint8]]) -> list[int]:
    cuts, found = Cuts(), []
    for number, picture in enumerate(pictures):
        cuts.see(picture)
        if cuts.taken():
            found.append(number)
    return found


def test_a_change_of_scene_is_seen_where_it_is() -> None:
    assert cuts_in(views(10, 0.5) + other(10) + views(10, 0.5)) == [10, 20]


@pytest.mark.parametrize("speed", [0, 1, 4, 9, 20, 30])
def test_a_camera_that_moves_makes_no_cut(speed: float) -> None:
    """Up to a tenth of the picture from frame to frame, as where few a second are given."""
    assert cuts_in(views(6, speed)) == []
    assert cuts_in(views(6, speed) + other(2)) == [6]


def test_light_that_goes_on_makes_no_cut() -> None:
    assert cuts_in(views(10, 0.5, 0.3) + views(10, 0.5)) == []


def test_to_black_and_back_are_cuts() -> None:
    black = [np.zeros((240, 320, 3), np.uint8)] * 5
    assert cuts_in(views(5, 0.5) + black + views(5, 0.5)) == [5, 10]
    assert cuts_in(black + black) == []


def test_a_cut_among_frames_that_are_not_taken_is_remembered() -> None:
    cuts = Cuts()
    for picture in views(5, 0.5) + other(5):
        cuts.see(picture)
    assert cuts.taken() and not cuts.taken()


def test_frames_of_a_file_are_seen_as_their_pictures_are() -> None:
    cuts, found = Cuts(), []
    for number, picture in enumerate(views(4, 0.5) + other(4)):
        cuts.see_frame(av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="yuv420p"))
        if cuts.taken():
            found.append(number)
    assert found == [4]


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 700, 3), (480, 5, 3)])
def test_any_size_will_do(shape: tuple[int, int, int]) -> None:
    assert cuts_in([np.full(shape, 9, np.uint8), np.full(shape, 200, np.uint8)]) == []
