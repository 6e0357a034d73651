"""Short videos with sound, made by PyAV; and what is in a video, read by PyAV alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.faces.postprocess import postprocess
from ferplus_tvm.videos.frame import Frame
from ferplus_tvm.videos.source import RawFrame
from ferplus_tvm.vision.photo import Face

TIMES = tuple(n / 100 for n in (0, 4, 8, 10, 23, 27, 50, 51, 90, 130, 131, 150))
"""Of frames, in seconds: variable."""

CLICK = 1.0
"""When the sound clicks, in seconds."""

RED, BLUE = (200, 30, 30), (30, 30, 200)


def picture(width: int, height: int) -> NDArray[np.uint8]:
    """Return a picture that is red above, and blue below."""
    made = np.full((height, width, 3), BLUE, np.uint8)
    made[: height // 2] = RED
    return made


def write_clip(
    path: Path,
    times: Sequence[float] = TIMES,
    size: tuple[int, int] = (64, 48),
    sound: str | None = "aac",
    codec: str = "libx264",
    time_base: Fraction = Fraction(1, 90000),
    draw: Callable[[int], NDArray[np.uint8]] | None = None,
) -> Path:
    """Write a video whose frames have these times, with sound that clicks once."""
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.time_base = time_base
        track: Any = output.add_stream(sound, rate=48000) if sound else None
        for number, time in enumerate(times):
            array = picture(*size) if draw is None else draw(number)
            frame = av.VideoFrame.from_ndarray(array, "rgb24")
            frame.pts, frame.time_base = round(time / time_base), time_base
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if track:
            samples = np.zeros((1, round(48000 * (times[-1] + 0.2))), np.float32)
            samples[0, round(48000 * CLICK) :][:48] = 0.9
            for start in range(0, samples.shape[1], 960):
                part = np.ascontiguousarray(samples[:, start : start + 960])
                piece = av.AudioFrame.from_ndarray(part, "fltp", "mono")
                piece.rate, piece.pts, piece.time_base = 48000, start, Fraction(1, 48000)
                output.mux(track.encode(piece))
            output.mux(track.encode(None))
    return path


@dataclass
class Read:
    """What PyAV reads from a video.

    Attributes
    ----------
    times
        Of the frames, in seconds, exactly.
    pictures
        RGB, as it is stored.
    packets
        Those of the sound: time and content.
    click
        When the sound is loudest, in seconds; None without sound.
    codecs
        Of pictures and sound.
    """

    times: list[Fraction]
    pictures: list[NDArray[np.uint8]]
    packets: list[tuple[Fraction, bytes]]
    click: float | None
    codecs: list[str]


def read(path: Path) -> Read:
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        frames = list(container.decode(video))
        times = [Fraction(frame.pts or 0) * frame.time_base for frame in frames]
        codecs = [stream.codec_context.codec.canonical_name for stream in container.streams]
        pictures = [frame.to_ndarray(format="rgb24") for frame in frames]
    if len(codecs) == 1:
        return Read(times, pictures, [], None, codecs)
    with av.open(str(path)) as container:
        packets = [
            (packet.pts * packet.time_base, bytes(packet))
            for packet in container.demux(audio=0)
            if packet.pts is not None
        ]
    with av.open(str(path)) as container:
        loudest = max(
            (float(abs(array).max()), frame.pts * frame.time_base + abs(array)[0].argmax() / rate)
            for frame in container.decode(audio=0)
            for array, rate in [(frame.to_ndarray().astype(float), frame.rate)]
        )
    return Read(times, pictures, packets, float(loudest[1]), codecs)


def face_of(track: int, *scores: float, box: tuple[float, ...] = (8, 8, 30, 30)) -> Face:
    """Return a face with these scores of the model, whose other ones are 0."""
    prediction = postprocess([*scores, *[0.0] * (8 - len(scores))])[0]
    return Face(box, (), 0.9, None, prediction, track, prediction)  # type: ignore[arg-type]


def framed(raw: RawFrame, *faces: Face) -> Frame:
    height, width = raw.picture.shape[:2]
    return Frame(raw.index, raw.time, width, height, faces, raw.picture, "a video")
