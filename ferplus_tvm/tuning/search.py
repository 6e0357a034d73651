"""One layer while it is searched: what is known of it, and what to try next."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ferplus_tvm.kernels.backend import Algorithm, Config
from ferplus_tvm.tuning.journal import Entry
from ferplus_tvm.tuning.space import Space
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

    Attributes
    ----------
    entry
        What the log knows of it.
    count
        How often it occurs in the network.
    preset
        The configuration that is used untuned.
    seeds
        Configurations to try first, such as those of another log.
    generations
        How many were tried, in all runs.
    busy
        Whether a device works on it.
    exhausted
        Whether nothing is left to try.
    strikes
        How often a process died with a configuration.
    """

    task: LayerTask
    entry: Entry
    count: int
    preset: Config
    seeds: Sequence[Config] = ()
    generations: int = field(init=False)
    busy: bool = False
    exhausted: bool = False
    strikes: dict[Config, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.space = Space(self.task.workload, self.task.backend)
        self.generations = math.ceil(len(self.entry.trials) / GENERATION)

    @property
    def time(self) -> float:
        """The seconds of the network that the layer takes, or 0 before it was measured."""
        seconds = self.entry.seconds(self.entry.leader)
        return 0.0 if seconds is None else self.count * mean(seconds)

    def strike(self, suspects: Sequence[Config], sure: bool) -> list[Config]:
        """Note that a process died with configurations; return those that are to blame.

        Where that is not ``sure``, since the process may have ended for another reason, those are
        the ones that it happens to for the second time.
        """
        blame = _STRIKES if sure else 1
        for config in suspects:
            self.strikes[config] = self.strikes.get(config, 0) + blame
        return [config for config in suspects if self.strikes[config] >= _STRIKES]

    def propose(self, rng: random.Random) -> list[Config]:
        """Return what to try next, none of it tried before; the preset first of all."""
        entry = self.entry
        tried = set(entry.trials)
        proposed: list[Config] = []

        def take(configs: Iterable[Config], most: int) -> None:
            for config in configs:
                if len(proposed) >= most:
                    return
                if config not in tried and config in self.space:
                    tried.add(config)
                    proposed.append(config)

        if entry.leader is None:
            if self.preset in tried:  # it failed, and there is nothing to compare with
                return []
            take([self.preset, *self.seeds, *self.space.presets], GENERATION)
            take(self.space.neighbours(self.preset), GENERATION)
            return proposed
        beside = list(self.space.neighbours(entry.leader))
        rng.shuffle(beside)
        take([self.preset, *self.seeds, *beside], GENERATION - _RANDOM)
        near = self._near()
        take((self.space.sample(rng, near) for _ in range(_DRAWS)), GENERATION)
        return proposed

    def _near(self) -> list[Algorithm]:
        """Return the algorithms whose best came near the leader."""
        best: dict[Algorithm, float] = {}
        for config, seconds in self.entry.trials.items():
            if seconds is not None:
                least = best.get(config.algorithm, math.inf)
                best[config.algorithm] = min(least, mean(seconds))
        return [each for each, seconds in best.items() if seconds <= _NEAR * min(best.values())]


def mean(seconds: Sequence[float]) -> float:
    """Return the geometric mean, in which a per cent is worth the same for every number."""
    return statistics.geometric_mean(seconds)
