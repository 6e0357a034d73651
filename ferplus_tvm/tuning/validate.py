"""What a tuning keeps: the fastest of each layer, unless it makes the whole network slower."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ferplus_tvm.errors import DeviceError, VerificationError
from ferplus_tvm.lowering.layers import Layer as ModelLayer
from ferplus_tvm.records.provenance import Gain
from ferplus_tvm.targets import TOLERANCE
from ferplus_tvm.tuning import networks
from ferplus_tvm.tuning.builder import Builder
from ferplus_tvm.tuning.device import Device
from ferplus_tvm.tuning.journal import Journal
from ferplus_tvm.tuning.networks import Choice, Network
from ferplus_tvm.tuning.paired_timing import PairedResult
from ferplus_tvm.tuning.search import Search, key_of
from ferplus_tvm.tuning.tuner import counts

_LAST = 2  # times its seconds, for the comparison that ends a batch size
_TRIES = 3  # of a comparison whose device is lost


@dataclass
class Comparison:
    """Compares networks with what it takes to build and to run them, and notes what is kept."""

    journal: Journal
    layers: Sequence[ModelLayer]
    builder: Builder
    device: Device
    folder: Path
    interrupted: threading.Event
    built: dict[Hashable, Network] = field(default_factory=dict)
    stood: dict[Hashable, PairedResult] = field(default_factory=dict)

    def keep(self, searches: Sequence[Search], seconds: float, deadline: float) -> tuple[str, ...]:
        """Keep each layer's leader, unless the network is slower with it.

        Every batch size stands for itself.  Where the network is slower with all new leaders, it is
        tried with half of them at a time, down to the single layers that make it so; these go back
        to what was in use, and all of them to the presets, should they be slower than those.  Each
        comparison takes ``seconds``; the last one, whose gain is told, chose nothing.  What is not
        settled in time for it by ``deadline``, a time of `time.perf_counter`, is left for the next
        run.  Returns the kernels that went back.

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
            if search.entry.result.leader is not None:
                groups.setdefault(search.task.layer.batch, []).append(search)
        rejected = []
        settle_by = deadline - _LAST * seconds * len(groups)
        gains = {(gain.batch, gain.threads): gain for gain in self.journal.provenance.gains}
        for batch, group in groups.items():
            rejected += self._settle(group, seconds, settle_by)
            presets, kept = (_choice(group, which) for which in ("preset", "used"))
            standing = None if presets == kept else self._measure(presets, kept, seconds)
            if standing is not None and not standing.not_slower:
                # Many steps that were each within the noise have come to more than that.
                rejected += self._go_back(group, "preset")
                standing = None
            for gain in _gains(batch, counts(self.device.threads), standing):
                gains[gain.batch, gain.threads] = gain
            self.journal.save(gains.values())
        return tuple(dict.fromkeys(rejected))

    def _settle(self, group: Sequence[Search], seconds: float, by: float) -> list[str]:
        """Decide on the new leaders of one batch size; return the kernels that went back."""
        rejected = []
        parts = [[each for each in group if each.entry.result.leader != each.entry.result.used]]
        while parts and time.perf_counter() < by:
            part = parts.pop()
            old = _choice(group, "used")
            try:
                standing = self._stand(old, old | _choice(part, "leader"), seconds)
                keep = standing is None or (standing.ratio <= 0 and standing.not_slower)
            except VerificationError:  # each is near enough alone, and all together are not
                keep = False
            if keep:
                for search in part:
                    self.journal.note(search.entry, "kept", search.entry.result.leader)
            elif len(part) == 1:
                rejected += self._go_back(part, "used")
            else:
                half = len(part) // 2
                parts += [part[half:], part[:half]]
        for search in group:
            self.journal.note(search.entry, "kept", search.entry.result.used)
        return rejected

    def _go_back(self, group: Sequence[Search], which: Literal["used", "preset"]) -> list[str]:
        """Make another record the leader, and the one that is kept; return where it was not."""
        changed = []
        for search in group:
            result = search.entry.result
            line = result.used if which == "used" else result.preset
            if result.kept == line and which == "preset":
                continue  # its leader is not settled yet
            if (result.leader, result.kept) != (line, line):
                changed.append(search.task.layer.name)
            self.journal.note(search.entry, "leader", line)
            self.journal.note(search.entry, "kept", line)
        return changed

    def _stand(self, first: Choice, other: Choice, seconds: float) -> PairedResult | None:
        """Return how another network stands beside the first, or None if they are the same."""
        if first == other:
            return None
        pair = (_key(first), _key(other))
        if pair not in self.stood:
            self.stood[pair] = self._measure(first, other, seconds)
        return self.stood[pair]

    def _measure(self, first: Choice, other: Choice, seconds: float) -> PairedResult:
        if self.interrupted.is_set():
            raise KeyboardInterrupt
        (batch,) = {layer.batch for layer in first}
        missing = [each for each in (first, other) if _key(each) not in self.built]
        paths = [self.folder / f"network{len(self.built) + at}.so" for at in range(len(missing))]
        target = self.journal.target
        built = networks.build(self.builder, self.layers, target, batch, missing, paths)
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
            _, standing = networks.compare(
                self.device, batch, pair, threads, seconds, TOLERANCE[self.journal.target.precision]
            )
        except VerificationError:
            self.device.release()
            raise
        self.device.release()
        return standing


def _choice(group: Sequence[Search], which: str) -> Choice:
    """Return each layer's configuration: its preset, leader, or the one in use."""
    found: Choice = {}
    for search in group:
        config = search.entry.config(getattr(search.entry.result, which))
        assert config is not None
        found[search.task.layer] = config
    return found


def _gains(batch: int, threads: Sequence[int], standing: PairedResult | None) -> list[Gain]:
    if standing is None:
        return [Gain(batch, count, 1.0, 0.0) for count in threads]
    return [
        Gain(batch, count, round(math.exp(-ratio), 4), round(noise, 4))
        for count, ratio, noise in zip(threads, standing.ratios, standing.noise, strict=True)
    ]


def _key(choice: Choice) -> Hashable:
    return tuple((layer, key_of(config)) for layer, config in choice.items())
