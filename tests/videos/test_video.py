"""`ferplus_tvm.video`: from frames to faces with numbers and smoothed predictions."""

from __future__ import annotations

import gc
import json
import math
import pickle
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import ferplus_tvm as fer
from ferplus_tvm.errors import EngineClosedError, InputError, NoDetectorError, VideoDamagedError
from ferplus_tvm.videos.source import RawFrame, Taken
from ferplus_tvm.videos.steps import found
from ferplus_tvm.vision.detections import Detection
from tests.artifacts import assert_sentence
from tests.videos.encoding import write
from tests.vision.support import FACE, HOPPER, yunet

BOX = (20.0, 10.0, 24.0, 24.0)
SPOTS = np.random.default_rng(0).integers(0, 255, (3, 4, 3), np.uint8)
PATTERN = np.asarray(Image.fromarray(SPOTS).resize((64, 48), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def narrow(narrow_library: Path) -> Iterator[fer.Engine]:
    with fer.load(narrow_library, threads=1) as opened:
        yield opened


def fixed(picture: Any) -> list[Detection]:
    """Find a face in the same place of every picture."""
    return [Detection(BOX, (), 0.9)]


def frames_of(count: int) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    for number in range(count):
        yield number / 25, np.roll(PATTERN, number % 5, axis=1)


def threads() -> list[str]:
    return [each.name for each in threading.enumerate() if "video" in each.name]


def video(frames: Any, engine: fer.Engine, **options: Any) -> fer.Video:
    return fer.video(frames, engine, **{"detector": fixed, "min_face": 1, **options})


# --- people ----------------------------------------------------------------------------------


def cut_out(image: Image.Image, box: tuple[float, ...], height: int) -> Image.Image:
    """Return a head with what is around it."""
    x, y, wide, high = box
    part = image.crop(
        tuple(map(int, (x - wide * 0.4, y - high * 0.3, x + 1.4 * wide, y + 1.2 * high)))
    )
    return part.resize((round(part.width * height / part.height), height))


def people() -> tuple[Image.Image, Image.Image]:
    """Return the heads of Grace Hopper and Eileen Collins; both photos are in the public domain."""
    data = pytest.importorskip("skimage.data")
    one = cut_out(Image.open(HOPPER).convert("RGB"), FACE, 120)
    return one, cut_out(Image.fromarray(data.astronaut()), (175, 65, 95, 120), 120)


def crossing(turn: bool) -> Iterator[tuple[float, NDArray[np.uint8], list[float]]]:
    """Yield times, pictures of two who walk past each other or turn round, and where they are."""
    heads = people()
    for number in range(50):
        away = (number - 24.5) * 7 if not turn else abs(number - 24.5) * 7 + 14
        middles = [230 - away, 230 + away]
        picture = Image.new("RGB", (460, 160), (90, 110, 130))
        for head, middle in [*zip(heads, middles, strict=True)][::-1]:  # the first in front
            picture.paste(head, (round(middle - head.width / 2), 20))
        yield number / 25, np.asarray(picture), middles


@pytest.mark.parametrize("turn", [False, True])
def test_nothing_of_one_person_reaches_another_when_they_meet(
    narrow: fer.Engine, turn: bool
) -> None:
    shown = list(crossing(turn))
    seen: tuple[list[tuple[float, fer.Face]], ...] = ([], [])
    for frame, (_, _, middles) in zip(
        fer.video(((time, picture) for time, picture, _ in shown), narrow, detector=yunet),
        shown,
        strict=True,
    ):
        for face in frame.faces:
            away = [abs(face.box[0] + face.box[2] / 2 - middle) for middle in middles]
            who = 0 if away[0] <= away[1] + 20 else 1  # where both are, the first is seen
            if min(away) < 25:
                seen[who].append((frame.time, face))
    numbers = [{face.track for _, face in each} for each in seen]
    assert all(len(each) > 30 for each in seen)
    assert not numbers[0] & numbers[1]
    assert len(numbers[0]) == 1  # who is in front is never lost
    for each in seen:
        for number in {face.track for _, face in each}:
            assert_smoothed([(time, face) for time, face in each if face.track == number], 0.25)


def assert_smoothed(faces: list[tuple[float, fer.Face]], seconds: float) -> None:
    """Assert that each is the mean of a person's own predictions, by the sum that it stands for."""
    for at, (now, face) in enumerate(faces):
        weights = [math.exp((time - now) / seconds) for time, _ in faces[: at + 1]]
        rows = [list(each.prediction.probabilities.values()) for _, each in faces[: at + 1]]
        expected = np.average(rows, axis=0, weights=weights)
        assert face.smoothed is not None
        shares = list(face.smoothed.probabilities.values())
        np.testing.assert_allclose(shares, expected, atol=1e-6)


def test_nobody_is_followed_across_a_cut_to_a_face_in_the_same_place(narrow: fer.Engine) -> None:
    one, other = people()
    pictures = []
    for head, colour in ((one, (90, 110, 130)), (other, (160, 90, 60))):
        picture = Image.new("RGB", (320, 200), colour)
        picture.paste(head.resize((110, 120)), (100, 40))
        pictures += [np.asarray(picture)] * 5
    shown = fer.video(((n / 25, each) for n, each in enumerate(pictures)), narrow, detector=yunet)
    numbers = [[face.track for face in frame.faces] for frame in shown]
    assert numbers == [[1]] * 5 + [[2]] * 5


# --- between detections ----------------------------------------------------------------------


@pytest.mark.parametrize(("detect_every", "most"), [(1, 1e-6), (2, 0.04), (3, 0.08), (5, 0.13)])
def test_a_face_that_moves_is_where_it_is_in_each_frame(
    narrow: fer.Engine, detect_every: int, most: float
) -> None:
    """One that goes to and fro once a second, as far as it is wide."""

    def truth(time: float) -> tuple[float, float, float, float]:
        return 200 + 60 * math.sin(2 * math.pi * time), 100, 60, 70

    looked: list[float] = []

    def detect(picture: NDArray[np.uint8]) -> list[Detection]:
        time = float(picture[0, 0, 0]) / 25
        looked.append(time)
        x, y, w, h = truth(time)
        return [Detection((x, y, w, h), ((x, y), (x + w, y)), 0.9)]

    def frames() -> Iterator[tuple[float, NDArray[np.uint8]]]:
        for number in range(50):
            yield number / 25, np.full((240, 400, 3), number, np.uint8)

    options = {"detector": detect, "detect_every": detect_every}
    shown = list(fer.video(frames(), narrow, **options))  # type: ignore[arg-type]
    assert len(looked) == pytest.approx(50 / min(detect_every, 4), abs=2)  # at least all 0.15 s
    for frame in shown:
        (face,) = frame.faces
        away = abs(face.box[0] - truth(frame.time)[0]) / 60
        assert away <= most and face.box[1:] == pytest.approx(truth(frame.time)[1:])
        assert face.track == 1 and face.points[0] == face.box[:2]


def test_frames_that_are_far_apart_are_all_looked_at(narrow: fer.Engine) -> None:
    looked = []

    def detect(picture: Any) -> list[Detection]:
        looked.append(picture)
        return fixed(picture)

    given = ((number / 2, PATTERN) for number in range(8))
    assert len(list(video(given, narrow, detector=detect, detect_every=4))) == 8
    assert len(looked) == 8


def test_no_face_is_placed_between_two_scenes_or_where_one_has_come_or_gone(
    narrow: fer.Engine,
) -> None:
    steps = narrow.steps({"detector": lambda picture: fixed(0) if picture.mean() > 9 else []})

    def shown(*levels: int, cut: int = -1) -> list[int]:
        raws = [
            RawFrame(number, number / 25, np.full((48, 64, 3), level, np.uint8), number == cut)
            for number, level in enumerate(levels)
        ]
        return [len(each.detections) for each in found(iter(raws), steps, 3)]

    assert shown(0, 99, 99, 99, 99, 99, 99) == [0, 0, 0, 0 + 1, 1, 1, 1]
    assert shown(99, 99, 99, 0, 0, 0, 0) == [1, 0, 0, 0, 0, 0, 0]
    assert shown(99, 99, 99, 99, 99, 0, 0, cut=5) == [1, 1, 1, 1, 1, 0, 0]
    assert shown(0, 0, 99, 99, 99, 99, cut=2) == [0, 0, 1, 1, 1, 1]


# --- smoothing and options -------------------------------------------------------------------


@pytest.mark.parametrize("smooth", [0.0, 0.1, 0.25])
def test_raw_predictions_stay_beside_the_smoothed_ones(narrow: fer.Engine, smooth: float) -> None:
    shown = list(video(frames_of(30), narrow, smooth=smooth, detect_every=1))
    for frame in shown:
        (alone,) = narrow.predict_faces(frame.picture, [BOX])
        (face,) = frame.faces
        np.testing.assert_allclose(face.prediction.scores, alone.scores, rtol=1e-3, atol=1e-3)
        if smooth == 0:
            assert face.smoothed == face.prediction
    if smooth:
        assert_smoothed([(frame.time, frame.faces[0]) for frame in shown], smooth)


def test_every_start_and_end_choose_frames(narrow: fer.Engine, tmp_path: Path) -> None:
    clip = write(tmp_path / "clip.mp4", [np.roll(PATTERN, n, axis=1) for n in range(30)], gop=6)
    for source in (clip, list(frames_of(30))):
        shown = list(video(source, narrow, every=2, start=0.4, end=1.0))
        assert [frame.index for frame in shown] == list(range(10, 25, 2))
        assert [frame.time for frame in shown] == pytest.approx(np.arange(10, 25, 2) / 25)
        assert [frame.index for frame in video(source, narrow, fps=5)] == list(range(0, 30, 5))


def test_faces_of_several_frames_make_one_batch(
    narrow: fer.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = []
    score = narrow._scores

    def counted(faces: Any) -> Any:
        batches.append(len(faces))
        return score(faces)

    monkeypatch.setattr(narrow, "_scores", counted)
    clip = write(tmp_path / "clip.mp4", [PATTERN] * 20)
    assert len(list(video(clip, narrow))) == 20
    assert batches == [8, 8, 4]


def test_a_frame_is_given_back_before_the_next_one_comes(narrow: fer.Engine) -> None:
    """Else a camera of the caller's own would be seen late."""
    back = threading.Event()

    def frames() -> Iterator[tuple[float, NDArray[np.uint8]]]:
        for number in range(3):
            yield number / 25, PATTERN
            assert back.wait(10)
            back.clear()

    shown = video(frames(), narrow, detect_every=1)
    for number in range(3):
        assert next(shown).index == number
        back.set()


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"smooth": -1}, ValueError),
        ({"smooth": math.inf}, ValueError),
        ({"detect_every": 0}, ValueError),
        ({"every": 0}, ValueError),
        ({"min_faces": 3}, TypeError),
        ({"views": "both"}, ValueError),
    ],
)
def test_wrong_options_are_named(
    narrow: fer.Engine, wrong: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match=next(iter(wrong))):
        video([PATTERN], narrow, **wrong)


