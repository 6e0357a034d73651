"""The whole benchmark, for a second, on a narrow network."""

from __future__ import annotations

import csv
import getpass
import json
import platform
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import ferplus_tvm as fer
from ferplus_tvm.bench.options import BenchOptions
from ferplus_tvm.bench.report import data
from ferplus_tvm.bench.report.data import Report
from ferplus_tvm.bench.report.write import write
from ferplus_tvm.bench.run import bench
from ferplus_tvm.bench.subjects import device_of, open_library
from ferplus_tvm.bench.timing import roofline
from ferplus_tvm.bench.timing.roofline import Level, Roofline
from ferplus_tvm.bench.timing.rows import Call
from ferplus_tvm.errors import BenchError, GpuError
from ferplus_tvm.host import gpu
from tests import artifacts
from tests.artifacts import assert_sentence

Measured = tuple[Report, list[Call]]
COMMAND = "ferplus-tvm bench narrow.so"


@pytest.fixture(scope="module")
def measured(narrow_library: Path, narrow_model: Path) -> Iterator[Measured]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ferplus_tvm.bench.measurements._COLD_RUNS", 6)  # the fewest for an interval
        yield measure(narrow_library, narrow_model)


def measure(library: Path, model: Path) -> Measured:
    return bench(
        library,
        model,
        BenchOptions(
            batch_sizes=(1, 2),
            threads=(1, 2),
            seconds=1.0,
            end_to_end=True,
            cold_start=True,
            by_layer=True,
        ),
        command=COMMAND,
    )


def test_every_row_has_both_engines_with_equal_answers(measured: Measured) -> None:
    report, calls = measured
    rows = [(row.way, row.batch, row.threads) for row in report.rows]
    scores = [("scores", batch, threads) for batch in (1, 2) for threads in (1, 2)]
    assert rows == [*scores, ("jpeg", 1, 1), ("jpeg", 1, 2)]
    for row in report.rows:
        assert [each.engine for each in row.engines] == ["ferplus_tvm", "onnxruntime"]
        for each in row.engines:
            assert each.difference < 1e-4
            assert 0 < each.minimum <= each.p50
            own = [
                call
                for call in calls
                if (call.way, call.batch, call.threads, call.engine)
                == (row.way, row.batch, row.threads, each.engine)
            ]
            assert each.calls == len(own) > 0
        (ratio,) = row.ratios
        assert ratio.low <= ratio.ratio <= ratio.high and ratio.pairs == row.rounds
        assert ratio.ours_first is not None and ratio.peer_first is not None


def test_layers_are_those_of_the_library(measured: Measured, narrow_library: Path) -> None:
    report, _ = measured
    with fer.load(narrow_library) as engine:
        kernels = engine.manifest.kernels
    assert [(each.batch, each.threads) for each in report.layers] == [
        (1, 1),
        (1, 2),
        (2, 1),
        (2, 2),
    ]
    for each in report.layers:
        own = [kernel for kernel in kernels if kernel.batch == each.batch]
        assert [layer.algorithm for layer in each.layers] == [kernel.algorithm for kernel in own]
        assert sum(layer.share for layer in each.layers) == pytest.approx(1)
        assert 0 < each.of_roofline < 2


def test_what_the_machine_can_do_is_told_for_each_level_of_memory(measured: Measured) -> None:
    report, _ = measured
    assert [each.threads for each in report.rooflines] == [1, 2]
    for each in report.rooflines:
        assert each.one_core > 1e8 and each.all_threads > 1e8
        assert each.levels[-1].name == "memory" and each.levels[-1].bytes == 0
        assert all(level.read > 0 and level.copy > 0 for level in each.levels)
        assert {level.name: level.bytes for level in each.levels[:-1]} == roofline.caches()


def test_weights_come_from_the_smallest_level_that_holds_them() -> None:
    levels = (Level("L1", 100, 9.0, 1.0), Level("L2", 1000, 5.0, 1.0), Level("memory", 0, 2.0, 1.0))
    made_up = Roofline(1, 1.0, 1.0, levels)
    assert [made_up.reading(nbytes) for nbytes in (10, 100, 600, 700, 10**9)] == [9, 5, 5, 2, 2]


def test_a_cold_start_tells_time_memory_and_what_is_installed(
    measured: Measured, narrow_library: Path
) -> None:
    report, _ = measured
    ours, other = report.cold
    assert (ours.engine, other.engine) == ("ferplus_tvm", "onnxruntime")
    assert (ours.threads, other.threads) == (1, 1)
    for each in (ours, other):
        assert 0 < each.seconds < 60 and len(each.samples) == 6
        parts = (each.importing, each.opening, each.answering)
        assert all(part > 0 for part in parts) and sum(parts) < each.seconds
        assert 1e6 < each.uss <= each.rss
        if each.private_dirty is not None:
            assert 1e6 < each.private_dirty <= each.rss
        assert each.installed is not None and each.installed > 1e6
    assert ours.model == narrow_library.stat().st_size
    assert report.cold_ratios[0].peer == "onnxruntime"


def test_the_report_reads_back_as_it_was_written(measured: Measured, tmp_path: Path) -> None:
    report, calls = measured
    write(tmp_path, report, calls)
    assert data.read(tmp_path / "bench.json") == report
    rows = list(csv.DictReader((tmp_path / "calls.csv").open()))
    assert len(rows) == len(calls)
    assert [float(row["seconds"]) for row in rows] == [call.seconds for call in calls]


