"""What frames come from: a file or address, a camera, or an iterable of the caller's."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from ferplus_tvm.errors import InputError
from ferplus_tvm.faces.options import CheckedOptions
from ferplus_tvm.videos.cuts import Cuts
from ferplus_tvm.vision.crop import Picture
from ferplus_tvm.vision.read import read_picture

_log = logging.getLogger(__name__)

_RATE = 25.0
"""Frames a second of an iterable that gives no times."""

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
        Every N-th frame, from the first within ``start`` and ``end``.
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
    """An iterable of the caller's: of pictures, or of (time, picture).

    Parameters
    ----------
    frames
        Each is what `Engine.analyze` takes, or (seconds, that).
    options
        How they are read.

    Raises
    ------
    InputError
        If it is a single picture, or something else.
    """

    live = False
    duration: float | None = None
    fps: float | None = None
    size: tuple[int, int] | None = None

    def __init__(self, frames: Iterable[Any], options: CheckedOptions) -> None:
        self.name = "the frames"
        shape = getattr(frames, "shape", None)
        if shape is not None and len(shape) != 4:
            raise InputError(
                f"the array has the shape {shape}; expected frames (N, H, W, 3): of one picture "
                "call analyze"
            )
        try:
            self._frames = iter(frames)
        except TypeError:
            raise InputError(
                f"the source is a {type(frames).__name__}; expected a video's path or address, a "
                "camera's number or frames: of one picture call analyze"
            ) from None
        self._options = options

    def frames(self, taken: Taken) -> Iterator[RawFrame]:
        """Yield the frames that are taken.

        Raises
        ------
        InputError
            If a picture cannot be used, or times go back.
        """
        last = -math.inf
        cuts = Cuts()
        for index, item in enumerate(self._frames):
            name = f"frame {index}"
            time, picture = index / _RATE, item
            if isinstance(item, tuple) and len(item) == 2:
                time, picture = _seconds(item[0], name), item[1]
            elif index == 0:
                _log.warning(
                    "frames without times count as %g a second: give (seconds, picture) instead",
                    _RATE,
                )
            if time < last:
                raise InputError(
                    f"{name} is of {time:g} s, after one of {last:g} s; expected times in order"
                )
            last = time
            if taken.past(time):
                break
            picture = read_picture(picture, name, self._reading(picture))
            cuts.see(picture)
            if taken.takes(time):
                # A copy: who makes frames may write the next one into the same array.
                yield RawFrame(index, time, picture.copy(), cuts.taken())

    def _reading(self, picture: Any) -> CheckedOptions:
        """Return how a picture is read: a film may be black, though a photo is hardly."""
        levels = getattr(picture, "dtype", None) == np.uint8
        if self._options.value_range is None and (
            levels or getattr(picture, "mode", None) in ("L", "RGB")
        ):
            return replace(self._options, value_range=(0, 255))
        return self._options

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
        raise InputError(f"the time of {name} is {given!r:.100}; expected seconds")
    return time
