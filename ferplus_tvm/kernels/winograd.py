"""What Winograd's algorithm F(m, 3) means for a convolution, whatever device computes it."""

from __future__ import annotations

from ferplus_tvm.kernels.winograd_matrices import MATRICES
from ferplus_tvm.kernels.workloads import Conv


def applies(w: Conv) -> bool:
    """Whether the algorithm computes the convolution: 3x3, of stride 1, and not of the faces.

    The one or three channels of a face are no whole vectors; those of all other maps are.
    """
    plain = (w.kernel, w.stride, w.dilation) == ((3, 3), (1, 1), (1, 1))
    return plain and w.affine is None and w.in_channels % 4 == 0


def tile_counts(w: Conv, m: int) -> tuple[int, int]:
    """Return how many tiles of m x m outputs cover an image, along its height and width."""
    return -(-w.out_height // m), -(-w.out_width // m)


def tiles(w: Conv, m: int) -> int:
    """Return how many tiles of m x m outputs cover all images."""
    high, wide = tile_counts(w, m)
    return w.batch * high * wide


def flops(w: Conv, m: int) -> int:
    """Return the operations of the GEMMs, two per multiply-add; the transforms are not counted."""
    return 2 * tiles(w, m) * transformed_weights(w, m)


def transformed_weights(w: Conv, m: int) -> int:
    """Return how many numbers the transformed filters are: (m+2)^2 for 9."""
    return int(MATRICES[m].side ** 2) * w.in_channels * w.out_channels