def test_a_report_names_no_host_no_user_and_no_path(measured: Measured, tmp_path: Path) -> None:
    report, calls = measured
    write(tmp_path, report, calls)
    host = platform.node()
    for name in ("bench.json", "calls.csv", "index.html"):
        written = (tmp_path / name).read_text()
        assert not host or not re.search(rf"\b{re.escape(host)}\b", written)
        assert str(Path.home()) not in written
        assert not re.search(r"/(tmp|home|usr|work)\b", written)
    user = getpass.getuser()
    assert user not in json.dumps(report.environment).split()
    environment = report.environment
    assert environment["cpus_allowed"] >= 1 and environment["versions"]["onnxruntime"]


def test_a_library_for_the_other_kind_of_device_is_refused(narrow_library: Path) -> None:
    try:
        gpu.devices()
        pytest.skip("this machine has a GPU")
    except GpuError:
        pass
    with pytest.raises(GpuError, match="driver"):
        bench(narrow_library, options=BenchOptions(device="cuda:0"))
    with pytest.raises(BenchError) as caught:
        bench(options=BenchOptions(device="cuda:0", cold_start=True))
    assert_sentence(str(caught.value), "cuda:0", "--cold")


def test_a_library_for_gpus_is_measured_on_the_gpu(tmp_path: Path) -> None:
    path = artifacts.write(tmp_path / "gpu.so", target="cuda/sm_90", gpu_arch="sm_90")
    assert device_of(path, None) == "cuda:0"
    assert device_of(path, "cuda:1") == "cuda:1"
    with pytest.raises(BenchError) as caught:
        open_library(path, "cpu")
    assert_sentence(str(caught.value), "cuda/sm_90", "--device")


def test_warnings_say_what_makes_figures_less_sure(measured: Measured) -> None:
    report, _ = measured
    told = " ".join(map(str, report.warnings))
    assert "are not tuned" in told  # the narrow network has no log
    for sentence in report.warnings:
        assert_sentence(str(sentence))


def test_a_library_without_batch_1_is_said_to_be_measured_with_another(
    other_library: Path, narrow_model: Path
) -> None:
    report, _ = bench(
        other_library,
        narrow_model,
        BenchOptions(peers=(), batch_sizes=(2,), threads=(1,), seconds=0.1, end_to_end=True),
    )
    assert [(row.way, row.batch) for row in report.rows] == [("scores", 2), ("jpeg", 1)]
    assert "holds no batch size 1" in " ".join(map(str, report.warnings))


def test_mlperf_scenarios_have_their_names_and_metrics(
    narrow_library: Path, narrow_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ferplus_tvm.bench.timing import scenarios

    full = scenarios.FORMS["full"]
    assert (full.seconds, full.faces) == (600, 24_576)  # MLPerf's own
    shorter = replace(scenarios.FORMS["short"], seconds=0.2)
    monkeypatch.setitem(scenarios.FORMS, "short", shorter)
    report, calls = bench(
        narrow_library,
        narrow_model,
        BenchOptions(batch_sizes=(2,), threads=(1,), seconds=0.1, mlperf="short"),
    )
    found = [(each.scenario, each.engine) for each in report.scenarios]
    both = ["ferplus_tvm", "onnxruntime"]
    assert found == [(s, engine) for s in ("SingleStream", "Offline") for engine in both]
    for each in report.scenarios:
        if each.scenario == "SingleStream":
            own = [c.seconds for c in calls if (c.way, c.engine) == (each.scenario, each.engine)]
            assert each.count == len(own) >= 64 and each.batch == 1 and each.seconds > 0.1
            assert sorted(own)[int(0.9 * len(own)) - 1] <= each.metric <= max(own)
        else:
            assert each.count >= 1024 and each.metric == pytest.approx(each.count / each.seconds)


def test_without_a_library_the_model_is_compiled_in_a_process_of_its_own(
    narrow_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def here(*_: object, **__: object) -> None:
        raise AssertionError("compiled in this process")

    monkeypatch.setattr("ferplus_tvm.compiler.build.executable", here)
    options = BenchOptions(peers=(), batch_sizes=(2,), threads=(1,), seconds=0.1)
    report, _ = bench(None, narrow_model, options)
    assert report.library["batch_sizes"] == [2] and report.model["name"] == "narrow"
    assert [(row.batch, row.threads) for row in report.rows] == [(2, 1)]


def test_a_library_of_another_model_is_refused(narrow_library: Path) -> None:
    with pytest.raises(BenchError) as caught:
        bench(narrow_library, options=BenchOptions(batch_sizes=(1,), threads=(1,), seconds=0.1))
    assert_sentence(str(caught.value), "narrow", "--model")


@pytest.mark.parametrize("options", [{"seconds": 0}, {"threads": (0,)}, {"batch_sizes": ()}])
def test_numbers_out_of_their_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected .* positive"):
        BenchOptions(**options)


def test_a_name_that_is_no_peer_on_the_device_is_refused() -> None:
    for options in (
        BenchOptions(peers=("nobody",)),
        BenchOptions(peers=("torch-graph",), device="cpu"),
        BenchOptions(peers=("openvino",), device="cuda:0"),
    ):
        with pytest.raises(ValueError, match=r"is no peer on .*expected .*torch"):
            bench(options=options)
