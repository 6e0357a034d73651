"""Reading of video files: every frame once, upright, at its time, or a sentence."""

from __future__ import annotations

import io
import pickle
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from ferplus_tvm.errors import InputError, MissingExtraError, VideoDamagedError
from ferplus_tvm.videos.clip import Clip
from ferplus_tvm.videos.cuts import Cuts
from ferplus_tvm.videos.opening import without_password
from ferplus_tvm.videos.source import RawFrame, Taken
from tests.artifacts import assert_sentence
from tests.videos.encoding import corners, difference, moving, read, write

PICTURES = moving(60)


def assert_same(found: list[RawFrame], expected: list[RawFrame]) -> None:
    assert [(each.index, each.time) for each in found] == [
        (each.index, each.time) for each in expected
    ]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.picture, other.picture)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clips")


@pytest.fixture(scope="module")
def plain(folder: Path) -> Path:
    return write(folder / "plain.mp4", PICTURES, container_options={"movflags": "faststart"})


# --- frames and times ------------------------------------------------------------------------


def test_every_frame_comes_once_with_its_number_and_time(plain: Path) -> None:
    clip = Clip(plain)
    assert (clip.duration, clip.fps, clip.size) == (60 / 25, 25, (64, 48))
    frames = list(clip.frames(Taken()))
    assert [each.index for each in frames] == list(range(60))
    assert [each.time for each in frames] == [number / 25 for number in range(60)]
    for number, frame in enumerate(frames):
        away = [difference(frame.picture, PICTURES[each]) for each in (number, (number + 20) % 60)]
        assert away[0] < min(away[1], 10)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_times_are_those_of_the_file_where_the_rate_varies(folder: Path, suffix: str) -> None:
    times = [0, 0.01, 0.05, 0.06, 0.3, 2.0]
    path = write(folder / f"variable{suffix}", PICTURES[:6], times=times)
    assert [each.time for each in read(path)] == pytest.approx(times)


def test_a_video_begins_at_0_wherever_its_clock_does(folder: Path) -> None:
    path = write(folder / "broadcast.ts", PICTURES, b_frames=2)
    clip = Clip(path)
    with av.open(str(path)) as container:
        start = container.streams.video[0].start_time
        assert start and clip.origin == pytest.approx(start / 90000)
    assert [each.time for each in clip.frames(Taken())] == pytest.approx(np.arange(60) / 25)


def test_frames_without_time_stamps_are_counted(folder: Path) -> None:
    path = write(folder / "raw.h264", PICTURES[:9], form="h264")
    assert [each.time for each in read(path)] == pytest.approx(np.arange(9) / 25)


def test_time_goes_on_where_the_clock_begins_anew(folder: Path) -> None:
    one = write(folder / "one.ts", PICTURES, b_frames=0).read_bytes()
    (folder / "two.ts").write_bytes(one + one)
    times = [each.time for each in read(folder / "two.ts")]
    assert len(times) == 120
    assert times == pytest.approx(np.arange(120) / 25)


def test_bytes_and_open_files_are_read_too(plain: Path) -> None:
    expected = read(plain)
    assert_same(read(plain.read_bytes()), expected)
    assert_same(read(io.BytesIO(plain.read_bytes()), start=1.0), expected[25:])
    with plain.open("rb") as file:
        assert_same(read(file), expected)


def test_a_name_with_a_colon_is_no_address(plain: Path, tmp_path: Path) -> None:
    if sys.platform == "win32":
        pytest.skip("no such names")
    odd = tmp_path / "a:b%d.mp4"
    odd.write_bytes(plain.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        assert len(read(odd.name)) == 60


def test_a_title_in_an_old_encoding_is_no_obstacle(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "titled.mkv"), "w") as output:
        output.metadata["title"] = "Geburtstag"
        stream: Any = output.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        output.mux(stream.encode(av.VideoFrame.from_ndarray(corners(), "rgb24")))
        output.mux(stream.encode(None))
    content = (tmp_path / "titled.mkv").read_bytes()
    assert b"Geburtstag" in content
    assert len(read(content.replace(b"Geburtstag", "Geburtst\xe4g".encode("latin-1")))) == 1


# --- pictures --------------------------------------------------------------------------------


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_a_turned_clip_is_upright(folder: Path, degrees: int) -> None:
    path = write(
        folder / f"turned{degrees}.mp4",
        [corners()] * 2,
        prepare=lambda stream: stream.set_display_rotation(degrees),
    )
    found = read(path)[0].picture
    capture = cv2.VideoCapture(str(path))
    expected = capture.read()[1][..., ::-1]
    capture.release()
    assert difference(found, expected) < 2
    assert Clip(path).size == found.shape[1::-1]


@pytest.mark.parametrize("degrees", [0, 90])
def test_a_mirrored_clip_is_mirrored(folder: Path, degrees: int) -> None:
    def written(mirrored: bool) -> Path:
        return write(
            folder / f"mirror{degrees}{mirrored}.mp4",
            [corners()] * 2,
            prepare=lambda stream: stream.set_display_rotation(degrees, hflip=mirrored),
        )

    plain, mirrored = (read(written(each))[0].picture for each in (False, True))
    np.testing.assert_array_equal(mirrored, plain[:, ::-1])