# --- what comes out --------------------------------------------------------------------------


def test_a_frame_is_plain_data(narrow: fer.Engine, tmp_path: Path) -> None:
    clip = write(tmp_path / "clip.mp4", [PATTERN] * 3)
    with video(clip, narrow) as shown:
        assert (shown.duration, shown.fps, shown.size) == (0.12, 25, (64, 48))
        assert (shown.source, shown.live) == (str(clip), False)
        *_, frame = shown
    assert (frame.index, frame.time, frame.width, frame.height) == (2, 0.08, 64, 48)
    assert frame.picture.shape == (48, 64, 3) and frame.source == str(clip)
    told = json.loads(json.dumps(frame.to_dict()))
    assert told["index"] == 2 and told["time"] == 0.08 and told["faces"][0]["track"] == 1
    assert told["faces"][0]["smoothed"]["label"] == frame.faces[0].smoothed.label
    (row,) = frame.rows()
    assert (row["source"], row["frame"], row["time"], row["face"]) == (str(clip), 2, 0.08, 1)
    assert row["track"] == 1 and row["smoothed_label"] == frame.faces[0].smoothed.label
    assert row["smoothed_probability"] == frame.faces[0].smoothed.probability
    assert pickle.loads(pickle.dumps(frame)) == frame
    drawn = frame.draw(tmp_path / "drawn.png")
    assert Image.open(tmp_path / "drawn.png").size == drawn.size == (64, 48)


