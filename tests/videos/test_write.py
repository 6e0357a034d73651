"""Annotated videos: their times, sound, sizes and colours, and what a broken run leaves."""

from __future__ import annotations

import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from ferplus_tvm.errors import InputError, MissingExtraError
from ferplus_tvm.videos import encode
from ferplus_tvm.videos.clip import Clip
from ferplus_tvm.videos.source import Taken
from ferplus_tvm.videos.write import VideoWriter
from ferplus_tvm.vision.draw import drawn
from tests.videos import encoding
from tests.videos.clips import (
    BLUE,
    CLICK,
    RED,
    TIMES,
    face_of,
    framed,
    picture,
    read,
    write_clip,
)

HAPPY = face_of(3, 0, 9)


def annotate(
    source: Path,
    output: Path,
    every: int = 1,
    start: float | None = None,
    end: float | None = None,
) -> VideoWriter:
    frames = Clip(str(source)).frames(Taken(every=every, start=start, end=end))
    with VideoWriter(output, source, start=start, end=end) as writer:
        for number, raw in enumerate(frames):
            writer.write(framed(raw, *([HAPPY] if number % 2 == 0 else [])))
    return writer


def shown(array: np.ndarray) -> bool:
    """Whether the left side of the face's box, which is yellow, is in the picture."""
    return bool(array[20, 4:14, 1].max() > 150)


@pytest.mark.parametrize(
    ("source", "output", "codec", "sound", "unit"),
    [
        ("a.mp4", "b.mp4", "libx264", "aac", 0),
        ("a.mp4", "b.mov", "libx264", "aac", 0),
        ("a.webm", "b.mp4", "libvpx-vp9", "libopus", 0),
        ("a.webm", "b.webm", "libvpx-vp9", "libopus", 0.0005),
    ],
)
def test_times_and_sound_are_those_of_the_source(
    tmp_path: Path, source: str, output: str, codec: str, sound: str, unit: float
) -> None:
    path = write_clip(tmp_path / source, codec=codec, sound=sound)
    writer = annotate(path, tmp_path / output)

    before, after = read(path), read(tmp_path / output)
    assert writer.notes == []
    assert len(after.times) == len(TIMES)
    for one, other in zip(after.times, before.times, strict=True):
        assert abs(one - other) <= unit
    assert [content for _, content in after.packets] == [content for _, content in before.packets]
    assert float(after.packets[5][0]) == pytest.approx(float(before.packets[5][0]), abs=0.0006)
    assert sorted(os.listdir(tmp_path)) == sorted([source, output])


def test_matroska_begins_at_zero_and_keeps_times_to_the_millisecond(tmp_path: Path) -> None:
    """AAC's first packet, which is never heard, would move all others by 21 ms."""
    path = write_clip(tmp_path / "a.mp4")
    annotate(path, tmp_path / "b.mkv")

    before, after = read(path), read(tmp_path / "b.mkv")
    assert [float(time) for time in after.times] == pytest.approx(TIMES, abs=0.0005)
    heard = [content for time, content in before.packets if time >= 0]
    assert [content for _, content in after.packets] == heard
    assert after.click == pytest.approx(CLICK, abs=0.005)


