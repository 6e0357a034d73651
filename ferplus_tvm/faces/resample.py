"""Grey levels of any size -> the 64 x 64 of the model's input."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SIDE = 64
"""Height and width of the model's input, in pixels."""


def bilinear(levels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Resample (H, W) to (64, 64); of that size already, return it as it is."""
    if levels.shape == (SIDE, SIDE):
        return levels
    from PIL import Image

    resized = Image.fromarray(levels).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    # Float weights may sum to a hair over one.
    return np.asarray(np.clip(np.asarray(resized), 0, 255), dtype=np.float32)
