"""Searches the configurations of all layers within a time, a generation of one layer at a time.

A generation is built, and then measured for at least as long as building it took: all in turns,
then the best three, then the best beside the incumbent alone.  Only what wins that last contest,
which chose nothing, becomes the layer's leader.  The first generation holds the presets; later ones
what lies beside the leader, and random ones of the algorithms that came near it.
"""

from __future__ import annotations

import math
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ferplus_tvm.errors import DeviceError
from ferplus_tvm.tuning.contest import Standing, Turns, contest
from ferplus_tvm.tuning.journal import Entry, Journal
from ferplus_tvm.tuning.space import Config, Space
from ferplus_tvm.tuning.task import Task

_GENERATION = 8
_RANDOM = 3  # of a generation
_FINALISTS = 3
_NEAR = 1.3  # times the leader's time
_DRAWS = 40  # random ones, before they are taken to be exhausted
_LEAST_SECONDS = 0.8  # of measuring
_MEASURING = 1.2  # times the time of building
_MOVES = 4  # of the arrays, in the last contest
_STRIKES = 2  # processes that died with a configuration, of several, after which it is blamed
_GRACE = 0.3  # seconds within which an interrupted process and its children hear of it


class Place(Turns, Protocol):
    """Where candidates are measured: see `ferplus_tvm.tuning.device.Device`."""

    threads: int

    def hold(self) -> None:
        """Take it."""

    def release(self) -> None:
        """Give it back."""

    def begin_kernels(self, task: Task) -> None:
        """Take in candidates for a layer from now on."""

    def admit_kernel(self, path: Path, config: Config) -> str | None:
        """Take in a candidate, or return why it is not one."""


class Builds(Protocol):
    """What builds candidates: see `ferplus_tvm.tuning.build.Builder`."""

    def build(self, task: Task, configs: Sequence[Config]) -> list[Path | BaseException]:
        """Return the library of each configuration, or why there is none."""
        ...


@dataclass(frozen=True)
class Generation:
    """What is reported after each generation.

    tried
        configurations of the layer so far, in all runs.
    gain
        the preset's time over the leader's.
    best
        the leader's seconds for each number of threads.
    """

    task: Task
    tried: int
    gain: float
    best: tuple[float, ...]


