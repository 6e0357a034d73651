"""What a report says in words and tables: the same on the terminal and on the page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ferplus_tvm.bench.cold import ColdStart
from ferplus_tvm.bench.engines import OURS
from ferplus_tvm.bench.measure import Row
from ferplus_tvm.bench.report import LayersOf, Report
from ferplus_tvm.bench.samples import Ratio
from ferplus_tvm.bench.scenarios import Outcome

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""A header, and rows of as many cells."""

_WAYS = {"scores": "", "jpeg": "JPEG to label, "}


def latency(rows: Sequence[Row]) -> Table:
    """Return the table of engines in turns."""
    header: tuple[str, ...] = (
        "batch",
        "threads",
        "engine",
        "ms p50",
        "p90",
        "p99",
        "min",
        "faces/s",
        "ratio",
    )
    cells: list[tuple[str, ...]] = []
    for row in rows:
        ratios = {ratio.peer: ratio for ratio in row.ratios}
        for each in row.engines:
            times = [_milliseconds(x) for x in (each.p50, each.p90, each.p99, each.minimum)]
            ratio = ratios.get(each.engine)
            cells.append(
                (
                    f"{row.batch}" + (" (JPEG)" if row.way == "jpeg" else ""),
                    str(row.threads),
                    each.engine,
                    *times,
                    f"{each.faces_per_second:.0f}",
                    "" if ratio is None else _with_interval(ratio),
                )
            )
    return header, cells


def verdicts(rows: Sequence[Row]) -> list[str]:
    """Return who is faster, and by how much: a sentence for each pair."""
    found = []
    for row in rows:
        for ratio in row.ratios:
            where = f"{_WAYS[row.way]}batch {row.batch}, {row.threads} thread(s)"
            sure = f"95 % interval {ratio.low:.2f} to {ratio.high:.2f}"
            if ratio.low > 1:
                told = f"{OURS} is {ratio.ratio:.2f} times as fast as {ratio.peer}"
            elif ratio.high < 1:
                told = f"{ratio.peer} is {1 / ratio.ratio:.2f} times as fast as {OURS}"
                sure = f"95 % interval {1 / ratio.high:.2f} to {1 / ratio.low:.2f}"
            else:
                told = f"no difference is shown between {OURS} and {ratio.peer}"
            found.append(f"{where}: {told} ({sure})")
    return found


def evidence(rows: Iterable[Row]) -> list[str]:
    """Return what the figures rest on: equal answers, and the order of the engines."""
    found = []
    for row in rows:
        where = f"{_WAYS[row.way]}batch {row.batch}, {row.threads} thread(s)"
        peers = {each.engine: each for each in row.engines}
        for ratio in row.ratios:
            apart = f"{peers[ratio.peer].difference:.0e}"
            orders = [f"{each:.2f}" for each in (ratio.ours_first, ratio.peer_first) if each]
            found.append(
                f"{where}: the scores of {ratio.peer} differ by {apart} of the largest; the ratio "
                f"is {' with ours first, '.join(orders)} with {ratio.peer} first, of {ratio.pairs} "
                "pairs"
            )
    return found


def scenarios(outcomes: Sequence[Outcome]) -> Table:
    """Return the table of MLPerf's scenarios."""
    header: tuple[str, ...] = ("scenario", "form", "engine", "threads", "batch", "metric", "over")
    cells: list[tuple[str, ...]] = []
    for each in outcomes:
        stream = each.scenario == "SingleStream"
        metric = (
            f"{1e3 * each.metric:.2f} ms (90th percentile, early stopping)"
            if stream
            else f"{each.metric:.1f} faces/s"
        )
        over = f"{each.count} {'queries' if stream else 'faces'} in {each.seconds:.0f} s"
        cells.append(
            (
                each.scenario,
                each.form,
                each.engine,
                str(each.threads),
                str(each.batch),
                metric,
                over,
            )
        )
    return header, cells


def cold(starts: Sequence[ColdStart], ratios: Sequence[Ratio]) -> Table:
    """Return the table of new processes."""
    header: tuple[str, ...] = (
        *("engine", "threads", "first answer", "import", "open", "answer"),
        *("written", "private", "resident", "packages", "model", "ratio"),
    )
    known = {ratio.peer: _with_interval(ratio) for ratio in ratios}
    cells: list[tuple[str, ...]] = []
    for each in starts:
        seconds = (each.seconds, each.importing, each.opening, each.answering)
        memory = (each.written_memory, each.private_memory, each.resident_memory)
        cells.append(
            (
                each.engine,
                str(each.threads),
                *(f"{part:.3f} s" for part in seconds),
                *(_megabytes(part) for part in (*memory, each.installed, each.model)),
                known.get(each.engine, ""),
            )
        )
    return header, cells


def layers(of: LayersOf) -> Table:
    """Return the table of one network's layers."""
    header: tuple[str, ...] = ("layer", "algorithm", "ms", "share", "GFLOP/s", "MB", "of the limit")
    cells: list[tuple[str, ...]] = [
        (
            each.layer,
            each.algorithm,
            f"{1e3 * each.seconds:.3f}",
            f"{each.share:.1%}",
            f"{each.flops / each.seconds / 1e9:.0f}" if each.flops else "",
            f"{each.nbytes / 1e6:.2f}" if each.nbytes else "",
            f"{each.limit / each.seconds:.0%}" if each.limit else "",
        )
        for each in of.layers
    ]
    total = sum(each.seconds for each in of.layers)
    rate = sum(each.flops for each in of.layers) / total / 1e9
    cells.append(
        ("all", "", f"{1e3 * total:.3f}", "100.0%", f"{rate:.0f}", "", f"{of.of_limit:.0%}")
    )
    return header, cells


def limits(report: Report) -> list[str]:
    """Return what the machine can do, and how much of it the network reaches."""
    found = []
    for each in report.limits:
        levels = "; ".join(
            f"{level.name} {level.read / 1e9:.0f} and {level.copy / 1e9:.0f}"
            for level in each.levels
        )
        found.append(
            f"with {each.threads} thread(s) this machine does {each.all_threads / 1e9:.0f} GFLOP/s "
            f"({each.one_core / 1e9:.0f} on one core), and reads and copies, in GB/s: {levels}"
        )
    found += [
        f"batch {each.batch}, {each.threads} thread(s): the network runs at {each.of_limit:.0%} of "
        "what this machine can do"
        for each in report.layers
    ]
    return found


def _with_interval(ratio: Ratio) -> str:
    return f"{ratio.ratio:.2f} ({ratio.low:.2f}..{ratio.high:.2f})"


def _milliseconds(seconds: float | None) -> str:
    return "too few" if seconds is None else f"{1e3 * seconds:.2f}"


def _megabytes(count: int | None) -> str:
    return "unknown" if count is None else f"{count / 1e6:.0f} MB"
