"""Layouts, colours, lists, resampling and wrong calls of preprocess."""

from __future__ import annotations

import io
from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ferplus_tvm.errors import InputError
from ferplus_tvm.faces.preprocess import preprocess

RNG = np.random.default_rng(7)
GREY = RNG.integers(0, 256, (64, 64), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)


def luma(rgb):
    return rgb.astype(np.float64) @ [0.299, 0.587, 0.114]


def triangle_weights(length, size):
    """Antialiasing triangle filter from ``length`` samples to ``size``, from its definition."""
    scale = length / size
    centres = (np.arange(size) + 0.5) * scale
    distance = np.abs(np.arange(length) + 0.5 - centres[:, None]) / max(scale, 1)
    weights = np.clip(1 - distance, 0, None)
    return weights / weights.sum(axis=1, keepdims=True)


def triangle(levels, size=64):
    height, width = levels.shape
    rows, columns = triangle_weights(height, size), triangle_weights(width, size)
    return rows @ levels.astype(np.float64) @ columns.T


def face(source, **options):
    result = preprocess(source, **options)
    assert result.shape == (1, 1, 64, 64)
    return result[0, 0]


# Shape, type, and what passes unchanged


def test_the_answer_is_the_models_input():
    result = preprocess([GREY, COLOUR])
    assert result.shape == (2, 1, 64, 64)
    assert result.dtype == np.float32
    assert result.flags.c_contiguous


@given(hnp.arrays(np.float32, (64, 64), elements=st.floats(0, 255, width=32)))
@settings(max_examples=25, deadline=None)
def test_a_64x64_array_of_grey_levels_passes_bit_for_bit(levels):
    levels[0, :2] = 0, 200  # not normalised
    assert face(levels).tobytes() == levels.tobytes()


def test_the_answer_is_a_new_array_even_where_nothing_changes():
    levels = GREY.astype(np.float32)[None, None]
    result = preprocess(levels)
    assert not np.shares_memory(result, levels)


@pytest.mark.parametrize(
    "shape", [(48, 48), (200, 150), (1, 1), (64, 65), (3, 500), (7, 64), (63, 129)]
)
def test_other_sizes_are_resampled_with_the_antialiasing_triangle_filter(shape):
    levels = RNG.integers(0, 256, shape, dtype=np.uint8)
    np.testing.assert_allclose(face(levels), triangle(levels), atol=1e-3)


def test_resampling_a_grey_picture_stays_within_a_level_of_eight_bit_pillow():
    for _ in range(50):
        levels = RNG.integers(0, 256, (48, 48), dtype=np.uint8)
        eight_bit = Image.fromarray(levels).resize((64, 64), Image.Resampling.BILINEAR)
        assert np.abs(face(levels) - np.asarray(eight_bit)).max() <= 1.01


def test_resampled_levels_stay_within_black_and_white():
    for size in range(1, 130):
        assert preprocess(np.full((size, size + 1), 255, np.uint8)).max() == 255


def test_numpy_resampling_reproduces_the_documented_resize_of_the_flat_buffer():
    for array in (GREY, COLOUR, GREY[:50, :50], RNG.integers(0, 256, (90, 70, 3), dtype=np.uint8)):
        expected = np.expand_dims(np.resize(array, (1, 64, 64)), axis=0)
        np.testing.assert_array_equal(preprocess(array, resample="numpy"), expected)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "CMYK"])
def test_numpy_resampling_takes_the_stored_numbers_of_pictures(mode):
    picture = Image.fromarray(COLOUR).convert("RGB").convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = np.asarray(picture) * (255 if mode == "1" else 1)
    picture.info["exif"] = exif.tobytes()
    expected = np.resize(stored, (64, 64))
    np.testing.assert_array_equal(face(picture, resample="numpy"), expected)


# Layouts


@pytest.mark.parametrize(
    ("shape", "faces"),
    [
        ((20, 30), 1),
        ((20, 30, 1), 1),
        ((20, 30, 2), 1),
        ((20, 30, 3), 1),
        ((20, 30, 4), 1),
        ((5, 20, 30), 5),
        ((3, 20, 30), 3),
        ((1, 20, 30), 1),
        ((5, 20, 30, 1), 5),
        ((5, 20, 30, 3), 5),
        ((5, 20, 30, 4), 5),
        ((5, 1, 20, 30), 5),
        ((5, 1, 20, 3), 5),
        ((1, 1, 64, 64), 1),
        ((0, 64, 64), 0),
        ((0, 1, 64, 64), 0),
        ((0, 64, 64, 3), 0),
    ],
)
def test_the_shape_says_how_many_faces(shape, faces):
    assert preprocess(np.zeros(shape, np.uint8)).shape == (faces, 1, 64, 64)


@pytest.mark.parametrize(
    "shape",
    [(), (9,), (64, 0), (0, 64), (0, 64, 3), (5, 0, 64), (2, 3, 64, 64), (2, 64, 64, 5), (2,) * 5],
)
def test_other_shapes_are_refused_by_name(shape):
    with pytest.raises(InputError) as caught:
        preprocess(np.zeros(shape, np.uint8))
    assert f"the array has the shape {shape}" in str(caught.value)


