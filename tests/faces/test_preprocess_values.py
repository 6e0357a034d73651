"""Number types, value ranges and memory layouts of the arrays that preprocess takes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ferplus_tvm.errors import InputError
from ferplus_tvm.faces.preprocess import preprocess

RNG = np.random.default_rng(5)
GREY = RNG.permutation(np.arange(4096) % 256).reshape(64, 64).astype(np.uint8)


def face(source, **options):
    result = preprocess(source, **options)
    assert result.shape == (1, 1, 64, 64)
    return result[0, 0]


@pytest.mark.parametrize(
    "dtype", ["u1", "i2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "longdouble"]
)
def test_every_number_type_holds_levels_up_to_255(dtype):
    np.testing.assert_array_equal(face(GREY.astype(dtype)), GREY)


def test_bool_is_black_and_white_and_uint16_runs_to_65535():
    np.testing.assert_array_equal(face(GREY > 127), np.where(GREY > 127, 255, 0))
    wide = RNG.integers(0, 65536, (64, 64)).astype(np.uint16)
    np.testing.assert_allclose(face(wide), wide / 257, rtol=1e-7)
    np.testing.assert_array_equal(face(GREY.astype(np.uint16) * 257), GREY)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 1), (0, 4095), (-2.5, 7.25), (0, 255)])
def test_a_stated_range_is_mapped_to_black_and_white(low, high):
    array = low + (GREY / 255) * (high - low)
    np.testing.assert_allclose(face(array, value_range=(low, high)), GREY, atol=1e-4)


def test_a_stated_range_holds_for_uint16_too():
    twelve_bits = RNG.integers(0, 4096, (64, 64)).astype(np.uint16)
    expected = twelve_bits / 4095 * 255
    np.testing.assert_allclose(face(twelve_bits, value_range=(0, 4095)), expected, atol=1e-4)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_a_float_array_that_looks_normalised_is_refused_unless_the_range_is_stated(dtype):
    normalised = (GREY / 255).astype(dtype)
    with pytest.raises(InputError, match=r"looks normalised.*value_range=\(0, 1\)"):
        preprocess(normalised)
    assert face(normalised, value_range=(0, 1)).max() == 255
    unchanged = face(normalised, value_range=(0, 255))
    np.testing.assert_array_equal(unchanged, normalised.astype(np.float32))


def test_black_is_black_in_every_range():
    for dtype in ("u1", "u2", "i4", "f4"):
        assert preprocess(np.zeros((64, 64), dtype)).max() == 0


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (GREY / 127.5 - 1, r"in -1\.\.1; expected 0\.\.255: .*value_range=\(-1, 1\)"),
        (GREY.astype(np.int32) + 1, r"1\.\.256; expected 0\.\.255"),
        (GREY.astype(np.int8) | -128, r"-128\.\."),
        (np.full((64, 64), 2**63, np.uint64), r"9\.22337e\+18"),
    ],
)
def test_numbers_outside_the_range_are_refused_with_the_range_found(array, says):
    with pytest.raises(InputError, match=says):
        preprocess(array)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("value_range", [None, (0, 1)])
def test_nan_and_infinity_are_refused(bad, value_range):
    array = GREY / 255
    array[3, 5] = bad
    with pytest.raises(InputError, match="holds NaN or infinity"):
        preprocess(array, value_range=value_range)


@pytest.mark.parametrize("dtype", ["complex64", "U3", "S3", "object", "datetime64[s]", "i4,i4"])
def test_what_is_not_a_real_number_is_refused(dtype):
    with pytest.raises(InputError, match="expected real numbers"):
        preprocess(np.zeros((64, 64), dtype))


@st.composite
def strided(draw):
    """Any view into any buffer, with an equal contiguous copy."""
    shape = draw(st.sampled_from([(9, 70), (64, 64), (9, 12, 3), (3, 9, 12), (2, 1, 9, 8)]))
    steps = [draw(st.sampled_from([1, 2, -1, -3])) for _ in shape]
    order = draw(st.permutations(range(len(shape))))
    dtype = np.dtype(draw(st.sampled_from(["u1", "<u2", ">u2", "<f4", ">f4", ">f8", "<i8", "?"])))
    big = [shape[axis] * abs(steps[axis]) for axis in order]
    raw = np.zeros(int(np.prod(big)) * dtype.itemsize + 1, np.uint8)
    buffer = raw[draw(st.integers(0, 1)) :][: raw.size - 1].view(dtype).reshape(big)
    white = 65535 if dtype.kind == "u" and dtype.itemsize == 2 else 255
    buffer[...] = np.random.default_rng(draw(st.integers(0, 99))).integers(0, white + 1, big)
    view = buffer.transpose(np.argsort(order))[tuple(slice(None, None, step) for step in steps)]
    assert view.shape == shape
    view.flags.writeable = draw(st.booleans())
    return view


@given(strided())
@settings(max_examples=150, deadline=None)
def test_strides_order_alignment_and_byte_order_do_not_matter_and_nothing_is_written(view):
    copy = view.astype(view.dtype.newbyteorder("="), order="C")
    np.testing.assert_array_equal(preprocess(view), preprocess(copy))
    np.testing.assert_array_equal(view, copy)
