"""The sound of a video, copied into another one."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer, OutputContainer

_ENCODERS = {"opus": "libopus"}  # FFmpeg's own encoder of Opus is experimental


@dataclass
class _Track:
    """A sound track of the output.

    Attributes
    ----------
    stream
        PyAV's stream.
    encoded
        Whether it is encoded again, and no copy.
    from_zero
        Whether what is before time 0 is left out.
    last
        The time stamp of the last packet.
    left_out
        How many packets are left out, which are damaged or out of order.
    """

    stream: Any
    encoded: bool
    from_zero: bool
    last: float = -math.inf
    left_out: int = 0


class Sound:
    """Copies the sound tracks of a source, and encodes what the output's container cannot hold.

    Parameters
    ----------
    source
        The source, opened for this alone.
    output
        The container that is written, before its first packet.
    zero
        Where the source's time begins, in seconds by its container's time stamps.

    Attributes
    ----------
    notes
        A sentence for each track that is no copy.
    """

    def __init__(self, source: InputContainer, output: OutputContainer, zero: Fraction) -> None:
        self.notes: list[str] = []
        self._output, self._zero = output, zero
        self._cut = Fraction(0)
        tracks = {
            stream: track
            for number, stream in enumerate(source.streams.audio, 1)
            if (track := self._track(number, stream)) is not None
        }
        self._tracks = {stream.index: track for stream, track in tracks.items()}
        self._packets: Iterator[Any] = source.demux(*tracks) if tracks else iter(())
        self._next: Any = None

    def _track(self, number: int, stream: AudioStream) -> _Track | None:
        context, container = stream.codec_context, self._output.format.name
        if context is None:
            self.notes.append(f"sound track {number} is left out: its codec is unknown here")
            return None
        name = context.codec.canonical_name
        if _holds(container, stream):
            copied = self._output.add_stream_from_template(stream)
            # What decoders leave out at the beginning has times before 0, which Matroska knows for
            # Opus alone: FFmpeg would move all times for its sake, those of the pictures too.
            from_zero = container in ("matroska", "webm") and name != "opus"
            return _Track(copied, encoded=False, from_zero=from_zero)
        codec = self._output.default_audio_codec
        encoder_name = _ENCODERS.get(codec, codec)
        reason = f"the container {container} cannot hold {name}"
        try:
            encoder = self._output.add_stream(encoder_name, _rate(stream.rate, encoder_name))
        except (OSError, ValueError) as error:
            self.notes.append(
                f"sound track {number} is left out: {reason}, and there is no {codec} ({error})"
            )
            return None
        self.notes.append(f"sound track {number} is encoded as {codec}: {reason}")
        return _Track(encoder, encoded=True, from_zero=False)

    def cut(self, time: Fraction) -> None:
        """Leave out what is before a time of the source, in seconds: there the output begins."""
        self._cut = time

    def copy_until(self, time: float) -> None:
        """Copy what begins before a time of the source, in seconds, and is not copied yet."""
        while (packet := self._next or self._read()) is not None:
            self._next = packet
            if packet.pts is not None and _seconds(packet) - self._zero >= time:
                return
            self._next = None
            self._copy(packet)

    def finish(self) -> None:
        """Write what encoders still hold, and note what could not be copied."""
        for number, track in self._tracks.items():
            if track.encoded:
                self._output.mux(track.stream.encode(None))
            if track.left_out:
                count = "1 piece" if track.left_out == 1 else f"{track.left_out} pieces"
                self.notes.append(
                    f"{count} of sound, damaged or out of order in stream {number}, left out"
                )

    def _read(self) -> Any:
        try:
            return next(self._packets, None)
        except (OSError, ValueError):  # the file breaks off here, which the pictures will tell
            return None

    def _copy(self, packet: Any) -> None:
        if packet.size == 0:  # the end of a track
            return
        track, shift = self._tracks[packet.stream_index], self._zero + self._cut
        if packet.pts is None or packet.pts <= track.last:
            track.left_out += 1
            return
        track.last = packet.pts
        if self._cut and _seconds(packet) < shift:
            return
        if track.encoded:
            self._encode(packet, track, shift)
            return
        pts = _shifted(packet, shift)
        if pts < 0 and track.from_zero:
            return
        packet.pts = packet.dts = pts
        packet.stream = track.stream
        self._output.mux_one(packet)

    def _encode(self, packet: Any, track: _Track, shift: Fraction) -> None:
        try:
            frames = packet.decode()
        except ValueError:  # FFmpeg's for invalid data
            track.left_out += 1
            return
        for frame in frames:
            frame.pts = _shifted(frame, shift)
            self._output.mux(track.stream.encode(frame))


def _holds(container: str, stream: AudioStream) -> bool:
    """Whether a container takes a track as it is: FFmpeg's list of codecs says too much."""
    import av

    try:
        with av.open(os.devnull, "w", format=container) as trial:
            trial.add_stream_from_template(stream)
            trial.start_encoding()
    except (av.FFmpegError, OSError, ValueError):
        return False
    return True


def _seconds(packet: Any) -> Fraction:
    return Fraction(packet.pts * packet.time_base)


def _shifted(packet: Any, shift: Fraction) -> int:
    """Return the time stamp of a packet or a frame, moved to an earlier time."""
    return int(packet.pts - round(shift / packet.time_base))


def _rate(rate: int, codec: str) -> int:
    """Return the sample rate that an encoder takes, and that is not below a track's."""
    import av

    known = sorted(av.Codec(codec, "w").audio_rates or [rate])
    return next((each for each in known if each >= rate), known[-1])