def test_the_function_keeps_its_name_though_there_is_a_package_of_it() -> None:
    import ferplus_tvm.videos.clip  # noqa: F401

    assert callable(fer.video)


# --- ends ------------------------------------------------------------------------------------


def test_closing_early_ends_the_threads(narrow: fer.Engine, tmp_path: Path) -> None:
    clip = write(tmp_path / "clip.mp4", [PATTERN] * 60)
    closed = []

    def frames() -> Iterator[tuple[float, NDArray[np.uint8]]]:
        try:
            yield from frames_of(10_000)
        finally:
            closed.append(True)

    for source in (clip, frames()):
        with video(source, narrow) as shown:
            next(shown)
            assert threads()
        assert not threads() and list(shown) == []
        shown.close()
    assert closed == [True]


def test_a_video_that_is_dropped_ends_its_threads(narrow: fer.Engine) -> None:
    for frame in video(frames_of(10_000), narrow):
        assert frame.index == 0
        break
    gc.collect()
    assert not threads()


def test_what_goes_wrong_comes_after_what_was_right(narrow: fer.Engine) -> None:
    def frames() -> Iterator[tuple[float, NDArray[np.uint8]]]:
        yield from frames_of(10)
        raise OSError("the cable is out")

    seen = []
    with pytest.raises(OSError, match="the cable is out"):
        for frame in video(frames(), narrow):
            seen.append(frame.index)
    assert seen == list(range(10)) and not threads()


