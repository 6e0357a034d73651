"""What makes figures less sure: a warning each, which says what to do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ferplus_tvm import targets
from ferplus_tvm.bench.report.data import BenchWarning
from ferplus_tvm.bench.subjects import Subject
from ferplus_tvm.bench.timing import samples
from ferplus_tvm.bench.timing.rows import EngineTime, Row
from ferplus_tvm.host import cpu

_BUSY = 0.15  # CPUs
_CHANGED = 1.15  # of a fixed piece of work
_SPREAD = 1.15  # of an engine's turns
_WIDE = 0.05  # of a ratio, from its middle to an end of its interval
_ORDER = 0.05  # between the ratios with the one and the other engine first
_FEW_CALLS = 200
_RESTLESS = 0.1  # of the turns

_SUMMARIES = {
    "machine": "The machine was not quiet, or changed its speed",
    "samples": "There are too few samples for a sure figure",
    "library": "The library is not the best for this machine",
}


def summary(warnings: Sequence[BenchWarning], rows: int) -> list[str]:
    """Return a line for each topic that has warnings: three at most.

    ``rows`` is how many there are in all.
    """
    lines = []
    for topic, line in _SUMMARIES.items():
        own = [each for each in warnings if each.topic == topic]
        places = len({each.where for each in own if each.where})
        whole = [each.text for each in own if not each.where]
        if places:
            lines.append(f"{line} in {places} of {rows} measurements")
        elif len(whole) == 1:
            lines.append(whole[0][0].upper() + whole[0][1:])
        elif whole:
            lines.append(f"{line}: {len(whole)} warnings")
    return lines


def of_machine(threads: Iterable[int], busy: float) -> Iterator[BenchWarning]:
    """Warn of what is wrong before anything is measured; ``busy`` counts CPUs."""
    if busy > _BUSY:
        yield BenchWarning(
            "machine",
            "",
            f"{busy:.1f} CPUs were busy with other work before this began: end it, or wait, and "
            "measure again",
        )
    may = cpu.default_threads()
    too_many = sorted(count for count in threads if count > may)
    if too_many:
        yield BenchWarning(
            "machine",
            "",
            f"{too_many[0]} threads were asked for, but this process may use {may} CPUs: take "
            "fewer threads, or allow more CPUs",
        )


def of_library(subject: Subject, batch_sizes: Iterable[int]) -> Iterator[BenchWarning]:
    """Warn of what keeps a library from what this machine could do."""
    manifest, name = subject.manifest, subject.path.name
    assert manifest is not None
    if not manifest.gpu_arch:
        here = targets.resolve("native").vector_unit.lanes
        own = targets.resolve(manifest.target_config).vector_unit.lanes
        if own < here:
            yield BenchWarning(
                "library",
                "",
                f"{name} is for {manifest.target}, whose vectors hold {own} floats, but this CPU's "
                f"hold {here}: compile it for native",
            )
    if manifest.untuned:
        yield BenchWarning(
            "library",
            "",
            f"{len(manifest.untuned)} of {len(manifest.tunable)} kernels of {name} are not tuned: "
            "run 'ferplus-tvm tune', and compile again",
        )
    missing = sorted(set(batch_sizes) - set(manifest.batch_sizes))
    if missing:
        wanted = ",".join(map(str, sorted({*manifest.batch_sizes, *missing})))
        yield BenchWarning(
            "library",
            "",
            f"{name} holds no batch size {missing[0]}, which is made of its others: compile with "
            f"--batch {wanted}",
        )


def of_rows(rows: Iterable[Row]) -> Iterator[BenchWarning]:
    """Warn of what was wrong while something was measured."""
    for row in rows:
        for topic, text in (*_of_machine_in(row), *_of_samples(row), *_of_engines(row)):
            yield BenchWarning(topic, row.where, text)


def _of_machine_in(row: Row) -> Iterator[tuple[str, str]]:
    if row.other_cpus > _BUSY:
        yield (
            "machine",
            f"other processes kept {row.other_cpus:.1f} CPUs busy: end them and measure again",
        )
    if row.pace_change > _CHANGED:
        yield (
            "machine",
            f"the CPU's own speed changed by {row.pace_change - 1:.0%} meanwhile (frequency, or a "
            "neighbour): measure longer with --seconds, and fix the frequency",
        )


def _of_samples(row: Row) -> Iterator[tuple[str, str]]:
    fewest = min(each.calls for each in row.engines)
    if fewest < _FEW_CALLS:
        asked = samples.calls_for(99)
        yield (
            "samples",
            f"{fewest} calls of an engine are few (expected {_FEW_CALLS} for a figure, {asked} for "
            "the 99th percentile): give more --seconds",
        )
    for ratio in row.ratios:
        if max(ratio.high / ratio.ratio, ratio.ratio / ratio.low) > 1 + _WIDE:
            yield (
                "samples",
                f"the ratio to {ratio.peer} is known only to {ratio.low:.2f}..{ratio.high:.2f}: "
                "give more --seconds",
            )
        first, second = ratio.ours_first, ratio.peer_first
        apart = max(first, second) / min(first, second) if first and second else 1.0
        if apart > 1 + max(_ORDER, ratio.high / ratio.low - 1):
            yield (
                "samples",
                f"the ratio to {ratio.peer} is {first:.2f} where ours came first and {second:.2f} "
                "where it came second: give more --seconds",
            )


def _of_engines(row: Row) -> Iterator[tuple[str, str]]:
    for each in row.engines:
        for text in _of_engine(each, row.rounds):
            yield "machine", text


def _of_engine(each: EngineTime, rounds: int) -> Iterator[str]:
    if each.turn_spread > _SPREAD:
        yield (
            f"slow turns of {each.engine} took {each.turn_spread:.2f} times as long as fast ones "
            "(memory or CPU shared with a neighbour): measure longer with --seconds, or elsewhere"
        )
    if each.restless > _RESTLESS * rounds:
        yield (
            f"{each.engine} did not come to rest after {each.restless} turns, and may have "
            "disturbed the others: leave it out of --peers"
        )
    if not each.steady:
        yield (
            f"{each.engine} was not steady when its warm-up ended: give more --seconds, and end "
            "other work"
        )
