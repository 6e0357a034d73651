"""Pixel modes, transparency and orientation of pictures."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from ferplus_tvm.errors import InputError
from ferplus_tvm.faces.preprocess import preprocess

RNG = np.random.default_rng(11)
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


def smooth():
    """A picture that survives lossy colour conversions."""
    rows, columns = np.mgrid[0:64, 0:64]
    return np.dstack([rows * 3 + 30, columns * 3 + 20, 200 - rows - columns]).astype(np.uint8)


# Pixel modes


def test_colour_becomes_luma_without_rounding():
    np.testing.assert_allclose(face(Image.fromarray(COLOUR)), luma(COLOUR), atol=2e-5)


def test_grey_and_one_bit_pictures_keep_their_levels():
    np.testing.assert_array_equal(face(encode(Image.fromarray(GREY))), GREY)
    one_bit = Image.fromarray(GREY > 127)
    assert one_bit.mode == "1"
    np.testing.assert_array_equal(face(encode(one_bit)), np.where(GREY > 127, 255, 0))


@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
def test_16_bit_levels_are_scaled_to_255(mode):
    wide = RNG.integers(0, 65536, (64, 64)).astype(">u2" if mode == "I;16B" else "<u2")
    picture = Image.frombytes(mode, (64, 64), wide.tobytes())
    np.testing.assert_allclose(face(picture), wide / 257, rtol=1e-6)
    np.testing.assert_allclose(face(encode(picture, "TIFF")), wide / 257, rtol=1e-6)


def test_16_bit_png_and_its_transparent_level():
    wide = RNG.integers(0, 65536, (64, 64)).astype(np.uint16)
    picture = Image.fromarray(wide)
    clear = int(wide[5, 6])
    np.testing.assert_allclose(face(encode(picture)), wide / 257, rtol=1e-6)
    over_black = face(encode(picture, transparency=clear), background=0)
    np.testing.assert_allclose(over_black, np.where(wide == clear, 0, wide / 257), rtol=1e-6)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_32_bit_pictures_follow_the_rules_of_arrays(mode):
    numbers = GREY.astype(np.int32 if mode == "I" else np.float32)
    np.testing.assert_array_equal(face(encode(Image.fromarray(numbers), "TIFF")), GREY)
    with pytest.raises(InputError, match=r"expected 0\.\.255"):
        preprocess(Image.fromarray(numbers * 257))
    scaled = face(Image.fromarray(numbers * 257), value_range=(0, 65535))
    np.testing.assert_allclose(scaled, GREY, atol=1e-4)


def test_a_float_picture_that_looks_normalised_is_refused():
    with pytest.raises(InputError, match="looks normalised"):
        preprocess(Image.fromarray(GREY.astype(np.float32) / 255))


@pytest.mark.parametrize(
    ("mode", "tolerance"), [("RGBX", 1e-4), ("CMYK", 1e-4), ("YCbCr", 2), ("HSV", 4), ("P", 40)]
)
def test_other_colour_modes_keep_the_luma(mode, tolerance):
    picture = Image.fromarray(smooth()).convert(mode)
    np.testing.assert_allclose(face(picture), luma(smooth()), atol=tolerance)
    if mode == "P":  # the palette is coarse, but exactly known
        np.testing.assert_allclose(
            face(picture), luma(np.asarray(picture.convert("RGB"))), atol=1e-4
        )


def test_lab_keeps_the_luma():
    to_lab = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    picture = ImageCms.applyTransform(Image.fromarray(smooth()), to_lab)
    error = np.abs(face(encode(picture, "TIFF")) - luma(smooth()))
    assert error.mean() < 2 and error.max() < 8  # a and b are stored as whole numbers


@pytest.mark.parametrize("fmt", ["JPEG", "TIFF"])
def test_cmyk_files_keep_the_luma(fmt):
    options = {"quality": 100, "subsampling": 0} if fmt == "JPEG" else {}
    data = encode(Image.fromarray(smooth()).convert("CMYK"), fmt, **options)
    np.testing.assert_allclose(face(data), luma(smooth()), atol=4)


# Transparency


@pytest.mark.parametrize("background", [None, 0, 128])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "RGBa", "La"])
def test_alpha_is_composited_over_the_background(mode, background):
    alpha = RNG.integers(0, 256, (64, 64), dtype=np.uint8)
    rgba = Image.fromarray(np.dstack([COLOUR, alpha]))
    picture = rgba if mode == "RGBA" else rgba.convert("LA") if mode == "La" else rgba.convert(mode)
    if mode == "La":
        picture = picture.convert("La")
    opacity = alpha / 255
    expected = opacity * luma(COLOUR) + (1 - opacity) * (255 if background is None else background)
    options = {} if background is None else {"background": background}
    tolerance = {"RGBA": 1e-4, "LA": 0.51}.get(mode, 1.6)  # stored as whole levels, premultiplied
    np.testing.assert_allclose(face(picture, **options), expected, atol=tolerance)


def test_hidden_colours_do_not_shine_through():
    hidden = Image.fromarray(np.dstack([COLOUR, np.zeros((64, 64), np.uint8)]))
    assert (face(encode(hidden)) == 255).all()


@pytest.mark.parametrize("fmt", ["PNG", "GIF"])
def test_a_transparent_palette_entry_is_background(fmt):
    indices = (GREY % 3).astype(np.uint8)
    picture = Image.fromarray(indices).convert("P")
    picture.putdata(indices.ravel().tolist())
    picture.putpalette([10, 20, 30, 200, 100, 0, 90, 90, 90])
    levels = np.array([luma(np.array(c)) for c in ([10, 20, 30], [200, 100, 0], [90, 90, 90])])
    levels[1] = 7
    result = face(encode(picture, fmt, transparency=1), background=7)
    np.testing.assert_allclose(result, levels[indices], atol=1e-4)


def test_a_palette_with_an_alpha_for_each_entry():
    indices = (GREY % 2).astype(np.uint8)
    picture = Image.fromarray(indices).convert("P")
    picture.putdata(indices.ravel().tolist())
    picture.putpalette([0, 0, 0, 100, 100, 100])
    result = face(encode(picture, transparency=bytes([51, 255])))
    np.testing.assert_allclose(result, np.array([0.8 * 255, 100])[indices], atol=1e-4)


def test_a_transparent_colour_or_level_without_alpha_channel():
    colour = Image.fromarray(np.full((64, 64, 3), (5, 6, 7), np.uint8))
    assert (face(encode(colour, transparency=(5, 6, 7))) == 255).all()
    grey = Image.new("L", (64, 64), 9)
    assert (face(encode(grey, transparency=9), background=3) == 3).all()


# EXIF orientation, written out from the standard: where the stored first row and column are seen

SEEN = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.T,
    6: lambda stored: stored[::-1].T,
    7: lambda stored: stored[::-1, ::-1].T,
    8: lambda stored: stored[:, ::-1].T,
}


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("fmt", ["PNG", "TIFF", "WEBP"])
def test_exif_orientation(orientation, fmt, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if fmt == "WEBP" else {}
    data = encode(Image.fromarray(GREY), fmt, exif=exif, **options)
    seen = SEEN.get(orientation, SEEN[1])(GREY)
    path = tmp_path / "face"
    path.write_bytes(data)
    for source in (data, path, Image.open(io.BytesIO(data))):
        np.testing.assert_allclose(face(source), seen, atol=1e-3)


def test_exif_orientation_of_a_photo_and_of_16_bits():
    exif = Image.Exif()
    exif[0x0112] = 6
    wide, tall = smooth()[:32], smooth()[:32].transpose(1, 0, 2)[:, ::-1]
    photo = encode(Image.fromarray(wide), "JPEG", exif=exif, quality=100, subsampling=0)
    np.testing.assert_allclose(face(photo), face(tall), atol=3)
    deep = GREY.astype(np.uint16) * 257
    np.testing.assert_array_equal(face(encode(Image.fromarray(deep), exif=exif)), SEEN[6](GREY))


def test_a_damaged_exif_block_counts_as_none():
    picture = Image.fromarray(GREY)
    picture.info["exif"] = b"Exif\x00\x00garbage that is no TIFF header"
    np.testing.assert_array_equal(face(picture), GREY)