def test_sound_that_the_container_cannot_hold_is_encoded_and_stays_in_time(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4")
    writer = annotate(path, tmp_path / "b.webm")

    after = read(tmp_path / "b.webm")
    (note,) = writer.notes
    assert "sound track 1" in note and "opus" in note and "aac" in note
    assert after.codecs == ["vp9", "opus"]
    assert after.click == pytest.approx(CLICK, abs=0.01)


def test_frames_between_carry_the_faces_of_the_one_before(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", size=(96, 64))
    annotate(path, tmp_path / "b.mp4", every=4)

    after = read(tmp_path / "b.mp4")
    assert after.times == read(path).times
    assert [shown(each) for each in after.pictures] == [True] * 4 + [False] * 4 + [True] * 4


def test_a_part_begins_at_zero_with_its_own_sound(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4")
    annotate(path, tmp_path / "b.mp4", every=2, start=0.1, end=1.305)

    after = read(tmp_path / "b.mp4")
    part = [time for time in read(path).times if 0.1 <= float(time) < 1.305]
    assert after.times == [time - part[0] for time in part]
    assert after.click == pytest.approx(CLICK - 0.1, abs=0.005)
    assert 1.15 < float(after.packets[-1][0]) < 1.21


def test_mpeg_ts_whose_clock_begins_anywhere_gives_times_from_zero(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.ts")
    annotate(path, tmp_path / "b.mp4")

    before, after = read(path), read(tmp_path / "b.mp4")
    assert after.times == [time - before.times[0] for time in before.times]
    assert before.click is not None
    assert after.click == pytest.approx(before.click - float(before.times[0]), abs=0.005)


def test_sound_whose_times_begin_anew_is_left_out_and_said(tmp_path: Path) -> None:
    """As of recordings put one behind the other, whose second one no container would take."""
    path, twice = write_clip(tmp_path / "a.ts"), tmp_path / "twice.ts"
    twice.write_bytes(2 * path.read_bytes())
    writer = annotate(twice, tmp_path / "b.mp4")

    once, after = read(path), read(tmp_path / "b.mp4")
    assert len(after.times) == 2 * len(TIMES)
    assert len(after.packets) == len(once.packets)
    assert "out of order" in writer.notes[0] and str(len(once.packets)) in writer.notes[0]


def test_a_turned_video_is_written_upright(tmp_path: Path) -> None:
    path = encoding.write(
        tmp_path / "a.mp4",
        [picture(64, 48)] * 3,
        prepare=lambda stream: stream.set_display_rotation(90),
    )
    annotate(path, tmp_path / "b.mp4")

    after = read(tmp_path / "b.mp4")
    assert after.pictures[0].shape == (64, 48, 3)
    # What was above lies to the left: FFmpeg's degrees are counted against the clock.
    for column, colour in ((4, RED), (44, BLUE)):
        assert np.abs(after.pictures[1][50, column].astype(int) - colour).max() < 24
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert next(container.decode(video=0)).rotation == 0


@pytest.mark.parametrize(
    ("output", "size"), [("b.mp4", (66, 48)), ("b.webm", (65, 47))], ids=["mp4", "webm"]
)
def test_odd_sizes_and_colours_are_kept(tmp_path: Path, output: str, size: tuple[int, int]) -> None:
    """H.264 has even sides: the last column is there twice, nothing is scaled."""
    path = write_clip(tmp_path / "a.webm", size=(65, 47), codec="libvpx-vp9", sound=None)
    with VideoWriter(tmp_path / output, path) as writer:
        for raw in Clip(str(path)).frames(Taken()):
            writer.write(framed(raw))

    after = read(tmp_path / output)
    assert after.pictures[0].shape == (size[1], size[0], 3)
    for row, colour in ((8, RED), (40, BLUE)):
        assert np.abs(after.pictures[3][row, 40].astype(int) - colour).max() < 24
    with av.open(str(tmp_path / output)) as container:
        frame = next(container.decode(video=0))
        assert frame.colorspace == 1  # BT.709, whose luminance of red is this, of 16..235:
        red, green, blue = (each / 255 for each in frame.to_ndarray(format="rgb24")[8, 40])
        luminance = 16 + 219 * (0.2126 * red + 0.7152 * green + 0.0722 * blue)
        plane = frame.planes[0]
        assert bytes(plane)[8 * plane.line_size + 40] == pytest.approx(luminance, abs=3)


def test_without_h264_another_codec_keeps_the_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode, "_ENCODERS", ("no-such-encoder", "mpeg4"))
    path = write_clip(tmp_path / "a.mp4")
    annotate(path, tmp_path / "b.mp4")

    after = read(tmp_path / "b.mp4")
    assert after.codecs == ["mpeg4", "aac"]
    assert [float(time) for time in after.times] == pytest.approx(TIMES, abs=2e-5)


def test_frames_of_no_file_have_their_times(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4")
    with VideoWriter(tmp_path / "b.mp4") as writer:
        for raw in Clip(str(path)).frames(Taken(every=5)):
            writer.write(framed(raw))
    after = read(tmp_path / "b.mp4")
    assert after.times == [Fraction(str(time)) for time in TIMES[::5]]
    assert after.codecs == ["h264"]


def test_frames_of_another_video_are_refused(tmp_path: Path) -> None:
    first, second, _ = Clip(str(write_clip(tmp_path / "a.mp4"))).frames(Taken(end=0.1))
    with VideoWriter(tmp_path / "b.mp4") as writer:
        writer.write(framed(second))
        with pytest.raises(ValueError, match=r"of 0 s, after one of 0\.04 s.*for each video"):
            writer.write(framed(first))
    assert len(read(tmp_path / "b.mp4").times) == 1


def test_what_is_done_can_be_played_though_it_was_stopped(tmp_path: Path) -> None:
    path, output = write_clip(tmp_path / "a.mp4"), tmp_path / "b.mp4"
    with pytest.raises(KeyboardInterrupt), VideoWriter(output, path) as writer:
        for number, raw in enumerate(Clip(str(path)).frames(Taken())):
            if number == 7:
                raise KeyboardInterrupt
            writer.write(framed(raw))
    after = read(output)
    assert after.times == read(path).times[:7]
    assert 0.4 < float(after.packets[-1][0]) < 0.6
    assert sorted(os.listdir(tmp_path)) == ["a.mp4", "b.mp4"]


def test_a_full_disk_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, output = write_clip(tmp_path / "a.mp4"), tmp_path / "b.mp4"
    output.write_text("an old one")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(encode.Encoder, "flush", full)
    with pytest.raises(InputError, match="No space left on device"):
        annotate(path, output)
    assert output.read_text() == "an old one"
    assert sorted(os.listdir(tmp_path)) == ["a.mp4", "b.mp4"]


def test_what_is_drawn_is_the_smoothed_emotion_and_the_number() -> None:
    sad = face_of(3, 0, 0, 0, 9)
    face = replace(HAPPY, smoothed=sad.prediction)
    grey = np.full((200, 300, 3), 90, np.uint8)

    box = {tuple(pixel) for pixel in np.asarray(drawn(grey, [face])).reshape(-1, 3).tolist()}
    assert (0x00, 0x72, 0xB2) in box and (0xF0, 0xE4, 0x42) not in box
    other = np.asarray(drawn(grey, [replace(face, track=4)]))
    alone = np.asarray(drawn(grey, [replace(face, track=None)]))
    assert (np.asarray(drawn(grey, [face])) != other).any() and (alone != other).any()


def test_names_that_cannot_be_written_are_refused_at_once(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4")
    content = path.read_bytes()
    (tmp_path / "link.mp4").symlink_to(path)
    (tmp_path / "folder.mp4").mkdir()
    for name, said in [
        ("a.mp4", "is the video that is read"),
        ("link.mp4", "is the video that is read"),
        ("b.avi", "expected .mp4"),
        ("b", "no suffix: expected .mp4"),
        ("none/b.mp4", "cannot be written"),
        ("folder.mp4", "cannot be written"),
    ]:
        with pytest.raises(InputError, match=said):
            VideoWriter(tmp_path / name, path)
    assert path.read_bytes() == content
    assert sorted(os.listdir(tmp_path)) == ["a.mp4", "folder.mp4", "link.mp4"]


def test_without_pyav_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"ferplus_tvm\[video\]"):
        VideoWriter(tmp_path / "b.mp4")
