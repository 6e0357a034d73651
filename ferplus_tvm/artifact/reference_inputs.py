"""The fixed inputs that a library is checked with, at compile time and on the device."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def inputs(seed: int, faces: int, face: tuple[int, int, int] = (1, 64, 64)) -> NDArray[np.float32]:
    """Return images as float32 (faces, C, S, S) of whole numbers in 0..255.

    Every other one is noise; the rest are blobs, whose score patterns differ more, as a face's do.
    numpy promises that ``RandomState`` gives the same numbers in every version.

    Parameters
    ----------
    seed
        What the numbers are drawn with.
    faces
        How many images there are.
    face
        The shape of one, (C, S, S): `Manifest.face`; by default that of FER+.
    """
    channels, size, _ = face
    random = np.random.RandomState(seed)
    noise = random.randint(0, 256, (faces, *face))
    coarse = random.randint(0, 256, (faces, channels, 8, 8))
    block = np.arange(size) * 8 // size
    blobs = coarse[:, :, block[:, None], block]
    odd = np.arange(faces)[:, None, None, None] % 2 == 1
    return np.where(odd, blobs, noise).astype(np.float32)


def picture(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    """Return a picture as uint8 (height, width, 3): blobs of 32 pixels with noise over them.

    Parameters
    ----------
    seed
        What the numbers are drawn with.
    height, width
        Its size, multiples of 32.
    """
    random = np.random.RandomState(seed)
    blobs = random.randint(0, 192, (height // 32, width // 32, 3))
    noise = random.randint(0, 64, (height, width, 3))
    return (blobs.repeat(32, 0).repeat(32, 1) + noise).astype(np.uint8)


def relative_error(scores: NDArray[np.float32], reference: NDArray[np.float64]) -> float:
    """Return the largest difference of a score, relative to the largest score of the reference.

    Not-a-number anywhere gives infinity.
    """
    difference = np.max(np.abs(scores - reference))
    largest = np.max(np.abs(reference))
    error = float(difference / largest) if largest else float(difference)
    return error if np.isfinite(error) else float("inf")
