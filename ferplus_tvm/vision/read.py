"""Photos of any kind -> upright RGB pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.errors import InputError
from ferplus_tvm.faces.arrays import array_photos, as_array
from ferplus_tvm.faces.levels import check_levels, check_saved_levels
from ferplus_tvm.faces.onnx_tensor import tensor_of
from ferplus_tvm.faces.options import CheckedOptions, PreprocessOptions
from ferplus_tvm.faces.shapes import channels_last
from ferplus_tvm.faces.sources import Source, is_encoded, named
from ferplus_tvm.vision.crop import Picture


def checked_options(options: PreprocessOptions) -> CheckedOptions:
    """Check how photos are to be read.

    Raises
    ------
    TypeError
        For an option that does not exist.
    ValueError
        For a value that an option does not take; ``resample="numpy"`` is for crops alone.
    """
    checked = CheckedOptions.of(options, size=1, channels=3)
    if checked.resample != "bilinear":
        raise ValueError(f"resample is {checked.resample!r}: of whole photos it is 'bilinear'")
    return checked


def each_photo(photos: Source | Sequence[Source]) -> list[tuple[Any, str]]:
    """Return every photo with what messages call it; an array may hold several.

    What cannot be read is left to `read_picture`.
    """
    found: list[tuple[Any, str]] = []
    for item, name in named(photos):
        try:
            images = _images(item, name)
        except InputError:
            images = None
        if images is None or len(images) == 1:
            found.append((item, name))
        else:
            count = len(images)
            found += [(each, f"photo {i} of {count} of {name}") for i, each in enumerate(images, 1)]
    return found


def read_picture(item: Any, name: str, options: CheckedOptions) -> Picture:
    """Read one photo.

    It is turned as its EXIF orientation says; what is transparent is laid on the background.

    Parameters
    ----------
    item
        What `ferplus_tvm.preprocess` takes, of one picture, of any shape.
    name
        What messages call it.
    options
        Those of `checked_options`.

    Returns
    -------
    numpy.ndarray
        uint8 (H, W, 3), RGB; perhaps the memory of the item itself, which is only read.

    Raises
    ------
    InputError
        As `ferplus_tvm.preprocess`; or if there are several pictures.
    """
    array = _array(item, name)
    if array is None:
        return _image(item, name, options)
    images = channels_last(array, name, whole=True)
    if len(images) != 1:
        raise InputError(
            f"{name} has the shape {array.shape}, {len(images)} pictures; expected one: call "
            "analyze_batch"
        )
    if images.dtype == np.uint8 and images.shape[-1] == 3:
        check_levels(images[0], options.value_range, float(images.max()), name)
        if options.value_range in (None, (0, 255)):
            picture = images[0] if options.channel_order == "RGB" else images[0][..., ::-1]
            return np.ascontiguousarray(picture)
    return _whole_levels(next(array_photos(images, options.value_range, name, options)))


def _array(item: Any, name: str) -> NDArray[Any] | None:
    if hasattr(item, "__array__") and not is_encoded(item):
        return as_array(item, name)
    return tensor_of(item, name)


def _images(item: Any, name: str) -> NDArray[Any] | None:
    """Give the pictures of an array as (N, H, W, C)."""
    array = None if is_encoded(item) else _array(item, name)
    return None if array is None else channels_last(array, name, whole=True)


def _image(item: Any, name: str, options: CheckedOptions) -> Picture:
    from ferplus_tvm.faces.images import image_of
    from ferplus_tvm.faces.pixels import levels, upright

    image = upright(image_of(item, name, whole=True))
    if image.mode in ("I", "F"):
        numbers = np.asarray(image)
        return _whole_levels(next(array_photos(numbers, options.value_range, name, options)))
    if image.mode in ("L", "RGB") and not image.has_transparency_data:  # nearly all
        picture = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
        if options.value_range != (0, 255):
            check_saved_levels(picture, name)
        return picture
    return _whole_levels(levels(image, options, name))


def _whole_levels(planes: NDArray[np.float32]) -> Picture:
    return np.ascontiguousarray(np.moveaxis(np.rint(planes), 0, -1).astype(np.uint8))
