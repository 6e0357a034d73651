"""How raw pixels become what a model's file wants, against torchvision's formulas by hand."""

import dataclasses
import json
import re

import numpy as np
import pytest

from ferplus_tvm.artifact.scaling import RAW, Scaling

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def _pixels(channels: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (2, channels, 5, 4)).astype(np.float32)


@pytest.mark.parametrize(
    ("given", "channels", "value"),
    [
        ({"input_range": (0, 1)}, 1, lambda x: x / 255),
        ({"input_range": (-1, 1)}, 1, lambda x: x / 127.5 - 1),
        ({"input_range": (0, 1), "mean": 0.5, "std": 0.5}, 1, lambda x: (x / 255 - 0.5) / 0.5),
        ({"mean": 127.5, "std": np.float32(64)}, 3, lambda x: (x - 127.5) / 64),
        ({"mean": [131, 103, 91]}, 3, lambda x: x - np.reshape([131, 103, 91], (3, 1, 1))),
        ({"std": 255}, 1, lambda x: x / 255),
        ({"input_range": (0, 255)}, 1, lambda x: x),
        (
            {"input_range": (0, 1), **IMAGENET},
            3,
            lambda x: (
                (x / 255 - np.reshape(IMAGENET["mean"], (3, 1, 1)))
                / np.reshape(IMAGENET["std"], (3, 1, 1))
            ),
        ),
    ],
)
def test_values_and_back(given, channels, value):
    scaling = Scaling.of(**given)
    pixels = _pixels(channels)
    expected = value(pixels.astype(np.float64))
    values = scaling.values(pixels)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(scaling.pixels(values), pixels, atol=1e-3)
    offset, factor = (np.reshape(each, (-1, 1, 1)) for each in scaling.affine())
    np.testing.assert_allclose((pixels - offset) * factor, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "given",
    [IMAGENET, {"mean": 0.5, "std": 0.5}, {"mean": 0, "std": 1}, {"mean": 127.5, "std": 0.5}],
)
def test_mean_and_std_of_either_range_are_asked_for_it(given):
    with pytest.raises(ValueError, match=re.escape("input_range=(0, 1) or (0, 255)")):
        Scaling.of(**given)


def test_nothing_stated_is_none():
    assert Scaling.of() is None


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"input_range": (1, 0)}, "the first one smaller"),
        ({"input_range": (0, 1, 2)}, "black and white"),
        ({"input_range": (0, float("nan"))}, "finite"),
        ({"input_range": (0, 1), "mean": 127.5}, "outside of the input range 0..1"),
        ({"input_range": (0, 1), "std": 0}, "above 0"),
        ({"input_range": (0, 1), "mean": ()}, "one for each channel"),
        ({"input_range": (-1e308, 1e308)}, "float32"),
        ({"input_range": (0, 1), "std": 1e-45}, "float32"),
        ({"input_range": (0, 1), "std": 1e300}, "float32"),
        ({"input_range": (0, 1), "mean": (0.1, 0.2), "std": (1, 2, 3)}, "one for each"),
    ],
)
def test_numbers_that_cannot_be(given, says):
    with pytest.raises(ValueError, match=says):
        Scaling.of(**given)


@pytest.mark.parametrize("given", ["0,1", (True, False), 5, (None, 1)])
def test_what_is_no_numbers(given):
    with pytest.raises((TypeError, ValueError), match="input_range is"):
        Scaling.of(input_range=given)


def test_it_says_itself_in_a_line():
    assert str(RAW) == "0..255"
    assert str(Scaling((0, 1), (0.5,), (0.25,))) == "0..1, less the mean 0.5, divided by 0.25"


def test_it_goes_through_json():
    scaling = Scaling.of((0, 1), **IMAGENET)
    assert Scaling.of(**json.loads(json.dumps(dataclasses.asdict(scaling)))) == scaling