@dataclass
class Search:
    """A layer while it is searched.

    entry
        what the log knows of it.
    count
        how often it occurs in the network.
    preset
        the configuration that is used untuned.
    seeds
        configurations to try first, such as those of another log.
    """

    task: Task
    entry: Entry
    count: int
    preset: Config
    seeds: Sequence[Config] = ()
    generations: int = 0
    busy: bool = False
    exhausted: bool = False
    strikes: dict[tuple[tuple[str, int], ...], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.space = Space(self.task.layer, self.task.unit)
        self.generations = math.ceil(len(self.entry.trials) / _GENERATION)

    def seconds(self, which: str) -> tuple[float, ...] | None:
        """Return the time of the ``preset`` or the ``leader``, where there is one."""
        line = getattr(self.entry.result, which)
        return None if line is None else self.entry.trials[line].seconds

    @property
    def time(self) -> float:
        """The seconds of the network that the layer takes, or 0 before it was measured."""
        seconds = self.seconds("leader")
        return 0.0 if seconds is None else self.count * _mean(seconds)

    def strike(self, config: Config, blame: int) -> bool:
        """Note that a process died with a configuration; return whether that was once too often."""
        key = _key(config)
        self.strikes[key] = self.strikes.get(key, 0) + blame
        return self.strikes[key] >= _STRIKES

    def propose(self, rng: random.Random) -> list[Config]:
        """Return what to try next, none of it tried before; the preset first of all."""
        entry = self.entry
        tried = {_key(trial.config) for trial in entry.trials.values()}
        proposed: list[Config] = []

        def take(configs: Iterable[Config], most: int) -> None:
            for config in configs:
                key = _key(config)
                if len(proposed) >= most:
                    return
                if key not in tried and self.space.holds(config):
                    tried.add(key)
                    proposed.append(config)

        leader = entry.config(entry.result.leader)
        if leader is None:
            take([self.preset, *self.seeds, *self.space.presets()], _GENERATION)
            take(self.space.neighbours(self.preset), _GENERATION)
            return proposed
        beside = list(self.space.neighbours(leader))
        rng.shuffle(beside)
        take([*self.seeds, *beside], _GENERATION - _RANDOM)
        algorithms = self._near()
        draws = (self.space.sample(rng.randrange(1, 1 << 30), algorithms) for _ in range(_DRAWS))
        take(draws, _GENERATION)
        return proposed

    def _near(self) -> list[int]:
        """Return the algorithms whose best came near the leader."""
        best: dict[int, float] = {}
        for trial in self.entry.trials.values():
            if trial.seconds is not None:
                tile = trial.config.get("tile", 0)
                best[tile] = min(best.get(tile, math.inf), _mean(trial.seconds))
        return [tile for tile, seconds in best.items() if seconds <= _NEAR * min(best.values())]


class Tuner:
    """Searches layers on one or several devices, and writes all that it learns to a journal."""

    def __init__(
        self,
        journal: Journal,
        builder: Builds,
        searches: Sequence[Search],
        stop: threading.Event,
        seed: int = 0,
        report: Callable[[Generation], None] = lambda generation: None,
    ) -> None:
        self._journal = journal
        self._builder = builder
        self._searches = searches
        self._rng = random.Random(seed)
        self._report = report
        self._lock = threading.Lock()
        self._stop = stop
        self.failed = 0
        self.tried = 0

    def run(self, places: Sequence[Place], deadline: float) -> None:
        """Search until a time of `time.perf_counter`, a stop, or until nothing is left to try.

        Raises
        ------
        DeviceError
            If every device was lost.
        """
        errors: list[BaseException] = []

        def work(place: Place) -> None:
            try:
                self._work(place, deadline)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(place,), daemon=True) for place in places]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._stop.is_set():
            return
        serious = [error for error in errors if not isinstance(error, DeviceError)]
        if serious or len(errors) == len(places):
            raise (serious or errors)[0]

    def _work(self, place: Place, deadline: float) -> None:
        lost = 0
        while time.perf_counter() < deadline and not self._stop.is_set():
            with self._lock:
                search = self._next()
                if search is not None:
                    search.busy = True
                    configs = search.propose(self._rng)
                    search.exhausted = not configs
            if search is None:
                if all(each.exhausted for each in self._searches):
                    return
                time.sleep(0.05)  # what is left is with other devices
                continue
            try:
                if configs:
                    self._generation(place, search, configs)
                    search.generations += 1
                lost = 0
            except DeviceError:
                # Another one may take its place; but not for ever.
                lost += 1
                if self._stop.is_set() or lost > 2:
                    raise
            finally:
                search.busy = False

    def _next(self) -> Search | None:
        """Return the layer with the most time in its network, for what was done about it."""
        free = [each for each in self._searches if not each.busy and not each.exhausted]
        new = [each for each in free if each.seconds("leader") is None]
        if new or not free:
            return new[0] if new else None
        totals: dict[int, float] = {}
        for each in self._searches:
            batch = each.task.layer.batch
            totals[batch] = totals.get(batch, 0) + each.time

        def worth(each: Search) -> float:
            return each.time / (totals[each.task.layer.batch] or 1) / (each.generations + 1)

        return max(free, key=worth)

    def _generation(self, place: Place, search: Search, configs: list[Config]) -> None:
        """Build, measure and write down a generation."""
        leader = search.entry.config(search.entry.result.leader)
        incumbent = configs[0] if leader is None else leader
        contestants = [incumbent, *(config for config in configs if config != incumbent)]
        start = time.perf_counter()
        built = self._builder.build(search.task, contestants)
        seconds = max(_LEAST_SECONDS, _MEASURING * (time.perf_counter() - start))
        libraries = {
            _key(config): path
            for config, path in zip(contestants, built, strict=True)
            if isinstance(path, Path)
        }
        failed = [
            config
            for config, error in zip(contestants, built, strict=True)
            if not isinstance(error, Path)
            and (not isinstance(error, ChildProcessError) or search.strike(config, 1))
        ]
        suspects: list[Config] = []
        admitted: list[Config] = []
        result = Result([], None)
        try:
            place.hold()
            place.begin_kernels(search.task)
            for config in contestants:
                path = libraries.get(_key(config))
                if path is None:
                    continue
                suspects = [config]
                if place.admit_kernel(path, config) is None:
                    admitted.append(config)
                else:
                    failed.append(config)
            suspects = admitted
            if incumbent in admitted:
                result = stages(place, len(admitted), counts(place.threads), seconds)
            place.release()
        except DeviceError:
            if not self._stop.wait(_GRACE):  # otherwise it was the user who ended it
                blame = _STRIKES if len(suspects) == 1 else 1
                failed += [config for config in suspects if search.strike(config, blame)]
                self._write_down(search, incumbent, failed, [], Result([], None))
            raise
        finally:
            for path in libraries.values():
                path.unlink(missing_ok=True)
        if not self._stop.is_set() or result.standings:
            self._write_down(search, incumbent, failed, admitted, result)

    def _write_down(
        self,
        search: Search,
        incumbent: Config,
        failed: Sequence[Config],
        admitted: Sequence[Config],
        result: Result,
    ) -> None:
        entry = search.entry
        with self._lock:
            self.failed += len(failed)
            before = len(entry.trials)
            trials: list[tuple[Config, Sequence[float] | None]] = [
                (config, None) for config in failed if entry.line_of(config) is None
            ]
            base = search.seconds("leader")
            if base is None and result.standings:
                base = result.standings[0].seconds
            if base is not None:
                trials += [
                    (config, [s * math.exp(r) for s, r in zip(base, each.ratios, strict=True)])
                    for config, each in zip(admitted, result.standings, strict=False)
                    if entry.line_of(config) is None
                ]
            self._journal.add(entry, search.space, trials)
            if result.standings and entry.result.preset is None:
                line = entry.line_of(incumbent)
                assert line is not None
                self._journal.note(entry, "preset", line)
                self._journal.note(entry, "leader", line)
            if result.winner is not None:
                line = entry.line_of(admitted[result.winner])
                assert line is not None
                self._journal.note(entry, "leader", line)
            self._journal.save()
            # Without a preset that works there is nothing to compare with.
            search.exhausted = entry.result.preset is None and incumbent in failed
            preset, leader = (search.seconds(which) for which in ("preset", "leader"))
            tried = len(entry.trials)
            self.tried += tried - before
        if preset is not None and leader is not None:
            gain = _mean(preset) / _mean(leader)
            self._report(Generation(search.task, tried, gain, leader))


