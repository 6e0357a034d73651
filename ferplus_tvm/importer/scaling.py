"""What the caller states of the pixels that a file wants, as the first step of its chain."""

from __future__ import annotations

import numpy as np

from ferplus_tvm.artifact.scaling import Scaling
from ferplus_tvm.importer.graph import float32
from ferplus_tvm.importer.steps import Affine, Shape


def scaling_step(scaling: Scaling, shape: Shape) -> Affine:
    """Return the step that makes of raw pixels 0..255 what the file wants.

    The rules fold it with what the file does itself to its input, in float64.
    """
    # Rounded here, since so it is in a file that scales its input itself.
    offset, factor = (
        np.broadcast_to(float32(np.array(numbers)), shape[:1]).astype(np.float64)
        for numbers in scaling.affine()
    )
    return Affine(shape, factor, -offset * factor, "scale_pixels", "shift_pixels")
