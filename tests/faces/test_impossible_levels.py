"""Numbers that cannot be the levels of a face never pass in silence."""

from __future__ import annotations

import io
import struct
import zlib

import ml_dtypes
import numpy as np
import pytest
from PIL import Image

from ferplus_tvm.errors import InputError
from ferplus_tvm.faces.levels import doubt
from ferplus_tvm.faces.preprocess import preprocess, preprocess_each

GREY = (np.arange(4096) % 256).reshape(64, 64).astype(np.uint8)
UNIT = GREY / 255


def encode(picture, fmt="PNG"):
    buffer = io.BytesIO()
    picture.save(buffer, fmt)
    return buffer.getvalue()


def reason(source, **options):
    with pytest.raises(InputError) as caught:
        preprocess(source, **options)
    return str(caught.value)


# Normalised pixels


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4"])
@pytest.mark.parametrize(
    ("array", "step"),
    [
        (UNIT, "state value_range=(0, 1),"),
        (UNIT * 1.01, "clip it to 0..1 and state value_range=(0, 1),"),
        (GREY / 254, "clip it to 0..1 and state value_range=(0, 1),"),
        (UNIT / 2, "state value_range=(0, 1),"),
        (GREY / 127.5, "state value_range=(0, 2),"),
        (np.ones((64, 64)), "state value_range=(0, 1),"),
        (np.full((64, 64), 0.5), "state value_range=(0, 1),"),
        (UNIT * 3.8, "what black and white have become"),
        (GREY / np.linalg.norm(GREY), "what black and white have become"),
    ],
)
def test_floats_that_end_at_a_few_levels_look_normalised(array, step, dtype):
    said = reason(array.astype(dtype))
    assert "looks normalised" in said and step in said and "value_range=(0, 255)" in said


@pytest.mark.parametrize("dtype", ["u1", "i1", "i4", "u2", "i8"])
def test_whole_numbers_of_0_and_1_were_rounded_after_a_division(dtype):
    said = reason(UNIT.round().astype(dtype))
    assert "in 0..1, so it looks normalised" in said and "before they were divided" in said


def test_what_the_sentence_advises_is_taken():
    np.testing.assert_allclose(preprocess(UNIT, value_range=(0, 1))[0, 0], GREY, atol=1e-4)
    clipped = np.clip(UNIT * 1.01, 0, 1)
    assert preprocess(clipped, value_range=(0, 1)).max() == 255
    dark = preprocess(UNIT, value_range=(0, 255))
    np.testing.assert_array_equal(dark[0, 0], UNIT.astype(np.float32))
    drawing = preprocess(GREY % 2, value_range=(0, 1))
    np.testing.assert_array_equal(drawing[0, 0], (GREY % 2) * 255.0)


def layouts(good, bad):
    faces = np.stack([good, bad, good]).astype(np.float32)
    return [faces, faces[:, None], np.stack([faces] * 3, axis=-1)]


@pytest.mark.parametrize("layout", range(3))
def test_one_normalised_face_among_good_ones_is_found_by_its_number(layout):
    faces = layouts(GREY, UNIT)[layout]
    assert "face 2 of 3 of the array" in reason(faces)
    first, second, third = preprocess_each(faces)
    assert isinstance(second, InputError) and "face 2 of 3" in str(second)
    np.testing.assert_allclose(first[0, 0], GREY, atol=1e-4)
    np.testing.assert_array_equal(third, first)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (UNIT * 2 - 1, "value_range=(-1, 1)"),
        (UNIT * 1.02 - 0.01, "clip them to 0..1 and state value_range=(0, 1)"),
        ((GREY - GREY.mean()) / GREY.std(), "standardised"),
        ((UNIT - 0.485) / 0.229, "standardised"),
        ((GREY.astype("i2") - 128).astype("i1"), "value_range=(-128, 127)"),
        (GREY - GREY.mean(), "before that"),
        (-GREY.astype("f4"), "before that"),
        ((GREY.astype("i4") * 257 - 32768).astype("i2"), "value_range=(-32768, 32767)"),
        (GREY.astype("f4") * 257, "value_range=(0, 65535)"),
        (GREY.astype("i4") * 4, "value_range=(0, 1023)"),
        (GREY * 1.01, "clip them"),
    ],
)
def test_numbers_outside_the_range_are_told_from_each_other(array, says):
    said = reason(array)
    assert "expected 0..255" in said and says in said


def test_colours_are_judged_without_their_alpha():
    colours = np.dstack([UNIT, UNIT, UNIT, np.full((64, 64), 255)])
    assert "the array holds numbers in 0..1, so it looks normalised" in reason(colours)
    alpha = np.dstack([GREY, GREY, GREY, np.ones((64, 64), np.uint8)])
    for array in (alpha, alpha.astype(np.float32)):
        assert "the alpha of the array holds numbers in 1..1; expected 0..255" in reason(array)


