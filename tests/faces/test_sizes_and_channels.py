"""The input of other models of faces: other sizes, and RGB."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ferplus_tvm.faces.preprocess import preprocess, preprocess_each
from tests.faces.test_preprocess import triangle

RNG = np.random.default_rng(11)
COLOUR = RNG.integers(0, 256, (48, 48, 3), dtype=np.uint8)
GREY = COLOUR[..., 1]
PLANES = np.moveaxis(COLOUR, -1, 0)


@pytest.mark.parametrize("size", [32, 48, 224])
def test_every_plane_is_resampled_to_the_size_with_the_same_filter(size):
    big = RNG.integers(0, 256, (70, 51, 3), dtype=np.uint8)
    expected = np.stack([triangle(big[..., c], size) for c in range(3)])
    np.testing.assert_allclose(preprocess(big, size=size, channels=3)[0], expected, atol=1e-3)
    grey = big[..., 0]
    np.testing.assert_allclose(preprocess(grey, size=size)[0, 0], expected[0], atol=1e-3)


def test_grey_of_the_models_size_passes_unchanged():
    np.testing.assert_array_equal(preprocess(GREY, size=48)[0, 0], GREY)


@pytest.mark.parametrize(
    "source", [COLOUR, Image.fromarray(COLOUR), Image.fromarray(COLOUR).convert("RGBA")]
)
def test_rgb_stays_rgb(source):
    np.testing.assert_array_equal(preprocess(source, size=48, channels=3)[0], PLANES)


def test_arrays_of_opencv_are_turned_to_rgb_and_pictures_are_left_alone():
    options = {"size": 48, "channels": 3, "channel_order": "BGR"}
    np.testing.assert_array_equal(preprocess(COLOUR[..., ::-1], **options)[0], PLANES)
    np.testing.assert_array_equal(preprocess(Image.fromarray(COLOUR), **options)[0], PLANES)


@pytest.mark.parametrize(
    "source",
    [GREY, GREY[..., None], GREY[None, None], Image.fromarray(GREY), GREY.astype(np.uint16) * 257],
)
def test_grey_fills_all_three_channels(source):
    np.testing.assert_array_equal(preprocess(source, size=48, channels=3)[0], np.stack([GREY] * 3))


@pytest.mark.parametrize("mode", ["P", "CMYK", "YCbCr", "LAB", "LA", "1", "I;16"])
def test_pictures_of_other_modes_are_what_pillow_makes_of_them_in_rgb(mode):
    picture = Image.fromarray(COLOUR).convert("RGB")
    picture = (
        picture.convert("L").convert(mode) if mode in ("LAB", "I;16") else picture.convert(mode)
    )
    expected = np.moveaxis(np.asarray(picture.convert("RGB"), np.float32), -1, 0)
    if mode == "I;16":
        expected = np.stack([np.asarray(picture) / np.float32(257)] * 3)
    np.testing.assert_array_equal(
        preprocess(picture, size=48, channels=3, value_range=(0, 65535))[0], expected
    )


def test_alpha_is_composited_over_the_background_in_each_channel():
    alpha = RNG.integers(0, 256, (48, 48), dtype=np.uint8)
    opacity = alpha / 255
    expected = opacity * PLANES + (1 - opacity) * 77
    rgba = np.dstack([COLOUR, alpha])
    for source in (rgba, Image.fromarray(rgba)):
        answer = preprocess(source, size=48, channels=3, background=77)
        np.testing.assert_allclose(answer[0], expected, atol=1e-4)


def test_numpy_resampling_resizes_the_flat_buffer_to_all_channels():
    answer = preprocess(COLOUR, size=40, channels=3, resample="numpy")
    np.testing.assert_array_equal(answer, np.resize(COLOUR, (1, 3, 40, 40)))


def test_each_item_has_the_models_form_and_so_has_none():
    good, bad = preprocess_each([GREY, b"no picture"], size=32, channels=3)
    assert good.shape == (1, 3, 32, 32)
    assert isinstance(bad, Exception)
    assert preprocess([], size=32, channels=3).shape == (0, 3, 32, 32)


@pytest.mark.parametrize("form", [{"size": 0}, {"channels": 2}, {"channels": 4}])
def test_a_form_that_no_model_has_is_a_value_error_that_names_it(form):
    with pytest.raises(ValueError, match=next(iter(form))):
        preprocess(GREY, **form)
