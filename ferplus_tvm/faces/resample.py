"""Levels of any size -> the square of the model's input."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def bilinear(planes: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Resample (C, H, W) to (C, size, size); of that size already, return it as it is."""
    if planes.shape[1:] == (size, size):
        return planes
    from PIL import Image

    resized = [
        np.asarray(Image.fromarray(plane).resize((size, size), Image.Resampling.BILINEAR))
        for plane in planes
    ]
    # Float weights may sum to a hair over one.
    return np.asarray(np.clip(np.stack(resized), 0, 255), dtype=np.float32)
