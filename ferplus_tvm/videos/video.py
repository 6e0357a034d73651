"""Videos in, frames with faces out: reading, finding and scoring overlap."""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Iterable, Iterator
from typing import Any, Self, Unpack

from ferplus_tvm.faces.sources import Source, is_encoded
from ferplus_tvm.runtime.engine import Engine
from ferplus_tvm.runtime.photos import PhotoOptions
from ferplus_tvm.videos.ahead import Ahead
from ferplus_tvm.videos.camera import Camera
from ferplus_tvm.videos.clip import Clip
from ferplus_tvm.videos.frame import Frame
from ferplus_tvm.videos.source import FrameSource, GivenFrames, RawFrame, Taken
from ferplus_tvm.videos.steps import found, scored
from ferplus_tvm.vision.analyze import PhotoSteps

_DETECT_EVERY = 3


class Video(Iterator[Frame]):
    """The frames of a video, each with its faces; made by `ferplus_tvm.video`.

    An iterator, to be used once, and a context manager.  Frames come in order.  Reading, finding
    faces and scoring them happen in threads of their own, a few frames ahead: the memory does not
    grow with the length of the video.

    Attributes
    ----------
    source
        The path or address as it was given, or what messages call the source.
    live
        Whether it is a camera, of which the newest frame is taken.
    duration
        Seconds, or None if the source does not say.
    fps
        Frames a second in the mean, or None if the source does not say.
    size
        (width, height) of the upright picture in pixels, or None if that is not known.
    """

    def __init__(
        self,
        source: FrameSource,
        taken: Taken,
        steps: PhotoSteps,
        detect_every: int,
        smooth: float,
    ) -> None:
        self.source = source.name
        self.live = source.live
        self.duration = source.duration
        self.fps = source.fps
        self.size = source.size
        self._stages = _Stages(source)
        self._frames: Iterator[Frame] | None = None
        self._asked = (taken, steps, detect_every, smooth)
        # Abandoned, or at the end of the interpreter.
        self._finalizer = weakref.finalize(self, self._stages.close)

    def __next__(self) -> Frame:
        if not self._finalizer.alive:
            raise StopIteration
        if self._frames is None:
            self._frames = self._stages.start(*self._asked)
        try:
            return next(self._frames)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the threads and let go of the source; again is harmless."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Stages:
    """The threads of one video, which do not hold the video itself."""

    def __init__(self, source: FrameSource) -> None:
        self._source = source
        self._threads: list[Ahead[Any]] = []

    def start(
        self, taken: Taken, steps: PhotoSteps, detect_every: int, smooth: float
    ) -> Iterator[Frame]:
        """Return the frames, which threads begin to make: but for a camera, whose are new."""
        source = self._source
        frames: Iterator[RawFrame] = source.frames(taken)
        if source.live:
            return scored(found(frames, steps, detect_every), steps, smooth, source.name, None)
        reading = self._ahead(frames, 2, "read")
        finding = self._ahead(found(reading, steps, detect_every), 4, "find")
        # Who gives frames may do so as they come, and wants them back soon.
        ready = finding.ready if isinstance(source, GivenFrames) else _worth_waiting
        return self._ahead(scored(finding, steps, smooth, source.name, ready), 2, "score")

    def _ahead(self, items: Iterator[Any], depth: int, name: str) -> Ahead[Any]:
        thread = Ahead(items, depth, f"ferplus-tvm video {name}")
        self._threads.append(thread)
        return thread

    def close(self) -> None:
        """End the threads, and then let go of the source, which one of them may be reading."""
        for thread in self._threads:
            thread.stop()
        ended = [thread.join() for thread in self._threads]
        if all(ended):
            self._source.close()


def _worth_waiting() -> bool:
    return True


def video(
    source: str | os.PathLike[str] | int | Camera | Iterable[Any] | Source,
    engine: Engine,
    *,
    every: int = 1,
    fps: float | None = None,
    detect_every: int | None = None,
    smooth: float = 0.25,
    start: float | None = None,
    end: float | None = None,
    **options: Unpack[PhotoOptions],
) -> Video:
    """Find the faces in a video, follow each person, and return the emotion of each in each frame.

    Parameters
    ----------
    source
        A video file's path, address or binary file; a camera's number, or a `Camera`, which is
        closed with the video; or an iterable of pictures, each of which is what `Engine.analyze`
        takes, or of (time, picture), the time in seconds.
    engine
        A library with a face detector, or any with ``detector=``.
    every
        Every N-th frame is looked at; by default all.
    fps
        At most so many frames a second are looked at; by default all.
    detect_every
        The detector looks at every N-th of these frames, or sooner where they are far apart;
        in those between, a face lies between where it was and where it will be.  3 by default; of
        a camera, whose next frames nobody knows, 1.
    smooth
        Seconds over which `Face.smoothed` is a mean: a prediction weighs ``1/e`` after so long.
        0 makes it the prediction itself.
    start, end
        Seconds of the video: frames from ``start`` on, and before ``end``.
    **options
        Those of `PhotoOptions`; how pictures are read, such as ``channel_order="BGR"``, is meant
        for an iterable alone.

    Returns
    -------
    Video
        An iterator of `Frame`.

    Raises
    ------
    InputError
        If the source cannot be used.
    MissingExtraError
        If PyAV is not installed, which reads files and cameras.
    TypeError, ValueError
        For an option that does not exist, or a value that it does not take.
    """
    steps = engine.steps(options)
    taken = Taken(every, fps, start, end)
    if not 0 <= smooth < math.inf:
        raise ValueError(f"smooth is {smooth!r}: expected seconds of 0 or more")
    if detect_every is not None and not (isinstance(detect_every, int) and detect_every >= 1):
        raise ValueError(f"detect_every is {detect_every!r}: expected a whole number of 1 or more")
    opened = _opened(source, steps)
    if opened.live and detect_every not in (None, 1):
        opened.close()
        raise ValueError(
            f"detect_every is {detect_every}: of a camera, whose next frames nobody knows, it is 1"
        )
    often = detect_every or (1 if opened.live else _DETECT_EVERY)
    return Video(opened, taken, steps, often, smooth)


def _opened(source: Any, steps: PhotoSteps) -> FrameSource:
    if isinstance(source, int) or (isinstance(source, str) and source.startswith("/dev/video")):
        return Camera(source)
    if isinstance(source, Camera):
        return source
    if is_encoded(source):
        return Clip(source)
    return GivenFrames(source, steps.reading)
