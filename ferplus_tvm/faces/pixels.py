"""Turn a decoded image upright, and turn it into grey or RGB levels, whatever its pixel mode."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from ferplus_tvm.errors import InputError, one_line
from ferplus_tvm.faces.levels import check_levels, check_saved_levels, warn_of_transparency
from ferplus_tvm.faces.options import CheckedOptions

# EXIF 2.32, tag 0x0112: what has to be done to the stored rows and columns to see the image.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ON_THE_SIDE = [_UPRIGHT[orientation] for orientation in (5, 6, 7, 8)]
_END_AT_LEFT = [_UPRIGHT[orientation] for orientation in (2, 3, 6, 7)]
_END_AT_TOP = [_UPRIGHT[orientation] for orientation in (3, 4, 7, 8)]


def upright(image: Image.Image) -> Image.Image:
    """Turn a decoded image as its EXIF orientation says; the argument is left as it is.

    A damaged EXIF block counts as none, as in image viewers.
    """
    method = _upright_by(image)
    return image if method is None else image.transpose(method)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Return (width, height) of an opened image as `upright` turns it, in pixels."""
    width, height = image.size
    return (height, width) if _upright_by(image) in _ON_THE_SIDE else (width, height)


def ends_first(image: Image.Image) -> tuple[bool, bool]:
    """Return whether what `upright` puts at the left, and at the top, is stored last."""
    method = _upright_by(image)
    return method in _END_AT_LEFT, method in _END_AT_TOP


def _upright_by(image: Image.Image) -> Image.Transpose | None:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # the parsers of EXIF and XMP share no base class of errors either
        return None
    return _UPRIGHT.get(orientation) if isinstance(orientation, int) else None


def levels(image: Image.Image, options: CheckedOptions, name: str) -> NDArray[np.float32]:
    """Convert a decoded image of any mode but I and F to grey or RGB levels.

    For grey, colours become luma by ITU-R BT.601 (0.299 R + 0.587 G + 0.114 B), without rounding to
    whole levels. Alpha, a transparent palette entry or a transparent colour is composited over
    the background.

    Parameters
    ----------
    image
        A decoded image, H x W.
    options
        The channels, the range of 16-bit levels, and the background.
    name
        What messages call the source.

    Returns
    -------
    numpy.ndarray
        float32, (channels, H, W), 0..255.

    Raises
    ------
    InputError
        Pillow cannot convert this mode, or the levels look normalised, or like fewer than 16 bits.
    """
    sixteen_bits = image.mode.startswith("I;16")
    low, high = 0.0, 255.0
    if sixteen_bits:
        numbers = np.asarray(image)
        low, high = check_levels(numbers, options.value_range, float(numbers.max()), name)
    try:
        planes, opacity, colours = _planes_and_opacity(image, options.channels)
    except Exception as error:
        raise InputError(
            f"{name} is an image of mode {image.mode}, which Pillow cannot convert "
            f"({one_line(error)}); expected for example RGB or L: convert it first"
        ) from error
    if sixteen_bits:
        planes = (np.clip((planes - low) / (high - low), 0, 1) * 255).astype(np.float32)
    elif image.mode != "1" and options.value_range != (0, 255):
        check_saved_levels(colours, name)
    if opacity is not None:
        if not opacity.any():
            warn_of_transparency(name)
        planes = opacity * planes + (1 - opacity) * np.float32(options.background)
    return np.broadcast_to(planes, (options.channels, *planes.shape[1:]))


def _planes_and_opacity(
    image: Image.Image, channels: int
) -> tuple[NDArray[np.floating[Any]], NDArray[np.float32] | None, NDArray[Any]]:
    """Levels, (1, H, W) of grey or (3, H, W); opacity 0..1, if any; and the numbers as stored."""
    if image.mode.startswith("I;16"):
        stored = np.asarray(image)
        clear = image.info.get("transparency")  # PNG: the one level that is transparent
        opacity = (stored != clear).astype(np.float32) if isinstance(clear, int) else None
        return stored[np.newaxis].astype(np.float64), opacity, stored
    opacity = None
    if image.mode == "La":  # the one mode that Pillow cannot convert to RGBA in one step
        image = image.convert("LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        opacity = np.asarray(image.getchannel("A"), dtype=np.float32) / np.float32(255)
    image = image.convert("L" if image.mode in ("1", "L") else "RGB")
    colours = np.asarray(image)  # judged before luma, which may be a ninth of a colour
    if image.mode == "RGB" and channels == 3:
        return np.moveaxis(colours.astype(np.float32), -1, 0), opacity, colours
    return np.asarray(image.convert("F"))[np.newaxis], opacity, colours
