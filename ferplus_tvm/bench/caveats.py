"""What spoils a measurement, in a sentence each that says what to do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ferplus_tvm import targets
from ferplus_tvm.artifact.manifest import Manifest
from ferplus_tvm.bench import samples
from ferplus_tvm.bench.measure import Row
from ferplus_tvm.host import cpu

_BUSY = 0.15  # CPUs
_CHANGED = 1.15  # of a fixed tensor of work
_SPREAD = 1.15  # of an engine's turns
_WIDE = 0.05  # of a ratio, from its middle to an end of its interval
_ORDER = 0.05  # between the ratios with the one and the other engine first
_FEW_CALLS = 200
_RESTLESS = 0.1  # of the turns


def of_machine(threads: Iterable[int], busy: float) -> Iterator[str]:
    """Give what is wrong before anything was measured; ``busy`` counts CPUs."""
    if busy > _BUSY:
        yield (
            f"{busy:.1f} CPUs were busy with other work before this began: end it, or wait, and "
            "measure again"
        )
    may = cpu.default_threads()
    too_many = sorted(count for count in threads if count > may)
    if too_many:
        yield (
            f"{too_many[0]} threads were asked for, but this process may use {may} CPUs: take "
            "fewer threads, or allow more CPUs"
        )


def of_library(manifest: Manifest, batch_sizes: Iterable[int]) -> Iterator[str]:
    """Give what keeps a library from what this machine could do."""
    here = targets.resolve("native")
    ours = targets.resolve(manifest.target_config).vector_unit
    if ours.lanes < here.vector_unit.lanes:
        yield (
            f"the library is for {manifest.target}, whose vectors hold {ours.lanes} floats, but "
            f"this CPU's hold {here.vector_unit.lanes}: compile it for native"
        )
    if manifest.untuned:
        yield (
            f"{len(manifest.untuned)} of {len(manifest.kernels)} kernels are not tuned: run "
            "'ferplus-tvm tune', and compile again"
        )
    missing = sorted(set(batch_sizes) - set(manifest.batch_sizes))
    if missing:
        yield (
            f"the library holds no batch size {missing[0]}, which is made of its others: compile "
            f"with --batch {','.join(map(str, sorted({*manifest.batch_sizes, *missing})))}"
        )


def of_rows(rows: Iterable[Row]) -> Iterator[str]:
    """Give what was wrong while something was measured."""
    for row in rows:
        where = f"batch {row.batch}, {row.threads} thread(s), {row.way}"
        if row.other_cpus > _BUSY:
            yield (
                f"{where}: other processes kept {row.other_cpus:.1f} CPUs busy: end them and "
                "measure again"
            )
        if row.pace_change > _CHANGED:
            yield (
                f"{where}: the CPU's own speed changed by {row.pace_change - 1:.0%} meanwhile "
                "(frequency, or a neighbour): measure longer with --seconds, and fix the frequency"
            )
        for each in row.engines:
            if each.turn_spread > _SPREAD:
                yield (
                    f"{where}: slow turns of {each.engine} took {each.turn_spread:.2f} times as "
                    "long as fast ones (memory or CPU shared with a neighbour): measure longer "
                    "with --seconds, or elsewhere"
                )
        few = [each for each in row.engines if each.calls < _FEW_CALLS]
        if few:
            asked = samples.calls_for(99)
            yield (
                f"{where}: {min(each.calls for each in few)} calls of an engine are few (expected "
                f"{_FEW_CALLS} for a figure, {asked} for the 99th percentile): give more --seconds"
            )
        for ratio in row.ratios:
            if max(ratio.high / ratio.ratio, ratio.ratio / ratio.low) > 1 + _WIDE:
                yield (
                    f"{where}: the ratio to {ratio.peer} is known only to {ratio.low:.2f}.."
                    f"{ratio.high:.2f}: give more --seconds"
                )
            first, second = ratio.ours_first, ratio.peer_first
            apart = max(first, second) / min(first, second) if first and second else 1.0
            beyond = max(_ORDER, ratio.high / ratio.low - 1)
            if apart > 1 + beyond:
                yield (
                    f"{where}: the ratio to {ratio.peer} is {first:.2f} where ours came first and "
                    f"{second:.2f} where it came second: give more --seconds"
                )
        for each in row.engines:
            if each.restless > _RESTLESS * row.rounds:
                yield (
                    f"{where}: {each.engine} did not come to rest after {each.restless} turns, and "
                    "may have disturbed the others: leave it out of --peers"
                )
            if not each.steady:
                yield (
                    f"{where}: {each.engine} was not steady when its warm-up ended: give more "
                    "--seconds, and end other work"
                )
