"""Where the scene changes from one frame to the next: nobody is followed across."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.vision.crop import Picture

_SAMPLED = 64
"""Pixels a side that are looked at, and ..."""

_SIDE = 16
"""... fields a side that they are averaged to, so that small motion hardly counts."""

_DARK = 2.0
"""The spread of grey values below which a picture shows nothing."""

_SUDDEN = 0.15
"""How unlike two frames are at a cut, at least: 1 less their correlation.

Measured: within a scene at most 0.05, and 1.3 at cuts.
"""

_UNUSUAL = 5.0
"""How many times more than frames have been of late, when the camera moves."""

_CERTAIN = 0.6
"""So unlike are two frames of two scenes only."""

_MEMORY = 0.9
"""Of what frames have been of late, by frame."""


class Cuts:
    """Looks at every frame, in order, and tells whether the scene has changed."""

    def __init__(self) -> None:
        self._last: NDArray[np.float32] | None = None
        self._usual: float | None = None
        self._cut = False
        self._reformatter: Any = None

    def see_frame(self, frame: Any) -> None:
        """Look at a frame of PyAV."""
        if self._reformatter is None:
            from av.video.reformatter import VideoReformatter

            self._reformatter = VideoReformatter()
        small = self._reformatter.reformat(
            frame, _SAMPLED, _SAMPLED, "gray", interpolation="POINT"
        ).to_ndarray()
        self._see(small)

    def see(self, picture: Picture) -> None:
        """Look at a picture, uint8 (H, W, 3)."""
        rows, columns = (np.arange(_SAMPLED) * side // _SAMPLED for side in picture.shape[:2])
        self._see(picture[np.ix_(rows, columns)].mean(2))

    def taken(self) -> bool:
        """Return whether the scene has changed since this was asked the last time."""
        cut, self._cut = self._cut, False
        return cut

    def _see(self, small: NDArray[Any]) -> None:
        step = _SAMPLED // _SIDE
        fields = small.reshape(_SIDE, step, _SIDE, step).mean((1, 3), dtype=np.float32)
        if self._last is not None:
            unlike = _unlike(fields, self._last)
            usual = unlike if self._usual is None else self._usual
            if unlike > _CERTAIN or unlike > max(_SUDDEN, _UNUSUAL * usual):
                self._cut = True
            else:
                self._usual = _MEMORY * usual + (1 - _MEMORY) * unlike
        self._last = fields


def _unlike(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return 1 less the correlation of two pictures: light that changes does not count."""
    spread, other_spread = float(one.std()), float(other.std())
    if min(spread, other_spread) < _DARK:
        return 0.0 if max(spread, other_spread) < _DARK else 1.0
    product = (one - one.mean()) * (other - other.mean())
    return 1 - float(product.mean()) / (spread * other_spread)
