"""The search, on devices and with times that are made up."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ferplus_tvm import targets
from ferplus_tvm.errors import CompileError, DeviceError
from ferplus_tvm.kernels.backend import WINOGRAD, Algorithm, Config
from ferplus_tvm.kernels.cpu import winograd
from ferplus_tvm.kernels.cpu.backend import CpuBackend
from ferplus_tvm.kernels.workloads import Conv, Dense
from ferplus_tvm.tuning.journal import Journal, open_journal
from ferplus_tvm.tuning.search import GENERATION, Search
from ferplus_tvm.tuning.task import LayerTask
from ferplus_tvm.tuning.tuner import Generation, Tuner
from tests.artifacts import assert_sentence

TARGET = targets.resolve("x86-64-v4")
BACKEND = CpuBackend(TARGET.vector_unit)
WINDOW = ((3, 3), (1, 1), (1, 1, 1, 1), (1, 1))
CONV = Conv(1, 32, 32, 64, 128, *WINDOW, True)
DENSE = Dense(1, 1024, 1024, 1024, True)


@pytest.fixture(autouse=True)
def short_contests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ferplus_tvm.tuning.tuner._LEAST_SECONDS", 0.0)
    monkeypatch.setattr("ferplus_tvm.tuning.tuner._GRACE", 0.0)


class Builds:
    """Builds nothing; dies or fails for some configurations."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.built: list[Config] = []
        self.broken: list[Config] = []
        self.dying: list[Config] = []

    def build(self, task: LayerTask, configs: Sequence[Config]) -> list[Path | BaseException]:
        self.built += configs
        answers: list[Path | BaseException] = []
        for at, config in enumerate(configs):
            if config in self.broken:
                answers.append(ValueError("no such instruction"))
            elif config in self.dying:
                answers.append(ChildProcessError())
            else:
                answers.append(self.folder / f"{at}.so")
        return answers


class Place:
    """A device where a configuration takes ``cost`` of it, with a noise of one per cent."""

    def __init__(self, deaths: Sequence[Config] = (), wrong: Sequence[Config] = ()) -> None:
        self.threads = 2
        self.random = np.random.default_rng(0)
        self.deaths, self.wrong = list(deaths), list(wrong)
        self.admitted: list[Config] = []
        self.held = self.generations = self.moves = 0
        self.gone = False

    def hold(self) -> None:
        if self.gone:
            raise DeviceError("it is gone")
        self.held += 1

    def release(self) -> None:
        self.held -= 1

    def begin_kernels(self, task: LayerTask) -> None:
        assert self.held
        self.generations += 1
        self.admitted = []

    def admit_kernel(self, path: Path, config: Config) -> str | None:
        if config in self.deaths:
            raise DeviceError("it died")
        if config in self.wrong:
            return "its answer is off"
        self.admitted.append(config)
        return None

    def turns(self, order: Sequence[int], threads: int, repeat: int) -> list[list[float]]:
        noise = np.exp(0.01 * self.random.standard_normal((len(order), repeat)))
        costs = np.array([cost(self.admitted[at]) / threads for at in order])
        return [[float(each) for each in turn] for turn in costs[:, None] * noise]

    def move(self) -> None:
        self.moves += 1


def cost(config: Config) -> float:
    """The best is F(4,3) with blocks of some 20 tiles, five rows of four vectors."""
    if config.algorithm not in (Algorithm.WINOGRAD_F4, Algorithm.GEMM):
        return 2e-3
    fields = vars(config)
    far = abs(fields["rows"] - 5) + abs(fields["vectors"] - 4) + fields["prefetch"] / 1024
    far += abs(np.log2((fields.get("block", 20) + 1) / 21))
    return float(1e-3 * (1 + 0.05 * far))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with open_journal(tmp_path, TARGET, cpu="a CPU", threads=(1, 2), command="a test") as opened:
        yield opened


def search(journal: Journal, layer: Conv | Dense = CONV, **options: object) -> Search:
    preset = BACKEND.presets(layer)[-1]
    task = LayerTask(layer, BACKEND)
    return Search(task, journal.entry(layer), 1, preset, **options)  # type: ignore[arg-type]


def run(
    journal: Journal, searches: Sequence[Search], places: Sequence[Place], generations: int = 12
) -> tuple[Tuner, Builds, list[Generation]]:
    """Run until so many generations were reported."""
    builds, reports, stop = Builds(journal.folder), list[Generation](), threading.Event()

    def report(generation: Generation) -> None:
        reports.append(generation)
        if len(reports) >= generations:
            stop.set()

    tuner = Tuner(journal, builds, searches, stop, report=report)
    tuner.run(places, time.perf_counter() + 60)
    return tuner, builds, reports