@pytest.mark.parametrize(
    ("aspect", "size"), [("2", (128, 48)), ("1/2", (64, 96)), ("16/11", (93, 48)), ("1", (64, 48))]
)
def test_pixels_are_made_square(folder: Path, aspect: str, size: tuple[int, int]) -> None:
    def prepare(stream: Any) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(aspect)

    name = aspect.replace("/", "-")
    path = write(folder / f"aspect{name}.mp4", [corners()] * 2, prepare=prepare)
    picture = read(path)[0].picture
    assert picture.shape[1::-1] == size == Clip(path).size
    assert difference(picture, corners(*size)) < 8


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "suffix"),
    [
        ("libx264", "yuv444p", ".mp4"),
        ("ffv1", "yuv420p", ".mkv"),
        ("ffv1", "gray", ".mkv"),
        ("ffv1", "bgr0", ".mkv"),
        ("libx264", "yuv420p10le", ".mp4"),
        ("prores_ks", "yuv422p10le", ".mov"),
        ("mjpeg", "yuvj420p", ".avi"),
    ],
)
def test_odd_sizes_and_every_kind_of_pixel(
    folder: Path, codec: str, pix_fmt: str, suffix: str
) -> None:
    size = (64, 48) if codec == "libx264" and "420" in pix_fmt else (63, 49)
    picture = corners(*size)
    path = write(folder / f"{codec}-{pix_fmt}{suffix}", [picture] * 2, codec=codec, pix_fmt=pix_fmt)
    found = read(path)[0].picture
    if pix_fmt == "gray":
        picture = np.repeat((picture @ [0.299, 0.587, 0.114])[..., None], 3, 2).astype(np.uint8)
    assert difference(found, picture) < 6
    assert difference(found[:, -4:], picture[:, -4:]) < 8 > difference(found[-4:], picture[-4:])


def test_the_two_moments_of_an_interlaced_frame_are_not_mixed(folder: Path) -> None:
    pictures = []
    for number in range(8):
        picture = np.full((48, 64, 3), 40, np.uint8)
        picture[0::2, number * 4 : number * 4 + 16] = 220
        picture[1::2, number * 4 + 2 : number * 4 + 18] = 220
        pictures.append(picture)
    options = {"x264-params": "interlaced=1:tff=1", "crf": "4"}
    frames = read(write(folder / "interlaced.mp4", pictures, options=options))

    assert [each.time for each in frames] == pytest.approx(np.arange(8) / 25)
    for frame, picture in zip(frames[1:], pictures[1:], strict=True):  # the first has none before
        combed = np.abs(np.diff(picture.astype(int), axis=0)).mean()
        assert np.abs(np.diff(frame.picture.astype(int), axis=0)).mean() < combed / 5


# --- which frames ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".mp4", {"gop": 10, "b_frames": 3}),
        (".mp4", {"gop": 10, "b_frames": 3, "options": {"x264-params": "open-gop=1"}}),
        (".mkv", {"gop": 10, "b_frames": 2}),
        (".webm", {"codec": "libvpx-vp9", "gop": 10, "options": {"cpu-used": "8"}}),
        (".webm", {"codec": "libvpx", "options": {"auto-alt-ref": "1", "lag-in-frames": "16"}}),
        (".avi", {"codec": "mpeg4", "gop": 10, "b_frames": 2}),
        (".ts", {"gop": 10, "b_frames": 2}),
        (".mpg", {"codec": "mpeg2video", "gop": 12, "b_frames": 2}),
        (".flv", {"codec": "flv", "gop": 10}),
    ],
)
def test_seeking_gives_the_same_frames_as_reading_from_the_start(
    folder: Path, suffix: str, options: dict[str, Any]
) -> None:
    path = write(folder / f"sought{len(str(options))}{suffix}", PICTURES, **options)
    everything = read(path)
    assert len(everything) == 60
    for start in (0.01, 1.0, 1.5, 1.59, 2.3):
        expected = [each for each in everything if start <= each.time]
        assert_same(read(path, start=start), expected)
    assert_same(read(path, start=1.5, end=1.7), [e for e in everything if 1.5 <= e.time < 1.7])


def test_what_lies_far_before_the_start_is_not_decoded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(folder / "far.mp4", PICTURES, gop=10)
    seen = []
    monkeypatch.setattr(Cuts, "see_frame", lambda _, frame: seen.append(frame.pts))
    assert read(path, start=2.2)[0].index == 55
    assert len(seen) == 10


def test_a_start_behind_the_end_is_told(plain: Path) -> None:
    for start in (2.37, 100):
        with pytest.raises(InputError) as caught:
            read(plain, start=start)
        assert_sentence(str(caught.value), "plain.mp4", f"start is {start} s", "2.36 s")
    assert [each.index for each in read(plain, start=2.36)] == [59]


