"""Arrays whose shape cannot be pictures of faces in the stated order, and such as can."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from ferplus_tvm.data import SAMPLE_FACE
from ferplus_tvm.errors import InputError
from ferplus_tvm.faces.preprocess import preprocess

RNG = np.random.default_rng(3)
COLOUR = np.asarray(Image.open(SAMPLE_FACE).convert("RGB"))
GREY = COLOUR[..., 1]


def some_faces(count, side=48):
    """Smooth random pictures, each of its own."""
    noise = RNG.integers(0, 256, (count, side, side), dtype=np.uint8)
    smooth = [Image.fromarray(each).filter(ImageFilter.GaussianBlur(2)) for each in noise]
    return np.stack([np.asarray(each) for each in smooth])


def reason(source, **options):
    with pytest.raises(InputError) as caught:
        preprocess(source, **options)
    return str(caught.value)


# Too long


@pytest.mark.parametrize("shape", [(10, 81), (81, 10), (10, 81, 3), (2, 10, 81), (2, 1, 81, 10)])
def test_what_is_more_than_eight_times_as_long_as_wide_is_no_face(shape):
    assert "at most 8 times as long as wide" in reason(np.full(shape, 9, np.uint8))


def test_a_picture_may_be_eight_times_as_long_as_wide_and_no_longer():
    for size in ((80, 10), (10, 80)):
        assert preprocess(Image.new("L", size, 9)).max() == 9
    assert "81 x 10 pixels; expected a face" in reason(Image.new("L", (81, 10), 9))
    encoded = io.BytesIO()
    Image.new("L", (10, 900), 9).save(encoded, "PNG")
    assert "10 x 900 pixels; expected a face" in reason(encoded.getvalue())


# Rows of pixels


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("side", [48, 64])
def test_rows_of_pixels_are_told_to_be_reshaped(side, dtype):
    rows = some_faces(400, side).reshape(400, -1).astype(dtype)
    assert f"reshape it to ({side}, {side})" in reason(rows[0])
    for some in (rows[:1], rows[:2], rows[:30], rows):  # 400 rows are not too long for a picture
        for array in (some, some[:, None], some[..., None], some[:, None, None]):
            assert f": reshape it to (N, {side}, {side})" in reason(array)
        if len(some) > 1:
            assert f"transpose it and reshape it to (N, {side}, {side})" in reason(some.T)
    assert len(preprocess(rows.reshape(400, side, side))) == 400


def test_noise_and_equal_rows_are_rows_too():
    assert "rows of pixels" in reason(RNG.integers(0, 256, (1000, 2304), dtype=np.uint8))
    assert "rows of pixels" in reason(np.stack([some_faces(1, 64).ravel()] * 600))


@pytest.mark.parametrize("width", [2304, 4096])
def test_a_picture_of_that_width_is_a_picture(width):
    picture = np.asarray(Image.fromarray(GREY).resize((width, 700)))
    for array in (picture, picture.T, picture[None], picture[..., None]):
        assert len(preprocess(array)) == 1


# Encoded bytes


@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_an_encoded_picture_in_an_array_is_named(fmt):
    encoded = io.BytesIO()
    Image.fromarray(GREY).save(encoded, fmt)
    data = np.frombuffer(encoded.getvalue(), np.uint8)
    for array in (data, data[:, None], data[None], data[:, None, None], data.view(np.int8)):
        said = reason(array)
        assert "encoded picture" in said and "tobytes()" in said
    name = "WebP" if fmt == "WEBP" else fmt
    assert f"({name})" in reason(data)


# Channels and faces in another place


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("size", [48, 64, 130])
def test_one_picture_with_its_channels_first_is_named(size, dtype):
    rgb = np.asarray(Image.fromarray(COLOUR).resize((size, size))).astype(dtype)
    alpha = np.full((size, size, 1), 255, dtype)
    for picture in (rgb, np.concatenate([rgb, alpha], axis=2), np.stack([rgb[..., 0]] * 3, -1)):
        said = reason(np.moveaxis(picture, -1, 0))
        assert "channels first" in said and "transpose it to (H, W, C)" in said
        assert "reshape" not in said
        assert len(preprocess(picture)) == 1


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_a_batch_with_its_channels_first_is_named(channels):
    for shape in ((1, channels, 64, 64), (5, channels, 48, 60)):
        said = reason(np.full(shape, 9, np.uint8))
        assert "channels first" in said and "transpose" in said and "reshape" not in said


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_a_stack_of_grey_faces_is_a_stack(count):
    faces = some_faces(count)
    for stack in (faces, faces[:, None], faces.astype(np.float32)):
        np.testing.assert_array_equal(preprocess(stack), preprocess(list(faces)))
    noise = RNG.integers(0, 256, (count, 9, 12), dtype=np.uint8)
    assert len(preprocess(noise)) == count


def test_equal_faces_are_a_stack_where_the_shape_says_so():
    alike = np.stack([GREY] * 3)
    assert "(3, 1, H, W)" in reason(alike)
    assert len(preprocess(alike[:, None])) == 3


@pytest.mark.parametrize("shape", [(64, 64, 1, 1), (64, 64, 1, 5), (64, 64, 3, 2), (48, 60, 1, 1)])
def test_height_and_width_before_the_faces_are_told_to_be_transposed(shape):
    said = reason(np.full(shape, 9, np.uint8))
    assert "(H, W, C, N)" in said and "transpose" in said


def test_faces_stacked_along_the_last_axis_are_told_to_be_transposed():
    faces = some_faces(30)
    said = reason(np.dstack(list(faces)))
    assert "(H, W, N)" in said and "transpose" in said
    assert len(preprocess(faces)) == 30
    assert len(preprocess(some_faces(48, 60))) == 48


def test_as_many_faces_as_lines_are_told_from_each_other_by_where_they_are_smooth():
    faces = some_faces(48)
    assert "faces stacked along the last axis" in reason(faces.transpose(1, 2, 0))
    assert len(preprocess(faces)) == 48
    frames = np.stack([faces[0, :, :40]] * 48)
    assert len(preprocess(frames)) == 48


@pytest.mark.parametrize("count", [1, 5])
def test_rows_of_colours_are_told_both_shapes(count):
    rows = RNG.integers(0, 256, (count, 64 * 64 * 3), dtype=np.uint8)
    assert "(N, 64, 64, 3) or (N, 3, 64, 64)" in reason(rows)
    assert "reshape it to (64, 64, 3) or (3, 64, 64)" in reason(rows[0])