@pytest.mark.parametrize("fmt", ["PNG", "BMP", "TIFF"])
def test_a_picture_that_was_saved_from_normalised_pixels_is_found(fmt):
    zeros_and_ones = Image.fromarray(UNIT.round().astype(np.uint8))
    assert "levels in 0..1" in reason(encode(zeros_and_ones, fmt))
    assert preprocess(encode(Image.new("L", (8, 8), 0), fmt)).max() == 0


def test_a_faint_blue_is_no_normalised_picture():
    blue = Image.new("RGB", (64, 64), (0, 0, 30))
    np.testing.assert_allclose(preprocess(encode(blue)), 0.114 * 30, atol=1e-3)
    assert "levels in 0..1" in reason(encode(Image.new("RGB", (64, 64), (0, 1, 1))))


def test_a_picture_that_is_meant_to_be_nearly_black_is_stated():
    dark = Image.new("L", (64, 64), 2)
    assert "value_range=(0, 255)" in reason(dark)
    assert (preprocess(dark, value_range=(0, 255)) == 2).all()


def test_a_wholly_transparent_picture_is_warned_of(caplog):
    clear, faint = (np.dstack([GREY] * 3 + [GREY * 0 + alpha]) for alpha in (0, 9))
    for source in (faint, Image.fromarray(faint)):
        preprocess(source)
    assert not caplog.records
    for source in (clear, Image.fromarray(clear)):
        assert (preprocess(source) == 255).all()
    assert [each.getMessage().count("wholly transparent") for each in caplog.records] == [1, 1]


