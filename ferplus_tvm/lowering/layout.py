"""The order of a dense layer's weights behind a map."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def channels_last(
    weight: NDArray[np.float32], shape: tuple[int, ...], stored: int
) -> NDArray[np.float32]:
    """Reorder rows from channels first to channels last, with zero rows for padded channels."""
    height, width, channels = shape
    rows = weight.reshape(channels, height, width, -1).transpose(1, 2, 0, 3)
    rows = np.pad(rows, ((0, 0), (0, 0), (0, stored - channels), (0, 0)))
    return rows.reshape(height * width * stored, -1)
