"""What people pass in place of a picture is named for what it is, with what to do."""

from __future__ import annotations

import base64
import io
import re
import tempfile
import warnings
from array import array
from collections import deque
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ferplus_tvm.errors import InputError
from ferplus_tvm.faces.preprocess import preprocess

GREY = (np.arange(4096) % 251).reshape(64, 64).astype(np.uint8)


def encode(fmt):
    buffer = io.BytesIO()
    Image.fromarray(GREY).save(buffer, fmt)
    return buffer.getvalue()


PNG = encode("PNG")


def reason(source):
    with pytest.raises(InputError) as caught:
        preprocess(source)
    said = str(caught.value)
    assert "\n" not in said and len(said) < 600
    return said


# Bytes of another kind

ISO_VIDEO = b"\0\0\0\x18ftypisom\0\0\2\0isomiso2mp41"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\xff\x0a" + bytes(50), "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(50), "JPEG XL"),
        (b"%PDF-1.7\n%\xe2\xe3", "PDF"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"<svg viewBox='0 0 1 1'></svg>", "SVG"),
        (b"<!DOCTYPE html><html></html>", "HTML"),
        (b"\n <html><body>404</body></html>", "HTML"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "XML"),
        (b'{"error": "not found"}', "JSON"),
        (b'[{"a": 1}]', "JSON"),
        (ISO_VIDEO + bytes(50), "MP4 video"),
        (b"RIFF\0\0\0\0AVI LIST" + bytes(50), "AVI video"),
        (b"\x1aE\xdf\xa3" + bytes(50), "video"),
        (b"PK\x03\x04" + bytes(50), "ZIP.*unpack"),
        (b"\x1f\x8b\x08" + bytes(50), "gzip.*unpack"),
        (b"\x93NUMPY\x01\0" + bytes(50), r"numpy\.load"),
        (b"\0\x05\x16\x07\0\x02\0\0Mac OS X" + bytes(50), "AppleDouble.*macOS"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (base64.b64encode(PNG), "base64.*b64decode"),
        (base64.encodebytes(encode("JPEG")), "base64.*b64decode"),
        (b"data:image/png;base64," + base64.b64encode(PNG), "data URI.*follows"),
        (base64.urlsafe_b64encode(PNG), "urlsafe_b64decode"),
        (PNG.hex().encode(), r"bytes\.fromhex"),
        (b"II*\0" + bytes(50), "begins as TIFF"),
        (b"https://example.org/face.jpg", "address.*download"),
        (str(PNG).encode(), "text of Python bytes"),
        (" ".join(map(str, GREY.ravel())).encode(), "numbers as text"),
        (b"emotion,pixels,Usage\n0,70 80 82" + b" 58" * 2301 + b",Training\n", "numbers as text"),
        (PNG.decode("utf-8", "replace").encode(), "as text.*'rb'"),
        (PNG.decode("latin-1").encode(), "as text.*'rb'"),
        (PNG.replace(b"\r\n", b"\n"), "as text.*'rb'"),
        (b"--x\r\nContent-Disposition: form-data; name=f\r\n\r\n" + PNG, "body of a form"),
        (GREY.tobytes(), r"pixels of a 64 x 64 face.*reshape\(64, 64\)"),
        (GREY[:48, :48].tobytes() * 3, r"pixels of a 48 x 48 face.*reshape\(48, 48, 3\)"),
        (b"Not Found", "text, which begins with 'Not Found'"),
        (b"Error 500\nInternal", "text, which begins with 'Error 500"),
    ],
)
def test_other_content_is_named_with_the_next_step(content, says, tmp_path):
    file = tmp_path / "face.png"
    file.write_bytes(content)
    for source in (content, io.BytesIO(content), file):
        assert re.search(says, reason(source))


def test_a_path_in_bytes_is_named_and_whether_it_exists_is_not_told(tmp_path):
    file = tmp_path / "face.png"
    missing = reason(str(file).encode())
    file.write_bytes(PNG)
    assert "looks like a path" in missing
    assert reason(str(file).encode()) == missing


def test_damaged_pictures_are_not_taken_for_anything_else():
    assert "beginning is damaged" in reason(PNG[:4] + bytes(300))


# Text that is no path


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("data:image/png;base64," + base64.b64encode(PNG).decode(), "data URI.*b64decode"),
        (base64.b64encode(PNG).decode(), "base64 text.*b64decode"),
        (base64.b64encode(encode("JPEG")).decode(), "base64 text.*b64decode"),
        (base64.b64encode(PNG).decode()[:60], "base64 text"),
        (base64.urlsafe_b64encode(PNG).decode(), "urlsafe_b64decode"),
        (f'"{base64.b64encode(PNG).decode()}"', "base64 text"),
        (PNG.hex(), r"bytes\.fromhex"),
        ("0x" + PNG.hex(" "), r"bytes\.fromhex"),
        ("".join(f"\\x{byte:02x}" for byte in PNG[:60]), r"bytes\.fromhex"),
        ("$FACES/nowhere.png", "expandvars"),
        ("file:///tmp/a%20face.png", "%20"),
        ("['a.png', 'b.png']", "pass the list itself"),
        ("https://example.org/face.jpg", "address.*download"),
        ("s3://faces/1.png", "address.*download"),
        ("file:///tmp/nowhere.png", "file's address"),
        ("~/nowhere.png", "expanduser"),
        ("faces/*/nowhere.png", r"glob\.glob"),
        ("", "empty text"),
        (" ".join(map(str, GREY.ravel())), "numbers as text"),
        (str(GREY.tolist()), "numbers as text"),
        ("<svg></svg>", "SVG"),
        ('{"image": "x"}', "JSON"),
        (str(PNG), "text of Python bytes"),
        ("/data/faces/Album2024/anna", "does not exist; expected an image file"),
        ("Album2024_of_a_very_long_name_in_a_folder_of_people", "does not exist; expected"),
    ],
)
def test_text_that_is_no_path_is_named_with_the_next_step(text, says):
    assert re.search(says, reason(text))


