"""One generation of candidates: what builds and measures it, and what comes of that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ferplus_tvm.kernels.backend import Config
from ferplus_tvm.tuning.paired_timing import PairedResult, Turns, time_pairs
from ferplus_tvm.tuning.task import LayerTask

_FINALISTS = 3
_MOVES = 4  # of the arrays, in the last comparison


class Place(Turns, Protocol):
    """Where candidates are measured: see `ferplus_tvm.tuning.device.Device`."""

    threads: int

    def hold(self) -> None:
        """Take it."""

    def release(self) -> None:
        """Give it back."""

    def begin_kernels(self, task: LayerTask) -> None:
        """Take in candidates for a layer from now on."""

    def admit_kernel(self, path: Path, config: Config) -> str | None:
        """Take in a candidate, or return why it is not one."""


class Builds(Protocol):
    """What builds candidates: see `ferplus_tvm.tuning.builder.Builder`."""

    def build(self, task: LayerTask, configs: Sequence[Config]) -> list[Path | BaseException]:
        """Return the library of each configuration, or why there is none."""
        ...


@dataclass(frozen=True)
class Built:
    """What became of the candidates of a generation.

    Attributes
    ----------
    libraries
        The library of each one that could be built.
    failed
        Those that cannot be built.
    dead
        Those whose builder died, which may have had another reason.
    errors
        Why those that failed did.
    """

    libraries: dict[Config, Path]
    failed: list[Config]
    dead: list[Config]
    errors: list[BaseException]

    @classmethod
    def of(cls, candidates: Sequence[Config], answers: Sequence[Path | BaseException]) -> Built:
        """Sort the builder's answers."""
        built = cls({}, [], [], [])
        for config, answer in zip(candidates, answers, strict=True):
            if isinstance(answer, Path):
                built.libraries[config] = answer
            elif isinstance(answer, ChildProcessError):
                built.dead.append(config)
            else:
                built.failed.append(config)
                built.errors.append(answer)
        return built


@dataclass(frozen=True)
class Outcome:
    """The candidates of a generation beside the first, and which of them won, if one did."""

    results: list[PairedResult]
    winner: int | None


def measure(place: Turns, candidates: int, threads: Sequence[int], seconds: float) -> Outcome:
    """Measure all candidates, then the best of them, then the best one beside the first."""
    results = time_pairs(place, range(candidates), threads, seconds)
    faster = [at for at in range(1, candidates) if results[at].ratio < 0]
    if not faster:
        return Outcome(results, None)
    best = sorted(faster, key=lambda at: results[at].ratio)[:_FINALISTS]
    if len(best) > 1:
        again = time_pairs(place, [0, *best], threads, seconds / 2)
        for at, result in zip(best, again[1:], strict=True):
            results[at] = result
        best.sort(key=lambda at: results[at].ratio)
    first = best[0]
    results[first] = time_pairs(place, [0, first], threads, seconds / 2, _MOVES)[1]
    return Outcome(results, first if results[first].wins else None)


def counts(most: int) -> tuple[int, ...]:
    """Return the numbers of threads to measure with: one, and the most."""
    return (1,) if most == 1 else (1, most)
