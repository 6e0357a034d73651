"""Arrays of any accepted shape, type and range -> faces of levels 0..255."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.errors import InputError, one_line
from ferplus_tvm.faces.diagnose import of_array_type
from ferplus_tvm.faces.levels import check_alpha, check_levels
from ferplus_tvm.faces.options import CheckedOptions
from ferplus_tvm.faces.resample import bilinear
from ferplus_tvm.faces.shapes import channels_last
from ferplus_tvm.faces.sources import name_of_face
from ferplus_tvm.faces.whole import warn_if_whole


def as_array(item: Any, name: str) -> NDArray[Any]:
    """Read an array of real numbers."""
    try:
        array = np.asarray(item)
    except Exception as error:  # frameworks raise what they like, for instance for a GPU tensor
        raise InputError(
            f"{name} of type {type(item).__name__} cannot be read as an array "
            f"({one_line(error)}); expected numbers in main memory: convert it to a numpy array "
            f"first{', as tensor.detach().cpu().numpy() does' if hasattr(item, 'cpu') else ''}"
        ) from error
    if is_narrow(array.dtype):
        array = array.astype(np.float32)
    if array.dtype.kind not in "biuf":
        first = array.flat[0] if array.size else None
        raise InputError(f"{name} {of_array_type(array.dtype, first)}")
    if has_mask(item):
        raise InputError(
            f"{name} has masked numbers; expected all of them: give them a value first, for "
            "example by array.filled(0)"
        )
    return array


def is_narrow(dtype: np.dtype[Any]) -> bool:
    """Whether numbers are real ones of a type that numpy itself lacks, such as bfloat16."""
    return dtype.kind == "V" and dtype.names is None and np.can_cast(dtype, np.float32)


def has_mask(item: Any) -> bool:
    """Whether some numbers of an array are masked, which numpy.asarray would show."""
    # Slow to import, and a masked array has imported it.
    return "numpy.ma" in sys.modules and bool(np.ma.is_masked(item))


def array_faces(
    array: NDArray[Any], value_range: tuple[float, float] | None, name: str, options: CheckedOptions
) -> Iterator[NDArray[np.floating[Any]]]:
    """Yield each face of an array as (channels, size, size), 0..255."""
    for image, (low, high) in _images(channels_last(array, name), value_range, name):
        warn_if_whole(image.shape[1], image.shape[0], name)
        if options.resample == "numpy":
            shape = (options.channels, options.size, options.size)
            yield _levels(np.resize(image, shape), low, high)
        else:
            planes = bilinear(_planes(image, low, high, options), options.size)
            yield np.broadcast_to(planes, (options.channels, options.size, options.size))


def array_photos(
    array: NDArray[Any], value_range: tuple[float, float] | None, name: str, options: CheckedOptions
) -> Iterator[NDArray[np.float32]]:
    """Yield each photo of an array at its own size, as (channels, H, W), 0..255."""
    for image, (low, high) in _images(channels_last(array, name, whole=True), value_range, name):
        planes = _planes(image, low, high, options)
        yield np.broadcast_to(planes, (options.channels, *planes.shape[1:]))


def _images(
    images: NDArray[Any], value_range: tuple[float, float] | None, name: str
) -> Iterator[tuple[NDArray[Any], tuple[float, float]]]:
    """Yield each image of (N, H, W, C) with its black and white, checked."""
    count = len(images)
    transparent = images.shape[-1] in (2, 4)
    colours = images[..., :-1] if transparent else images
    brightest = float(colours.max()) if count else 0.0
    for number, image in enumerate(images, 1):
        named = name_of_face(number, count, name) if count > 1 else name
        low, high = check_levels(colours[number - 1], value_range, brightest, named)
        if transparent:
            check_alpha(image[..., -1], low, high, named)
        yield image, (low, high)


def _levels(numbers: NDArray[Any], low: float, high: float) -> NDArray[np.float64]:
    """Bring numbers whose black is ``low`` and white ``high`` to 0..255."""
    found = numbers.astype(np.float64)
    if (low, high) != (0, 255):
        found = (found - low) / (high - low) * 255
    # Integers have been checked; floats may be beyond by a rounding error.
    return found if numbers.dtype.kind in "bui" else np.clip(found, 0, 255)


def _planes(
    image: NDArray[Any], low: float, high: float, options: CheckedOptions
) -> NDArray[np.float32]:
    """Return the levels of (H, W, C) whose black is ``low`` and white ``high``.

    They are (3, H, W), or (1, H, W) of what is grey.
    """
    stored = [_levels(image[..., c], low, high) for c in range(image.shape[-1])]
    colours = stored[:3] if len(stored) > 2 else stored[:1]
    if options.channel_order == "BGR":
        colours = colours[::-1]
    if options.channels == 1 and len(colours) == 3:
        red, green, blue = colours
        colours = [0.299 * red + 0.587 * green + 0.114 * blue]
    planes = np.array(colours)
    if len(stored) in (2, 4):
        opacity = stored[-1] / 255
        planes = opacity * planes + (1 - opacity) * options.background
    return planes.astype(np.float32)
