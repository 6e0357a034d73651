"""Video files and addresses, read by PyAV: every frame upright, with the time of its stamp."""

from __future__ import annotations

import bisect
import itertools
import math
import os
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from ferplus_tvm.errors import InputError, VideoDamagedError, one_line
from ferplus_tvm.faces.sources import name_of
from ferplus_tvm.videos.clock import ANEW, Clock
from ferplus_tvm.videos.cuts import Cuts
from ferplus_tvm.videos.opening import (
    import_av,
    open_container,
    picture_stream,
    stated_duration,
    without_password,
)
from ferplus_tvm.videos.source import RawFrame, Taken
from ferplus_tvm.videos.upright import deinterlaced, upright

_THREADS = 4
"""Decoding threads at most: each keeps a frame, and loses it where a file breaks off."""

_MISSING = 0.5
"""Seconds by which a video may be shorter than its file says; beyond, it is damaged."""

_SOUGHT = {"mov", "matroska", "avi"}
"""Formats in which a frame that is sought is found, with its right stamp."""

_BROADCAST = {"mpegts", "mpeg", "h264", "hevc", "rtsp"}
"""Formats whose recordings may begin anywhere."""

Numbered = Iterator[tuple[int, Any]]
"""Frames of PyAV with their numbers."""


class Clip:
    """A video file or address.

    Parameters
    ----------
    source
        A path, an address, bytes or a binary file.

    Attributes
    ----------
    name
        The path or address as it was given, a password left out.
    duration
        Seconds, if the file says so.
    fps
        Frames a second in the mean, if the file says so.
    size
        Width and height of the upright picture in pixels.
    time_base
        Of which the times of frames are multiples, in seconds.
    origin
        Seconds of the file's own clock at which the video begins, where times are 0.

    Raises
    ------
    InputError
        If it is no video, or holds no frame that can be read.
    MissingExtraError
        If PyAV is not installed.
    """

    live = False

    def __init__(self, source: Any) -> None:
        self._error: type[Exception] = import_av().FFmpegError
        self._source = source
        self._said = self.name = "the video"
        self._path: str | None = None
        if isinstance(source, str | os.PathLike):
            self._said = without_password(name_of(source))
            self.name = without_password(os.fsdecode(source))
            self._path = os.fsdecode(source) if os.path.isfile(source) else None
        self._decoded: Numbered
        self._open()
        try:
            first = next(self._decoded, None)
            if first is None:
                raise InputError(
                    f"{self._said} holds no frame that can be read; expected a video: see whether "
                    "it plays"
                )
            self._describe(first[1])
        except BaseException as error:
            self.close()
            if isinstance(error, self._error):
                raise InputError(
                    f"{self._said} has pictures that cannot be read ({one_line(error)}); expected "
                    "a video: see whether it plays, or convert it first"
                ) from error
            raise
        self._decoded = itertools.chain([first], self._decoded)

    def _open(self) -> None:
        self._container = open_container(self._source, self._said)
        try:
            self._stream = picture_stream(self._container, self._said)
        except InputError:
            self._container.close()
            raise
        self._stream.thread_type = "AUTO"
        self._stream.codec_context.thread_count = min(_THREADS, os.cpu_count() or 1)
        self._lost, self._last, self._end = 0, 0.0, 0.0
        kinds = set(self._container.format.name.split(","))
        self._decoded = self._decode(inside=bool(kinds & _BROADCAST))

    def _describe(self, first: Any) -> None:
        stream = self._stream
        height, width = upright(first, stream.sample_aspect_ratio).shape[:2]
        self.size: tuple[int, int] | None = (width, height)
        rate = stream.average_rate or stream.guessed_rate
        self.fps: float | None = float(rate) if rate else None
        self._start = stream.start_time
        if self._start is None:
            self._start = first.pts or 0
        self.time_base: Fraction = stream.time_base
        self.origin = self._start * self.time_base
        self._stated = stated_duration(self._container, stream)
        self.duration: float | None = self._stated
        if self._stated is None and self._container.duration:
            self.duration = self._container.duration / 1e6

    def frames(self, taken: Taken) -> Iterator[RawFrame]:
        """Yield the frames that are taken.

        Raises
        ------
        VideoDamagedError
            After all frames that can be read, if there were more.
        InputError
            If ``start`` lies behind the end.
        """
        try:
            yield from self._frames(taken)
        except self._error as error:
            raise VideoDamagedError(
                f"{self._said} cannot be read beyond {self._end:.2f} s ({one_line(error)}); "
                "expected a whole video: see whether it plays, or convert it first",
                self._end,
            ) from error
        finally:
            self.close()

    def _frames(self, taken: Taken) -> Iterator[RawFrame]:
        decoded = self._seek(taken.start) if taken.start else self._decoded
        stream = self._stream
        cuts = Cuts()
        for index, time, frame in deinterlaced(self._timed(decoded), stream):
            if taken.past(time):
                return
            cuts.see_frame(frame)
            if taken.takes(time):
                picture = upright(frame, stream.sample_aspect_ratio)
                yield RawFrame(index, time, picture, cuts.taken())
        self._check_end(taken.start or 0)

    def _timed(self, frames: Numbered) -> Iterator[tuple[int, float, Any]]:
        """Yield number, time and frame, and take note of where the last one ends."""
        unit, step = self._stream.time_base, 1 / (self.fps or 25)
        clock = Clock(self._start, unit, step)
        for index, frame in frames:
            self._last = clock.time(frame.pts)
            self._end = self._last + max(step, float((frame.duration or 0) * unit))
            yield index, self._last, frame

    def _check_end(self, start: float) -> None:
        """Raise if the video ends too soon, or frames in it are lost."""
        end = self._end
        short = self._stated is not None and self._stated - end > _MISSING
        if short or self._lost:
            stated = f" of {self._stated:.2f} s" if short else ""
            count = "1 frame" if self._lost == 1 else f"{self._lost} frames"
            lost = f", but for {count}, after which others may be wrong" if self._lost else ""
            raise VideoDamagedError(
                f"{self._said} is damaged: it could be read up to {end:.2f} s{stated}{lost}; "
                "expected a whole video: copy it again, or repair it",
                end,
            )
        if self._last < start:
            raise InputError(
                f"start is {start:g} s, but the last frame of {self._said} is that of "
                f"{self._last:g} s: give less"
            )

    def _decode(self, inside: bool = False) -> Numbered:
        """Yield the good frames from where the container stands, numbered from there.

        Parameters
        ----------
        inside
            Whether that may be inside a group of pictures: what needs those before is not lost.
        """
        index = 0
        for frames in self._packets():
            if frames is None:
                self._lost += not inside
                index += 1
                continue
            for frame in frames:
                if frame.is_corrupt:
                    self._lost += not inside
                else:
                    inside = False
                    yield index, frame
                index += 1

    def _packets(self) -> Iterator[list[Any] | None]:
        """Yield the frames of each packet, or None if it cannot be read or decoded."""
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except (self._error, OSError):
                yield None
                return
            except IndexError:  # of PyAV at the end, if streams have appeared on the way
                packet = None
            frames = None
            try:
                frames = self._stream.codec_context.decode(packet)
            except self._error:
                if packet is None:  # it was at the end before
                    return
            yield frames
            if packet is None:
                return

    def _seek(self, start: float) -> Numbered:
        """Return the frames from a key frame before ``start`` on, or else all of them."""
        stamps = self._stamps(start)
        if stamps is None:
            return self._decoded
        target = stamps[-1]
        try:
            self._container.seek(target, stream=self._stream)
            decoded = self._decode(inside=True)
            at, first = next(decoded)
            if first.pts is not None and first.pts <= target:
                shift = bisect.bisect_left(stamps, first.pts) - at
                rest = itertools.chain([(at, first)], decoded)
                return ((number + shift, frame) for number, frame in rest)
        except (self._error, OSError, StopIteration):
            pass
        self._container.close()
        self._open()
        return self._decoded

    def _stamps(self, start: float) -> list[int] | None:
        """Return the stamps of the frames up to ``start`` in order, by reading without decoding.

        They tell the number of a frame, which a file does not.  None if they cannot be had.
        """
        kinds = set(self._container.format.name.split(","))
        if self._path is None or not kinds & _SOUGHT or self._stream.codec_context.name == "vp8":
            return None  # VP8 hides frames among the others
        target = self._start + int(Fraction(start) / self._stream.time_base)
        back = ANEW / self._stream.time_base
        stamps: list[int] = []
        latest, beyond = -math.inf, 0
        with open_container(self._path, self._said) as container:
            try:
                for packet in container.demux(picture_stream(container, self._said)):
                    if packet.size == 0 or beyond == 2:
                        break
                    if packet.pts is None or packet.pts < latest - back:
                        return None
                    latest = max(latest, packet.pts)
                    # Frames that are shown before a key frame may follow it.
                    beyond += packet.is_keyframe and packet.pts > target
                    if packet.pts <= target and not packet.is_discard:
                        stamps.append(packet.pts)
            except (self._error, OSError):
                return None
        return sorted(stamps) or None

    def close(self) -> None:
        """Close the file."""
        self._container.close()
