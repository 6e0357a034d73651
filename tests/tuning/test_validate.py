"""What is kept of leaders, where the times of whole networks are made up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ferplus_tvm import targets
from ferplus_tvm.errors import DeviceError, VerificationError
from ferplus_tvm.kernels import backend_of
from ferplus_tvm.kernels.backend import Config
from ferplus_tvm.kernels.workloads import Dense, Workload
from ferplus_tvm.tuning import networks, validate
from ferplus_tvm.tuning.journal import Journal, open_journal
from ferplus_tvm.tuning.paired_timing import PairedResult
from ferplus_tvm.tuning.search import Search
from ferplus_tvm.tuning.space import Space
from ferplus_tvm.tuning.task import LayerTask

TARGET = targets.resolve("x86-64-v4")
BACKEND = backend_of(TARGET)
LAYERS = [Dense(1, 1024 * at, 1024, 1024, True) for at in range(1, 9)]
NOISE = 0.01


class Networks:
    """Whole networks that exist only as what they are made of.

    effects
        what the new configuration of a layer does to the network's time, as a logarithm.
    """

    def __init__(self, effects: dict[Dense, float]) -> None:
        self.effects = effects
        self.built: list[networks.Choice] = []
        self.compared: list[tuple[int, int]] = []
        self.deaths = self.lost = 0
        self.differing: set[frozenset[Workload]] = set()
        self.afterwards: Callable[[], None] = lambda: None

    def build(self, *arguments: Any) -> list[networks.Network]:
        choices, paths = arguments[-2:]
        self.built += choices
        assert len(set(paths)) == len(paths)
        return [
            networks.Network(path, "main", (1, 1, 64, 64), choice)
            for choice, path in zip(choices, paths, strict=True)
        ]

    def compare(
        self,
        device: Any,
        batch: int,
        pair: Sequence[Any],
        threads: Sequence[int],
        seconds: float,
        tolerance: float,
    ) -> list[PairedResult]:
        assert tolerance == targets.TOLERANCE["float32"]
        if self.deaths:
            self.deaths -= 1
            self.lost += 1
            raise DeviceError("it died")
        first, other = (self.new(network.weights) for network in pair)
        if other in self.differing:
            raise VerificationError("two networks differ")
        self.compared.append((len(first), len(other)))
        ratio = sum(self.effects[each] for each in other) - sum(self.effects[x] for x in first)
        self.afterwards()
        return [standing(0.0), standing(ratio)]

    def new(self, choice: networks.Choice) -> frozenset[Workload]:
        return frozenset(layer for layer, config in choice.items() if config == pick(layer, 1))


def standing(ratio: float) -> PairedResult:
    return PairedResult((ratio, ratio), (NOISE, NOISE), (1.0, 1.0))


def pick(layer: Dense, at: int) -> Config:
    """Return the preset of a layer, or another configuration."""
    space = Space(layer, BACKEND)
    return [space.presets[0], *space.neighbours(space.presets[0])][at]


class Device:
    threads = 2
    held = 0

    def hold(self) -> None:
        self.held += 1

    def release(self) -> None:
        self.held -= 1


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with open_journal(tmp_path, TARGET, cpu="a CPU", threads=(1, 2), command="a test") as opened:
        yield opened


Keep = Callable[..., tuple[str, ...]]


@pytest.fixture
def run(journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Keep:
    """Keep what is worth it, of layers that have a preset and another leader."""

    def settle(
        made_up: Networks,
        deadline: float = np.inf,
        interrupted: threading.Event | None = None,
        layers: Sequence[Dense] = LAYERS,
    ) -> tuple[str, ...]:
        monkeypatch.setattr(validate.networks, "build_networks", made_up.build)
        monkeypatch.setattr(validate.networks, "compare", made_up.compare)
        searches = [search(journal, layer) for layer in layers]
        validation = validate.Validation(
            journal,
            [],
            None,  # type: ignore[arg-type]
            Device(),  # type: ignore[arg-type]
            tmp_path,
            interrupted or threading.Event(),
        )
        kept = validation.run(searches, 1.0, deadline)
        assert validation.device.held == made_up.lost  # type: ignore[attr-defined]
        return kept

    return settle


def search(journal: Journal, layer: Dense) -> Search:
    entry = journal.entry(layer)
    if entry.preset is None:
        trials = [(pick(layer, 0), [1e-3, 1e-3]), (pick(layer, 1), [0.9e-3, 0.9e-3])]
        journal.add(entry, trials)
        entry.preset, entry.leader = pick(layer, 0), pick(layer, 1)
    return Search(LayerTask(layer, BACKEND), entry, 1, pick(layer, 0))


def kept(journal: Journal) -> set[Dense]:
    """Return the layers whose new configuration is kept."""
    return {layer for layer in LAYERS if journal.entry(layer).kept == pick(layer, 1)}


def test_leaders_that_make_the_network_faster_are_kept_with_the_gain(
    run: Keep, journal: Journal
) -> None:
    made_up = Networks(dict.fromkeys(LAYERS, -0.01))
    assert run(made_up) == ()
    assert kept(journal) == set(LAYERS)
    gains = journal.provenance.gains
    assert [(gain.batch, gain.threads) for gain in gains] == [(1, 1), (1, 2)]
    assert all(gain.ratio == pytest.approx(np.exp(0.08), abs=1e-3) for gain in gains)
    # All of them at once, and then again for the gain: what chose them tells none.
    assert made_up.compared == [(0, 8), (0, 8)]
    assert len(made_up.built) == 2


@pytest.mark.parametrize("guilty", [[0], [7], [2, 3], [0, 3, 6], range(8)])
def test_the_layers_to_blame_are_found_by_halves_and_go_back(
    run: Keep, journal: Journal, guilty: Sequence[int]
) -> None:
    blamed = {LAYERS[at] for at in guilty}
    made_up = Networks({layer: 0.1 if layer in blamed else -0.01 for layer in LAYERS})
    rejected = run(made_up)
    assert sorted(rejected) == sorted(layer.name for layer in blamed)
    assert kept(journal) == set(LAYERS) - blamed
    for layer in blamed:
        entry = journal.entry(layer)
        assert entry.kept == entry.leader == entry.preset
    assert len(made_up.compared) <= 2 * len(blamed) * 4 + 2


def test_where_nothing_is_new_nothing_is_measured(run: Keep, journal: Journal) -> None:
    run(Networks(dict.fromkeys(LAYERS, 0.1)))
    made_up = Networks({})
    assert run(made_up) == () and made_up.compared == []
    assert all(gain.ratio == 1 for gain in journal.provenance.gains)


def test_steps_within_the_noise_that_add_up_to_a_loss_go_back_to_the_presets(
    run: Keep, journal: Journal
) -> None:
    class Drifting(Networks):
        """The gain is measured in a worse minute than what chose the leaders."""

        def compare(self, *arguments: Any) -> list[PairedResult]:
            ratio = super().compare(*arguments)[1].ratio
            return [standing(0.0), standing(ratio + 0.05 * (len(self.compared) > 1))]

    rejected = run(Drifting(dict.fromkeys(LAYERS, -0.001)))
    assert sorted(rejected) == sorted(layer.name for layer in LAYERS)
    assert kept(journal) == set()
    assert all(gain.ratio == 1 for gain in journal.provenance.gains)


def test_what_is_not_settled_in_time_stays_for_the_next_run(run: Keep, journal: Journal) -> None:
    first = LAYERS[0]
    effects = {layer: 0.1 if layer == first else -0.01 for layer in LAYERS}
    made_up = Networks(effects)
    end = time.perf_counter() + 2.5  # of which the last validation has two seconds
    made_up.afterwards = lambda: time.sleep(0.2)
    assert run(made_up, deadline=end) == ()
    assert first not in kept(journal)
    entry = journal.entry(first)
    assert entry.kept == entry.preset != entry.leader
    assert run(Networks(effects)) == (first.name,)
    assert kept(journal) == set(LAYERS[1:])


def test_a_device_that_is_lost_is_replaced_by_the_next(run: Keep, journal: Journal) -> None:
    made_up = Networks(dict.fromkeys(LAYERS, -0.01))
    made_up.deaths = 2
    assert run(made_up) == ()
    assert kept(journal) == set(LAYERS)


def test_devices_that_are_all_lost_end_it_and_the_next_run_goes_on(
    run: Keep, journal: Journal
) -> None:
    made_up = Networks(dict.fromkeys(LAYERS, -0.01))
    made_up.deaths = 9
    with pytest.raises(DeviceError, match="it died"):
        run(made_up)
    assert kept(journal) == set()
    run(Networks(made_up.effects))
    assert kept(journal) == set(LAYERS)


def test_leaders_whose_errors_add_up_are_not_kept_together(run: Keep, journal: Journal) -> None:
    made_up = Networks(dict.fromkeys(LAYERS, -0.01))
    made_up.differing = {frozenset(LAYERS)}
    (rejected,) = run(made_up)  # the one that would make it all of them again
    assert kept(journal) == {layer for layer in LAYERS if layer.name != rejected}


def test_an_interrupt_ends_it_between_two_validations(run: Keep, journal: Journal) -> None:
    made_up = Networks(dict.fromkeys(LAYERS, 0.1))
    interrupted = threading.Event()
    made_up.afterwards = interrupted.set
    with pytest.raises(KeyboardInterrupt):
        run(made_up, interrupted=interrupted)
    assert len(made_up.compared) == 1
