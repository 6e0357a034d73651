"""Which frames are taken, and frames that the caller gives."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ferplus_tvm.errors import InputError
from ferplus_tvm.videos.source import GivenFrames, RawFrame, Taken
from ferplus_tvm.vision.read import checked_options
from tests.artifacts import assert_sentence

GREY = np.full((48, 64, 3), 128, np.uint8)


def given_frames(frames: Any, taken: Taken | None = None, **options: Any) -> list[RawFrame]:
    source = GivenFrames(frames, checked_options(options))  # type: ignore[arg-type]
    return list(source.frames(taken or Taken()))


# --- which frames ----------------------------------------------------------------------------


@given(
    st.lists(st.floats(0.001, 0.5), max_size=60),
    st.integers(1, 4),
    st.none() | st.floats(0.5, 40),
    st.floats(0, 3),
    st.none() | st.floats(3.1, 9),
)
def test_no_more_frames_are_taken_than_asked_for(
    gaps: list[float], every: int, fps: float | None, start: float, end: float | None
) -> None:
    times = np.cumsum([0.0, *gaps]).tolist()
    taken = Taken(every, fps, start, end)
    found = [time for time in times if taken.takes(time)]
    inside = [time for time in times if start <= time < (end or 1e9)]
    if fps is None:
        assert found == inside[::every]
    else:
        assert set(found) <= set(inside[::every]) and found[:1] == inside[:1]
        for second in found:
            seen = [time for time in found if second <= time < second + 1]
            assert len(seen) <= fps + 2  # whose slots may lie across the second
    assert [taken.past(time) for time in times] == [time >= (end or 1e9) for time in times]


@pytest.mark.parametrize(("rate", "fps", "every"), [(30, 10, 3), (25, 25, 1), (24, 12, 2)])
def test_fps_takes_frames_evenly(rate: int, fps: float, every: int) -> None:
    for digits in (9, 3):  # Matroska rounds to milliseconds
        taken = Taken(fps=fps)
        times = [round(number / rate, digits) for number in range(120)]
        found = [number for number, time in enumerate(times) if taken.takes(time)]
        assert found == list(range(0, 120, every))


def test_fps_above_that_of_the_video_takes_all() -> None:
    taken = Taken(fps=60)
    assert all(taken.takes(number / 30) for number in range(90))


@pytest.mark.parametrize(
    "wrong",
    [
        {"every": 0},
        {"every": 1.5},
        {"fps": 0},
        {"fps": float("nan")},
        {"start": -1},
        {"end": 0},
        {"start": 2, "end": 1},
    ],
)
def test_wrong_values_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="|".join(wrong)):
        Taken(**wrong)


# --- the caller's frames ---------------------------------------------------------------------


def test_frames_have_the_times_they_are_given_with() -> None:
    found = given_frames((time, GREY) for time in (0.5, 0.7, 0.7, 3))
    assert [(each.index, each.time) for each in found] == [(0, 0.5), (1, 0.7), (2, 0.7), (3, 3.0)]


def test_frames_without_times_count_as_25_a_second_which_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        found = given_frames([GREY] * 3)
    assert [each.time for each in found] == pytest.approx([0, 0.04, 0.08])
    (said,) = [record.getMessage() for record in caplog.records]
    assert_sentence(said, "25 a second", "(seconds, picture)")


def test_frames_are_read_as_photos_are() -> None:
    picture = GREY.copy()
    picture[..., 0] = 9
    for frame in (picture, Image.fromarray(picture), picture.astype(np.float32)):
        (found,) = given_frames([(0, frame)])
        np.testing.assert_array_equal(found.picture, picture)
    (found,) = given_frames([(0, picture / np.float32(255))], value_range=(0, 1))
    np.testing.assert_array_equal(found.picture, picture)
    (found,) = given_frames([(0, picture)], channel_order="BGR")
    np.testing.assert_array_equal(found.picture, picture[..., ::-1])


def test_a_film_may_be_black() -> None:
    black = np.ones((48, 64, 3), np.uint8)
    for frame in (black, Image.fromarray(black), Image.fromarray(black).convert("L")):
        assert [each.picture.max() for each in given_frames([(0, GREY), (1, frame)])] == [128, 1]
    with pytest.raises(InputError, match="looks normalised"):
        given_frames([(0, GREY), (1, GREY / np.float32(255))])


def test_an_array_of_frames_is_an_iterable_and_one_picture_is_none() -> None:
    assert len(given_frames(np.stack([GREY] * 3))) == 3
    with pytest.raises(InputError) as caught:
        given_frames(GREY)
    assert_sentence(str(caught.value), "(48, 64, 3)", "analyze")
    with pytest.raises(InputError) as caught:
        given_frames(Image.fromarray(GREY))
    assert_sentence(str(caught.value), "a video's path", "analyze")


def test_an_array_that_is_written_again_does_not_change_what_was_given() -> None:
    buffer = GREY.copy()

    def frames() -> Any:
        for number in range(4):
            buffer[:] = number * 20
            yield number / 25, buffer

    assert [int(each.picture[0, 0, 0]) for each in given_frames(frames())] == [0, 20, 40, 60]


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ([(0, GREY), (1, "missing.png")], "frame 1"),
        ([(0, GREY), (1, np.zeros((2, 3, 4, 5)))], "frame 1"),
        ([(1, GREY), (0.5, GREY)], "0.5 s"),
        ([("now", GREY)], "'now'"),
        ([(float("nan"), GREY)], "nan"),
        ([(GREY, GREY)], "frame 0"),
    ],
)
def test_frames_that_cannot_be_used_are_told(frames: list[Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        given_frames(frames)
    assert words in str(caught.value)
