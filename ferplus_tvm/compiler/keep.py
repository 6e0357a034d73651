"""What a tuning keeps: the fastest of each layer, unless it makes the whole network slower."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ferplus_tvm.compiler import networks
from ferplus_tvm.compiler.networks import Network
from ferplus_tvm.rewrite import match
from ferplus_tvm.tuning.build import Builder
from ferplus_tvm.tuning.contest import Standing
from ferplus_tvm.tuning.device import Device
from ferplus_tvm.tuning.journal import Journal
from ferplus_tvm.tuning.provenance import Gain
from ferplus_tvm.tuning.search import Search
from ferplus_tvm.tuning.space import Config, Layer
from ferplus_tvm.tuning.tuner import counts

Choice = dict[Layer, Config]


@dataclass
class Comparison:
    """Compares networks with what it takes to build and to run them, and notes what is kept."""

    journal: Journal
    layers: Sequence[match.Layer]
    builder: Builder
    device: Device
    folder: Path
    interrupted: threading.Event

    def keep(self, searches: Sequence[Search], seconds: float) -> tuple[int, ...]:
        """Keep each layer's leader, unless the network is slower with them by more than the noise.

        Every batch size stands for itself, and each comparison takes ``seconds``.  Returns the
        batch sizes where nothing new is kept.

        Raises
        ------
        DeviceError
            If a network cannot be built, or the device is lost.
        VerificationError
            If the networks' scores differ.
        KeyboardInterrupt
            If the user asked for it.
        """
        groups: dict[int, list[Search]] = {}
        for search in searches:
            if search.entry.result.leader is not None:
                groups.setdefault(search.task.layer.batch, []).append(search)
        choices = {
            batch: [_choice(group, which) for which in ("preset", "used", "leader")]
            for batch, group in groups.items()
        }
        built = self._build(choices)
        rejected = []
        gains = {(gain.batch, gain.threads): gain for gain in self.journal.provenance.gains}
        for batch, group in groups.items():
            presets, old, new = choices[batch]
            standing = self._stand(built, batch, old, new, seconds)
            slower = standing is not None and not standing.not_slower
            if slower:
                rejected.append(batch)
            for search in group:
                result = search.entry.result
                self.journal.note(search.entry, "kept", result.used if slower else result.leader)
            if slower or old != presets:
                standing = self._stand(built, batch, presets, old if slower else new, seconds)
            for gain in _gains(batch, counts(self.device.threads), standing):
                gains[gain.batch, gain.threads] = gain
        self.journal.save(gains.values())
        return tuple(rejected)

    def _build(self, choices: dict[int, list[Choice]]) -> list[tuple[int, Choice, Network]]:
        """Build, for each batch size, the networks that differ, if there are several."""
        wanted: list[tuple[int, Choice]] = []
        for batch, each in choices.items():
            different = [choice for at, choice in enumerate(each) if choice not in each[:at]]
            wanted += [(batch, choice) for choice in different if len(different) > 1]
        target = self.journal.target
        built = networks.build(self.builder, self.layers, target, wanted, self.folder)
        return [(*each, network) for each, network in zip(wanted, built, strict=True)]

    def _stand(
        self,
        built: Sequence[tuple[int, Choice, Network]],
        batch: int,
        first: Choice,
        other: Choice,
        seconds: float,
    ) -> Standing | None:
        """Return how another network stands beside the first, or None if they are the same."""
        if self.interrupted.is_set():
            raise KeyboardInterrupt
        if first == other:
            return None
        pair = [
            network
            for wanted in (first, other)
            for size, choice, network in built
            if (size, choice) == (batch, wanted)
        ]
        self.device.hold()
        threads = counts(self.device.threads)
        _, standing = networks.compare(self.device, batch, pair, threads, seconds)
        self.device.release()
        return standing


def _choice(group: Sequence[Search], which: str) -> Choice:
    """Return each layer's configuration: its preset, leader, or the one in use."""
    found = {}
    for search in group:
        config = search.entry.config(getattr(search.entry.result, which))
        assert config is not None
        found[search.task.layer] = config
    return found


def _gains(batch: int, threads: Sequence[int], standing: Standing | None) -> list[Gain]:
    if standing is None:
        return [Gain(batch, count, 1.0, 0.0) for count in threads]
    return [
        Gain(batch, count, round(math.exp(-ratio), 4), round(noise, 4))
        for count, ratio, noise in zip(threads, standing.ratios, standing.noise, strict=True)
    ]