def test_it_comes_near_the_best_from_the_presets(journal: Journal) -> None:
    layer = search(journal)
    tuner, builds, reports = run(journal, [layer], [Place()], generations=25)
    leader = layer.entry.leader
    assert leader is not None
    best = min(cost(config) for config in builds.built)
    assert best < 1.1e-3 and cost(leader) <= 1.02 * best
    assert reports[-1].gain == pytest.approx(cost(layer.preset) / cost(leader), rel=0.03)
    assert tuner.failed == 0
    assert tuner.tried == len(layer.entry.trials) == reports[-1].tried


def test_the_first_generation_holds_the_preset_first_and_every_algorithm(journal: Journal) -> None:
    _, builds, reports = run(journal, [search(journal)], [Place()], generations=1)
    assert builds.built[0] == search(journal).preset
    assert {config.algorithm for config in builds.built} == {Algorithm.DIRECT, *WINOGRAD}
    assert len(builds.built) == GENERATION and len(reports) == 1


def test_nothing_is_tried_twice_also_in_the_next_run(journal: Journal, tmp_path: Path) -> None:
    _, first, _ = run(journal, [search(journal)], [Place()], generations=4)
    _, second, _ = run(journal, [search(journal)], [Place()], generations=4)
    leaders = [config for config in second.built if config in first.built]
    entry = journal.entry(CONV)
    known = [entry.preset, entry.leader]
    # Only what was best so far is built again, to compare with.
    assert all(config in known or cost(config) < cost(search(journal).preset) for config in leaders)


def test_seconds_compare_between_runs(journal: Journal) -> None:
    """The second run's machine is twice as slow, which its ratios do not show."""
    run(journal, [search(journal)], [Place()], generations=2)

    class Slow(Place):
        def turns(self, order: Sequence[int], threads: int, repeat: int) -> list[list[float]]:
            return [[2 * each for each in turn] for turn in super().turns(order, threads, repeat)]

    run(journal, [search(journal)], [Slow()], generations=2)
    for config, seconds in journal.entry(CONV).trials.items():
        assert seconds is not None
        assert seconds == pytest.approx((cost(config), cost(config) / 2), rel=0.05)


def test_another_logs_configuration_is_tried_in_the_first_generation(journal: Journal) -> None:
    seed = winograd.Config(lanes=16, tile=4, vectors=4, rows=5, block=22, prefetch=0)
    layer = search(journal, seeds=[seed])
    assert seed in layer.space
    run(journal, [layer], [Place()], generations=1)
    assert layer.entry.leader == seed


def test_what_cannot_be_built_or_is_wrong_is_written_down_and_never_wins(
    journal: Journal,
) -> None:
    layer = search(journal)
    wrong, broken = layer.space.presets[1:3]
    place = Place(wrong=[wrong])
    builds, stop = Builds(journal.folder), threading.Event()
    builds.broken = [broken]
    tuner = Tuner(journal, builds, [layer], stop, report=lambda _: stop.set())
    tuner.run([place], time.perf_counter() + 60)
    for config in (wrong, broken):
        assert layer.entry.trials[config] is None
        assert layer.entry.leader != config
    assert tuner.failed == 2


def test_a_device_that_dies_costs_its_candidate_and_not_the_run(journal: Journal) -> None:
    layer = search(journal)
    deadly = layer.space.presets[2]
    run(journal, [layer], [Place(deaths=[deadly])], generations=6)
    assert layer.entry.trials[deadly] is None
    measured = [seconds for seconds in layer.entry.trials.values() if seconds is not None]
    assert len(measured) > 20
    assert layer.entry.leader is not None


def test_a_builder_that_dies_is_given_a_second_chance(journal: Journal) -> None:
    layer = search(journal)
    victim = layer.space.presets[1]
    builds, stop = Builds(journal.folder), threading.Event()
    builds.dying = [victim]
    reports: list[Generation] = []

    def report(generation: Generation) -> None:
        reports.append(generation)
        if len(reports) == 1:
            assert victim not in layer.entry.trials
            builds.dying = []
            layer.seeds = [victim]
        else:
            stop.set()

    Tuner(journal, builds, [layer], stop, report=report).run([Place()], time.perf_counter() + 60)
    assert layer.entry.trials[victim] is not None


def test_without_a_device_left_it_says_so(journal: Journal) -> None:
    place = Place()
    place.gone = True
    with pytest.raises(DeviceError, match="it is gone"):
        run(journal, [search(journal)], [place])
    assert journal.entry(CONV).trials == {}


def test_one_of_two_devices_is_enough(journal: Journal) -> None:
    gone, there = Place(), Place()
    gone.gone = True
    _, _, reports = run(journal, [search(journal), search(journal, DENSE)], [gone, there], 4)
    assert len(reports) >= 4 and there.generations >= 4


