"""Whether numbers can be the levels of a face, 0..255, and what they are if they cannot."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.errors import InputError

_log = logging.getLogger(__name__)

# No face can be seen in a picture whose brightest level is below this one of 255, while pixels
# divided by 255 end at 1, by 127.5 at 2, and a little above either after a bicubic resize.
DARKEST = 4.0

# How far beyond black or white, as a part of their distance, is a rounding error of float32.
_ROUNDING = 1e-6

# White of cameras that store fewer bits in 16, at the low end.
_WHITE = {8: 255, 10: 1023, 12: 4095, 14: 16383}

_AS_BEFORE = (
    "give the pixels as they were before that, or state what black and white have become as "
    "value_range=(black, white)"
)

_PERCENT = 100.0  # white in percent, and in CIE's lightness L*


def doubt(faces: NDArray[np.float32]) -> str | None:
    """Say why a face cannot be raw levels in 0..255: of the first such face.

    Parameters
    ----------
    faces
        Levels, (N, C, H, W); a face with NaN is in doubt, too.

    Returns
    -------
    str or None
        Such as "face 2 of 5 holds numbers in 0..1, so it looks normalised"; None if all faces may
        be raw.
    """
    if len(faces) == 0:
        return None
    rows = faces.reshape(len(faces), -1)
    smallest, largest = rows.min(axis=1), rows.max(axis=1)
    black, white = -255 * _ROUNDING, 255 * (1 + _ROUNDING)
    # Of nearly every batch three numbers tell enough; one face needs no further reductions.
    darkest, dimmest, brightest = smallest[0], largest[0], largest[0]
    if len(rows) > 1:
        darkest, dimmest, brightest = smallest.min(), largest.min(), largest.max()
    if black <= darkest and dimmest > 1.01 * _PERCENT and brightest <= white:
        return None
    bright = (largest >= DARKEST) | (largest == 0)
    raw = (smallest >= black) & (largest <= white) & bright
    for dark in np.flatnonzero(raw & (largest <= 1.01 * _PERCENT)):
        raw[dark] = not _is_percent(rows[dark], float(smallest[dark]), float(largest[dark]))
    if raw.all():
        return None
    face = int(np.argmin(raw))
    low, high = float(smallest[face]), float(largest[face])
    got = f"face {face + 1} of {len(rows)} holds numbers in {low:g}..{high:g}"
    if low >= black and DARKEST <= high <= white:
        return f"{got}, so it looks like percent"
    if high >= DARKEST:
        return f"{got}, outside 0..255"
    return f"{got}, so it looks {'standardised' if low < 0 else 'normalised'}"


def check_levels(
    numbers: NDArray[Any], value_range: tuple[float, float] | None, brightest: float, name: str
) -> tuple[float, float]:
    """Return black and white of one face; refuse numbers that cannot be its levels.

    Numbers may lie beyond black and white by a rounding error.

    Parameters
    ----------
    numbers
        The colours of one face, of any real type; not empty.
    value_range
        Black and white where the caller states them.
    brightest
        The largest number of all faces of the array.
    name
        What messages call the face.

    Raises
    ------
    InputError
        NaN or infinity, numbers outside the range, or, where no range is stated, numbers that
        look normalised or like percent, or 16-bit ones that hold 8 to 14 bits.
    """
    low, high = value_range or _range_of_type(numbers.dtype)
    smallest, largest = _extremes(numbers, low, high, name)
    got = f"{name} holds numbers in {smallest:g}..{largest:g}"
    slack = _ROUNDING * (high - low)
    if not low - slack <= smallest <= largest <= high + slack:
        if value_range is None:
            step = _range_to_state(smallest, largest, numbers.dtype)
        elif max(low - smallest, largest - high) < (high - low) / 10:
            step = "clip them, or state another value_range"
        else:
            step = "state the value_range of these numbers, or leave it out if they are raw"
        raise InputError(f"{got}; expected {low:g}..{high:g}: {step}")
    # Black is black in every range, and so is a black face.
    if value_range or numbers.dtype.kind == "b" or largest == 0:
        return low, high
    doubted = step = ""
    if largest < DARKEST:
        doubted, step = "looks normalised", _before_normalising(largest, numbers.dtype)
    elif numbers.dtype.kind == "f" and _is_percent(numbers, smallest, largest):
        doubted, step = "looks like percent", "state value_range=(0, 100)"
    elif numbers.dtype.kind == "u" and _is_wrapped(numbers):
        doubted = "looks like numbers around 0 that were cast to unsigned ones"
        step = "give the pixels as they were before they were normalised"
    if doubted:
        raise InputError(
            f"{got}, so it {doubted}; expected raw levels in {low:g}..{high:g}: {step}, or "
            f"state value_range=(0, {high:g}) if it is as dark as that"
        )
    if high == 65535 and not _has_8_bits_of_16(numbers, largest):
        for bits, white in _WHITE.items():
            if largest <= white:
                likely = next((each for each in _WHITE.values() if brightest <= each), None)
                state = f"value_range=(0, {likely}), or " if likely else ""
                raise InputError(
                    f"{got}, which are at most {bits} bits in 16; expected white to be 65535: "
                    f"state {state}value_range=(0, 65535) if it is as dark as that"
                )
    return low, high


def check_saved_levels(colours: NDArray[np.uint8], name: str) -> None:
    """Refuse the levels of a picture of 8 bits that look like normalised pixels that were saved.

    Raises
    ------
    InputError
        The brightest level is below ``DARKEST`` and not black, or all are next to 0 and 255.
    """
    brightest = int(colours.max())
    if brightest >= DARKEST and not _is_wrapped(colours):
        return
    if brightest:
        raise InputError(
            f"{name} holds levels in {colours.min()}..{brightest}, as if normalised pixels had "
            "been saved; expected levels in 0..255: save it before they are normalised, or state "
            "value_range=(0, 255) if it is meant to be as it is"
        )


def check_alpha(numbers: NDArray[Any], low: float, high: float, name: str) -> None:
    """Refuse alpha that is not in the range of the colours beside it.

    Raises
    ------
    InputError
        NaN or infinity, numbers outside the range, or alpha in 0..1 beside wider colours.
    """
    smallest, largest = _extremes(numbers, low, high, name)
    slack = _ROUNDING * (high - low)
    inside = low - slack <= smallest <= largest <= high + slack
    if not inside or (low == 0 and 0 < largest <= 1 < high):
        raise InputError(
            f"the alpha of {name} holds numbers in {smallest:g}..{largest:g}; expected "
            f"{low:g}..{high:g}, as its colours: bring both to the same range"
        )
    if largest <= low:
        warn_of_transparency(name)


def warn_of_transparency(name: str) -> None:
    """Log that of a picture only the background is seen."""
    _log.warning(
        "%s is wholly transparent, so only the background is seen: leave its alpha out if its "
        "colours are meant",
        name,
    )


def _extremes(numbers: NDArray[Any], low: float, high: float, name: str) -> tuple[float, float]:
    """Return the smallest and the largest number; refuse NaN and infinity."""
    smallest, largest = float(numbers.min()) + 0.0, float(numbers.max()) + 0.0  # and no -0
    if not (math.isfinite(smallest) and math.isfinite(largest)):
        raise InputError(
            f"{name} holds NaN or infinity; expected numbers in {low:g}..{high:g}: replace them"
        )
    return smallest, largest


def _range_of_type(dtype: np.dtype[Any]) -> tuple[float, float]:
    """Black and white of an array whose caller does not say."""
    if dtype.kind == "b":
        return 0, 1
    return (0, 65535) if dtype.kind == "u" and dtype.itemsize == 2 else (0, 255)


def _is_percent(numbers: NDArray[Any], smallest: float, largest: float) -> bool:
    """Whether floats look like levels whose white is 100: percent, or the lightness L*.

    A dark face may end at 100, too. But where levels of 8 bits were divided by 2.55, all numbers
    are multiples of that which are not whole; and faces stretched to 0..100 end at just these.
    """
    if largest > _PERCENT * (1 + _ROUNDING) or np.array_equal(numbers, np.rint(numbers)):
        return False
    if smallest == 0 and largest >= _PERCENT * (1 - _ROUNDING):
        return True
    levels = numbers.astype(np.float64) * 2.55
    precision = max(_ROUNDING, float(np.finfo(numbers.dtype).eps))
    return bool(np.all(np.abs(levels - np.rint(levels)) <= 255 * precision))


def _is_wrapped(numbers: NDArray[Any]) -> bool:
    """Whether unsigned numbers are a few next to 0, and a few next to the largest, where -1 goes.

    The numbers are (H, W), or (H, W, C). Each channel has three levels at least: two are black and
    white, or the colours of a drawing.
    """
    white = np.iinfo(numbers.dtype).max
    few = int(DARKEST)
    middle = len(numbers) // 2
    for part in (numbers[middle : middle + 1], numbers):  # one line tells of nearly every face
        if np.any((part >= few) & (part <= white - few)):
            return False
    if numbers.min() >= few or numbers.max() <= white - few:
        return False  # black, or overexposed
    channels = numbers if numbers.ndim == 3 else numbers[..., np.newaxis]
    return all(len(np.unique(channels[..., c])) > 2 for c in range(channels.shape[-1]))


def _has_8_bits_of_16(numbers: NDArray[Any], largest: float) -> bool:
    """Whether numbers of 16 bits come from a dark face of 8, times 256 or 257."""
    return largest >= 257 * DARKEST and not (np.any(numbers % 257) and np.any(numbers % 256))


def _before_normalising(largest: float, dtype: np.dtype[Any]) -> str:
    """Tell what to do about numbers from 0 to below ``DARKEST``."""
    if dtype.kind != "f":
        return (
            "give the pixels as they were before they were divided and rounded, or state "
            f"value_range=(0, {largest:g}) for a drawing in black and white"
        )
    if not 0.1 <= largest <= 2.25:  # darker than any face was, or brighter than white
        return _AS_BEFORE
    white = 1 if largest < 1.5 else 2
    clipped = f"clip it to 0..{white} and " if largest > white * (1 + _ROUNDING) else ""
    return f"{clipped}state value_range=(0, {white})"


def _range_to_state(smallest: float, largest: float, dtype: np.dtype[Any]) -> str:
    """Tell what to do about numbers outside the range of their type."""
    if smallest >= 0:
        white = next((each for each in (*_WHITE.values(), 65535) if largest <= each), None)
        if white is None or (dtype.kind == "f" and largest < 300):  # a bicubic resize
            return "clip them, or state their black and white as value_range=(black, white)"
        return f"state their black and white, for example value_range=(0, {white})"
    if dtype.kind == "i" and largest >= DARKEST:
        for half, least in ((128, 0), (32768, 4096)):
            if -half <= smallest and least <= largest < half:
                return (
                    f"state value_range=({-half}, {half - 1}) if {half} was taken off, or convert "
                    "them to unsigned numbers"
                )
    if smallest > -26 and DARKEST <= largest < 300:  # a bicubic resize
        return "clip them, or state their black and white as value_range=(black, white)"
    if smallest > -0.25 and 0.75 < largest < 1.25:
        return "they look normalised: clip them to 0..1 and state value_range=(0, 1)"
    if smallest >= -1 and largest <= 1:
        return "they look normalised: state their black and white, value_range=(-1, 1)"
    return f"they look standardised, as (x - mean) / std or x - mean: {_AS_BEFORE}"