@dataclass(frozen=True)
class Result:
    """How the contestants of a generation stand beside the first, and which won, if one did."""

    standings: list[Standing]
    winner: int | None


def stages(place: Turns, contestants: int, threads: Sequence[int], seconds: float) -> Result:
    """Measure all contestants, then the best of them, then the best one beside the first."""
    standings = contest(place, range(contestants), threads, seconds)
    faster = [at for at in range(1, contestants) if standings[at].ratio < 0]
    if not faster:
        return Result(standings, None)
    best = sorted(faster, key=lambda at: standings[at].ratio)[:_FINALISTS]
    if len(best) > 1:
        again = contest(place, [0, *best], threads, seconds / 2)
        for at, standing in zip(best, again[1:], strict=True):
            standings[at] = standing
        best.sort(key=lambda at: standings[at].ratio)
    first = best[0]
    standings[first] = contest(place, [0, first], threads, seconds / 2, _MOVES)[1]
    return Result(standings, first if standings[first].wins else None)


def counts(most: int) -> tuple[int, ...]:
    """Return the numbers of threads to measure with: one, and the most."""
    return (1,) if most == 1 else (1, most)


def _mean(seconds: Sequence[float]) -> float:
    """Return the geometric mean, in which a per cent is worth the same for every number."""
    return statistics.geometric_mean(seconds)


def _key(config: Config) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(config.items()))
