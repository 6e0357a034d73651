"""Write a video with its faces drawn into it, with the times and the sound of its source."""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from ferplus_tvm.errors import InputError, one_line
from ferplus_tvm.faces.sources import name_of
from ferplus_tvm.host.files import permit_as_new
from ferplus_tvm.videos.clip import Clip
from ferplus_tvm.videos.encode import Encoder, container_of
from ferplus_tvm.videos.frame import Frame
from ferplus_tvm.videos.opening import import_av, open_container
from ferplus_tvm.videos.sound import Sound
from ferplus_tvm.videos.source import RawFrame, Taken
from ferplus_tvm.vision.crop import Picture
from ferplus_tvm.vision.draw import drawn
from ferplus_tvm.vision.photo import Face

_TIME_BASE = Fraction(1, 90000)  # of frames that are from no file
_RATE = Fraction(25)
_FASTEST = 1000  # frames a second; where FFmpeg says more, it does not know


class VideoWriter:
    """Writes the frames of a video, each with its faces drawn into it.

    A context manager.  The file gets its name when it is closed, and can be played then, also if
    the source broke or somebody stopped it before its end.  If it cannot be written there is none.

    Parameters
    ----------
    path
        The file to write: ``.mp4``, ``.m4v``, ``.mov``, ``.mkv`` or ``.webm``.  An old one is
        replaced when the new one is closed.
    source
        The path or URL of the video that the frames are of.  Its frames between those that are
        given are written too, with the faces of the one before, and its sound is copied.  By
        default the file has the given frames alone, and no sound.
    start, end
        The part of the source, as `video` takes it; with ``start`` what is written begins at 0.

    Attributes
    ----------
    notes
        What is not as in the source, a sentence each.

    Raises
    ------
    MissingExtraError
        If PyAV is not installed.
    InputError
        If the path is the source's, or has another suffix, or no file can be written there.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        source: str | os.PathLike[str] | None = None,
        *,
        start: float | None = None,
        end: float | None = None,
    ) -> None:
        av = import_av()
        self.path, self.notes = Path(path), list[str]()
        self._container = container_of(self.path)
        self._source = None if source is None else os.fspath(source)
        if self._source is not None:
            expect_other_file(self.path, self._source)
        self._start, self._end = start, end
        self._errors = (av.FFmpegError, OSError)
        self._encoder: Encoder | None = None
        self._opened = contextlib.ExitStack()
        self._sound: Sound | None = None
        self._between: Iterator[RawFrame] | None = None
        self._faces: tuple[Face, ...] = ()
        self._next, self._time, self._zero = 0, 0.0, 0.0
        self._failed = False
        with self._writing():
            if self.path.is_dir():
                raise IsADirectoryError(None, "it is a folder")
            handle, self._name = tempfile.mkstemp(
                prefix=f".{self.path.name}.", dir=self.path.parent
            )
            os.close(handle)

    def write(self, frame: Frame) -> None:
        """Write a frame, later than those before it, with its faces.

        Raises
        ------
        InputError
            If the file cannot be written.
        ValueError
            If it is before the last one, as the first frame of another video is.
        """
        if self._encoder is None:
            self._begin(frame)
        elif frame.time < self._time:
            raise ValueError(
                f"the frame is of {frame.time:g} s, after one of {self._time:g} s; expected frames "
                "in order: make a writer for each video"
            )
        elif frame.index > self._next:
            self._fill(frame.time)
        self._encode(frame.picture, frame.faces, frame.time)
        self._faces, self._next, self._time = frame.faces, frame.index + 1, frame.time

    def finish(self) -> None:
        """Write what the source has after the last frame that was given.

        Raises
        ------
        InputError
            If the file cannot be written, or the source cannot be read to its end.
        """
        if self._encoder is not None and not self._failed:
            self._fill(math.inf)
            with self._writing():
                self._copy_sound(math.inf if self._end is None else self._end)

    def close(self) -> None:
        """End the file and give it its name; leave none if nothing could be written.

        Raises
        ------
        InputError
            If the file cannot be written.
        """
        encoder, self._encoder = self._encoder, None
        try:
            if encoder is not None and not self._failed:
                with self._writing():
                    encoder.flush()
                    if self._sound is not None:
                        self._sound.finish()
                        self.notes = self._sound.notes
                    encoder.close()
                    permit_as_new(Path(self._name), 0o666)
                    os.replace(self._name, self.path)
        finally:
            with contextlib.suppress(*self._errors):
                self._opened.close()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            self.close()

    def _begin(self, frame: Frame) -> None:
        """Open the file, now that the size of the frames is known."""
        time_base, rate, origin = _TIME_BASE, _RATE, Fraction(0)
        container = None
        if self._source is not None:
            with contextlib.closing(Clip(self._source)) as clip:
                time_base, origin = clip.time_base, clip.origin
                if clip.fps is not None and clip.fps <= _FASTEST:
                    rate = Fraction(clip.fps).limit_denominator(1001)
            container = open_container(self._source, name_of(self._source))
            self._opened.callback(container.close)
        with self._writing():
            size = (frame.width, frame.height)
            encoder = Encoder(self._name, self._container, size, time_base, rate)
            self._opened.callback(encoder.close)
            if container is not None:
                self._sound = Sound(container, encoder.output, origin)
        if self._start is not None:
            self._zero = frame.time
            if self._sound is not None:
                self._sound.cut(Fraction(frame.time))
        self._encoder = encoder

    def _fill(self, until: float) -> None:
        """Write the source's frames after the last one and before a time, with its faces."""
        if self._source is None:
            return
        if self._between is None:
            clip = Clip(self._source)
            self._opened.callback(clip.close)
            self._between = clip.frames(Taken(start=self._time, end=self._end))
        for raw in self._between:
            if raw.time >= until:
                break
            if raw.time > self._time:
                self._encode(raw.picture, self._faces, raw.time)

    def _encode(self, picture: Picture, faces: tuple[Face, ...], time: float) -> None:
        encoder = self._encoder
        assert encoder is not None
        image = np.asarray(drawn(picture, faces))
        with self._writing():
            self._copy_sound(time)
            encoder.encode(image, time - self._zero)

    def _copy_sound(self, until: float) -> None:
        if self._sound is not None:
            self._sound.copy_until(until)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            self._failed = True
            reason = getattr(error, "strerror", None) or one_line(error)
            raise InputError(
                f"the video {self.path} cannot be written ({reason}): name another file, or make "
                "room"
            ) from error


def expect_other_file(path: Path, source: str) -> None:
    """Check that a file to be written is not the one that is read.

    Raises
    ------
    InputError
        If it is.
    """
    with contextlib.suppress(OSError):  # one of them is no file
        if os.path.samefile(path, source):
            raise InputError(
                f"{path} is the video that is read: name another file, so that it is not lost"
            )
