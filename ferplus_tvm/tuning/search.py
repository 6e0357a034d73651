"""One layer while it is searched: what is known of it, and what to try next."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ferplus_tvm.tuning.journal import Entry
from ferplus_tvm.tuning.space import Config
from ferplus_tvm.tuning.task import LayerTask

GENERATION = 8
"""How many configurations are tried at a time."""

_RANDOM = 3  # of a generation
_NEAR = 1.3  # times the leader's time
_DRAWS = 40  # random ones, before they are taken to be exhausted
_STRIKES = 2  # processes that died with a configuration, of several, after which it is blamed


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

    task: LayerTask
    entry: Entry
    count: int
    preset: Config
    seeds: Sequence[Config] = ()
    generations: int = field(init=False)
    busy: bool = False
    exhausted: bool = False
    strikes: dict[tuple[tuple[str, int], ...], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.space = self.task.space
        self.generations = math.ceil(len(self.entry.trials) / GENERATION)

    def seconds(self, which: str) -> tuple[float, ...] | None:
        """Return the time of the ``preset`` or the ``leader``, where there is one."""
        line = getattr(self.entry.result, which)
        return None if line is None else self.entry.trials[line].seconds

    @property
    def time(self) -> float:
        """The seconds of the network that the layer takes, or 0 before it was measured."""
        seconds = self.seconds("leader")
        return 0.0 if seconds is None else self.count * mean(seconds)

    def strike(self, suspects: Sequence[Config], sure: bool) -> list[Config]:
        """Note that a process died with configurations; return those that are to blame.

        Where that is not ``sure``, since the process may have ended for another reason, those are
        the ones that it happens to for the second time.
        """
        blame = _STRIKES if sure else 1
        for config in suspects:
            self.strikes[key_of(config)] = self.strikes.get(key_of(config), 0) + blame
        return [config for config in suspects if self.strikes[key_of(config)] >= _STRIKES]

    def propose(self, rng: random.Random) -> list[Config]:
        """Return what to try next, none of it tried before; the preset first of all."""
        entry = self.entry
        tried = {key_of(trial.config) for trial in entry.trials.values()}
        proposed: list[Config] = []

        def take(configs: Iterable[Config], most: int) -> None:
            for config in configs:
                key = key_of(config)
                if len(proposed) >= most:
                    return
                if key not in tried and self.space.holds(config):
                    tried.add(key)
                    proposed.append(config)

        leader = entry.config(entry.result.leader)
        if leader is None:
            if key_of(self.preset) in tried:  # it failed, and there is nothing to compare with
                return []
            take([self.preset, *self.seeds, *self.space.presets()], GENERATION)
            take(self.space.neighbours(self.preset), GENERATION)
            return proposed
        beside = list(self.space.neighbours(leader))
        rng.shuffle(beside)
        take([self.preset, *self.seeds, *beside], GENERATION - _RANDOM)
        algorithms = self._near()
        draws = (self.space.sample(rng.randrange(1, 1 << 30), algorithms) for _ in range(_DRAWS))
        take(draws, GENERATION)
        return proposed

    def _near(self) -> list[int]:
        """Return the algorithms whose best came near the leader."""
        best: dict[int, float] = {}
        for trial in self.entry.trials.values():
            if trial.seconds is not None:
                tile = trial.config.get("tile", 0)
                best[tile] = min(best.get(tile, math.inf), mean(trial.seconds))
        return [tile for tile, seconds in best.items() if seconds <= _NEAR * min(best.values())]


def mean(seconds: Sequence[float]) -> float:
    """Return the geometric mean, in which a per cent is worth the same for every number."""
    return statistics.geometric_mean(seconds)


def key_of(config: Config) -> tuple[tuple[str, int], ...]:
    """Return what a configuration is known by."""
    return tuple(sorted(config.items()))
