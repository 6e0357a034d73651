"""Encode pictures as a video file, each at its own time."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ferplus_tvm.errors import InputError
from ferplus_tvm.vision.crop import Picture

# Those that keep a time for each frame, which AVI does not.
_CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}

# In order of preference: a build of FFmpeg has some of them.
_ENCODERS = ("libx264", "libopenh264", "mpeg4")
_WEBM_ENCODERS = ("libvpx-vp9", "libvpx")
_OPTIONS = {
    # Where frames are stored in the order in which they are shown, MP4 keeps all times exactly.
    "libx264": {"preset": "veryfast", "crf": "20", "bf": "0"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "6", "crf": "30", "b": "0", "row-mt": "1"},
}
_BITS_PER_PIXEL = 0.15  # for encoders without a constant quality
_MOST_TICKS = 65535  # of a second, that mpeg4 can count


def container_of(path: Path) -> str:
    """Return FFmpeg's name of the container that a file's suffix stands for.

    Raises
    ------
    InputError
        If it is none that keeps the time of each frame.
    """
    container = _CONTAINERS.get(path.suffix.lower())
    if container is None:
        found = f"the suffix {path.suffix!r}" if path.suffix else "no suffix"
        raise InputError(
            f"{path} has {found}: expected "
            f"{', '.join(_CONTAINERS)}, which keep the time of each frame"
        )
    return container


class Encoder:
    """A video file that is being written.

    Parameters
    ----------
    path
        The file.
    container
        What `container_of` returns.
    size
        Width and height in pixels.
    time_base
        The unit of the times, in seconds, which are multiples of it.
    rate
        Frames a second, about.

    Attributes
    ----------
    output
        PyAV's container, to which sound may be added before the first picture.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        container: str,
        size: tuple[int, int],
        time_base: Fraction,
        rate: Fraction,
    ) -> None:
        import av

        self.output = av.open(os.fspath(path), "w", format=container)
        name = _encoder(_WEBM_ENCODERS if container == "webm" else _ENCODERS)
        if name == "mpeg4":
            time_base = max(time_base, Fraction(1, _MOST_TICKS))
        # H.264 with colours at half the size, which every player knows, has even sides.
        step = 2 if name in ("libx264", "libopenh264") else 1
        width, height = (-(-side // step) * step for side in size)
        stream: Any = self.output.add_stream(name, rate, options=_OPTIONS.get(name, {}))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        context = stream.codec_context
        context.time_base = time_base
        if name not in _OPTIONS:
            context.bit_rate = round(_BITS_PER_PIXEL * width * height * rate)
        # Said in the file, or each player guesses: BT.709 with levels from 16 to 235.
        context.colorspace = context.color_primaries = context.color_trc = 1
        context.color_range = 1
        self._stream, self._time_base, self._size = stream, time_base, (width, height)
        self._last = -1

    def encode(self, picture: Picture, time: float) -> None:
        """Encode one picture, uint8 (H, W, 3) RGB, at a time in seconds after the one before."""
        import av

        height, width = picture.shape[:2]
        more = (self._size[1] - height, self._size[0] - width)
        if more != (0, 0) and set(more) <= {0, 1}:
            picture = np.pad(picture, ((0, more[0]), (0, more[1]), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")
        # Some streams change their size: a file has one.
        frame = frame.reformat(
            *self._size, "yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG", threads=1
        )
        self._last = max(round(Fraction(time) / self._time_base), self._last + 1)
        frame.pts, frame.time_base = self._last, self._time_base
        self.output.mux(self._stream.encode(frame))

    def flush(self) -> None:
        """Write what the encoder still holds."""
        self.output.mux(self._stream.encode(None))

    def close(self) -> None:
        """End the file; again is harmless."""
        self.output.close()


def _encoder(names: tuple[str, ...]) -> str:
    """Return the first encoder that this build of FFmpeg has."""
    import av

    for name in names:
        try:
            av.Codec(name, "w")
        except ValueError:
            continue
        return name
    raise InputError(
        f"this build of FFmpeg has none of the encoders {', '.join(names)}: install PyAV from "
        "PyPI, or write a file with another suffix"
    )
