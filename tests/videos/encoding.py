"""Short clips of every kind, encoded by PyAV."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.videos.clip import Clip
from ferplus_tvm.videos.source import RawFrame, Taken

Pictures = Sequence[NDArray[np.uint8]]


def corners(width: int = 64, height: int = 48) -> NDArray[np.uint8]:
    """Return a picture whose quarters have four colours."""
    picture = np.zeros((height, width, 3), np.uint8)
    across, down = width // 2, height // 2
    picture[:down, :across], picture[:down, across:] = (220, 40, 40), (40, 200, 40)
    picture[down:, :across], picture[down:, across:] = (40, 40, 220), (200, 200, 200)
    return picture


def moving(count: int, width: int = 64, height: int = 48) -> list[NDArray[np.uint8]]:
    """Return pictures in which a bar moves, none like another, with noise that takes bytes."""
    noise = np.random.default_rng(0)
    pictures = []
    for number in range(count):
        picture = corners(width, height)
        picture[4:12, : 1 + number * (width - 1) // count] = 255
        grain = noise.integers(0, 30, (height, width, 1))
        pictures.append(np.clip(picture + grain, 0, 255).astype(np.uint8))
    return pictures


def write(
    path: Path,
    pictures: Pictures,
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    times: Sequence[float] | None = None,
    time_base: Fraction = Fraction(1, 1000),
    gop: int | None = None,
    b_frames: int | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    form: str | None = None,
    prepare: Callable[[Any], object] | None = None,
) -> Path:
    """Write a clip of 25 frames a second, or with these times."""
    with av.open(str(path), "w", format=form, options=container_options or {}) as output:
        stream: Any = output.add_stream(codec, rate=25, options=options or {})
        height, width = pictures[0].shape[:2]
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        if times is not None:
            stream.codec_context.time_base = time_base
        if gop is not None:
            stream.gop_size = gop
        if b_frames is not None:
            stream.max_b_frames = b_frames
        if prepare is not None:
            prepare(stream)
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            if times is not None:
                frame.pts, frame.time_base = round(times[number] / time_base), time_base
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def read(source: Any, **taken: Any) -> list[RawFrame]:
    """Return the frames of a clip that are taken."""
    return list(Clip(source).frames(Taken(**taken)))


def difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Return the mean difference of two pictures, in levels."""
    assert one.shape == other.shape
    return float(np.abs(one.astype(int) - other).mean())
