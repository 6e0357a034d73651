"""Arrays of any accepted shape, type and range -> faces of levels 0..255."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.errors import InputError, one_line
from ferplus_tvm.faces.options import CheckedOptions
from ferplus_tvm.faces.resample import bilinear
from ferplus_tvm.faces.sources import name_of_face


def as_array(item: Any, name: str) -> NDArray[Any]:
    """Read an array of real numbers."""
    try:
        array = np.asarray(item)
    except Exception as error:  # frameworks raise what they like, for instance for a GPU tensor
        raise InputError(
            f"{name} of type {type(item).__name__} cannot be read as an array "
            f"({one_line(error)}); expected numbers in main memory: convert it to a numpy array "
            "first"
        ) from error
    if array.dtype.kind not in "biuf":
        raise InputError(
            f"{name} has the type {array.dtype}; expected real numbers, for example uint8: "
            "convert it first"
        )
    return array


def array_faces(
    array: NDArray[Any], value_range: tuple[float, float] | None, name: str, options: CheckedOptions
) -> Iterator[NDArray[np.floating[Any]]]:
    """Yield each face of an array as (channels, size, size), 0..255."""
    images = channels_last(array, name)
    low, high = value_range or _range_of_type(array.dtype)
    if array.size:
        try:
            _check_values(array, low, high, value_range is not None, name)
        except InputError:
            count = len(images)
            for number, image in enumerate(images if count > 1 else (), 1):
                named = name_of_face(number, count, name)
                _check_values(image, low, high, value_range is not None, named)
            raise

    def unit(numbers: NDArray[Any]) -> NDArray[np.float64]:
        return (numbers.astype(np.float64) - low) / (high - low)

    for image in images:
        if options.resample == "numpy":
            yield unit(np.resize(image, (options.channels, options.size, options.size))) * 255
            continue
        stored = [unit(image[..., c]) for c in range(image.shape[-1])]
        colours = stored[:3] if len(stored) > 2 else stored[:1]
        if options.channel_order == "BGR":
            colours = colours[::-1]
        if options.channels == 1 and len(colours) == 3:
            red, green, blue = colours
            colours = [0.299 * red + 0.587 * green + 0.114 * blue]
        planes = np.stack(colours) * 255
        if len(stored) in (2, 4):
            planes = stored[-1] * planes + (1 - stored[-1]) * options.background
        resampled = bilinear(planes.astype(np.float32), options.size)
        yield np.broadcast_to(resampled, (options.channels, options.size, options.size))


def channels_last(array: NDArray[Any], name: str) -> NDArray[Any]:
    """View an array of any accepted shape as (N, H, W, C), by the rules of :func:`preprocess`."""
    shape = array.shape
    last_is_channels = array.ndim > 0 and 1 <= shape[-1] <= 4
    if array.ndim == 2:
        images = array[np.newaxis, :, :, np.newaxis]
    elif array.ndim == 3:
        images = array[np.newaxis] if last_is_channels else array[..., np.newaxis]
    elif array.ndim == 4 and shape[1] == 1:
        images = np.moveaxis(array, 1, -1)
    elif array.ndim == 4 and last_is_channels:
        images = array
    else:
        raise InputError(
            f"{name} has the shape {shape}; expected (H, W), (H, W, C), (N, H, W), (N, H, W, C) "
            "with 1 to 4 channels C, or (N, 1, H, W): reshape it, with the channels last"
        )
    if 0 in images.shape[1:]:
        raise InputError(
            f"{name} has the shape {shape}; expected images of at least 1 x 1 pixels: "
            "check how it was cropped"
        )
    return images


def _range_of_type(dtype: np.dtype[Any]) -> tuple[float, float]:
    """Black and white of an array whose caller does not say."""
    if dtype.kind == "b":
        return 0, 1
    return (0, 65535) if dtype.kind == "u" and dtype.itemsize == 2 else (0, 255)


def _check_values(
    array: NDArray[Any], low: float, high: float, range_stated: bool, name: str
) -> None:
    """Refuse NaN, infinity, numbers outside the range, and floats that look normalised."""
    smallest, largest = float(array.min()), float(array.max())
    if not (math.isfinite(smallest) and math.isfinite(largest)):
        raise InputError(
            f"{name} holds NaN or infinity; expected numbers in {low:g}..{high:g}: replace them"
        )
    got = f"{name} holds numbers in {smallest:g}..{largest:g}"
    if not low <= smallest <= largest <= high:
        raise InputError(
            f"{got}; expected {low:g}..{high:g}: clip them, or state their black and white, "
            "for example value_range=(-1, 1)"
        )
    if not range_stated and array.dtype.kind == "f" and smallest < largest <= 1:
        raise InputError(
            f"{got}, so it looks normalised; expected raw grey levels in 0..255: "
            "state value_range=(0, 1), or value_range=(0, 255) if it is as dark as that"
        )
