"""What the shape of an array says: pictures of faces as (N, H, W, C), or why it is none."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.errors import InputError
from ferplus_tvm.faces.formats import format_of

LONGEST = 8
"""How many times as long as wide a picture of one face may be; a face is about as long as wide."""

# FER2013's CSV holds a row of 48 x 48 numbers for each face, and the model's input is 64 x 64.
_ROWS = (48 * 48, 64 * 64)


def channels_last(array: NDArray[Any], name: str, *, whole: bool = False) -> NDArray[Any]:
    """View an array of any accepted shape as (N, H, W, C), by the rules of :func:`preprocess`.

    Of whole photos, which may be long, none is taken for rows of pixels.

    Raises
    ------
    InputError
        Another shape, or one that cannot be pictures of faces: rows of pixels, channels first,
        an encoded picture, or pictures that are far too long.
    """
    shape = array.shape
    last_is_channels = array.ndim > 0 and 1 <= shape[-1] <= 4
    _check_order(array, name, whole)
    if array.ndim == 2:
        images = array[np.newaxis, :, :, np.newaxis]
    elif array.ndim == 3:
        images = array[np.newaxis] if last_is_channels else array[..., np.newaxis]
    elif array.ndim == 4 and shape[1] == 1:
        images = np.moveaxis(array, 1, -1)
    elif array.ndim == 4 and last_is_channels:
        images = array
    else:
        step = "give it as one of these" if array.ndim > 1 else "pass whole pictures as an array"
        raise InputError(
            f"{name} has the shape {shape}; expected (H, W), (H, W, C), (N, H, W), (N, H, W, C) "
            f"with 1 to 4 channels C, or (N, 1, H, W): {step}"
        )
    if 0 in images.shape[1:]:
        raise InputError(
            f"{name} has the shape {shape}; expected images of at least 1 x 1 pixels: "
            "check how it was cropped"
        )
    if not whole:
        check_aspect(images.shape[2], images.shape[1], name, f"the shape {shape}, ")
    return images


def check_aspect(width: int, height: int, name: str, shape: str = "") -> None:
    """Refuse a picture that is too long to be one face.

    Parameters
    ----------
    width, height
        Those of the picture, in pixels.
    name
        What messages call it.
    shape
        How messages begin to say what was found, for an array.

    Raises
    ------
    InputError
        It is more than ``LONGEST`` times as long as wide, or as wide as long.
    """
    if max(width, height) > LONGEST * min(width, height):
        raise InputError(
            f"{name} has {shape}{width} x {height} pixels; expected a face, at most {LONGEST} "
            "times as long as wide: crop it to the face first"
        )


def _check_order(array: NDArray[Any], name: str, whole: bool) -> None:
    """Refuse what holds faces, but not in the order that its shape is read in."""
    got = f"{name} has the shape {array.shape}"
    content = _encoded(array)
    if content is not None:
        raise InputError(
            f"{got} and holds an encoded picture ({content}); expected pixels: pass its bytes, as "
            f"array{'' if array.dtype.itemsize == 1 else '.astype(numpy.uint8)'}.tobytes() gives "
            "them, or decode it first"
        )
    for lines, step in ((array, "reshape it to"), (array.T, "transpose it and reshape it to")):
        pictures = [] if whole else _pictures_of_rows(lines)
        if pictures:
            many = "" if array.ndim == 1 else "N, "
            targets = " or ".join(f"({many}{', '.join(map(str, shape))})" for shape in pictures)
            raise InputError(
                f"{got}, so it looks like rows of pixels, as FER2013's CSV holds them; expected "
                f"pictures: {step} {targets}{', as they were before' if len(pictures) > 1 else ''}"
            )
    if array.ndim == 4 and min(array.shape[:2]) >= 16 and array.shape[2] in (1, 3):
        raise InputError(
            f"{got}, so it looks like (H, W, C, N); expected (N, H, W, C): transpose it to that"
        )
    if array.ndim == 4 and array.shape[1] in (2, 3, 4) and not 1 <= array.shape[3] <= 4:
        raise InputError(
            f"{got}, so it looks like channels first; expected (N, H, W, C): transpose it to that, "
            "for example by array.transpose(0, 2, 3, 1)"
        )
    if array.ndim == 3 and _is_channels_first(array):
        count = len(array)
        raise InputError(
            f"{got} and planes that show the same edges, so it looks like channels first: "
            "transpose it to (H, W, C), for example by array.transpose(1, 2, 0), or give "
            f"{count} grey faces as ({count}, 1, H, W)"
        )
    if array.ndim == 3 and _is_stacked_last(array):
        raise InputError(
            f"{got}, so it looks like (H, W, N), faces stacked along the last axis; expected "
            "(N, H, W): transpose it to that, or give the faces as (N, 1, H, W)"
        )


def _encoded(array: NDArray[Any]) -> str | None:
    """Name the format of an encoded picture that the bytes of an array are."""
    if array.dtype.kind not in "iu" or array.size < 16 or array.size not in array.shape:
        return None
    return format_of(array.ravel()[:64].astype(np.uint8).tobytes())


def _pictures_of_rows(array: NDArray[Any]) -> list[tuple[int, ...]]:
    """Shapes that pictures may have of which each lies in a row of its own; none if none does."""
    rows = array.squeeze()
    if rows.ndim not in (1, 2) or rows.size == 0:
        return []
    pixels = rows.shape[-1]
    if rows.ndim == 1 or pixels > LONGEST * len(rows):
        grey, colour = math.isqrt(pixels), math.isqrt(pixels // 3)
        if grey >= 32 and grey * grey == pixels:
            return [(grey, grey)]
        if colour >= 32 and 3 * colour * colour == pixels:
            return [(colour, colour, 3), (3, colour, colour)]
    if pixels not in _ROWS:
        return []
    # A picture may be as wide as that. Neighbouring rows of a picture are much alike; rows of
    # faces are alike at a distance of one line of the face.
    middle = max(0, len(rows) // 2 - 128)
    sample = rows[middle : middle + 256].astype(np.float64)
    between_rows = np.abs(np.diff(sample, axis=0)).mean()
    side = math.isqrt(pixels)
    between_lines = np.abs(sample[:, side:] - sample[:, :-side]).mean()
    return [] if 0 < between_rows < between_lines / 2 else [(side, side)]


def _is_channels_first(array: NDArray[Any]) -> bool:
    """Whether three or four planes are the colours of one picture, not faces of their own.

    The colours of a picture have their edges in the same places. Between red and green, and green
    and blue, the differences of neighbouring pixels correlated by 0.5 to 1.0 in photographs, and
    by at most 0.36 between the faces of FER2013, 20000 times three of them. So grey faces are
    taken for colours where they are frames of the same film, or copies; as (N, 1, H, W) they never
    are. Colours are taken for grey faces where they share no edges, as in noise or drawings of
    pure red, green and blue.
    """
    if array.shape[0] not in (3, 4) or min(array.shape[1:]) < 8:
        return False
    planes = array.astype(np.float64)
    brightest = planes.max(axis=(1, 2))
    if 8 * brightest.min() < brightest.max():  # the colours of a picture share their range
        return False
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        edges = np.concatenate(
            [np.diff(planes, axis=axis).reshape(len(planes), -1) for axis in (1, 2)], axis=1
        )
        same = np.nan_to_num(np.corrcoef(edges))
    opacity = len(planes) == 4 and same[2, 3] < 0.4
    return min(same[0, 1], same[1, 2]) > 0.4 and (len(planes) == 3 or opacity)


def _is_stacked_last(array: NDArray[Any]) -> bool:
    """Whether square faces are stacked along the last axis, as numpy.dstack does.

    Then pixels change less along the first two axes, from line to line, than along the last, from
    face to face.
    """
    height, width, count = array.shape
    if height != width or count < 5 or height < 16:
        return False
    sample = array[:, :, :64].astype(np.float64)
    lines, columns, faces = (float(np.abs(np.diff(sample, axis=axis)).mean()) for axis in range(3))
    return 2 * max(lines, columns) < faces