def test_a_path_object_of_such_text_is_named_too():
    assert "is an address" in reason(Path("https://example.org/a.jpg"))
    assert "expanduser" in reason(Path("~/nowhere.png"))


def test_a_path_that_was_read_from_a_list_with_its_line_break(tmp_path):
    (tmp_path / "face.png").write_bytes(PNG)
    for text in (f"{tmp_path / 'face.png'}\n", f' "{tmp_path / "face.png"}"'):
        assert "strip it" in reason(text)


def test_a_file_whose_name_looks_like_something_else_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("~face.png", "face[1].png", "data:x.png"):
        try:
            Path(name).write_bytes(PNG)
        except OSError:
            continue  # a name that this system does not allow
        assert len(preprocess(name)) == 1


# Objects


class Upload:
    """A file of a web framework."""

    async def read(self):
        return PNG


class Answer:
    """A response of an HTTP library."""

    status_code = 200
    content = PNG


class Frame:
    """A tensor on a GPU."""

    def __array__(self, dtype=None, copy=None):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def cpu(self):
        return self


class UMat:
    """OpenCV's array on whatever device."""


class Lent:
    """An array of a framework that numpy reads by DLPack alone."""

    def __dlpack__(self):
        return GREY.__dlpack__()


@pytest.mark.parametrize(
    ("item", "says"),
    [
        (None, r"is None.*cv2\.imread"),
        (Upload(), "await"),
        ([GREY], r"a list within a list.*numpy\.asarray"),
        (GREY.tolist(), r"a list within a list.*numpy\.asarray"),
        ((GREY, None), "a tuple within a list"),
        (125, r"number \(125\).*numpy\.asarray"),
        ({"bytes": PNG, "path": None}, "dictionary of 'bytes', 'path'"),
        ({PNG}, r"list\(\.\.\.\)"),
        ((x for x in [GREY]), r"list\(\.\.\.\)"),
        (Answer(), r"\.content"),
        (GREY.copy, "call it"),
        (Frame(), r"cannot be read as an array.*cuda:0.*\.cpu\(\)"),
        (True, r"cv2\.VideoCapture\.read.*frame alone"),
        (Decimal(3), "a number"),
        (deque([GREY]), r"list\(\.\.\.\)"),
        ({1: GREY}.values(), r"list\(\.\.\.\)"),
        (array("B", PNG), r"numpy\.asarray of it.*bytes of it"),
        (memoryview(GREY), r"numpy\.asarray of it"),
        (UMat(), r"get\(\)"),
        (Lent(), "from_dlpack"),
        (np.array([" ".join(map(str, GREY[:48, :48].ravel()))], object), r"reshape\(48, 48\)"),
        (np.array([PNG], object), r"holds bytes.*tolist\(\)"),
        (GREY.astype(object), r"astype\(numpy\.uint8\)"),
        (np.array(list(PNG)), r"encoded picture \(PNG\).*astype\(numpy\.uint8\)\.tobytes\(\)"),
        (GREY[0], "whole pictures"),
        (io.StringIO("text"), "'rb'"),
        (np.array([GREY, None], dtype=object), r"Python objects.*ndarray.*list\(array\)"),
        (np.array(["a.png", "b.png"]), r"text.*tolist\(\)"),
        (GREY * 1j, "complex128.*expected real numbers"),
    ],
)
def test_other_objects_are_named_with_the_next_step(item, says):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # such as of a coroutine that nobody awaits
        with pytest.raises(InputError, match=f"item 2 of 2 .*{says}"):
            preprocess([GREY, item])


def test_pixels_in_nested_lists_are_named():
    assert "item 1 of 64 is a list within a list" in reason(GREY.tolist())
    assert "item 1 of 4096 is a number" in reason(GREY.ravel().tolist())


@pytest.mark.parametrize("end", ["close", "verify"])
def test_a_picture_that_was_closed_before_it_was_decoded(end):
    picture = Image.open(io.BytesIO(PNG))
    getattr(picture, end)()
    assert "open it again" in reason(picture)


def test_an_upload_that_was_not_awaited():
    upload = Upload().read()
    try:
        assert "await it first" in reason(upload)
    finally:
        upload.close()


def test_a_spooled_file_and_a_picture_in_base64_are_read_as_advised():
    with tempfile.SpooledTemporaryFile() as file:
        file.write(PNG)
        file.seek(0)
        np.testing.assert_array_equal(preprocess(file)[0, 0], GREY)
    uri = "data:image/png;base64," + base64.b64encode(PNG).decode()
    np.testing.assert_array_equal(preprocess(base64.b64decode(uri.partition(",")[2]))[0, 0], GREY)
