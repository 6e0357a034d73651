"""Plots of the emotions over time, for each person of a video."""

from __future__ import annotations

import io
import math
import os
import warnings
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ferplus_tvm.errors import InputError, MissingExtraError
from ferplus_tvm.host.files import replace
from ferplus_tvm.videos.timeline import Person, Timeline, mostly
from ferplus_tvm.videos.words import clock, length
from ferplus_tvm.vision.draw import colour_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DRAWN = 12
"""The most people that a plot has; those who are seen longest."""

SUFFIXES = (".png", ".html")

_UNSEEN = "#d8d8d8"  # where a person is not seen; neutral is white
_LINE = "#555555"
_WIDTH, _ROW = 10.0, 1.05  # inches
_DPI = 120
_STYLE: Any = {
    "text.parse_math": False,  # a file's name may hold dollar signs
    "svg.fonttype": "none",
    "svg.hashsalt": "emotions",
}


def expect_plot(path: Path) -> None:
    """Check that a plot can be drawn as this file, before there is one.

    Raises
    ------
    InputError
        If its suffix is none of `SUFFIXES`.
    MissingExtraError
        If matplotlib is not installed.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(
            f"the plot {path} has the suffix {path.suffix!r}: expected {' or '.join(SUFFIXES)}"
        )
    try:
        import matplotlib.figure as _figure  # noqa: F401
    except ModuleNotFoundError:
        raise MissingExtraError.of("the plot (no module matplotlib)", "video") from None


def plot(timeline: Timeline, title: str, path: str | os.PathLike[str]) -> None:
    """Draw a timeline that is closed; see `Timeline.plot`."""
    from ferplus_tvm.videos.plot_page import render

    path = Path(path)
    expect_plot(path)
    import matplotlib

    title = title.encode(errors="replace").decode()  # a file's name may hold what is no text
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # A box stands for a letter that the font lacks.
        warnings.filterwarnings("ignore", r"Glyph \d+")
        if path.suffix.lower() == ".html":
            content = render(timeline, title, _svg(timeline)).encode()
        else:
            content = _png(timeline, title)
    try:
        replace(path, content)
    except OSError as error:
        raise InputError(
            f"the plot {path} cannot be written ({error.strerror or error}): name another file, "
            "or make room"
        ) from error


def _png(timeline: Timeline, title: str) -> bytes:
    stream = io.BytesIO()
    _figure(timeline, title).savefig(stream, dpi=_DPI, format="png")
    return stream.getvalue()


def _svg(timeline: Timeline) -> str:
    """Return an ``svg`` element, whose text is text."""
    stream = io.StringIO()
    figure = _figure(timeline, None)
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    drawn = stream.getvalue()
    svg = drawn[drawn.index("<svg") :].strip()
    label = escape("The emotions of each person over time; the tables below have the same figures")
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


def _figure(timeline: Timeline, title: str | None) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    people = timeline.people[:DRAWN]
    rows = max(1, len(people))
    figure = Figure(figsize=(_WIDTH, 1.1 + _ROW * rows), layout="constrained", facecolor="white")
    each_axes = figure.subplots(rows, sharex=True, squeeze=False)[:, 0]
    if title is not None:
        figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    order = _stacked(timeline.labels)
    for person, axes in zip(people, each_axes, strict=False):
        _draw(axes, timeline, person, order)
    _times(each_axes[-1], timeline)
    if not people:
        each_axes[0].set_title("no face found", loc="left", fontsize=9)
        each_axes[0].set_yticks([])
    more = len(timeline.people) + timeline.left_out - len(people)
    if more:
        figure.supxlabel(f"and {more} more, who are seen for a shorter time", fontsize=9)
    names = [*reversed(order), None]
    looks = [colour_of(name, timeline.labels) if name else _UNSEEN for name in names]
    figure.legend(
        handles=[
            Patch(facecolor=colour, edgecolor=_LINE, linewidth=0.5, label=name or "not seen")
            for name, colour in zip(names, looks, strict=True)
        ],
        loc="outside right upper",
        fontsize=8,
        frameon=False,
    )
    return figure


def _draw(axes: Axes, timeline: Timeline, person: Person, order: Sequence[str]) -> None:
    """Draw a person's probabilities as areas, one above the other."""
    from matplotlib.patches import StepPatch

    shares = person.probabilities
    seen = np.flatnonzero(~np.isnan(shares[:, 0]))
    if seen.size:
        part = slice(int(seen[0]), int(seen[-1]) + 1)
        edges = timeline.start + timeline.bin * np.arange(part.start, part.stop + 1)
        floor: Any = shares[part, 0] * 0
        for label in order:
            top = floor + 100 * shares[part, timeline.labels.index(label)]
            colour = colour_of(label, timeline.labels)
            area = StepPatch(top, edges, baseline=floor, fill=True, facecolor=colour, linewidth=0)
            axes.add_artist(area)  # not `stairs`, which looks for limits that are known
            floor = top
    axes.set_facecolor(_UNSEEN)
    said = f"person {person.track}: {length(person.seconds)}, {mostly(person, timeline.labels)}"
    axes.set_title(said, loc="left", fontsize=9, pad=3)
    axes.set(ylim=(0, 100), yticks=(0, 50, 100))
    axes.yaxis.set_major_formatter("{x:.0f} %")
    axes.tick_params(labelsize=8, color=_LINE)
    for spine in axes.spines.values():
        spine.set_color(_LINE)


def _stacked(labels: Sequence[str]) -> list[str]:
    """Return labels from the lowest area to the highest: neutral is white, as what is above."""
    return sorted(labels, key=lambda label: label == "neutral")


def _times(axes: Any, timeline: Timeline) -> None:
    """Have times below, at round seconds, minutes or hours."""
    length = max(timeline.end - timeline.start, timeline.bin)
    steps = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)
    step = next((each for each in steps if length / each <= 10), length / 10)
    first = math.ceil(timeline.start / step)
    ticks = [step * number for number in range(first, math.floor(timeline.end / step) + 1)]
    axes.set_xlim(timeline.start, timeline.start + length)
    axes.set_xticks(ticks, [clock(tick, tenths=step < 1) for tick in ticks])
    axes.set_xlabel("time in the video (minutes:seconds)", fontsize=8)
