"""Ways to hand over a picture, its frames and size, and files that are no picture."""

from __future__ import annotations

import hashlib
import io
import os
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import ferplus_tvm
from ferplus_tvm.errors import InputError
from ferplus_tvm.faces.preprocess import preprocess

RNG = np.random.default_rng(13)
COLOUR = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (64, 64), dtype=np.uint8)


def luma(rgb):
    return rgb.astype(np.float64) @ [0.299, 0.587, 0.114]


def encode(picture, fmt="PNG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, fmt, **options)
    return buffer.getvalue()


def face(source, **options):
    result = preprocess(source, **options)
    assert result.shape == (1, 1, 64, 64)
    return result[0, 0]


def test_paths_bytes_and_files_give_the_same_face(tmp_path):
    data = encode(Image.fromarray(COLOUR))
    path = tmp_path / "face \u00e9.png"
    path.write_bytes(data)
    expected = face(Image.fromarray(COLOUR))
    for source in (str(path), path, data, bytearray(data), memoryview(data), io.BytesIO(data)):
        np.testing.assert_array_equal(face(source), expected)
    with path.open("rb") as file:
        np.testing.assert_array_equal(face(file), expected)


def test_a_file_is_read_from_where_it_stands_and_left_open():
    file = io.BytesIO(b"header" + encode(Image.fromarray(GREY)))
    file.seek(6)
    np.testing.assert_array_equal(face(file), GREY)
    with pytest.raises(InputError, match=r"is empty \(0 bytes\).*seek\(0\)"):
        preprocess(file)


@pytest.mark.skipif(sys.platform == "win32", reason="needs named pipes of POSIX")
def test_a_pipe_is_read_though_it_cannot_seek(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    data = encode(Image.new("L", (8, 8), 9))
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=[data])
    writer.start()
    try:
        assert (face(tmp_path / "pipe") == 9).all()
    finally:
        writer.join()


def test_the_bundled_face_is_the_one_that_its_readme_describes():
    folder = Path(ferplus_tvm.__file__).parent / "data"
    data = (folder / "sample_face.png").read_bytes()
    assert hashlib.sha256(data).hexdigest() in (folder / "README.md").read_text("utf-8")
    rgb = np.asarray(Image.open(io.BytesIO(data)))
    assert rgb.shape == (130, 130, 3)
    levels = face(folder / "sample_face.png")
    assert levels.mean() == pytest.approx(luma(rgb).mean(), abs=1)


def test_the_callers_image_is_left_as_it_is():
    picture = Image.fromarray(COLOUR[:40])
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.info["exif"] = exif.tobytes()
    preprocess(picture)
    assert (picture.mode, picture.size) == ("RGB", (64, 40))
    np.testing.assert_array_equal(np.asarray(picture), COLOUR[:40])


# Frames and sizes


@pytest.mark.parametrize("fmt", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame_counts(fmt):
    frames = [Image.new("L", (64, 64), level) for level in (40, 90, 200)]
    options = {"lossless": True} if fmt == "WEBP" else {}
    data = encode(frames[0], fmt, save_all=True, append_images=frames[1:], **options)
    with Image.open(io.BytesIO(data)) as animation:
        assert animation.n_frames == 3
        animation.seek(2)
        assert (face(animation) == 200).all()  # where the caller stands
    assert (face(data) == 40).all()


def test_one_pixel_is_a_picture():
    assert (face(encode(Image.new("RGB", (1, 1), (10, 10, 10)))) == 10).all()


def test_a_picture_without_pixels_is_refused():
    with pytest.raises(InputError, match="has 0 x 5 pixels"):
        preprocess(Image.new("L", (0, 5)))


@pytest.mark.parametrize("limit", [9999, 3000])  # Pillow warns; Pillow raises
@pytest.mark.parametrize("action", ["ignore", "error"])
def test_more_pixels_than_pillows_limit_are_refused(limit, action, monkeypatch):
    data = encode(Image.new("L", (100, 100)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with warnings.catch_warnings():
        warnings.simplefilter(action, Image.DecompressionBombWarning)
        with pytest.raises(InputError, match=f"too large.*at most {limit} pixels.*crop it"):
            preprocess(data)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10000)
    assert (face(data) == 0).all()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert (face(data) == 0).all()


# What is no picture


def test_paths_that_lead_nowhere(tmp_path):
    (tmp_path / "empty.png").write_bytes(b"")
    for path, says in (
        (tmp_path / "missing.png", "does not exist"),
        (tmp_path, "is a folder"),
        (tmp_path / "empty.png", r"is empty \(0 bytes\)"),
        ("nul\0l", "null"),
        ("", "is empty text"),
    ):
        with pytest.raises(InputError, match=says) as caught:
            preprocess(path)
        assert str(caught.value).startswith(repr(str(path)))


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() == 0, reason="needs an account that files can refuse"
)
def test_a_file_without_permission(tmp_path):
    path = tmp_path / "secret.png"
    path.write_bytes(b"x")
    path.chmod(0)
    with pytest.raises(InputError, match=r"secret\.png' cannot be read \(Permission denied\)"):
        preprocess(path)


def test_a_file_that_the_system_refuses(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(InputError, match=r"face\.png' cannot be read \(Permission denied\)"):
        preprocess(tmp_path / "face.png")


def test_a_picture_in_base64_is_not_printed_whole():
    with pytest.raises(InputError) as caught:
        preprocess("iVBORw0KGgo" * 10000)
    assert len(str(caught.value)) < 400


def test_truncated_files_are_refused():
    data = encode(Image.fromarray(COLOUR))
    for end in (1, 20, 60, len(data) // 2):
        with pytest.raises(InputError, match=r"^the image (cannot be decoded|is not in a known)"):
            preprocess(data[:end])


def test_vector_drawings_are_refused():
    with pytest.raises(InputError, match=r"vector drawing \(EPS\)"):
        preprocess(encode(Image.fromarray(COLOUR), "EPS"))


def test_text_and_broken_files_are_refused():
    closed = io.BytesIO(b"x")
    closed.close()
    with pytest.raises(InputError, match=r"gives str; expected bytes.*'rb'"):
        preprocess(io.StringIO("text"))
    with pytest.raises(InputError, match="cannot be read"):
        preprocess(closed)


@pytest.mark.filterwarnings("ignore:::PIL")
@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_random_bytes_never_raise_anything_else(data):
    for prefix in (b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"\xff\xd8\xff", b"P6\n", b"II*\0"):
        try:
            preprocess(prefix + data)
        except InputError as error:
            assert str(error).startswith("the image ") and "\n" not in str(error)


@pytest.mark.filterwarnings("ignore:::PIL")
@given(st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"]), st.data())
@settings(max_examples=300, deadline=None)
def test_damaged_pictures_never_raise_anything_else(fmt, data):
    picture = bytearray(encode(Image.fromarray(COLOUR[:9, :9]), fmt))
    for _ in range(data.draw(st.integers(1, 4))):
        picture[data.draw(st.integers(0, len(picture) - 1))] = data.draw(st.integers(0, 255))
    try:
        levels = preprocess(bytes(picture))
    except InputError as error:
        assert str(error).startswith("the image ")
    else:
        assert levels.min() >= 0 and levels.max() <= 255
