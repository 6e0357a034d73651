"""A decoded frame -> the picture as it is to be shown: upright, with square pixels, RGB."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from ferplus_tvm.vision.crop import Picture

_ODDEST = 4
"""The ratio of a pixel's sides beyond which it is a mistake of the file."""


def upright(frame: Any, aspect: Fraction | None) -> Picture:
    """Return a frame as it is to be shown.

    Parameters
    ----------
    frame
        A frame of PyAV, of any pixel format.
    aspect
        The width of a pixel over its height, if known.

    Returns
    -------
    numpy.ndarray
        uint8 (H, W, 3), RGB.
    """
    width, height = _square(frame.width, frame.height, aspect)
    # Threads of its own, which each frame would start and keep, take longer than they save.
    picture = frame.reformat(width, height, "rgb24", threads=1).to_ndarray()
    return np.ascontiguousarray(_turned(picture, frame))


def _square(width: int, height: int, aspect: Fraction | None) -> tuple[int, int]:
    """Return the size with square pixels: one side grows, so that nothing is lost."""
    if not aspect or not Fraction(1, _ODDEST) <= aspect <= _ODDEST:
        return width, height
    if aspect > 1:
        return round(width * aspect), height
    return width, round(height / aspect)


def _turned(picture: Picture, frame: Any) -> Picture:
    """Turn and mirror a picture as the frame's display matrix says, to the nearest quarter."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return picture
    # x' = a x + c y and y' = b x + d y: numbers of 16.16 bits, three a row.
    (a, b), (c, d) = np.frombuffer(data, np.int32).reshape(3, 3)[:2, :2].tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        down, across = d, a
    else:
        picture, down, across = picture.swapaxes(0, 1), b, c
    return picture[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1]


def deinterlaced(
    frames: Iterable[tuple[int, float, Any]], stream: Any
) -> Iterator[tuple[int, float, Any]]:
    """Yield frames, each of one moment: an interlaced one holds two.

    Parameters
    ----------
    frames
        Number, time and frame of PyAV.
    stream
        Where they come from.
    """
    import av

    graph: Any = None
    waiting: deque[tuple[int, float]] = deque()  # the filter needs the next frame, too
    for index, time, frame in frames:
        if graph is None and frame.interlaced_frame:
            graph = av.filter.Graph()
            graph.link_nodes(
                graph.add_buffer(template=stream),
                graph.add("bwdif", "mode=send_frame:deint=interlaced"),
                graph.add("buffersink"),
            ).configure()
        if graph is None:
            yield index, time, frame
            continue
        waiting.append((index, time))
        graph.push(frame)
        yield from _pulled(graph, waiting)
    if graph is not None:
        graph.push(None)
        yield from _pulled(graph, waiting)


def _pulled(graph: Any, waiting: deque[tuple[int, float]]) -> Iterator[tuple[int, float, Any]]:
    """Yield the frames that are ready, in order."""
    import av

    while waiting:
        try:
            frame = graph.pull()
        except (av.BlockingIOError, av.EOFError):
            return
        index, time = waiting.popleft()
        yield index, time, frame