def test_an_error_of_a_detector_reaches_who_asked(narrow: fer.Engine) -> None:
    with pytest.raises(InputError, match="boxes"):
        list(video(frames_of(9), narrow, detector=lambda _: [(9, 9, 20)]))
    assert not threads()


def test_an_engine_that_is_closed_says_so(narrow_library: Path) -> None:
    with fer.load(narrow_library, threads=1) as engine:
        shown = video(frames_of(10_000), engine)
        next(shown)
    with pytest.raises(EngineClosedError):
        list(shown)
    assert not threads()


def test_a_library_without_a_detector_says_so(narrow: fer.Engine) -> None:
    with pytest.raises(NoDetectorError) as caught:
        next(fer.video(frames_of(3), narrow))
    assert_sentence(str(caught.value), "--detector")


def test_of_a_damaged_clip_every_frame_that_can_be_read_is_answered(
    narrow: fer.Engine, tmp_path: Path
) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (40, 48, 64, 3), np.uint8)
    whole = write(tmp_path / "clip.mkv", list(noise))
    content = whole.read_bytes()
    (tmp_path / "cut.mkv").write_bytes(content[: len(content) // 2])
    seen = []
    with pytest.raises(VideoDamagedError) as caught:
        for frame in video(tmp_path / "cut.mkv", narrow):
            seen.append(frame)
    assert 5 < len(seen) < 35 and all(len(frame.faces) == 1 for frame in seen)
    assert caught.value.time == pytest.approx(seen[-1].time + 0.04)


def test_a_live_source_is_read_when_its_frame_is_wanted(narrow: fer.Engine) -> None:
    from ferplus_tvm.videos.video import Video

    given: list[int] = []

    class Live:
        name, live = "a camera", True
        duration = fps = size = None

        def frames(self, taken: Taken) -> Iterator[RawFrame]:
            for number in range(9):
                given.append(number)
                yield RawFrame(number, number / 25, PATTERN)

        def close(self) -> None:
            given.append(-1)

    shown = Video(Live(), Taken(), narrow.steps({"detector": fixed, "min_face": 1}), 1, 0.25)
    for number in range(3):
        assert next(shown).index == number and given == list(range(number + 1))
        assert not threads()
    shown.close()
    assert given[-1] == -1


@pytest.mark.skipif(sys.platform != "linux", reason="one system is enough")
def test_memory_is_level_however_long_it_takes(narrow: fer.Engine) -> None:
    """Somebody new comes in each frame."""
    places = iter(range(10**9))

    def detect(picture: Any) -> list[Detection]:
        number = next(places)
        return [Detection((number % 7 * 40.0, number // 7 % 5 * 40.0, 30.0, 30.0), (), 0.9)]

    frame = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)
    given = ((number * 2.0, frame) for number in range(400))
    shown = video(given, narrow, detector=detect)
    tracemalloc.start()
    try:
        sizes = []
        numbers = set()
        for each in shown:
            numbers |= {face.track for face in each.faces}
            if each.index in (100, 399):
                gc.collect()
                sizes.append(tracemalloc.get_traced_memory()[0] - sys.getsizeof(numbers))
    finally:
        tracemalloc.stop()
    assert len(numbers) == 400
    assert sizes[1] - sizes[0] < 1e6, "a frame takes 0.2 MB"
