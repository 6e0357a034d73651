"""A benchmark as a gate: whether ours is slower than in a report that was kept."""

from __future__ import annotations

from dataclasses import dataclass

from ferplus_tvm.bench.report.data import Report
from ferplus_tvm.bench.timing.rows import Row
from ferplus_tvm.errors import BenchError


@dataclass(frozen=True)
class Change:
    """How one figure compares with the baseline's.

    Attributes
    ----------
    what
        What was measured, in words.
    slowdown
        0.05 where ours takes 5 % longer than it did, beside the same peer where there is one.
    least
        What the figures' noise leaves of it: with a peer by both confidence intervals, otherwise
        by this run's fastest call beside the baseline's median.
    """

    what: str
    slowdown: float
    least: float


def compare(now: Report, baseline: Report) -> list[Change]:
    """Return the changes of the figures that both reports have.

    With a peer in both, of the same version, its time over ours is compared, which changes less
    with the machine's day than a time does; without one the median of a call, for which the CPU
    or the GPU has to be the same.

    Raises
    ------
    BenchError
        If there is nothing to compare.
    """
    changes = []
    known = {(row.way, row.batch, row.threads): row for row in baseline.rows}
    same_device = now.device == baseline.device
    for row in now.rows:
        before = known.get((row.way, row.batch, row.threads))
        if before is None:
            continue
        found = _by_peers(row, before)
        if not found and same_device:
            found = [_by_time(row, before)]
        changes += found
    if not changes:
        raise BenchError(
            "the baseline has no figure that this run has too: measure the same --batch, "
            "--threads and --peers, of the same versions, or without peers on the same CPU or GPU"
        )
    return changes


def expect(changes: list[Change], most: float) -> None:
    """See that nothing is slower than allowed, beyond noise; ``most`` is 0.05 for 5 %.

    Raises
    ------
    BenchError
        If something is, with the reason.
    """
    slower = [change for change in changes if change.least > most]
    if slower:
        worst = max(slower, key=lambda change: change.least)
        others = f", and {len(slower) - 1} more" if len(slower) > 1 else ""
        raise BenchError(
            f"{worst.what} is {worst.slowdown:.1%} slower than the baseline ({worst.least:.1%} "
            f"beyond noise){others}: expected at most {most:.1%}; look for what changed, or "
            "keep this report as the new baseline"
        )


def _by_peers(row: Row, before: Row) -> list[Change]:
    known = {ratio.peer: ratio for ratio in before.ratios}
    versions = [{each.engine: each.version for each in one.engines} for one in (row, before)]
    return [
        Change(
            f"{_what(row)} beside {ratio.peer}",
            known[ratio.peer].ratio / ratio.ratio - 1,
            known[ratio.peer].low / ratio.high - 1,
        )
        for ratio in row.ratios
        if ratio.peer in known and versions[0][ratio.peer] == versions[1][ratio.peer]
    ]


def _by_time(row: Row, before: Row) -> Change:
    now, then = row.engines[0], before.engines[0]  # ours
    # Without a peer in turns only the fastest calls tell what was not the machine's doing.
    return Change(_what(row), now.p50 / then.p50 - 1, now.minimum / then.p50 - 1)


def _what(row: Row) -> str:
    return f"{row.engines[0].engine} ({row.where})"
