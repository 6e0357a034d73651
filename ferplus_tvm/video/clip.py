"""Video files and addresses, read by PyAV: every frame upright, with the time of its stamp."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from typing import Any

from ferplus_tvm.errors import InputError, MissingExtraError, one_line
from ferplus_tvm.faces.sources import name_of
from ferplus_tvm.video.source import RawFrame, Taken
from ferplus_tvm.video.upright import shown_size, upright


class Clip:
    """A video file or address."""

    live = False

    def __init__(self, source: Any) -> None:
        try:
            self._av: Any = importlib.import_module("av")
        except ModuleNotFoundError:
            raise MissingExtraError.of("a video", "video") from None
        self._said = name_of(source)
        self.name = os.fsdecode(source) if isinstance(source, str | os.PathLike) else self._said
        try:
            self._container = self._av.open(source if hasattr(source, "read") else self.name)
        except (self._av.FFmpegError, OSError) as error:
            reason = one_line(error)
            raise InputError(f"{self._said} cannot be read as a video ({reason})") from None
        streams = [
            each
            for each in self._container.streams.video
            if not each.disposition & each.disposition.attached_pic
        ]
        if not streams:
            raise InputError(f"{self._said} holds no video stream")
        self._stream = streams[0]
        self._stream.thread_type = "AUTO"
        stream = self._stream
        self._origin = stream.start_time or 0
        self.duration: float | None = None
        if stream.duration:
            self.duration = float(stream.duration * stream.time_base)
        elif self._container.duration:
            self.duration = self._container.duration / self._av.time_base
        self.fps: float | None = float(stream.average_rate) if stream.average_rate else None
        self.size: tuple[int, int] | None = shown_size(stream)

    def frames(self, taken: Taken) -> Iterator[RawFrame]:
        """Yield the frames that are taken."""
        stream = self._stream
        for index, frame in enumerate(self._container.decode(stream)):
            time = float((frame.pts - self._origin) * stream.time_base)
            if taken.past(time):
                break
            if taken.takes(time):
                yield RawFrame(index, time, upright(frame, stream))

    def close(self) -> None:
        """Close the file."""
        self._container.close()
