"""Validate what a search found: a layer's fastest is kept unless the whole network is slower."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ferplus_tvm.errors import DeviceError, VerificationError
from ferplus_tvm.lowering.layers import LayeredModel
from ferplus_tvm.records.log import Gain
from ferplus_tvm.targets import TOLERANCE
from ferplus_tvm.tuning import networks
from ferplus_tvm.tuning.builder import Builder
from ferplus_tvm.tuning.device import Device
from ferplus_tvm.tuning.generation import counts
from ferplus_tvm.tuning.journal import Journal
from ferplus_tvm.tuning.networks import Choice, Network
from ferplus_tvm.tuning.paired_timing import PairedResult
from ferplus_tvm.tuning.search import Search

_LAST = 2  # times its seconds, for the comparison that ends a batch size
_TRIES = 3  # of a comparison whose device is lost


@dataclass
class Validation:
    """Decides which leaders are kept, by paired benchmarks of whole networks.

    Attributes
    ----------
    built
        The networks that were built already, by their configurations.
    results
        The comparisons that were made already, by both networks' configurations.
    """

    journal: Journal
    layers: LayeredModel
    builder: Builder
    device: Device
    folder: Path
    interrupted: threading.Event
    built: dict[Hashable, Network] = field(default_factory=dict)
    results: dict[Hashable, PairedResult] = field(default_factory=dict)

    def run(self, searches: Sequence[Search], seconds: float, deadline: float) -> tuple[str, ...]:
        """Keep each layer's leader, unless the network is slower with it; return those rejected.

        Batch sizes are validated one by one.  Where the network is slower with all new leaders, the
        layers that make it so are found by bisection and go back to what was in use.  A last
        measurement, in which nothing is chosen, gives the gain over the presets; where there is a
        loss, all layers go back to the presets.  A comparison takes ``seconds``.  Leaders that are
        not validated by ``deadline``, a time of `time.perf_counter`, are left for the next run.

        Raises
        ------
        CompileError
            If a network cannot be built.
        DeviceError
            If the device is lost, and so are those that take its place.
        VerificationError
            If the scores differ between presets and what is kept.
        KeyboardInterrupt
            If the user asked for it.
        """
        groups: dict[int, list[Search]] = {}
        for search in searches:
            if search.entry.leader is not None:
                groups.setdefault(search.task.workload.batch, []).append(search)
        rejected = []
        decide_by = deadline - _LAST * seconds * len(groups)
        gains = {(gain.batch, gain.threads): gain for gain in self.journal.provenance.gains}
        for batch, group in groups.items():
            rejected += self._bisect(group, seconds, decide_by)
            presets, kept = (_choice(group, which) for which in ("preset", "used"))
            result = None if presets == kept else self._measure(presets, kept, seconds)
            if result is not None and not result.not_slower:
                # Many steps that were each within the noise have come to more than that.
                rejected += self._go_back(group, "preset")
                result = None
            for gain in _gains(batch, counts(self.device.threads), result):
                gains[gain.batch, gain.threads] = gain
            self.journal.save(gains.values())
        return tuple(dict.fromkeys(rejected))

    def _bisect(self, group: Sequence[Search], seconds: float, by: float) -> list[str]:
        """Decide on the new leaders of one batch size; return the kernels that went back."""
        rejected = []
        parts = [[each for each in group if each.entry.leader != each.entry.used]]
        while parts and time.perf_counter() < by:
            part = parts.pop()
            old = _choice(group, "used")
            try:
                result = self._time(old, old | _choice(part, "leader"), seconds)
                keep = result is None or (result.ratio <= 0 and result.not_slower)
            except VerificationError:  # each is near enough alone, and all together are not
                keep = False
            if keep:
                for search in part:
                    search.entry.kept = search.entry.leader
            elif len(part) == 1:
                rejected += self._go_back(part, "used")
            else:
                half = len(part) // 2
                parts += [part[half:], part[:half]]
        for search in group:
            search.entry.kept = search.entry.used
        return rejected

    def _go_back(self, group: Sequence[Search], which: Literal["used", "preset"]) -> list[str]:
        """Make another configuration the leader, and the kept one; return where it was not."""
        changed = []
        for search in group:
            entry = search.entry
            config = entry.used if which == "used" else entry.preset
            if entry.kept == config and which == "preset":
                continue  # its leader is not settled yet
            if (entry.leader, entry.kept) != (config, config):
                changed.append(search.task.workload.name)
            entry.leader = entry.kept = config
        return changed

    def _time(self, first: Choice, other: Choice, seconds: float) -> PairedResult | None:
        """Return the other network's time beside the first's, or None if they are the same."""
        if first == other:
            return None
        pair = (_key(first), _key(other))
        if pair not in self.results:
            self.results[pair] = self._measure(first, other, seconds)
        return self.results[pair]

    def _measure(self, first: Choice, other: Choice, seconds: float) -> PairedResult:
        if self.interrupted.is_set():
            raise KeyboardInterrupt
        (batch,) = {layer.batch for layer in first}
        missing = [each for each in (first, other) if _key(each) not in self.built]
        paths = [self.folder / f"network{len(self.built) + at}.so" for at in range(len(missing))]
        target = self.journal.target
        built = networks.build_networks(self.builder, self.layers, target, batch, missing, paths)
        self.built |= {_key(each): network for each, network in zip(missing, built, strict=True)}
        pair = [self.built[_key(each)] for each in (first, other)]
        tries = 1
        while True:
            try:
                return self._compare(batch, pair, seconds)
            except DeviceError as error:
                if self.interrupted.is_set():
                    raise KeyboardInterrupt from error
                if tries == _TRIES:
                    raise
                tries += 1  # another device may take its place

    def _compare(self, batch: int, pair: Sequence[Network], seconds: float) -> PairedResult:
        self.device.hold()
        threads = counts(self.device.threads)
        try:
            _, result = networks.compare(
                self.device, batch, pair, threads, seconds, TOLERANCE[self.journal.target.precision]
            )
        except VerificationError:
            self.device.release()
            raise
        self.device.release()
        return result


def _choice(group: Sequence[Search], which: Literal["preset", "leader", "used"]) -> Choice:
    """Return each layer's configuration: its preset, its leader, or the one in use."""
    return {search.task.workload: getattr(search.entry, which) for search in group}


def _gains(batch: int, threads: Sequence[int], result: PairedResult | None) -> list[Gain]:
    if result is None:
        return [Gain(batch, count, 1.0, 0.0) for count in threads]
    return [
        Gain(batch, count, round(math.exp(-ratio), 4), round(noise, 4))
        for count, ratio, noise in zip(threads, result.ratios, result.noise, strict=True)
    ]


def _key(choice: Choice) -> Hashable:
    return tuple(choice.items())
