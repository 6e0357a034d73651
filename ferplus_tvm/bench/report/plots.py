"""A report's plots, as SVG whose colours follow the page's light or dark scheme."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from ferplus_tvm.bench.engines.opened import OURS
from ferplus_tvm.bench.report.data import Report
from ferplus_tvm.bench.report.text import main_rows
from ferplus_tvm.bench.timing.layers import LayerTimes
from ferplus_tvm.bench.timing.rows import Call, EngineTime, Row
from ferplus_tvm.errors import MissingExtraError

NAMES = ("ratios", "latency", "throughput", "threads", "layers")
"""Of all plots; a report has those that it has figures for."""

# Each colour of the light and of the dark scheme.  Text has a contrast of 7 or more to the paper,
# marks have 4 or more; marks differ in shape too.
_COLOURS = {
    "paper": ("#ffffff", "#0d1117"),
    "ink": ("#1f2328", "#e6edf3"),
    "grid": ("#d0d7de", "#3d444d"),
    "ours": ("#c2410c", "#fb923c"),
    "peer1": ("#1d4ed8", "#79a8ff"),
    "peer2": ("#15803d", "#4ade80"),
    "peer3": ("#7e22ce", "#d0a5ff"),
    "peer4": ("#a16207", "#facc15"),
    "peer5": ("#be185d", "#f472b6"),
    "peer6": ("#57606a", "#9ea7b3"),
}
_PEERS = [name for name in _COLOURS if name.startswith("peer")]
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h")
# Matplotlib draws with these, and `_with_variables` puts CSS variables in their place.
_DRAWN = {name: f"#0f0f{number:02x}" for number, name in enumerate(_COLOURS, start=16)}
_WIDTH = 4.6  # inches: what a phone shows without shrinking the letters much
_STEPS = 400  # of a distribution's line
_TICKS = (0.1, 0.2, 0.5, 1, 1.5, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 100)

SCHEMES = "".join(
    f"{media}:root {{ {'; '.join(f'--{name}: {pair[dark]}' for name, pair in _COLOURS.items())} }}"
    f"{end}\n"
    for dark, (media, end) in enumerate(
        [("", ""), ("@media (prefers-color-scheme: dark) { ", " }")]
    )
)
"""The style sheet of the colours, as CSS variables."""


@dataclass(frozen=True)
class Plot:
    """A plot.

    Attributes
    ----------
    title
        What it shows.
    svg
        An ``svg`` element, whose colours are those of `SCHEMES`.
    """

    title: str
    svg: str

    def file(self) -> str:
        """Return it as a file that needs no page around it."""
        head, end, body = self.svg.partition(">")
        return f"{head}{end}\n<style>{SCHEMES}</style>{body}\n"


def draw(report: Report, calls: Sequence[Call]) -> dict[str, Plot]:
    """Return the plots that the report has figures for, by name; those of `NAMES`.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    rows = main_rows(report.rows)
    drawings: dict[str, tuple[str, float, Callable[[Any, Any], None]]] = {}
    if any(row.ratios for row in report.rows):
        title = f"How many times as fast as each peer {OURS} is, with 95 % intervals"
        ratios = [row for row in report.rows if row.ratios]
        marks = sum(len(row.ratios) + 1 for row in ratios)
        drawings["ratios"] = (title, 1.2 + 0.13 * marks, lambda f, axes: _ratios(f, axes, ratios))
    if calls:
        first = min(rows, key=lambda row: (row.batch, -row.threads))
        title = f"Latency of a call: {first.where}"
        drawings["latency"] = (title, 3.4, lambda f, axes: _latency(f, axes, first, calls))
    if len({row.batch for row in rows}) > 1:
        most = [row for row in rows if row.threads == max(each.threads for each in rows)]
        title = "Throughput by batch size" + (
            f", {_threads_of(most[0])}" if most[0].threads else ""
        )
        drawings["throughput"] = (title, 3.4, lambda f, axes: _throughput(f, axes, most))
    if len({row.threads for row in rows}) > 1:
        least = [row for row in rows if row.batch == min(each.batch for each in rows)]
        title = f"Latency by threads, batch {least[0].batch}"
        drawings["threads"] = (title, 3.4, lambda f, axes: _threads(f, axes, least))
    if report.layers:
        of = report.layers[0]
        title = f"Time by layer, batch {of.batch}: {of.of_roofline:.0%} of the roofline"
        height = 1.0 + 0.24 * len(of.layers)
        drawings["layers"] = (title, height, lambda f, axes: _layers(f, axes, of))
    return {
        name: Plot(title, _svg(name, title, height, drawing))
        for name, (title, height, drawing) in drawings.items()
    }


def _threads_of(row: Row) -> str:
    return f"{row.threads} thread{'s' if row.threads > 1 else ''}"


def _svg(name: str, title: str, height: float, drawing: Callable[[Any, Any], None]) -> str:
    """Draw, and return an ``svg`` element; the same figures give the same text."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingExtraError.of("the plots of a report", "bench") from error
    ink, grid, paper = _DRAWN["ink"], _DRAWN["grid"], _DRAWN["paper"]
    style: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.size": 9,
        "text.color": ink,
        "axes.labelcolor": ink,
        "axes.edgecolor": grid,
        "axes.facecolor": paper,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": ink,
        "ytick.color": ink,
        "grid.color": grid,
        "legend.frameon": False,
    }
    stream = io.StringIO()
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained", facecolor=paper)
        drawing(figure, figure.add_subplot())
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return _with_variables(stream.getvalue(), title)


def _with_variables(drawn: str, title: str) -> str:
    """Return matplotlib's ``svg`` element with CSS variables, for a page that has several."""
    svg = drawn[drawn.index("<svg") :].strip()
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"\s*<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    for name, colour in _DRAWN.items():
        svg = svg.replace(colour, f"var(--{name})")
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", svg)
    for unused in set(re.findall(r' id="([^"]+)"', svg)):
        if f"#{unused}" not in svg:
            svg = svg.replace(f' id="{unused}"', "")
    # In place of matplotlib's style sheet, which would hold for the whole page.
    attributes = f'role="img" aria-label="{escape(title)}" stroke-linejoin="round"'
    return svg.replace("<svg", f"<svg {attributes}", 1)