# Percent, and what wraps around


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_percent_is_told_from_dark_faces(dtype):
    rng = np.random.default_rng(5)
    stretched = np.append(rng.uniform(0, 100, 4094), [0, 100]).reshape(64, 64)
    for percent in (UNIT * 100, UNIT[:, :40] * 100, stretched):
        said = reason(percent.astype(dtype))
        assert "percent" in said and "value_range=(0, 100)" in said
        assert "percent" in doubt(percent.astype(np.float32)[np.newaxis, np.newaxis])
    assert preprocess(UNIT * 100, value_range=(0, 100)).max() == 255
    for dark in (GREY / 3, GREY // 3, rng.uniform(0, 99, (64, 64)), np.full((64, 64), 100)):
        levels = preprocess(dark.astype(dtype))
        assert levels.max() <= 100 and doubt(levels) is None


@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize("scaled", [GREY / 127.5 - 1, (UNIT - 0.485) / 0.229])
def test_numbers_around_0_that_were_cast_to_unsigned_ones_are_found(scaled, dtype):
    wrapped = scaled.astype("i4").astype(dtype)
    assert "cast to unsigned" in reason(wrapped)
    assert "cast to unsigned" in reason(np.stack([wrapped] * 3, axis=-1))
    if dtype == "u1":
        assert "had been saved" in reason(encode(Image.fromarray(wrapped)))
        assert len(preprocess(wrapped, value_range=(0, 255))) == 1


def test_black_and_white_and_pure_colours_are_not_taken_for_these():
    mask = np.where(GREY > 127, 255, 0).astype(np.uint8)
    for drawing in (mask, mask // 255 * 254, np.stack([mask, mask // 255, 255 - mask], axis=-1)):
        assert len(preprocess([drawing, encode(Image.fromarray(drawing))])) == 2
    assert len(preprocess(encode(Image.new("RGB", (64, 64), (0, 255, 1))))) == 1
    assert len(preprocess(255 - GREY % 4)) == 1  # overexposed


def test_bfloat16_is_read_and_masked_numbers_are_refused():
    np.testing.assert_array_equal(preprocess(GREY.astype(ml_dtypes.bfloat16)), preprocess(GREY))
    assert "array.filled" in reason(np.ma.masked_greater(GREY, 200))
    assert "structured_to_unstructured" in reason(np.zeros((64, 64), "u1,u1,u1"))
    np.testing.assert_array_equal(preprocess(np.ma.masked_array(GREY)), preprocess(GREY))


# Fewer bits than 16


@pytest.mark.parametrize(("shift", "white"), [(0, 255), (2, 1023), (4, 4095), (6, 16383)])
def test_16_bits_that_hold_fewer_have_to_be_stated(shift, white):
    wide = GREY.astype(np.uint16) << shift
    pictures = [Image.fromarray(wide), encode(Image.fromarray(wide), "TIFF")]
    for source in (wide, wide.astype(">u2"), encode(Image.fromarray(wide)), *pictures):
        said = reason(source)
        assert f"state value_range=(0, {white}), or value_range=(0, 65535)" in said
        answer = preprocess(source, value_range=(0, white))
        np.testing.assert_allclose(answer[0, 0], wide / white * 255, atol=1e-4)
        dark = preprocess(source, value_range=(0, 65535))
        np.testing.assert_allclose(dark[0, 0], wide / 257, atol=1e-4)


def test_12_bits_at_the_high_end_of_16_are_16():
    high = GREY.astype(np.uint16) << 8
    np.testing.assert_allclose(preprocess(encode(Image.fromarray(high)))[0, 0], high / 257, 1e-6)


def test_a_dark_face_of_8_bits_in_16_is_no_face_of_fewer_bits():
    dark = GREY // 10
    for factor in (256, 257):
        for source in (dark.astype("u2") * factor, Image.fromarray(dark.astype("u2") * factor)):
            np.testing.assert_allclose(preprocess(source)[0, 0], dark * (factor / 257), atol=1e-4)


def test_portable_graymaps_of_16_bits_are_read_as_pillow_scales_them():
    def graymap(numbers, white):
        return b"P5 64 64 %d\n" % white + numbers.astype(">u2").tobytes()

    for white in (1023, 4095, 65535):
        levels = preprocess(graymap(GREY / 255 * white, white))
        np.testing.assert_allclose(levels[0, 0], GREY, atol=255 / white)
    assert "value_range=(0, 4095)" in reason(graymap(GREY * 16.0, 65535))
    pixmap = np.stack([GREY] * 3, axis=-1).astype(">u2") * 16
    assert "14 or fewer" in reason(b"P6 64 64 65535\n" + pixmap.astype(">u2").tobytes())


def test_a_tiff_file_whose_white_is_0_is_never_read_as_its_negative():
    for numbers in (GREY, GREY.astype(np.uint16) * 257, GREY.astype(np.float32)):
        buffer = io.BytesIO()
        Image.fromarray(numbers).save(buffer, "TIFF", tiffinfo={262: 0})
        if numbers.dtype == np.uint8:  # which Pillow turns round when it saves and when it reads
            np.testing.assert_array_equal(preprocess(buffer.getvalue())[0, 0], GREY)
        else:
            assert "whose white is 0" in reason(buffer.getvalue())


def png_of_16_bit_colours(numbers):
    """Write a PNG by hand, since Pillow writes colours of 8 bits only."""
    height, width, channels = numbers.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in numbers)
    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


@pytest.mark.parametrize("alpha", [False, True])
def test_colours_of_16_bits_that_hold_fewer_are_found_though_pillow_keeps_8(alpha):
    colours = np.stack([GREY, GREY.T, GREY[::-1]], axis=-1).astype(np.uint16)
    opaque = np.full((64, 64, 1), 65535, np.uint16)

    def encoded(numbers):
        return png_of_16_bit_colours(np.dstack([numbers, opaque]) if alpha else numbers)

    for shift in (0, 2, 4, 6):
        said = reason(encoded(colours << shift))
        assert "14 or fewer" in said and "uint16" in said
    whole = preprocess(encoded(colours * 257), channels=3)
    np.testing.assert_array_equal(whole[0], np.moveaxis(colours, -1, 0))


@pytest.mark.parametrize(("array", "says"), [(GREY, "leave it out"), (UNIT * 1.01, "clip them")])
def test_numbers_outside_the_stated_range_are_told_what_to_do(array, says):
    said = reason(array, value_range=(0, 1))
    assert "expected 0..1: " in said and says in said


def test_a_rounding_error_is_taken_for_black_or_white():
    assert preprocess(UNIT * 1.0000001, value_range=(0, 1)).max() == 255
    assert preprocess(GREY * 1.0000001).max() == 255
    assert preprocess(UNIT - 1e-7, value_range=(0, 1)).min() == 0


def test_the_range_to_state_is_that_of_the_brightest_face():
    bright, dark = GREY.astype(np.uint16) << 4, GREY.astype(np.uint16)
    assert "value_range=(0, 4095)" in reason(np.stack([dark, bright]))
    said = reason(np.stack([dark, GREY.astype(np.uint16) * 257]))
    assert "face 1 of 2" in said and "state value_range=(0, 65535)" in said


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        (UNIT.astype(np.float32), "value_range=(0, 1)"),
        (GREY.astype(np.int32) * 257, "value_range=(0, 65535)"),
        (GREY.astype(np.int32) * 16, "value_range=(0, 4095)"),
    ],
)
def test_pictures_of_32_bits_say_the_range_to_state(numbers, says):
    assert says in reason(encode(Image.fromarray(numbers), "TIFF"))


# The same judgement of what `scores` is given


@pytest.mark.parametrize(
    ("face", "says"),
    [
        (UNIT, "normalised"),
        (UNIT * 1.01, "normalised"),
        (UNIT * 2 - 1, "standardised"),
        (GREY * 257.0, "outside 0..255"),
        (GREY - 20.0, "outside 0..255"),
    ],
)
def test_doubt_names_the_first_face_that_cannot_be_raw(face, says):
    faces = np.stack([GREY, face, GREY]).astype(np.float32)[:, None]
    said = doubt(faces)
    assert said is not None and said.startswith("face 2 of 3") and says in said


def test_raw_and_black_faces_and_no_face_raise_no_doubt():
    faces = np.stack([GREY, np.zeros((64, 64)), GREY * 0 + 4]).astype(np.float32)[:, None]
    assert doubt(faces) is None
    assert doubt(faces[:0]) is None