def test_several_devices_work_at_the_same_time(journal: Journal) -> None:
    together = threading.Barrier(2, timeout=30)

    class Meeting(Place):
        def begin_kernels(self, task: LayerTask) -> None:
            super().begin_kernels(task)
            if self.generations == 1:
                together.wait()  # both have to be here

    places = [Meeting(), Meeting()]
    run(journal, [search(journal), search(journal, DENSE)], places, generations=4)
    assert all(place.generations for place in places)


def test_every_layer_comes_first_and_then_those_that_take_the_most_time(
    journal: Journal,
) -> None:
    big, small = search(journal), search(journal, DENSE)
    small.count, big.count = 1, 20
    _, _, reports = run(journal, [big, small], [Place()], generations=12)
    layers = [report.task.workload for report in reports]
    assert set(layers[:2]) == {CONV, DENSE}
    assert layers.count(CONV) > 2 * layers.count(DENSE)


def test_it_ends_when_nothing_is_left_to_try(journal: Journal) -> None:
    tiny = Dense(1, 64, 16, 16, True)
    layer = search(journal, tiny)
    run(journal, [layer], [Place()], generations=100)
    everything = {(v, r, p) for v in (1,) for r in (1,) for p in (0, 1024, 2048, 4096, 8192, 16384)}
    assert len(layer.entry.trials) == len(everything)


def test_the_winner_is_moved_about_in_memory_before_it_wins(journal: Journal) -> None:
    place = Place()
    run(journal, [search(journal)], [place], generations=3)
    assert place.moves >= 4


def test_libraries_are_removed_after_a_generation(journal: Journal) -> None:
    class Writing(Builds):
        def build(self, task: LayerTask, configs: Sequence[Config]) -> list[Path | BaseException]:
            paths = super().build(task, configs)
            for path in paths:
                assert isinstance(path, Path)
                path.touch()
            return paths

    stop = threading.Event()
    builds = Writing(journal.folder)
    tuner = Tuner(journal, builds, [search(journal)], stop, report=lambda _: stop.set())
    tuner.run([Place()], time.perf_counter() + 60)
    assert list(journal.folder.glob("*.so")) == []


def test_where_nothing_can_be_built_it_says_so_and_blames_no_configuration(
    journal: Journal,
) -> None:
    class Broken(Builds):
        def build(self, task: LayerTask, configs: Sequence[Config]) -> list[Path | BaseException]:
            return [OSError("No space left on device") for _ in configs]

    tuner = Tuner(journal, Broken(journal.folder), [search(journal)], threading.Event())
    with pytest.raises(CompileError) as caught:
        tuner.run([Place()], time.perf_counter() + 60)
    assert_sentence(str(caught.value), CONV.name, "No space left on device")
    assert journal.entry(CONV).trials == {}


def test_a_preset_that_fails_leaves_nothing_to_compare_with(journal: Journal) -> None:
    layer = search(journal)
    for _ in range(2):
        run(journal, [layer], [Place(wrong=[layer.preset])])
        assert layer.entry.preset is None
        layer = search(journal)
    assert list(layer.entry.trials.values()) == [None]


def test_a_preset_is_not_blamed_for_the_first_death(journal: Journal) -> None:
    layer = search(journal)

    class Once(Place):
        def admit_kernel(self, path: Path, config: Config) -> str | None:
            if self.generations == 1 and config == layer.preset:
                raise DeviceError("it was unplugged")
            return super().admit_kernel(path, config)

    run(journal, [layer], [Once()], generations=3)
    assert layer.entry.preset == layer.preset


def test_any_number_of_deadly_candidates_ends_no_run(journal: Journal) -> None:
    layer = search(journal)
    deadly = [config for config in layer.space.presets if config != layer.preset]
    deadly += list(layer.space.neighbours(layer.preset))[:2]
    run(journal, [layer], [Place(deaths=deadly)], generations=3)
    for config in deadly:
        assert layer.entry.trials[config] is None


def test_a_device_with_other_threads_is_refused(journal: Journal) -> None:
    place = Place()
    place.threads = 4
    with pytest.raises(DeviceError) as caught:
        run(journal, [search(journal)], [place])
    assert_sentence(str(caught.value), "4 threads", "for 2", "--threads")


def test_a_later_versions_preset_takes_the_place_of_the_old_one(journal: Journal) -> None:
    run(journal, [search(journal)], [Place()], generations=2)
    changed = search(journal)
    changed.preset = replace(changed.preset, prefetch=1024)  # type: ignore[type-var]
    assert changed.preset in changed.space
    _, _, reports = run(journal, [changed], [Place()], generations=1)
    assert changed.entry.preset == changed.preset
    assert reports[-1].gain == pytest.approx(
        cost(changed.preset) / cost(changed.entry.leader), rel=0.05
    )
