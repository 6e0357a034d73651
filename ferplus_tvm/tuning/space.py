"""The space of a layer's configurations: its neighbourhoods, and random draws from it.

A configuration is decided field by field, each from the values that some candidate has together
with what was decided before.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator
from typing import Any

from ferplus_tvm.kernels.backend import Algorithm, Backend, Config
from ferplus_tvm.kernels.workloads import Conv, Dense

Decide = Callable[[str, list[int]], int]
"""Takes a field's name and the values that fit; returns one of them."""


class Space:
    """The configurations of one layer.

    Attributes
    ----------
    presets
        The configuration of each algorithm that a search begins with.
    """

    def __init__(self, workload: Conv | Dense, backend: Backend) -> None:
        self.presets = backend.presets(workload)
        candidates = backend.candidates(workload)
        self._members = frozenset(candidates)
        self._trees: dict[Algorithm, dict[int, Any]] = {}
        self._types = {config.algorithm: type(config) for config in candidates}
        self._fields = {config.algorithm: list(vars(config)) for config in candidates}
        for config in candidates:
            tree = self._trees.setdefault(config.algorithm, {})
            for value in vars(config).values():
                tree = tree.setdefault(value, {})

    def __contains__(self, config: object) -> bool:
        return config in self._members

    def neighbours(self, config: Config) -> Iterator[Config]:
        """Yield the configurations of the same algorithm that differ by a step in one field.

        A field that does not fit any more takes the nearest value that does.
        """
        values = vars(config)
        for changed in values:
            for step in (1, -1):

                def decide(
                    name: str, options: list[int], changed: str = changed, step: int = step
                ) -> int:
                    at = options.index(min(options, key=lambda each: abs(each - values[name])))
                    if name == changed:
                        at = min(max(at + step, 0), len(options) - 1)
                    return options[at]

                neighbour = self._walk(config.algorithm, decide)
                if neighbour != config:
                    yield neighbour

    def sample(self, rng: random.Random, algorithms: Collection[Algorithm]) -> Config:
        """Return a random configuration of one of the algorithms.

        Each value of a field is as likely as the others.
        """
        algorithm = rng.choice([each for each in self._trees if each in algorithms])
        return self._walk(algorithm, lambda _, options: rng.choice(options))

    def _walk(self, algorithm: Algorithm, decide: Decide) -> Config:
        tree = self._trees[algorithm]
        chosen = {}
        for name in self._fields[algorithm]:
            chosen[name] = decide(name, sorted(tree))
            tree = tree[chosen[name]]
        config: Config = self._types[algorithm](**chosen)
        return config
