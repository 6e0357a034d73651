"""Open a video by PyAV, or say in one sentence why it is none."""

from __future__ import annotations

import importlib
import io
import os
import re
from typing import Any

from ferplus_tvm.errors import InputError, MissingExtraError, one_line
from ferplus_tvm.faces.diagnose import of_missing_path
from ferplus_tvm.faces.formats import format_of, text_format_of

_EXPECTED = "expected a video, such as MP4, MOV, Matroska, WebM or AVI"
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_WAIT = (30.0, 30.0)
"""Seconds to wait for an address to answer, and for each part of it."""


def import_av() -> Any:
    """Return PyAV.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    try:
        return importlib.import_module("av")
    except ModuleNotFoundError:
        raise MissingExtraError.of("a video", "video") from None


def without_password(text: str) -> str:
    """Return text in which an address has lost the user's name and password."""
    return re.sub(r"(?<=://)[^/@\s]*@", "", text)


def open_container(source: Any, said: str) -> Any:
    """Open a video.

    Parameters
    ----------
    source
        A path, an address, bytes or a binary file.
    said
        What messages call it.

    Returns
    -------
    av.container.InputContainer
        To be closed.

    Raises
    ------
    InputError
        If it cannot be opened, or is no video.
    """
    av = import_av()
    given, timeout = source, None
    if isinstance(source, bytes | bytearray | memoryview):
        given = io.BytesIO(source)
    elif isinstance(source, str | os.PathLike):
        given = os.fsdecode(source)
        if os.path.exists(given):
            given = f"file:{given}"  # whatever its name looks like
        elif _ADDRESS.match(given):
            timeout = _WAIT
    try:
        # A title may be in any encoding.
        container = av.open(given, timeout=timeout, metadata_errors="replace")
    except (av.FFmpegError, OSError) as error:
        raise InputError(f"{said} {_reason(error, source, given)}") from None
    kind = container.format.name
    if kind == "tty" or kind.endswith("_pipe") or (kind == "image2" and "%" not in said):
        container.close()
        what = "text" if kind == "tty" else "a picture: pass it to analyze (ferplus-tvm photo)"
        raise InputError(f"{said} is no video; {_EXPECTED}: it is {what}")
    return container


def picture_stream(container: Any, said: str) -> Any:
    """Return the stream of pictures, which is no cover of a piece of music.

    Raises
    ------
    InputError
        If there is none, or no decoder for it.
    """
    av = import_av()
    cover = av.stream.Disposition.attached_pic
    streams = [each for each in container.streams.video if not each.disposition & cover]
    if not streams:
        kinds = sorted({each.type for each in container.streams} - {"video"})
        if container.streams.video:
            kinds.append("a cover picture")
        raise InputError(
            f"{said} holds no video, only {' and '.join(kinds) or 'nothing'}; {_EXPECTED}: "
            "see whether it is the right file"
        )
    default = av.stream.Disposition.default
    stream = next((each for each in streams if each.disposition & default), streams[0])
    if stream.codec_context is None:
        raise InputError(
            f"{said} has a video stream of a codec that this FFmpeg has no decoder for; expected "
            "one such as H.264, HEVC, VP9 or AV1: convert it first, or install a newer av"
        )
    return stream


def stated_duration(container: Any, stream: Any) -> float | None:
    """Return how many seconds the video lasts by what the file says of it alone."""
    if stream.duration:
        stated = stream.duration * stream.time_base
        if container.format.name == "avi" and stream.average_rate:
            # FFmpeg shortens it to what the bytes that are there may hold; the count stays.
            stated = max(stated, stream.frames / stream.average_rate)
        return float(stated)
    # Matroska's, such as 00:01:02.345000000
    told = re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", ""))
    if told:
        hours, minutes, seconds = map(float, told.groups())
        return (hours * 60 + minutes) * 60 + seconds
    if container.duration and len(container.streams) == 1:
        return float(container.duration / 1e6)
    return None


def _reason(error: Exception, source: Any, given: Any) -> str:
    """Return the end of a sentence that says why a video cannot be opened."""
    av = import_av()
    path = given.removeprefix("file:") if isinstance(given, str) else ""
    if isinstance(error, FileNotFoundError) and not _ADDRESS.match(path):
        return of_missing_path(path).replace("an image", "a video")
    if isinstance(error, IsADirectoryError):
        return "is a folder; expected a video file: name the files inside it"
    if isinstance(error, av.error.ProtocolNotFoundError):
        return f"is an address of a kind that FFmpeg does not know; {_EXPECTED}: check it"
    if not isinstance(error, av.InvalidDataError | av.EOFError):
        reason = getattr(error, "strerror", None) or one_line(error)
        return f"cannot be read ({reason}); {_EXPECTED}: check its path, address and permissions"
    head = _head(source, path)
    if head == b"":
        return f"is empty (0 bytes); {_EXPECTED}: check how it was written"
    if head and head[4:8] in (b"ftyp", b"mdat", b"moov"):
        return (
            "is an MP4 or MOV file without a whole index, as is left where a recording or a copy "
            "breaks off; expected all of it: copy it again, or repair it by a tool such as untrunc"
        )
    name = format_of(head) or text_format_of(head) if head else None
    found = f" (it begins as {name})" if name else ""
    return (
        f"is no video that FFmpeg reads, or holds no frame{found}; {_EXPECTED}: see whether it "
        "plays, or convert it first"
    )


def _head(source: Any, path: str) -> bytes | None:
    """Return the first bytes, if they can be had."""
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source[:1000])
    if os.path.isfile(path):
        with open(path, "rb") as file:
            return file.read(1000)
    return None
