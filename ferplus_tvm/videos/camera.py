"""A camera's pictures: always the newest, and never a queue of old ones."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Self

from ferplus_tvm.errors import InputError
from ferplus_tvm.videos.clock import Clock
from ferplus_tvm.videos.devices import Device, cannot_open, find_device, stopped
from ferplus_tvm.videos.opening import import_av, picture_stream
from ferplus_tvm.videos.source import RawFrame, Taken
from ferplus_tvm.videos.upright import upright
from ferplus_tvm.vision.crop import Picture

_PATIENCE = 10.0  # seconds without a picture until a camera is given up
_SLICE = 0.2  # seconds of one wait: on Windows Ctrl-C does not end one


@dataclass(frozen=True)
class _Taken:
    """A picture as it was read, not converted yet."""

    index: int
    time: float
    arrived: float
    frame: Any


class Camera:
    """A camera, or a live stream in place of one.

    `ferplus_tvm.video` takes it as a source, and by itself it is an iterator over
    ``(index, time, picture)``: always the newest picture, or the next one.  A thread reads the
    camera all the time and keeps one picture: what its user is too slow for is dropped, and
    counted.

    Parameters
    ----------
    device
        The camera's number; a part of its name; on Linux its path, such as ``/dev/video0``; or the
        address of a live stream (``rtsp://...``, ``http://...``, the path of a named pipe).
    size
        The width and height that the camera is asked for; by default what it is set to.  On Linux
        a camera that has no such size gives another one.

    Attributes
    ----------
    name
        What messages and tables call it.
    live
        True: a picture that is not taken at once is lost.
    duration
        None: a camera has no end.
    fps
        Pictures a second, if the camera says so.
    size
        Width and height of its pictures, in pixels.

    Raises
    ------
    InputError
        If there is no such camera, or another program uses it, or this user may not.
    MissingExtraError
        If PyAV is not installed.
    """

    live = True
    duration: float | None = None

    def __init__(self, device: int | str = 0, *, size: tuple[int, int] | None = None) -> None:
        self._device = find_device(device, size)
        self.name = self._device.name
        self._changed = threading.Condition()
        self._newest: _Taken | None = None
        self._error: Exception | None = None
        self._ended = self._closing = False
        self._dropped = 0
        self._aspect: Fraction | None = None
        self.fps: float | None = None
        self._arrived = time.monotonic()
        self._thread = threading.Thread(target=self._read, name="camera", daemon=True)
        self._thread.start()
        try:
            with self._changed:
                self._wait()
                newest = self._newest
                if newest is None:
                    raise self._error or InputError(
                        f"{self.name} ended before its first picture: see whether it still sends"
                    )
        except BaseException:
            self.close()
            raise
        height, width, _ = upright(newest.frame, self._aspect).shape
        self.size: tuple[int, int] | None = (width, height)

    @property
    def dropped(self) -> int:
        """How many pictures were dropped so far, because a newer one came before they were used."""
        return self._dropped

    @property
    def age(self) -> float:
        """How many seconds ago the picture that was given last came from the camera."""
        return time.monotonic() - self._arrived

    def __iter__(self) -> Iterator[tuple[int, float, Picture]]:
        return self

    def __next__(self) -> tuple[int, float, Picture]:
        """Return the newest picture that was not given yet.

        Returns
        -------
        index : int
            The picture's number; the first one is 0, and those that are dropped count.
        time : float
            Seconds since the first picture: by the camera's time stamps, or as those of a stream
            arrive.
        picture : numpy.ndarray
            uint8 (H, W, 3), RGB.

        Raises
        ------
        InputError
            If the camera is unplugged, or gives no picture for ten seconds.
        StopIteration
            If it was closed, or the stream has ended.
        """
        with self._changed:
            self._wait()
            taken, self._newest = self._newest, None
            if taken is None:
                if self._error is not None:
                    raise self._error
                raise StopIteration
            self._arrived = taken.arrived
        return taken.index, taken.time, upright(taken.frame, self._aspect)

    def frames(self, taken: Taken) -> Iterator[RawFrame]:
        """Yield the pictures that are taken, as `ferplus_tvm.video` does."""
        for index, seconds, picture in self:
            if taken.past(seconds):
                break
            if taken.takes(seconds):
                yield RawFrame(index, seconds, picture)

    def close(self) -> None:
        """Let go of the camera; again is harmless."""
        with self._changed:
            self._closing = self._ended = True
            self._newest = None
            self._changed.notify_all()
        # A camera that gives nothing keeps the thread, which ends with the process.
        self._thread.join(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wait(self) -> None:
        """Wait for a picture, or for the end."""
        end = time.monotonic() + _PATIENCE
        while self._newest is None and not self._ended:
            left = end - time.monotonic()
            if left <= 0:
                self._error = InputError(
                    f"{self.name} gave no picture for {_PATIENCE:.0f} seconds: see whether it is "
                    "plugged in, and whether another program uses it"
                )
                self._ended = True
                return
            self._changed.wait(min(left, _SLICE))

    def _read(self) -> None:
        error: Exception | None = None
        try:
            container = _open(self._device)
            try:
                error = self._keep_newest(container)
            finally:
                container.close()
        except Exception as reason:
            error = reason
        finally:
            with self._changed:
                self._error = self._error or error
                self._ended = True
                self._changed.notify_all()

    def _keep_newest(self, container: Any) -> InputError | None:
        """Read until the end; return why it ended, if that was no end that was wanted."""
        av = import_av()
        stream = picture_stream(container, self.name)
        self._aspect = stream.sample_aspect_ratio
        if stream.average_rate:
            self.fps = float(stream.average_rate)
        clock: Clock | None = None
        stream.codec_context.thread_type = "SLICE"  # threads for whole frames would hold some back
        index = 0
        try:
            for packet in container.demux(stream):
                frames = _frames(packet)
                del packet  # it may lie in the camera's memory, which must outlive it
                for frame in frames:
                    arrived = time.monotonic()
                    if clock is None:
                        first = arrived
                        clock = Clock(frame.pts or 0, stream.time_base, 1 / (self.fps or 25))
                    # A camera's driver stamps its pictures; FFmpeg makes up those of many streams.
                    seconds = clock.time(frame.pts) if self._device.camera else arrived - first
                    with self._changed:
                        if self._closing:
                            return None
                        self._dropped += self._newest is not None
                        self._newest = _Taken(index, seconds, arrived, frame)
                        self._changed.notify_all()
                    index += 1
        except av.FFmpegError as error:
            return stopped(self._device, error)
        return None


def _frames(packet: Any) -> list[Any]:
    """Decode a packet into frames with memory of their own; what is damaged gives none."""
    av = import_av()
    try:
        frames: list[Any] = packet.decode() if packet.size else []
    except av.error.InvalidDataError:  # cameras begin with some, and networks lose some
        return []
    for frame in frames:
        frame.make_writable()  # what is not compressed is not copied by decoding
    return frames


def _open(device: Device) -> Any:
    av = import_av()
    error: Exception | None = None
    for options in device.attempts:
        try:
            # Given as "options" they would go to the decoder too, which has a "video_size" as well.
            return av.open(
                device.file,
                format=device.format,
                container_options=options,
                timeout=2 * _PATIENCE,
            )
        except (OSError, ValueError, av.FFmpegError) as reason:
            error = reason
    assert error is not None
    raise cannot_open(device, error) from error