def test_a_batch_is_its_pictures_one_by_one_in_every_layout():
    grey = RNG.integers(0, 256, (4, 21, 33), dtype=np.uint8)
    one_by_one = np.concatenate([preprocess(g) for g in grey])
    for batch in (grey, grey[..., None], grey[:, None], list(grey), tuple(grey)):
        np.testing.assert_array_equal(preprocess(batch), one_by_one)


def test_the_second_axis_of_length_one_wins_over_channels_last():
    array = RNG.integers(0, 256, (2, 1, 30, 3), dtype=np.uint8)
    np.testing.assert_array_equal(preprocess(array), preprocess([array[0, 0], array[1, 0]]))


def test_colour_arrays_become_luma_in_the_stated_order():
    np.testing.assert_allclose(face(COLOUR), luma(COLOUR), atol=2e-5)
    np.testing.assert_allclose(
        face(COLOUR, channel_order="BGR"), luma(COLOUR[..., ::-1]), atol=2e-5
    )
    bgra = np.dstack([COLOUR[..., ::-1], np.full((64, 64), 255, np.uint8)])
    np.testing.assert_array_equal(face(bgra, channel_order="BGR"), face(COLOUR))


def test_channel_order_leaves_pictures_and_grey_arrays_alone():
    sources = [Image.fromarray(COLOUR), GREY]
    np.testing.assert_array_equal(preprocess(sources, channel_order="BGR"), preprocess(sources))


def test_an_array_and_the_same_picture_agree_to_the_bit():
    for size in ((64, 64), (100, 41)):
        rgba = RNG.integers(0, 256, (*size, 4), dtype=np.uint8)
        rgb = rgba[..., :3]
        np.testing.assert_array_equal(face(rgb), face(Image.fromarray(rgb)))
        np.testing.assert_allclose(face(rgba), face(Image.fromarray(rgba)), atol=1e-4)


@pytest.mark.parametrize("background", [0, 77, 255])
def test_alpha_of_arrays_is_composited_over_the_background(background):
    alpha = RNG.integers(0, 256, (64, 64), dtype=np.uint8)
    opacity = alpha / 255
    for array, levels in (
        (np.dstack([COLOUR, alpha]), luma(COLOUR)),
        (np.dstack([GREY, alpha]), GREY),
    ):
        expected = opacity * levels + (1 - opacity) * background
        np.testing.assert_allclose(face(array, background=background), expected, atol=1e-4)


class Tensor:
    """What PyTorch and others offer: not an ndarray, but readable as one."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        if isinstance(self.array, Exception):
            raise self.array
        return self.array


def test_tensors_of_other_libraries_are_read_as_arrays():
    np.testing.assert_array_equal(preprocess(Tensor(COLOUR)), preprocess(COLOUR))
    with pytest.raises(InputError, match=r"Tensor cannot be read .*on the GPU.*numpy array first"):
        preprocess(Tensor(RuntimeError("on the\nGPU")))


# Lists, and wrong calls


def test_lists_mix_everything_and_keep_the_order(tmp_path):
    pictures = [RNG.integers(0, 256, (64, 64), dtype=np.uint8) for _ in range(7)]
    encoded = io.BytesIO()
    Image.fromarray(pictures[1]).save(encoded, "PNG")
    Image.fromarray(pictures[0]).save(tmp_path / "zero.png")
    Image.fromarray(pictures[3]).save(tmp_path / "three.png")
    mixture = [
        str(tmp_path / "zero.png"),
        encoded.getvalue(),
        Image.fromarray(pictures[2]),
        Path(tmp_path / "three.png"),
        np.stack(pictures[4:6]),
        Tensor(pictures[6]),
    ]
    np.testing.assert_array_equal(preprocess(mixture)[:, 0], np.stack(pictures))


def test_an_empty_list_gives_zero_faces():
    assert preprocess([]).shape == preprocess(()).shape == (0, 1, 64, 64)
    assert preprocess([]).dtype == np.float32


def test_a_bad_item_is_named_by_its_place():
    with pytest.raises(InputError, match=r"^item 2 of 3 has the shape"):
        preprocess([GREY, np.zeros(3), GREY])
    with pytest.raises(InputError, match=r"^'nowhere\.png' does not exist"):
        preprocess(["nowhere.png", GREY])


@pytest.mark.parametrize(
    "source", [None, 3, {"a": 1}, object(), [[GREY]], [None], (g for g in [GREY])]
)
def test_what_is_no_source_is_refused_by_type(source):
    with pytest.raises(InputError, match=r"is of type .*expected a path"):
        preprocess(source)


@pytest.mark.parametrize(
    "options",
    [
        {"channel_order": "rgb"},
        {"resample": "nearest"},
        {"background": 256},
        {"background": -1},
        {"background": float("nan")},
        {"value_range": (1, 0)},
        {"value_range": (0, 0)},
        {"value_range": (0, float("inf"))},
        {"value_range": (float("nan"), 1)},
        {"value_range": (-1.7e308, 1.7e308)},
    ],
)
def test_a_misspelt_option_is_a_value_error_that_names_it(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        preprocess(GREY, **options)
