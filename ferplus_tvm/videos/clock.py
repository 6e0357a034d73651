"""The time of each frame, from time stamps that may be missing or begin anew."""

from __future__ import annotations

from fractions import Fraction

ANEW = 1.0
"""Seconds by which a stamp lies back where the clock of a stream has begun anew."""


class Clock:
    """Turns time stamps into seconds that never go back.

    Parameters
    ----------
    origin
        The stamp of the beginning, which is 0 seconds.
    unit
        Seconds of one unit of a stamp.
    step
        Seconds between two frames, where a stamp is missing.
    """

    def __init__(self, origin: int, unit: Fraction, step: float) -> None:
        self._origin = origin
        self._unit = unit
        self._step = step
        self._shift = 0.0
        self.last = -step

    def time(self, stamp: int | None) -> float:
        """Return the time of the next frame."""
        following = self.last + self._step
        if stamp is None:
            self.last = following
        else:
            time = float((stamp - self._origin) * self._unit) + self._shift
            if time < self.last - ANEW:
                self._shift += following - time
                time = following
            self.last = max(time, self.last, 0.0)
        return self.last
