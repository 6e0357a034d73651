"""What may be tried for a layer: the configurations of its kernels, as a space of MetaSchedule's.

A configuration is decided field by field, each from the values that fit what was decided before:
the algorithm, the register tile, the block or the strips (which is how the work is split between
threads, and whether the stages are fused), how far weights are fetched ahead.  The decisions are
sampling instructions of a trace, which annotates the root block of the layer's specification.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator
from typing import Any

from ferplus_tvm.kernels import specification
from ferplus_tvm.kernels.cpu import dense, direct, winograd
from ferplus_tvm.kernels.winograd_matrices import ALGORITHMS
from ferplus_tvm.kernels.workloads import Conv, Dense
from ferplus_tvm.targets import VectorUnit

Layer = Conv | Dense
Config = dict[str, int]
"""A kernel's configuration by its fields' names.

Of a convolution ``tile`` is Winograd's m, or 0 for another algorithm.
"""

PREFIX = "ferplus_tvm."
"""What the annotations' names begin with."""

_MOST_VECTORS = 8
_MOST_BLOCK_BYTES = 4 << 20  # of V, beyond every L2
_GROWTH = 1.2  # from one size of a block to the next
_PREFETCHED_FLOATS = (0, 256, 512, 1024, 2048, 4096)
_PREFETCHED_BYTES = (0, 1024, 2048, 4096, 8192, 16384)

Decide = Callable[[str, list[int]], int]
"""Takes a field's name and the values that fit; returns one of them."""


class Space(ABC):
    """The configurations of one layer, which a `walk` decides for field by field."""

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self._module: Any = None

    @abstractmethod
    def presets(self) -> list[Config]:
        """Return what is used untuned, one configuration for each algorithm."""

    @abstractmethod
    def walk(self, decide: Decide) -> Config:
        """Decide for a configuration, field by field."""

    def neighbours(self, config: Config) -> Iterator[Config]:
        """Give the configurations of the same algorithm that differ by a step in one field.

        A field that does not fit any more takes the nearest value that does.
        """
        for changed in config:
            if changed in ("tile", "lanes"):
                continue
            for step in (1, -1):

                def decide(
                    name: str, options: list[int], changed: str = changed, step: int = step
                ) -> int:
                    at = options.index(_nearest(options, config.get(name, options[0])))
                    if name == changed:
                        at = min(max(at + step, 0), len(options) - 1)
                    return options[at]

                neighbour = self.walk(decide)
                if neighbour != config:
                    yield neighbour

    def sample(self, seed: int, algorithms: Collection[int]) -> Config:
        """Return a random configuration of one of the algorithms.

        Each value of a field is as likely as the others.
        """
        return self._trace(None, seed, algorithms)[0]

    def schedule(self, config: Config) -> Any:
        """Return the schedule of the specification whose trace decides for a configuration."""
        return self._trace(config, seed=1)[1]

    def holds(self, config: Config) -> bool:
        """Whether a configuration is one of the space."""
        try:
            return self.walk(lambda name, options: _expected(options, config[name])) == config
        except (KeyError, ValueError):
            return False

    def _trace(
        self, config: Config | None, seed: int, algorithms: Collection[int] | None = None
    ) -> tuple[Config, Any]:
        from tvm import IRModule, s_tir

        if self._module is None:
            self._module = IRModule({"main": specification.of(self.layer)})
        sch = s_tir.Schedule(self._module, seed=seed)
        root = sch.get_sblock("root")

        def decide(name: str, options: list[int]) -> int:
            if name == "tile" and algorithms is not None:
                options = [tile for tile in options if tile in algorithms]
            chances = [1 / len(options)] * len(options)
            decision = None if config is None else options.index(config[name])
            decided = sch.sample_categorical(options, chances, decision)
            sch.annotate(root, PREFIX + name, decided)
            return int(sch.get(decided))

        return self.walk(decide), sch


class CpuSpace(Space):
    """The configurations of one layer for a vector unit."""

    def __init__(self, layer: Layer, unit: VectorUnit) -> None:
        super().__init__(layer)
        self.unit = unit

    def presets(self) -> list[Config]:
        """Return what is used untuned, one configuration for each algorithm."""
        w, unit = self.layer, self.unit
        if isinstance(w, Dense):
            return [record_of(dense.Config.preset(w, unit))]
        plain = direct.Config.preset(w, unit)
        tiles = ALGORITHMS if winograd.applies(w) else ()
        own = [plain, *(winograd.Config.preset(w, unit, tile) for tile in tiles)]
        return [record_of(config) for config in own]

    def walk(self, decide: Decide) -> Config:
        """Decide for a configuration, field by field."""
        w, unit = self.layer, self.unit
        chosen: Config = {}

        def choose(name: str, options: list[int]) -> int:
            chosen[name] = decide(name, options)
            return chosen[name]

        if isinstance(w, Dense):
            choose("lanes", [unit.lanes])
            vectors = choose("vectors", self._vectors(w.out_features))
            choose("rows", self._rows(vectors, w.batch))
            choose("prefetch", list(_PREFETCHED_BYTES))
            return chosen
        tile = choose("tile", [0, *ALGORITHMS] if winograd.applies(w) else [0])
        choose("lanes", [unit.lanes])
        vectors = choose("vectors", self._vectors(w.out_channels))
        if not tile:
            choose("width", self._rows(vectors, w.out_width))
            return chosen
        choose("rows", self._rows(vectors, winograd.tiles(w, tile)))
        choose("block", self._blocks(w, tile))
        choose("prefetch", list(_PREFETCHED_FLOATS))
        return chosen

    def _vectors(self, channels: int) -> list[int]:
        """Return how many vectors a panel may have: a row of sums and its operands have to fit."""
        count = channels // self.unit.lanes
        most = min(_MOST_VECTORS, (self.unit.registers - 1) // 2)
        return [vectors for vectors in range(1, most + 1) if count % vectors == 0]

    def _rows(self, vectors: int, extent: int) -> list[int]:
        most = (self.unit.registers - vectors - 1) // vectors
        return list(range(1, min(most, extent) + 1))

    def _blocks(self, w: Conv, tile: int) -> list[int]:
        """Return 0, for strips, and sizes that share the tiles out evenly, up to the caches'."""
        count = winograd.tiles(w, tile)
        most = max(1, _MOST_BLOCK_BYTES // (4 * (tile + 2) ** 2 * w.in_channels))
        sizes = [0, winograd.Config.preset(w, self.unit, tile).block]
        last = 0.0
        for size in sorted({-(-count // blocks) for blocks in range(1, count + 1)}):
            if size <= most and size >= last * _GROWTH:
                sizes.append(size)
                last = size
        return sorted(set(sizes))


def config_of(config: Config) -> Any:
    """Return the kernel's own configuration of a convolution or dense layer."""
    if "tile" not in config:
        return dense.Config(**config)
    if config["tile"]:
        return winograd.Config(**config)
    return direct.Config(**{name: value for name, value in config.items() if name != "tile"})


def record_of(own: Any) -> Config:
    """Return a kernel's own configuration by its fields' names: what `config_of` takes."""
    plain = {"tile": 0} if isinstance(own, direct.Config) else {}
    return {**plain, **vars(own)}


def _nearest(options: list[int], value: int) -> int:
    return min(options, key=lambda option: abs(option - value))


def _expected(options: list[int], value: int) -> int:
    if value not in options:
        raise ValueError(value)
    return value