def _styles(engines: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return a colour and a marker for each engine, ours first."""
    looks = zip(["ours", *itertools.islice(itertools.cycle(_PEERS), 50)], itertools.cycle(_MARKERS))
    return {
        engine: {"color": _DRAWN[colour], "marker": marker, "markersize": 4}
        for engine, (colour, marker) in zip(dict.fromkeys(engines), looks, strict=False)
    }


def _legend(figure: Any, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    columns = 2 if len(labels) < 7 else 3
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, fontsize=8)


def _ratios(figure: Any, axes: Any, rows: Sequence[Row]) -> None:
    """Draw each ratio with its interval, and ours as the line at 1."""
    peers = list(dict.fromkeys(ratio.peer for row in rows for ratio in row.ratios))
    styles = _styles([OURS, *peers])
    axes.axvline(1, color=_DRAWN["ours"], linewidth=2, label=OURS)
    height, places, ends = 0.0, [], [1.0]
    for row in rows:
        places.append(height + (len(row.ratios) - 1) / 2)
        for ratio in row.ratios:
            x, errors = ratio.ratio, [[ratio.ratio - ratio.low], [ratio.high - ratio.ratio]]
            axes.errorbar(x, height, xerr=errors, capsize=2, linewidth=1, **styles[ratio.peer])
            where = {"xytext": (5, 0), "textcoords": "offset points", "va": "center"}
            axes.annotate(f"{x:.2f}", (ratio.high, height), fontsize=7, **where)
            ends += [ratio.low, ratio.high]
            height += 1
        height += 1
    for peer in peers:  # each once, whatever rows it is in
        axes.plot([], [], linestyle="", label=peer, **styles[peer])
    low, high = min(ends) / 1.12, max(ends) * 1.25
    axes.set(xscale="log", xlim=(low, high), xlabel="times as fast as the peer")
    axes.set_xticks([tick for tick in _TICKS if low <= tick <= high])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    axes.set_yticks(places, [row.where for row in rows])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(height - 1.2, -0.8)
    axes.grid(axis="x", linewidth=0.6)
    axes.set_axisbelow(True)
    _legend(figure, axes)


def _latency(figure: Any, axes: Any, row: Row, calls: Sequence[Call]) -> None:
    """Draw which share of all calls took no longer than a time."""
    at = (row.way, row.batch, row.threads)
    for engine, style in _styles(each.engine for each in row.engines).items():
        own = [
            1e3 * call.seconds
            for call in calls
            if call.engine == engine and (call.way, call.batch, call.threads) == at
        ]
        shares = np.linspace(0, 100, min(len(own), _STEPS))
        axes.step(np.percentile(own, shares), shares, color=style["color"], label=engine)
    axes.set(xlabel="milliseconds of a call", ylabel="per cent of all calls", xscale="log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.tick_params(axis="x", which="both", labelsize=7)
    _finish(figure, axes)


def _throughput(figure: Any, axes: Any, rows: Sequence[Row]) -> None:
    _lines(axes, rows, lambda row, each: (row.batch, each.faces_per_second))
    sizes = sorted({row.batch for row in rows})
    axes.set(xlabel="batch size", ylabel="faces per second", xscale="log", xticks=sizes, ylim=0)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    _finish(figure, axes)


def _threads(figure: Any, axes: Any, rows: Sequence[Row]) -> None:
    _lines(axes, rows, lambda row, each: (row.threads, 1e3 * each.p50))
    counts = sorted({row.threads for row in rows})
    axes.set(xlabel="threads", ylabel="milliseconds of a call, median", xticks=counts, ylim=0)
    _finish(figure, axes)


def _lines(
    axes: Any, rows: Sequence[Row], point: Callable[[Row, EngineTime], tuple[float, float]]
) -> None:
    """Draw a line for each engine, through a point for each row."""
    for engine, style in _styles(each.engine for row in rows for each in row.engines).items():
        points = [point(row, each) for row in rows for each in row.engines if each.engine == engine]
        axes.plot(*zip(*sorted(points), strict=True), label=engine, **style)


def _layers(figure: Any, axes: Any, of: LayerTimes) -> None:
    """Draw each layer's time as a bar, with its time at the roofline."""
    places = range(len(of.layers))
    times = [1e3 * layer.seconds for layer in of.layers]
    rooflines = [1e3 * layer.roofline for layer in of.layers]
    axes.barh(places, times, color=_DRAWN["ours"], label="time")
    axes.barh(places, rooflines, height=0.35, color=_DRAWN["ink"], label="time at the roofline")
    axes.set_yticks(places, [layer.layer for layer in of.layers], fontsize=7)
    axes.invert_yaxis()
    axes.set(xlabel="milliseconds")
    _finish(figure, axes)


def _finish(figure: Any, axes: Any) -> None:
    axes.grid(linewidth=0.6)
    axes.set_axisbelow(True)
    _legend(figure, axes)