# --- damage ----------------------------------------------------------------------------------


def cut(path: Path, part: float) -> Path:
    made = path.with_stem(f"{path.stem}-cut")
    content = path.read_bytes()
    made.write_bytes(content[: int(part * len(content))])
    return made


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".avi"])
def test_of_a_clip_that_breaks_off_what_can_be_read_is_given_and_then_its_end_told(
    folder: Path, suffix: str
) -> None:
    codec = {".webm": "libvpx-vp9", ".avi": "mjpeg"}.get(suffix, "libx264")
    path = write(
        folder / f"whole{suffix}",
        PICTURES,
        codec=codec,
        pix_fmt="yuvj420p" if codec == "mjpeg" else "yuv420p",
        container_options={"movflags": "faststart"} if suffix == ".mp4" else {},
    )
    expected = {frame.time: frame.picture for frame in read(path)}
    found = []
    with pytest.raises(VideoDamagedError) as caught:
        for frame in Clip(cut(path, 0.6)).frames(Taken()):
            found.append(frame)
    assert 20 < len(found) < 55
    for number, frame in enumerate(found):
        assert frame.time == number / 25 or number > len(found) - 4  # one between two may be lost
        np.testing.assert_array_equal(frame.picture, expected[frame.time])
    assert caught.value.time == pytest.approx(found[-1].time + 1 / 25)
    assert_sentence(str(caught.value), f"whole-cut{suffix}", f"{caught.value.time:.2f} s")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.time) == (str(caught.value), caught.value.time)


def test_an_avi_that_breaks_off_anywhere_is_told(folder: Path) -> None:
    path = write(folder / "avi.avi", PICTURES, codec="mjpeg", pix_fmt="yuvj420p")
    for part in np.linspace(0.3, 0.75, 40):
        with pytest.raises(VideoDamagedError):
            list(Clip(cut(path, part)).frames(Taken()))


def test_damage_behind_the_end_that_is_asked_for_is_none_of_it(plain: Path) -> None:
    assert len(read(cut(plain, 0.6), end=0.8)) == 20


def test_damage_in_the_middle_is_told_after_the_rest(plain: Path) -> None:
    content = bytearray(plain.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = bytes(range(250)) * 8
    found = []
    with pytest.raises(VideoDamagedError) as caught:
        for frame in Clip(bytes(content)).frames(Taken()):
            found.append(frame)
    assert 30 < len(found) < 60 and found[-1].time > 2.2
    assert_sentence(str(caught.value), "frame", "may be wrong")


# --- what is no video ------------------------------------------------------------------------


def test_each_thing_that_is_no_video_has_a_sentence(folder: Path, plain: Path) -> None:
    content = plain.read_bytes()
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("no video\n" * 50)
    (folder / "text.txt").write_text("no video\n" * 50)
    (folder / "codec.mp4").write_bytes(content.replace(b"avc1", b"xxxx"))
    late = write(folder / "late.mp4", PICTURES)  # with its index at the end
    cut(late, 0.6)
    cv2.imwrite(str(folder / "photo.png"), corners())
    cv2.imwrite(str(folder / "photo.jpg"), corners())
    with av.open(str(folder / "sound.m4a"), "w") as output:
        output.mux(sound(output))
    with av.open(str(folder / "cover.mp3"), "w") as output:
        cover: Any = output.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        packets = sound(output, "mp3")
        output.mux(cover.encode(av.VideoFrame.from_ndarray(corners(), "rgb24")))
        output.mux(packets)
    with av.open(str(folder / "none.mkv"), "w") as output:
        stream: Any = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        output.start_encoding()
    for name, words in {
        "empty.mp4": "0 bytes",
        "text.mp4": "no video",
        "text.txt": "text",
        "codec.mp4": "decoder",
        "late-cut.mp4": "index",
        "photo.png": "picture",
        "photo.jpg": "picture",
        "sound.m4a": "only audio",
        "cover.mp3": "cover",
        "none.mkv": "no frame",
        "missing.mp4": "does not exist",
        "": "folder",
    }.items():
        with pytest.raises(InputError) as caught:
            Clip(folder / name)
        assert_sentence(str(caught.value), str(folder / name), words)


def sound(output: Any, codec: str = "aac") -> list[Any]:
    stream = output.add_stream(codec, rate=44100)
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 4608), np.float32), "fltp", "mono")
    frame.sample_rate = 44100
    return [*stream.encode(frame), *stream.encode(None)]


def test_addresses_are_told_without_the_password() -> None:
    with pytest.raises(InputError) as caught:
        Clip("http://me:secret@127.0.0.1:1/clip.mp4")
    assert_sentence(str(caught.value), "http://127.0.0.1:1/clip.mp4")
    assert "secret" not in str(caught.value)
    assert without_password("rtsp://u:p@host/a@b") == "rtsp://host/a@b"
    with pytest.raises(InputError, match="does not know"):
        Clip("gopher9://host/clip.mp4")


def test_without_pyav_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"ferplus_tvm\[video\]"):
        Clip("clip.mp4")
