"""A decoded frame -> the picture as it is to be shown: upright, with square pixels, RGB."""

from __future__ import annotations

from typing import Any

import numpy as np

from ferplus_tvm.vision.crop import Picture


def upright(frame: Any, stream: Any) -> Picture:
    """Return a frame of PyAV as it is to be shown, uint8 (H, W, 3), RGB."""
    picture = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(picture, round(frame.rotation / 90)))


def shown_size(stream: Any) -> tuple[int, int]:
    """Return the width and height of a stream as it is to be shown."""
    return stream.width, stream.height
