"""What a report says in words and tables: the same on the terminal and on the page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ferplus_tvm.bench.engines.opened import OURS
from ferplus_tvm.bench.report.data import Report
from ferplus_tvm.bench.timing.cold_start import ColdStart
from ferplus_tvm.bench.timing.layers import LayerTimes
from ferplus_tvm.bench.timing.roofline import Roofline
from ferplus_tvm.bench.timing.rows import Row, where
from ferplus_tvm.bench.timing.samples import Ratio
from ferplus_tvm.bench.timing.scenarios import Outcome

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""A header, and rows of as many cells."""

TOO_FEW, UNKNOWN = "too few", "unknown"
"""What stands in place of a number: there are too few calls for it, or the system does not tell."""


def main_rows(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of the way that counts most: on the GPU, otherwise from faces to scores."""
    for way in ("on_gpu", "scores"):
        found = [row for row in rows if row.way == way]
        if found:
            return found
    return list(rows)


def headline(report: Report) -> str:
    """Return the report in one sentence: the smallest batch with the most threads."""
    row = min(main_rows(report.rows), key=lambda row: (row.batch, -row.threads))
    device = report.device
    if row.threads:
        device = f"{device} with {row.threads} thread{'s' if row.threads > 1 else ''}"
    faces = "one face" if row.batch == 1 else f"{row.batch} faces"
    time = f"On {device}, {OURS} answers for {faces} in {1e3 * row.engines[0].p50:.2f} ms"
    compared = [_compared(ratio) for ratio in row.ratios]
    if not compared:
        return f"{time}."
    *most, last = compared
    return f"{time}: {', '.join(most)}{' and ' if most else ''}{last}."


def _compared(ratio: Ratio) -> str:
    if ratio.low <= 1 <= ratio.high:
        return f"not shown to be faster or slower than {ratio.peer}"
    return f"{ratio.ratio:.2f} times as fast as {ratio.peer}"


def latency(rows: Sequence[Row]) -> Table:
    """Return the table of engines in turns."""
    shares = any(each.share_of_peak is not None for row in rows for each in row.engines)
    place = "threads" if any(row.threads for row in rows) else "memory"
    header = ("batch", place, "engine", "ms p50", "p90", "p99", "min", "faces/s", "ratio")
    cells: list[tuple[str, ...]] = []
    for row in rows:
        ratios = {ratio.peer: ratio for ratio in row.ratios}
        memory = "GPU" if row.way == "on_gpu" else "host"
        for each in row.engines:
            times = [_milliseconds(x) for x in (each.p50, each.p90, each.p99, each.minimum)]
            ratio = ratios.get(each.engine)
            share = "" if each.share_of_peak is None else f"{each.share_of_peak:.0%}"
            cells.append(
                (
                    f"{row.batch}" + (" (JPEG)" if row.way == "jpeg" else ""),
                    str(row.threads or memory),
                    each.engine,
                    *times,
                    f"{each.faces_per_second:.0f}",
                    "" if ratio is None else _with_interval(ratio),
                    *([share] if shares else []),
                )
            )
    return (*header, *(["of peak"] if shares else [])), cells


def verdicts(rows: Sequence[Row]) -> list[str]:
    """Return who is faster, and by how much: a sentence for each pair."""
    found = []
    for row in rows:
        for ratio in row.ratios:
            sure = f"95 % interval {ratio.low:.2f} to {ratio.high:.2f}"
            if ratio.low > 1:
                told = f"{OURS} is {ratio.ratio:.2f} times as fast as {ratio.peer}"
            elif ratio.high < 1:
                told = f"{ratio.peer} is {1 / ratio.ratio:.2f} times as fast as {OURS}"
                sure = f"95 % interval {1 / ratio.high:.2f} to {1 / ratio.low:.2f}"
            else:
                told = f"no difference is shown between {OURS} and {ratio.peer}"
            found.append(f"{row.where}: {told} ({sure})")
    return found


def evidence(rows: Iterable[Row]) -> Table:
    """Return what the ratios rest on: equal answers, and the order of the turns."""
    header = ("measurement", "peer", "scores differ by", "ours first", "peer first", "rounds")
    cells: list[tuple[str, ...]] = []
    for row in rows:
        differences = {each.engine: each.difference for each in row.engines}
        for ratio in row.ratios:
            orders = ("" if each is None else f"{each:.2f}" for each in _by_order(ratio))
            apart = f"{differences[ratio.peer]:.0e}"
            cells.append((row.where, ratio.peer, apart, *orders, str(ratio.pairs)))
    return header, cells


def evidence_in_short(rows: Sequence[Row]) -> str:
    """Return the same in a line, or nothing where there is no peer."""
    ratios = [ratio for row in rows for ratio in row.ratios]
    if not ratios:
        return ""
    worst: dict[str, float] = {}
    for each in (each for row in rows for each in row.engines[1:]):
        worst[each.precision] = max(each.difference, worst.get(each.precision, 0.0))
    differences = ", ".join(f"{most:.0e} ({precision})" for precision, most in worst.items())
    pairs = [_by_order(ratio) for ratio in ratios]
    orders = [max(one, two) / min(one, two) - 1 for one, two in pairs if one and two]
    return (
        f"scores differ from ours by at most {differences} of the largest; the order of turns "
        f"changes a ratio by at most {max(orders, default=0):.1%}, in "
        f"{min(ratio.pairs for ratio in ratios)} rounds or more"
    )


def _by_order(ratio: Ratio) -> tuple[float | None, float | None]:
    return ratio.ours_first, ratio.peer_first


def scenarios(outcomes: Sequence[Outcome]) -> Table:
    """Return the table of MLPerf's scenarios."""
    header = ("scenario", "form", "engine", "threads", "batch", "metric", "over")
    cells: list[tuple[str, ...]] = []
    for each in outcomes:
        stream = each.scenario == "SingleStream"
        metric = (
            f"{1e3 * each.metric:.2f} ms (90th percentile, early stopping)"
            if stream
            else f"{each.metric:.1f} faces/s"
        )
        over = f"{each.count} {'queries' if stream else 'faces'} in {each.seconds:.0f} s"
        place = str(each.threads or "GPU")
        cells.append((each.scenario, each.form, each.engine, place, str(each.batch), metric, over))
    return header, cells


def cold(starts: Sequence[ColdStart], ratios: Sequence[Ratio]) -> Table:
    """Return the table of new processes."""
    header = (
        *("engine", "threads", "first answer", "import", "open", "answer"),
        *("private dirty", "USS", "RSS", "packages", "model", "ratio"),
    )
    known = {ratio.peer: _with_interval(ratio) for ratio in ratios}
    cells: list[tuple[str, ...]] = []
    for each in starts:
        seconds = (each.seconds, each.importing, each.opening, each.answering)
        sizes = (each.private_dirty, each.uss, each.rss, each.installed, each.model)
        cells.append(
            (
                each.engine,
                str(each.threads),
                *(f"{part:.3f} s" for part in seconds),
                *(_megabytes(size) for size in sizes),
                known.get(each.engine, ""),
            )
        )
    return header, cells


def layers(of: LayerTimes) -> Table:
    """Return the table of one network's layers."""
    header = ("layer", "algorithm", "ms", "share", "GFLOP/s", "MB", "of roofline")
    cells: list[tuple[str, ...]] = [
        (
            each.layer,
            each.algorithm,
            f"{1e3 * each.seconds:.3f}",
            f"{each.share:.1%}",
            f"{each.flops / each.seconds / 1e9:.0f}" if each.roofline else "",
            f"{each.nbytes / 1e6:.2f}",
            f"{each.roofline / each.seconds:.0%}" if each.roofline else "",
        )
        for each in of.layers
    ]
    total = sum(each.seconds for each in of.layers)
    rate = sum(each.flops for each in of.layers if each.roofline) / total / 1e9
    cells.append(
        ("all", "", f"{1e3 * total:.3f}", "100.0%", f"{rate:.0f}", "", f"{of.of_roofline:.0%}")
    )
    return header, cells


def rooflines(of: Sequence[Roofline]) -> Table:
    """Return the table of what the machine can do at most."""
    names = [level.name for level in of[0].levels] if of else []
    header = ("threads", "GFLOP/s", "on one core", *(f"{name}: GB/s read, copy" for name in names))
    return header, [
        (
            str(each.threads),
            f"{each.all_threads / 1e9:.0f}",
            f"{each.one_core / 1e9:.0f}",
            *(f"{level.read / 1e9:.0f}, {level.copy / 1e9:.0f}" for level in each.levels),
        )
        for each in of
    ]


def of_roofline(layer_times: Iterable[LayerTimes]) -> list[str]:
    """Return how much of the roofline each network reaches."""
    return [
        f"{where('scores', each.batch, each.threads)}: the network runs at {each.of_roofline:.0%} "
        "of the machine's roofline"
        for each in layer_times
    ]


def _with_interval(ratio: Ratio) -> str:
    return f"{ratio.ratio:.2f} ({ratio.low:.2f}..{ratio.high:.2f})"


def _milliseconds(seconds: float | None) -> str:
    return TOO_FEW if seconds is None else f"{1e3 * seconds:.{2 if seconds > 1e-3 else 4}f}"


def _megabytes(count: int | None) -> str:
    return UNKNOWN if count is None else f"{count / 1e6:.0f} MB"
