"""HEIC, the pictures of phones: read by pillow-heif, and named where that is not installed."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from ferplus_tvm.data import SAMPLE_FACE
from ferplus_tvm.errors import InputError
from ferplus_tvm.faces.preprocess import preprocess

FACE = Image.open(SAMPLE_FACE).convert("RGB").resize((96, 80))
HEAD = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"

# How a picture is stored, for the EXIF orientation that turns it back.
STORED = {
    1: None,
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}


def heic(picture, orientation=1):
    """Encode as phones do: turned by the file's own property, which EXIF repeats."""
    pillow_heif = pytest.importorskip("pillow_heif")
    exif = Image.Exif()
    exif[0x0112] = orientation
    encoded = io.BytesIO()
    pillow_heif.from_pillow(picture).save(encoded, quality=95, exif=exif.tobytes())
    return encoded.getvalue()


def difference(source, picture=FACE):
    return np.abs(preprocess(source) - preprocess(picture)).mean()


@pytest.mark.parametrize("orientation", STORED)
def test_a_picture_that_its_file_turns_is_turned_once(orientation, tmp_path):
    method = STORED[orientation]
    stored = FACE if method is None else FACE.transpose(method)
    data = heic(stored, orientation)
    assert (b"irot" in data) == (orientation != 1)
    path = tmp_path / "IMG_0001.HEIC"
    path.write_bytes(data)
    for source in (data, path, io.BytesIO(data)):
        assert difference(source) < 2


def test_an_orientation_that_only_exif_tells_is_void():
    data = heic(FACE, 6)
    turned_by = data.index(b"irot") + 4
    upright = data[:turned_by] + b"\0" + data[turned_by + 1 :]
    assert difference(data) > 20
    assert difference(upright) < 2


def test_grey_and_transparent_pictures_are_read():
    grey = FACE.convert("L")
    assert difference(heic(grey), grey) < 2
    clear = FACE.copy()
    clear.putalpha(0)
    assert (preprocess(heic(clear), background=7) == 7).all()


def test_pillows_formats_stay_as_they_are():
    """The app's own calls of Pillow answer as before."""
    data = heic(FACE)
    program = (
        "import io, sys; from PIL import Image; from ferplus_tvm import preprocess\n"
        "data = sys.stdin.buffer.read(); preprocess(data); Image.init()\n"
        "assert 'HEIF' not in Image.OPEN and '.heic' not in Image.registered_extensions()\n"
    )
    subprocess.run([sys.executable, "-c", program], input=data, check=True, timeout=60)


def test_damaged_files_and_too_many_pixels_are_refused(monkeypatch):
    data = heic(FACE)
    for end in (30, 200, len(data) // 2):
        with pytest.raises(InputError, match="cannot be decoded"):
            preprocess(data[:end])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(InputError, match=r"too large.*at most 1000 pixels"):
        preprocess(data)


def test_without_pillow_heif_the_pip_command_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(InputError, match=r"HEIC.*pip install 'ferplus_tvm\[heif\]'.*JPEG"):
        preprocess(HEAD + bytes(100))
