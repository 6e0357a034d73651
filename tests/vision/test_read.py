"""Whole photos from whatever holds them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ferplus_tvm.errors import InputError
from ferplus_tvm.faces.options import PreprocessOptions
from ferplus_tvm.vision.read import checked_options, each_photo, read_picture
from tests.artifacts import assert_sentence

PICTURE = np.random.default_rng(0).integers(0, 256, (30, 50, 3), np.uint8)


def read(item: Any, **options: Any) -> NDArray[np.uint8]:
    return read_picture(item, "the photo", checked_options(PreprocessOptions(**options)))


def png(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def test_every_kind_of_source_gives_the_same_picture(tmp_path: Path) -> None:
    image = Image.fromarray(PICTURE)
    path = tmp_path / "photo.png"
    path.write_bytes(png(image))
    sources = [path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes()), image, PICTURE]
    arrays: list[tuple[Any, dict[str, Any]]] = [
        (PICTURE[..., ::-1], {"channel_order": "BGR"}),
        (PICTURE / 255, {"value_range": (0, 1)}),
        (PICTURE.astype(np.float32), {}),
        (PICTURE.astype(np.uint16) << 8, {"value_range": (0, 65280)}),
        (PICTURE[np.newaxis], {}),
        (np.dstack([PICTURE, np.full((30, 50), 255, np.uint8)]), {}),
    ]
    for source, options in [*((each, {}) for each in sources), *arrays]:
        found = read(source, **options)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, PICTURE)


def test_grey_is_the_same_in_all_channels() -> None:
    grey = PICTURE[..., 0]
    for source in (grey, Image.fromarray(grey), Image.fromarray(grey).convert("I;16")):
        found = read(source, value_range=(0, 255))
        np.testing.assert_array_equal(found, np.repeat(grey[..., None], 3, -1))


@pytest.mark.parametrize(("orientation", "quarters"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_exif_turns_it_upright(orientation: int, quarters: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = png(Image.fromarray(PICTURE), exif=exif)
    np.testing.assert_array_equal(read(stored), np.rot90(PICTURE, quarters))


def test_what_is_transparent_is_laid_on_the_background() -> None:
    clear = Image.fromarray(np.dstack([PICTURE, np.zeros((30, 50), np.uint8)]), "RGBA")
    assert (read(clear) == 255).all() and (read(clear, background=7) == 7).all()


@pytest.mark.parametrize("shape", [(1, 1), (2, 900), (900, 2)])
def test_a_photo_may_have_any_shape(shape: tuple[int, int]) -> None:
    picture = np.full((*shape, 3), 100, np.uint8)
    assert read(picture).shape == read(Image.fromarray(picture)).shape == picture.shape


def test_grey_lines_are_no_rows_of_faces() -> None:
    assert read(np.full((20, 2304), 90, np.uint8)).shape == (20, 2304, 3)


def test_an_array_of_photos_gives_each() -> None:
    found = each_photo([np.stack([PICTURE, PICTURE]), "b.jpg"])
    first, second, third = (name for _, name in found)
    assert (first, second) == ("photo 1 of 2 of item 1 of 2", "photo 2 of 2 of item 1 of 2")
    assert third == "'b.jpg'"
    np.testing.assert_array_equal(found[1][0], PICTURE)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.stack([PICTURE, PICTURE]), "call analyze_batch"),
        (PICTURE.transpose(2, 0, 1)[np.newaxis], "channels first"),
        (PICTURE / 255, "normalised"),
        (Image.new("L", (9, 9), 1), "normalised"),
        (np.zeros((0, 5, 3), np.uint8), "at least 1 x 1"),
        (b"no photo", "expected an encoded picture"),
        (b"", "empty"),
        (3, "expected a path"),
    ],
)
def test_what_is_no_photo_is_refused(given: Any, said: str) -> None:
    with pytest.raises(InputError) as caught:
        read(given)
    assert_sentence(str(caught.value), "the photo", said)


def test_more_pixels_than_pillows_limit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1499)
    with pytest.raises(InputError, match=r"30 = 1500 pixels.*crop it or shrink it first"):
        read(png(Image.fromarray(PICTURE)))


def test_numpys_resize_is_for_crops() -> None:
    with pytest.raises(ValueError, match="whole photos"):
        read(PICTURE, resample="numpy")
