"""Check the arrays that an engine computes with."""

from __future__ import annotations

import logging
import threading

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ferplus_tvm.errors import InputError, one_line
from ferplus_tvm.faces.arrays import has_mask, is_narrow
from ferplus_tvm.faces.levels import doubt

_log = logging.getLogger(__name__)
_warned = threading.Lock()  # taken by the one warning of this process about pixels


def as_faces(x: ArrayLike, face: tuple[int, int, int]) -> NDArray[np.float32]:
    """Return an array of faces as float32, (N, C, S, S), without a copy where it is that.

    Parameters
    ----------
    x
        Whatever numpy reads as an array.
    face
        The shape of one face, (C, S, S).

    Raises
    ------
    InputError
        If the shape or type is another, or a value is not finite.
    """
    wanted = f"scores takes an array of shape (N, {', '.join(map(str, face))})"
    try:
        faces = np.asarray(x)
    except Exception as error:  # ragged lists, tensors on a GPU, whatever __array__ raises
        raise InputError(
            f"{wanted}, but the {type(x).__name__} given "
            f"cannot be read as an array ({one_line(error).split('. ')[0]}): convert it first"
        ) from error
    if faces.ndim != 4 or faces.shape[1:] != face:
        got = faces.shape if faces.ndim else f"an object of type {type(x).__name__}"
        raise InputError(
            f"{wanted}, but got {got}: use predict or predict_batch for images and arrays "
            "of other shapes"
        )
    if faces.dtype.kind not in "fiub" and not is_narrow(faces.dtype):
        raise InputError(f"scores takes real numbers, but got an array of {faces.dtype}")
    if has_mask(x):
        raise InputError(
            "scores takes all numbers of an array, but some of these are masked: give them a "
            "value first, for example by array.filled(0)"
        )
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite: caught below
        faces = faces.astype(np.float32, copy=False)
    doubtful = "" if _warned.locked() else doubt(faces)
    if doubtful is not None and not np.isfinite(faces).all():
        raise InputError("scores takes finite pixels in 0..255, but some are NaN or infinite")
    if doubtful and _warned.acquire(blocking=False):
        _log.warning(
            "scores takes raw pixels in 0..255, but %s: give them as they were before they were "
            "scaled, since the library scales them itself; this is said once in a process",
            doubtful,
        )
    return faces
