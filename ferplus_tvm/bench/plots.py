"""A report's plots, as PNG."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ferplus_tvm.bench.measure import Call, EngineTime, Row
from ferplus_tvm.bench.report import LayersOf, Report
from ferplus_tvm.errors import MissingExtraError

NAMES = ("latency", "throughput", "threads", "layers")
"""Of all plots; a report has those that it has figures for."""

_OURS = "#c8502c"
_OTHERS = ("#4a6fa5", "#7d9d5c", "#8d6a9f", "#777777", "#b0a030")


def draw(report: Report, calls: Sequence[Call]) -> dict[str, bytes]:
    """Return a PNG for each plot that the report has figures for, by name.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingExtraError.of("the plots of a report", "bench") from error
    scores = [row for row in report.rows if row.way == "scores"]
    drawings: dict[str, Callable[[Any], None]] = {}
    if calls:
        first = min(scores or report.rows, key=lambda row: (row.batch, -row.threads))
        drawings["latency"] = lambda axes: _latency(axes, first, calls)
    if len({row.batch for row in scores}) > 1:
        drawings["throughput"] = lambda axes: _throughput(axes, scores)
    if len({row.threads for row in scores}) > 1:
        drawings["threads"] = lambda axes: _threads(axes, scores)
    if report.layers:
        drawings["layers"] = lambda axes: _layers(axes, report.layers[0])
    pictures = {}
    for name, drawing in drawings.items():
        figure = Figure(figsize=(7.2, 4.0), layout="constrained")
        drawing(figure.add_subplot())
        stream = io.BytesIO()
        # No date and no version in the file: the same figures give the same bytes.
        figure.savefig(stream, format="png", dpi=110, metadata={"Software": None})
        pictures[name] = stream.getvalue()
    return pictures


def _colours(engines: Iterable[str]) -> dict[str, str]:
    ours, *others = dict.fromkeys(engines)
    return {ours: _OURS, **dict(zip(others, itertools.cycle(_OTHERS), strict=False))}


def _latency(axes: Any, row: Row, calls: Sequence[Call]) -> None:
    """Draw which share of all calls took no longer than a time."""
    at = (row.way, row.batch, row.threads)
    for engine, colour in _colours(each.engine for each in row.engines).items():
        own = np.sort(
            [
                1e3 * call.seconds
                for call in calls
                if call.engine == engine and (call.way, call.batch, call.threads) == at
            ]
        )
        axes.step(own, np.linspace(0, 100, len(own)), color=colour, label=engine, where="post")
    axes.set(
        xlabel="milliseconds of a call",
        ylabel="per cent of all calls",
        title=f"Latency: batch {row.batch}, {row.threads} thread(s)",
        xscale="log",
    )
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    _finish(axes)


def _throughput(axes: Any, rows: Sequence[Row]) -> None:
    most = max(row.threads for row in rows)
    shown = [row for row in rows if row.threads == most]
    _lines(axes, shown, lambda row, each: (row.batch, each.faces_per_second))
    axes.set(
        xlabel="batch size",
        ylabel="faces a second",
        title=f"Throughput, {most} thread(s)",
        xscale="log",
        xticks=sorted({row.batch for row in shown}),
        ylim=0,
    )
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    _finish(axes)


def _threads(axes: Any, rows: Sequence[Row]) -> None:
    least = min(row.batch for row in rows)
    shown = [row for row in rows if row.batch == least]
    _lines(axes, shown, lambda row, each: (row.threads, 1e3 * each.p50))
    axes.set(
        xlabel="threads",
        ylabel="milliseconds of a call, median",
        title=f"Latency, batch {least}",
        xticks=sorted({row.threads for row in shown}),
        ylim=0,
    )
    _finish(axes)


def _lines(
    axes: Any, rows: Sequence[Row], point: Callable[[Row, EngineTime], tuple[float, float]]
) -> None:
    """Draw a line for each engine, through a point for each row."""
    for engine, colour in _colours(each.engine for row in rows for each in row.engines).items():
        points = [point(row, each) for row in rows for each in row.engines if each.engine == engine]
        axes.plot(*zip(*sorted(points), strict=True), "o-", color=colour, label=engine)


def _layers(axes: Any, of: LayersOf) -> None:
    """Draw each layer's time as a bar, with the part that the machine needs at least."""
    names = [layer.layer for layer in of.layers]
    places = range(len(names))
    times = [1e3 * layer.seconds for layer in of.layers]
    limits = [1e3 * layer.limit for layer in of.layers]
    axes.barh(places, times, color=_OURS, label="time")
    axes.barh(places, limits, height=0.35, color="#333333", label="what the machine needs at least")
    axes.set_yticks(places, names, fontsize=7)
    axes.invert_yaxis()
    axes.set(
        xlabel="milliseconds",
        title=f"Layers: batch {of.batch}, {of.threads} thread(s), {of.of_limit:.0%} of the limit",
    )
    _finish(axes)


def _finish(axes: Any) -> None:
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
