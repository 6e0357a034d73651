"""What frames come from: a file or address, a camera, or an iterable of the caller's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from ferplus_tvm.errors import InputError
from ferplus_tvm.faces.options import CheckedOptions
from ferplus_tvm.vision.crop import Picture
from ferplus_tvm.vision.read import read_picture

_ROUNDED = 0.001
"""Seconds to which Matroska rounds the times of frames."""


@dataclass(frozen=True, slots=True)
class RawFrame:
    """A frame as it comes, before anything is looked for in it.

    Attributes
    ----------
    index
        Its number in the source, from 0.
    time
        Seconds from the beginning.
    picture
        Upright, uint8 (H, W, 3), RGB.
    cut
        Whether the scene has changed since the last frame that was taken.
    """

    index: int
    time: float
    picture: Picture
    cut: bool = False


class FrameSource(Protocol):
    """Where frames come from."""

    @property
    def name(self) -> str:
        """What messages and tables call it."""

    @property
    def live(self) -> bool:
        """Whether a frame that is not taken at once is lost, as a camera's."""

    @property
    def duration(self) -> float | None:
        """Seconds, if known."""

    @property
    def fps(self) -> float | None:
        """Frames a second in the mean, if known."""

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height of the upright picture in pixels, if known."""

    def frames(self, taken: Taken) -> Iterator[RawFrame]:
        """Yield the frames that are taken."""

    def close(self) -> None:
        """Let go of it."""


@dataclass
class Taken:
    """Which frames are taken.

    Attributes
    ----------
    every
        Each so-manieth one, from the first within ``start`` and ``end``.
    fps
        At most so many in a second.
    start, end
        Seconds: those from ``start`` on, and before ``end``.

    Raises
    ------
    ValueError
        For a value that one of them does not take.
    """

    every: int = 1
    fps: float | None = None
    start: float | None = None
    end: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.every, int) or self.every < 1:
            raise ValueError(f"every is {self.every!r}: expected a whole number of 1 or more")
        if self.fps is not None and not 0 < self.fps < math.inf:
            raise ValueError(f"fps is {self.fps!r}: expected a number above 0")
        if self.start is not None and not 0 <= self.start < math.inf:
            raise ValueError(f"start is {self.start!r}: expected seconds of 0 or more")
        if self.end is not None and not (self.start or 0) < self.end:
            raise ValueError(f"end is {self.end!r}: expected seconds after start")
        self._count = 0
        self._slot = -math.inf

    def past(self, time: float) -> bool:
        """Whether a frame, and all that follow, come after the end."""
        return self.end is not None and time >= self.end

    def takes(self, time: float) -> bool:
        """Whether the next frame is taken; to be asked once for each."""
        if (self.start is not None and time < self.start) or self.past(time):
            return False
        self._count += 1
        if (self._count - 1) % self.every:
            return False
        if self.fps is not None:
            slot = math.floor((time + _ROUNDED) * self.fps)
            if slot <= self._slot:
                return False
            self._slot = slot
        return True


class GivenFrames:
    """An iterable of the caller's: of pictures, or of (time, picture)."""

    live = False
    duration: float | None = None
    fps: float | None = None
    size: tuple[int, int] | None = None

    def __init__(self, frames: Iterable[Any], options: CheckedOptions, rate: float) -> None:
        self.name = "the frames"
        self._frames = iter(frames)
        self._options = options
        self._rate = rate

    def frames(self, taken: Taken) -> Iterator[RawFrame]:
        """Yield the frames that are taken."""
        last = -math.inf
        for index, item in enumerate(self._frames):
            name = f"frame {index}"
            time, picture = index / self._rate, item
            if isinstance(item, tuple) and len(item) == 2:
                time, picture = _seconds(item[0], name), item[1]
            if time < last:
                raise InputError(
                    f"{name} is of {time:g} s, after one of {last:g} s: expected times in order"
                )
            last = time
            if taken.past(time):
                break
            if taken.takes(time):
                yield RawFrame(index, time, read_picture(picture, name, self._options))

    def close(self) -> None:
        """Let go of it."""
        close = getattr(self._frames, "close", None)
        if close is not None:
            close()


def _seconds(given: Any, name: str) -> float:
    try:
        time = float(given)
    except (TypeError, ValueError):
        time = math.nan
    if not math.isfinite(time):
        raise InputError(f"the time of {name} is {given!r}: expected seconds")
    return time
