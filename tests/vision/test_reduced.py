"""Large JPEGs, which are decoded at a part of their size."""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ferplus_tvm as fer
from ferplus_tvm.errors import InputError
from ferplus_tvm.faces.options import PreprocessOptions
from ferplus_tvm.vision.crop import Picture
from ferplus_tvm.vision.detections import Detection
from ferplus_tvm.vision.read import checked_options
from ferplus_tvm.vision.reduced import Scaled, read_at_least
from tests.vision.support import montage, overlap, yunet

OPTIONS = checked_options(PreprocessOptions())


def jpeg(image: Image.Image, orientation: int = 1, **options: object) -> bytes:
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    image.save(file, "JPEG", exif=exif, **options)
    return file.getvalue()


def gradient(width: int, height: int) -> Image.Image:
    """A picture whose red says the column and whose green says the row."""
    red, green = np.linspace(0, 255, width), np.linspace(0, 255, height)
    planes = np.broadcast_arrays(red[None, :], green[:, None], 128)
    return Image.fromarray(np.stack(planes, -1).astype(np.uint8))


def read(item: object, side: float) -> Scaled:
    return read_at_least(item, "the photo", OPTIONS, side)


@pytest.mark.parametrize(
    ("side", "shape"),
    [(800, (601, 803)), (402, (601, 803)), (401, (301, 402)), (120, (151, 201)), (64, (76, 101))],
)
def test_the_smallest_part_that_is_enough_is_decoded(side: int, shape: tuple[int, int]) -> None:
    found = read(jpeg(gradient(803, 601)), side)

    assert found.picture.shape == (*shape, 3)
    assert (found.width, found.height) == (803, 601)
    assert max(shape) >= side


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_it_shows_what_the_whole_photo_shows(orientation: int, mode: str, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(jpeg(gradient(803, 602).convert(mode), orientation, quality=95))

    whole, found = read(path, 803), read(path, 200)

    assert (found.width, found.height) == whole.picture.shape[1::-1] == (whole.width, whole.height)
    assert max(found.picture.shape) == 201
    small = Image.fromarray(whole.picture).resize(found.picture.shape[1::-1], Image.Resampling.BOX)
    np.testing.assert_allclose(found.picture, np.asarray(small), atol=6)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(641, 481), (647, 6)])
def test_places_are_exact_where_a_side_is_no_multiple(
    orientation: int, size: tuple[int, int]
) -> None:
    stored = Image.new("L", size, 60)
    stored.paste(200, (608, 0, 624, size[1] // 2))  # far from where the picture begins
    content = jpeg(stored, orientation, quality=95)

    whole, found = read(content, 641), read(content, 80)

    assert found.part == (8 if size[1] > 8 else 4)  # one of 6 pixels is left larger
    seen = Detection((*middle(found.picture), 1, 1), (), 1)
    np.testing.assert_allclose(found.in_photo(seen).box[:2], middle(whole.picture), atol=0.5)
    np.testing.assert_allclose(found.in_picture(found.in_photo(seen)).box, seen.box)


def middle(picture: Picture) -> tuple[float, ...]:
    """Return the centre of what is bright."""
    weights = np.clip(picture[..., 0].astype(float) - 80, 0, None)
    rows, columns = np.indices(weights.shape) + 0.5
    return tuple(float((each * weights).sum() / weights.sum()) for each in (columns, rows))


def test_other_formats_and_files_are_read_whole(tmp_path: Path) -> None:
    image = gradient(640, 480)
    image.save(tmp_path / "photo.png")
    opened = Image.open(io.BytesIO(jpeg(image)))
    for source in (tmp_path / "photo.png", io.BytesIO(jpeg(image)), opened, np.asarray(image)):
        assert read(source, 64).picture.shape == (480, 640, 3)
    assert opened.size == (640, 480)  # a picture of the caller's stays as it is


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    pipe, content = tmp_path / "pipe.jpg", jpeg(gradient(640, 480))
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(content,))
    writer.start()
    found = read(pipe, 64)
    writer.join()
    np.testing.assert_array_equal(found.picture, read(content, 640).picture)


def test_several_pictures_in_one_file_are_read_as_the_first(tmp_path: Path) -> None:
    path = tmp_path / "photo.mpo"
    first, second = gradient(640, 480), Image.new("RGB", (640, 480))
    first.save(path, "MPO", save_all=True, append_images=[second])
    found = read(path, 160)
    assert found.picture.shape == (120, 160, 3)
    small = np.asarray(first.resize((160, 120), Image.Resampling.BOX))
    np.testing.assert_allclose(found.picture, small, atol=6)


def test_what_is_wrong_is_said_as_of_any_photo(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = jpeg(gradient(640, 480))
    dark = jpeg(Image.new("RGB", (640, 480), (1, 1, 1)))
    for content, said in ((whole[:3000], "cannot be decoded"), (dark, "normalised")):
        with pytest.raises(InputError, match=said):
            read(content, 64)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300_000)
    with pytest.raises(InputError, match="too large"), pytest.warns(Image.DecompressionBombWarning):
        read(whole, 64)


@pytest.mark.parametrize("orientation", [1, 6])
def test_faces_of_a_large_photo_are_those_of_the_whole_one(
    engine: fer.Engine, orientation: int
) -> None:
    """One face is large enough for the part that is looked at, the other one is not."""
    image, boxes = montage((3001, 1800), (40, 30, 2.5), (2000, 900, 0.5))
    turned = image if orientation == 1 else image.transpose(Image.Transpose.ROTATE_90)
    content = jpeg(turned, orientation, quality=95)

    few = engine.analyze(content, detector=yunet, max_side=640)
    whole = engine.analyze(io.BytesIO(content), detector=yunet, max_side=640)

    assert (few.width, few.height) == (whole.width, whole.height) == (3001, 1800)
    assert few.draw().size == (3001, 1800)
    assert len(few.faces) == len(whole.faces) == 2
    for face, same, box in zip(few.faces, whole.faces, boxes, strict=True):
        assert overlap(face.box, box) > 0.7
        assert overlap(face.box, same.box) > 0.8  # a pixel at 640 is 5 of the photo
    # The crops are those of the whole photo: the same boxes in it give the same answers.
    for face, at in zip(few.faces, engine.predict_faces(content, few.faces), strict=True):
        found, expected = face.prediction.probabilities, at.probabilities
        np.testing.assert_allclose(list(found.values()), list(expected.values()), atol=0.01)


def test_a_small_face_counts_in_pixels_of_the_photo(engine: fer.Engine) -> None:
    image, (box,) = montage((2560, 1600), (400, 300, 0.8))
    content = jpeg(image)
    for least, count in ((0.8 * box[2], 1), (1.3 * box[2], 0)):
        found = engine.analyze(content, detector=yunet, min_face=least)
        assert len(found.faces) == count
