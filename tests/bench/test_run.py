"""The whole benchmark, for a second, on a narrow network."""

from __future__ import annotations

import csv
import getpass
import importlib.util
import json
import platform
import re
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

import ferplus_tvm as fer
from ferplus_tvm.bench import engines, limits, text
from ferplus_tvm.bench import report as reports
from ferplus_tvm.bench.cold import ColdStart
from ferplus_tvm.bench.layers import LayerTime
from ferplus_tvm.bench.limits import Level, Limits
from ferplus_tvm.bench.measure import Call, EngineTime, Row
from ferplus_tvm.bench.process import EngineProcess
from ferplus_tvm.bench.report import Report
from ferplus_tvm.bench.run import bench
from ferplus_tvm.bench.samples import Ratio
from ferplus_tvm.bench.scenarios import Outcome
from ferplus_tvm.errors import BenchError, MissingExtraError, UnsupportedModelError
from tests import artifacts
from tests.artifacts import assert_sentence

Measured = tuple[Report, list[Call]]
COMMAND = "ferplus-tvm bench narrow.so"


@pytest.fixture(scope="module")
def measured(narrow_library: Path, narrow_model: Path) -> Measured:
    return bench(
        narrow_library,
        narrow_model,
        batch_sizes=(1, 2),
        threads=(1, 2),
        seconds=1.0,
        end_to_end=True,
        cold_start=True,
        by_layer=True,
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
        assert each.of_limit > 0


def test_what_the_machine_can_do_is_told_for_each_level_of_memory(measured: Measured) -> None:
    report, _ = measured
    assert [each.threads for each in report.limits] == [1, 2]
    for each in report.limits:
        assert each.one_core > 1e8 and each.all_threads > 1e8
        assert each.levels[-1].name == "memory" and each.levels[-1].bytes == 0
        assert all(level.read > 0 and level.copy > 0 for level in each.levels)
        assert {level.name: level.bytes for level in each.levels[:-1]} == limits.caches()


def test_weights_come_from_the_smallest_level_that_holds_them() -> None:
    levels = (Level("L1", 100, 9.0, 1.0), Level("L2", 1000, 5.0, 1.0), Level("memory", 0, 2.0, 1.0))
    made_up = Limits(1, 1.0, 1.0, levels)
    assert [made_up.reading(nbytes) for nbytes in (10, 100, 600, 700, 10**9)] == [9, 5, 5, 2, 2]


def test_a_cold_start_tells_time_memory_and_what_is_installed(
    measured: Measured, narrow_library: Path
) -> None:
    report, _ = measured
    ours, other = report.cold
    assert (ours.engine, other.engine) == ("ferplus_tvm", "onnxruntime")
    assert (ours.threads, other.threads) == (1, 1)
    for each in (ours, other):
        assert 0 < each.seconds < 60 and len(each.samples) == 10
        parts = (each.importing, each.opening, each.answering)
        assert all(part > 0 for part in parts) and sum(parts) < each.seconds
        assert 1e6 < each.private_memory <= each.resident_memory
        if each.written_memory is not None:
            assert 1e6 < each.written_memory <= each.resident_memory
        assert each.installed is not None and each.installed > 1e6
    assert ours.model == narrow_library.stat().st_size
    assert report.cold_ratios[0].peer == "onnxruntime"


def test_the_report_reads_back_as_it_was_written(measured: Measured, tmp_path: Path) -> None:
    report, calls = measured
    reports.write(tmp_path, report, calls)
    assert reports.read(tmp_path / "bench.json") == report
    rows = list(csv.DictReader((tmp_path / "calls.csv").open()))
    assert len(rows) == len(calls)
    assert [float(row["seconds"]) for row in rows] == [call.seconds for call in calls]


def test_the_page_needs_no_other_file_and_shows_the_verdicts(
    measured: Measured, tmp_path: Path
) -> None:
    report, calls = measured
    paths = reports.write(tmp_path, report, calls)
    page = (tmp_path / "index.html").read_text()
    assert "onnxruntime" in page and len(re.findall("<img", page)) == 4
    assert set(re.findall(r'(?:src|href)="(.{10})', page)) == {"data:image"}
    pictures = [path for path in paths if path.suffix == ".png"]
    names = {"latency.png", "throughput.png", "threads.png", "layers.png"}
    assert {path.name for path in pictures} == names
    for path in pictures:
        with Image.open(path) as image:
            assert image.width > 500 and len(image.getcolors(1 << 24)) > 10


def test_a_report_names_no_host_no_user_and_no_path(measured: Measured, tmp_path: Path) -> None:
    report, calls = measured
    reports.write(tmp_path, report, calls)
    host = platform.node()
    for name in ("bench.json", "calls.csv", "index.html"):
        written = re.sub(r"base64,[^\"]*", "", (tmp_path / name).read_text())
        assert not host or not re.search(rf"\b{re.escape(host)}\b", written)
        assert str(Path.home()) not in written
        assert not re.search(r"/(tmp|home|usr|work)\b", written)
    user = getpass.getuser()
    assert user not in json.dumps(report.environment).split()
    environment = report.environment
    assert environment["cpus_allowed"] >= 1 and environment["versions"]["onnxruntime"]


def test_a_library_for_gpus_is_sent_to_the_script_for_them(tmp_path: Path) -> None:
    path = artifacts.write(tmp_path / "gpu.so", target="cuda/sm_90", gpu_arch="sm_90")
    with pytest.raises(BenchError) as caught:
        bench(path, seconds=1)
    assert_sentence(str(caught.value), "sm_90", "benchmarks/gpu.py")


def test_what_spoils_it_is_said(measured: Measured) -> None:
    report, _ = measured
    told = " ".join(report.spoiled_by)
    assert "kernels are not tuned" in told  # the narrow network has no log
    for sentence in report.spoiled_by:
        assert_sentence(sentence)


def test_the_terminal_says_who_is_faster(measured: Measured) -> None:
    report, _ = measured
    verdicts = text.verdicts(report.rows)
    assert len(verdicts) == len(report.rows)
    for row, verdict in zip(report.rows, verdicts, strict=True):
        assert f"batch {row.batch}, {row.threads} thread(s)" in verdict
        assert "times as fast as" in verdict or "no difference is shown" in verdict
    (row, *_) = report.rows
    (ratio,) = row.ratios
    slower = replace(row, ratios=(replace(ratio, ratio=0.5, low=0.45, high=0.55),))
    assert "onnxruntime is 2.00 times as fast as ferplus_tvm" in text.verdicts([slower])[0]
    unsure = replace(row, ratios=(replace(ratio, ratio=1.1, low=0.9, high=1.3),))
    assert "no difference is shown" in text.verdicts([unsure])[0]


def test_other_libraries_are_peers_also_of_the_same_name(
    narrow_library: Path, tmp_path: Path
) -> None:
    copies = [tmp_path / folder / "peer.so" for folder in ("one", "two")]
    for copy in copies:
        copy.parent.mkdir()
        copy.write_bytes(narrow_library.read_bytes())
    again = tmp_path / "one" / ".." / "one" / "peer.so"
    report, _ = bench(
        narrow_library, peers=map(str, [*copies, again]), batch_sizes=[1], threads=[1], seconds=0.1
    )
    names = ["ferplus_tvm", "peer.so", "peer.so (2)"]
    assert [each.engine for each in report.rows[0].engines] == names
    assert [each.peer for each in report.rows[0].ratios] == names[1:]


def test_a_library_without_batch_1_is_said_to_be_measured_with_another(
    other_library: Path, narrow_model: Path
) -> None:
    report, _ = bench(
        other_library,
        narrow_model,
        peers=[],
        batch_sizes=[2],
        threads=[1],
        seconds=0.1,
        end_to_end=True,
    )
    assert [(row.way, row.batch) for row in report.rows] == [("scores", 2), ("jpeg", 1)]
    assert "holds no batch size 1" in " ".join(report.spoiled_by)


def test_mlperf_scenarios_have_their_names_and_metrics(
    narrow_library: Path, narrow_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ferplus_tvm.bench import scenarios

    full = scenarios.FORMS["full"]
    assert (full.seconds, full.faces) == (600, 24_576)  # MLPerf's own
    shorter = replace(scenarios.FORMS["short"], seconds=0.2)
    monkeypatch.setitem(scenarios.FORMS, "short", shorter)
    report, calls = bench(
        narrow_library,
        narrow_model,
        batch_sizes=[2],
        threads=[1],
        seconds=0.1,
        form="short",
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


def test_a_library_of_another_model_is_refused(narrow_library: Path) -> None:
    with pytest.raises(BenchError) as caught:
        bench(narrow_library, "bundled", batch_sizes=[1], threads=[1], seconds=0.1)
    assert_sentence(str(caught.value), "narrow", "--model")


def test_a_peer_that_is_not_installed_tells_the_pip_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    find = importlib.util.find_spec
    for package, extra in (
        ("torch", "torch"),
        ("openvino", "openvino"),
        ("onnxruntime", "bench"),
        ("matplotlib", "bench"),
        ("psutil", "bench"),
    ):
        monkeypatch.setattr(
            importlib.util,
            "find_spec",
            lambda name, gone=package: None if name == gone else find("json"),
        )
        with pytest.raises(MissingExtraError, match=rf"pip install 'ferplus_tvm\[{extra}\]'"):
            engines.expect_installed(engines.PEERS)


@pytest.mark.parametrize(
    "options", [{"peers": ["nobody"]}, {"seconds": 0}, {"threads": [0]}, {"batch_sizes": []}]
)
def test_arguments_out_of_their_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected|positive"):
        bench(**options)


def test_an_engine_that_cannot_be_opened_is_one_sentence(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    with pytest.raises(BenchError) as caught:
        EngineProcess("onnxruntime", "onnxruntime", str(broken), 1, 1)
    assert_sentence(str(caught.value), "onnxruntime", "--peers")


def test_an_engine_that_dies_is_one_sentence(narrow_library: Path) -> None:
    with EngineProcess("ours", engines.OURS, str(narrow_library), 1, 1) as process:
        turn = process.turn(3, 1)
        assert len(turn.seconds) == 3 and (turn.seconds > 0).all()
        assert turn.cpu > 0 and turn.pace > 0
        process._process.kill()
        with pytest.raises(BenchError) as caught:
            process.turn(3, 1)
        assert_sentence(str(caught.value), "ours", "ended with status")


def test_what_is_no_report_is_refused(tmp_path: Path, measured: Measured) -> None:
    report, _ = measured
    path = tmp_path / "bench.json"
    for content, part in (
        ("", "no report"),
        ("[1]", "no report"),
        (report.to_json().replace('"format": 1', '"format": 9'), "format 9"),
        (report.to_json().replace('"of_limit"', '"limit"'), "lacks fields"),
        ('{"format": 1, "rows": 3}', "lacks fields"),
    ):
        path.write_text(content)
        with pytest.raises(BenchError) as caught:
            reports.read(path)
        assert_sentence(str(caught.value), part)
    with pytest.raises(BenchError, match="cannot be read"):
        reports.read(tmp_path / "absent.json")


def test_fields_that_a_later_version_adds_are_left_out(measured: Measured, tmp_path: Path) -> None:
    report, _ = measured
    told = json.loads(report.to_json())
    told["later"] = 1
    told["rows"][0]["later"] = told["rows"][0]["engines"][0]["later"] = [1]
    (tmp_path / "bench.json").write_text(json.dumps(told))
    assert reports.read(tmp_path / "bench.json") == report


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["bench", "/home/a/lr=0.1/x y.so"], "bench 'x y.so'"),
        (["bench", "--out=/home/a/report/", "x.so"], "bench --out=report x.so"),
        (["bench", "--peers", "onnxruntime,/home/a/b.so"], "bench --peers onnxruntime,b.so"),
        (["bench", "--peers=/home/a/b.so,torch"], "bench --peers=b.so,torch"),
        (["bench", "/home/a,b/x.so", "--batch", "1,8"], "bench x.so --batch 1,8"),
    ],
)
def test_the_command_is_told_without_folders(words: list[str], told: str) -> None:
    from ferplus_tvm.cli.bench import _command

    shown = _command(["/usr/bin/ferplus-tvm", *words])
    assert "/" not in shown and "home" not in shown
    assert shown == f"ferplus-tvm {told}"


def test_a_folder_that_cannot_be_written_is_one_sentence(
    measured: Measured, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BenchError) as caught:
        reports.write(tmp_path / "file", *measured)
    assert_sentence(str(caught.value), "--out")


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ferplus_tvm", "bench", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_command_prints_a_table_and_the_gate_decides(
    narrow_library: Path, narrow_model: Path, tmp_path: Path
) -> None:
    options = ["--model", narrow_model, "--batch", "1", "--threads", "1", "--seconds", "1"]
    out = tmp_path / "report"
    done = run(narrow_library, *options, "--out", out)
    assert done.returncode == 0, done.stderr
    report = reports.read(out / "bench.json")
    (verdict,) = text.verdicts(report.rows)
    assert "onnxruntime" in verdict and verdict in done.stdout
    assert report.command.startswith("ferplus-tvm bench narrow.so --model narrow.onnx")
    # A baseline in which we were ten times as fast, and one in which we were a tenth as fast.
    (row,) = report.rows
    (ratio,) = row.ratios
    for factor, status in ((10, 1), (0.1, 0)):
        then = replace(ratio, ratio=factor * ratio.ratio, low=factor * ratio.low)
        baseline = replace(report, rows=(replace(row, ratios=(then,)),))
        (tmp_path / "baseline.json").write_text(baseline.to_json())
        done = run(narrow_library, *options, "--gate", tmp_path / "baseline.json")
        assert done.returncode == status, done.stderr
        assert ("slower than the baseline" in done.stderr) == bool(status)
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--peers", "nobody"],
        ["--threads", "x"],
        ["--threads", "0"],
        ["--batch", "0"],
        ["--seconds", "0"],
        ["--seconds", "nan"],
        ["--max-slowdown", "much"],
        ["--mlperf", "long"],
    ],
)
def test_wrong_calls_end_with_status_2(arguments: list[str]) -> None:
    assert run(*arguments).returncode == 2


@pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is an extra of its own"
)
def test_torch_computes_the_same_scores(narrow_model: Path, tmp_path: Path) -> None:
    from ferplus_tvm.importer import load_model

    path = tmp_path / "model.onnx"
    path.write_bytes(load_model(narrow_model).proto.SerializeToString())
    faces = engines.faces(3)
    opened = {kind: engines.open_engine(kind, str(path), 1, 3) for kind in ("onnxruntime", "torch")}
    first, other = (np.asarray(each.run(faces)) for each in opened.values())
    assert np.abs(first - other).max() <= 1e-5 * np.abs(first).max()


@pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is an extra of its own"
)
def test_torch_refuses_an_operator_that_it_does_not_know(tmp_path: Path) -> None:
    from ferplus_tvm.bench.torch_model import of_onnx

    given, wanted = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"
    )
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Erf", ["x"], ["y"])], "g", [given], [wanted]
    )
    onnx.save(onnx.helper.make_model(graph), tmp_path / "erf.onnx")
    with pytest.raises(UnsupportedModelError, match="Erf"):
        of_onnx(str(tmp_path / "erf.onnx"))


@pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="openvino is an extra of its own"
)
def test_openvino_at_another_precision_is_measured_at_float32_too(
    narrow_library: Path, narrow_model: Path
) -> None:
    report, _ = bench(
        narrow_library, narrow_model, peers=["openvino"], batch_sizes=[1], threads=[1], seconds=0.1
    )
    _, *others = report.rows[0].engines
    assert any(each.precision == "float32" and each.difference < 1e-4 for each in others)
    for each in others:
        assert each.precision == "float32" or each.precision in each.engine


def test_every_field_of_a_report_is_documented() -> None:
    parts = (
        *(Report, reports.LayersOf, LayerTime, Row, EngineTime, Call, Ratio),
        *(Outcome, ColdStart, Limits, Level),
    )
    document = (Path(__file__).parents[2] / "docs" / "bench.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+)`", document))
    assert {field.name for part in parts for field in fields(part)} <= named
