"""Searches all layers within a time, a generation of one layer after the other.

A generation is built, and then measured for at least as long as building it took: all in turns,
then the best three, then the best beside the baseline alone.  Only what wins that last comparison,
in which nothing is chosen, becomes the layer's leader.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ferplus_tvm.errors import CompileError, DeviceError, last_line
from ferplus_tvm.kernels.backend import Config
from ferplus_tvm.tuning.generation import Builds, Built, Outcome, Place, counts, measure
from ferplus_tvm.tuning.journal import Journal
from ferplus_tvm.tuning.search import Search, mean
from ferplus_tvm.tuning.task import LayerTask

_LEAST_SECONDS = 0.8  # of measuring
_MEASURING = 1.2  # times the time of building
_GRACE = 0.3  # seconds within which an interrupted process and its children hear of it


@dataclass(frozen=True)
class Generation:
    """What is reported after each generation.

    Attributes
    ----------
    tried
        The configurations of the layer so far, in all runs.
    gain
        The preset's time over the leader's.
    best
        The leader's seconds for each number of threads.
    """

    task: LayerTask
    tried: int
    gain: float
    best: tuple[float, ...]


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
        self._broken = threading.Event()  # by what no other device can mend
        self.failed = 0
        self.tried = 0

    def run(self, places: Sequence[Place], deadline: float) -> None:
        """Search until a time of `time.perf_counter`, a stop, or until nothing is left to try.

        Raises
        ------
        DeviceError
            If every device was lost.
        CompileError
            If nothing can be built.
        """
        errors: list[BaseException] = []

        def work(place: Place) -> None:
            try:
                self._work(place, deadline)
            except DeviceError as error:
                errors.append(error)
            except BaseException as error:
                errors.append(error)
                self._broken.set()

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
        while time.perf_counter() < deadline and not (self._stop.is_set() or self._broken.is_set()):
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
            failed = self.failed
            try:
                if configs:
                    self._generation(place, search, configs)
                    search.generations += 1
                lost = 0
            except DeviceError:
                # Another one may take its place; but not for ever where no candidate is to blame.
                lost = lost + 1 if self.failed == failed else 0
                if self._stop.is_set() or lost > 2:
                    raise
            finally:
                search.busy = False

    def _next(self) -> Search | None:
        """Return the layer with the most time in its network, for what was done about it."""
        free = [each for each in self._searches if not each.busy and not each.exhausted]
        new = [each for each in free if each.entry.leader is None]
        if new or not free:
            return new[0] if new else None
        totals: dict[int, float] = {}
        for each in self._searches:
            batch = each.task.workload.batch
            totals[batch] = totals.get(batch, 0) + each.time

        def worth(each: Search) -> float:
            return each.time / (totals[each.task.workload.batch] or 1) / (each.generations + 1)

        return max(free, key=worth)

    def _generation(self, place: Place, search: Search, configs: list[Config]) -> None:
        """Build, measure and write down a generation."""
        leader = search.entry.leader
        baseline = configs[0] if leader is None else leader
        candidates = [baseline, *(config for config in configs if config != baseline)]
        start = time.perf_counter()
        built = Built.of(candidates, self._builder.build(search.task, candidates))
        seconds = max(_LEAST_SECONDS, _MEASURING * (time.perf_counter() - start))
        if not built.libraries and not built.dead:
            raise _nothing_built(search, built.errors[0])
        failed = built.failed + search.strike(built.dead, sure=False)
        suspects: list[Config] = []
        admitted: list[Config] = []
        outcome = Outcome([], None)
        try:
            place.hold()
            self._expect_threads(place)
            place.begin_kernels(search.task)
            for config, path in built.libraries.items():
                suspects = [config]
                if place.admit_kernel(path, config) is None:
                    admitted.append(config)
                else:
                    failed.append(config)
            suspects = admitted
            if baseline in admitted:
                outcome = measure(place, len(admitted), counts(place.threads), seconds)
            place.release()
        except DeviceError:
            if not self._stop.wait(_GRACE):  # otherwise it was the user who ended it
                # The baseline is what all is compared with: not on the first suspicion.
                sure = len(suspects) == 1 and suspects != [baseline]
                failed += search.strike(suspects, sure)
                self._write_down(search, baseline, failed, [], Outcome([], None))
            raise
        finally:
            for path in built.libraries.values():
                path.unlink(missing_ok=True)
        if not self._stop.is_set() or outcome.results:
            self._write_down(search, baseline, failed, admitted, outcome)

    def _expect_threads(self, place: Place) -> None:
        measured = self._journal.provenance.threads
        if counts(place.threads) != measured:
            raise DeviceError(
                f"a device has {place.threads} threads, but this log is for {max(measured)}: give "
                "--threads, or devices of the same kind"
            )

    def _write_down(
        self,
        search: Search,
        baseline: Config,
        failed: Sequence[Config],
        admitted: Sequence[Config],
        outcome: Outcome,
    ) -> None:
        """Add the trials of a generation to the log, and make the winner the leader."""
        entry = search.entry
        with self._lock:
            self.failed += len(failed)
            before = len(entry.trials)
            trials: list[tuple[Config, Sequence[float] | None]] = [
                (config, None) for config in failed if config not in entry.trials
            ]
            base = entry.seconds(entry.leader)
            if base is None and outcome.results:
                base = outcome.results[0].seconds
            if base is not None:
                trials += [
                    (config, [s * math.exp(r) for s, r in zip(base, each.ratios, strict=True)])
                    for config, each in zip(admitted, outcome.results, strict=False)
                    if config not in entry.trials
                ]
            self._journal.add(entry, trials)
            if outcome.results and entry.leader is None:
                entry.leader = baseline
            if entry.seconds(search.preset) is not None:
                # A later version of this package may have another one than the log began with.
                entry.preset = search.preset
            if outcome.winner is not None:
                entry.leader = admitted[outcome.winner]
            self._journal.save()
            # Without a preset that works there is nothing to compare with.
            search.exhausted = entry.preset is None and baseline in failed
            preset, leader = entry.seconds(entry.preset), entry.seconds(entry.leader)
            tried = len(entry.trials)
            self.tried += tried - before
        learnt = bool(failed or outcome.results)
        if learnt and preset is not None and leader is not None:
            gain = mean(preset) / mean(leader)
            self._report(Generation(search.task, tried, gain, leader))


def _nothing_built(search: Search, error: BaseException) -> CompileError:
    return CompileError(
        f"no configuration of {search.task.workload.name} could be built ({last_line(error)}): see "
        "that there is room for temporary files, and try 'ferplus-tvm compile' for the same target"
    )
