"""Tuning for real, on a short network and for seconds: what it leaves, and what it survives."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import ferplus_tvm as fer
from ferplus_tvm import targets
from ferplus_tvm.errors import DeviceError, MissingExtraError, TargetError
from ferplus_tvm.records.log import TuningLog
from ferplus_tvm.tuning.report import report
from ferplus_tvm.tuning.trials import read_trials
from ferplus_tvm.tuning.tune import Progress, TuneResult
from tests.artifacts import assert_sentence

HERE = targets.resolve("native").name
LONG = pytest.mark.long
RUNS = 3  # of a tuning, of which a busy machine may need several to come to every layer


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="module")
def reports() -> list[Progress]:
    """The progress of the last run of `tuned`."""
    return []


@pytest.fixture(scope="module")
def tuned(short_model: Path, logs: Path, reports: list[Progress]) -> TuneResult:
    """The short model, tuned at batch 1 until every layer has a record; read by many tests."""
    for _ in range(RUNS):
        reports.clear()
        result = fer.tune(
            short_model,
            log_dir=logs,
            time_limit=10,
            batch_sizes=[1],
            input_range=(0, 1),
            progress=reports.append,
        )
        if all(layer.kept is not None for layer in TuningLog(logs, HERE).layers):
            return result
    pytest.fail(f"{RUNS} tunings of 10 s did not come to every layer")


def test_it_ends_in_time_and_says_what_it_did(
    tuned: TuneResult, logs: Path, reports: list[Progress]
) -> None:
    assert tuned.folder == logs / HERE
    assert tuned.tried > 0 and tuned.failed == 0
    assert trials(logs) > 3
    assert 0 < tuned.measuring < 1
    assert {gain.batch for gain in tuned.gains} == {1}
    assert reports[0].stage == "import" and reports[-1].stage == "networks"
    found = [progress.generation for progress in reports if progress.generation is not None]
    assert found and all(generation.gain >= 1 for generation in found)
    assert {len(generation.best) for generation in found} == {len(tuned.gains)}


def test_a_compilation_takes_every_kernel_from_the_log(
    tuned: TuneResult, logs: Path, short_model: Path, tmp_path: Path
) -> None:
    result = fer.compile(
        short_model,
        output=tmp_path / "m.so",
        batch_sizes=[1],
        input_range=(0, 1),  # which the kernel of the first layer does, too
        tuning_logs=logs,
        require_tuned=True,
    )
    assert result.verified and result.manifest.untuned == ()
    assert result.manifest.tuning_logs == tuned.target == HERE


def test_tuning_imports_no_tensor_intrinsics(tuned: TuneResult) -> None:
    assert tuned.tried  # by this process
    assert [name for name in sys.modules if name.startswith("tvm.s_tir.tensor_intrin")] == []


def test_the_log_tells_what_was_tried_and_what_is_kept(tuned: TuneResult, logs: Path) -> None:
    log = TuningLog(logs, HERE)
    layers = report(log)
    assert len(layers) == tuned.layers > 0
    assert sum(layer.tried for layer in layers) == trials(logs)
    for layer in layers:
        assert layer.kept is not None and layer.preset is not None
        assert layer.times[0] == pytest.approx(1)  # the preset comes first
        assert layer.kept_time <= 1
    state = log.provenance
    assert state is not None
    assert state.command == (
        f"ferplus-tvm tune short.onnx --target {HERE} --batch 1 --time 10 --input-range 0,1 "
        "--mean 0 --std 1"
    )


def run(*arguments: object, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ferplus_tvm", "tune", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def test_report_prints_a_table_and_draws_a_plot(
    tuned: TuneResult, logs: Path, tmp_path: Path
) -> None:
    plot = tmp_path / "plot.png"
    done = run("--report", "--log-dir", logs, "--plot", plot)
    assert done.returncode == 0, done.stderr
    kernels = [layer.workload.name for layer in TuningLog(logs, HERE).layers]
    assert all(kernel in done.stdout for kernel in kernels)
    assert tuned.folder.name in done.stdout
    with Image.open(plot) as image:
        assert image.format == "PNG" and image.width > 500 and len(image.getcolors(1 << 24)) > 10
    done = run("--report", "--log-dir", logs, "--plot", plot, "--json")
    assert [layer["kernel"] for layer in json.loads(done.stdout)] == kernels


def test_report_without_a_log_says_how_to_make_one(tmp_path: Path) -> None:
    done = run("--report", "--log-dir", tmp_path, "--target", "cortex-a72")
    assert done.returncode == 1
    assert_sentence(done.stderr.strip(), "cortex-a72", "ferplus-tvm tune")


def test_a_plot_that_cannot_be_written_is_one_sentence(
    tuned: TuneResult, logs: Path, tmp_path: Path
) -> None:
    done = run("--report", "--log-dir", logs, "--plot", tmp_path / "absent" / "plot.png")
    assert done.returncode == 1 and tuned.target in done.stdout
    assert_sentence(done.stderr.strip(), "plot.png", "--plot")


def test_report_without_matplotlib_tells_the_pip_command(
    tuned: TuneResult, logs: Path, tmp_path: Path
) -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None; sys.modules['matplotlib.figure'] = None\n"
        "from ferplus_tvm.__main__ import main\nmain()\n"
    )
    command = [sys.executable, "-c", code, "tune", "--report", "--log-dir", str(logs)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert "pip install 'ferplus_tvm[tune]'" in done.stderr
    assert "conv3x3_64x64" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["--time", "1"],
        ["--time", "nan"],
        ["--threads", "0"],
        ["--batch", "0"],
        ["--rpc", "somewhere"],
        ["--plot", "x.png"],
    ],
)
def test_wrong_calls_end_with_status_2(arguments: list[str]) -> None:
    assert run(*arguments).returncode == 2


def start(model: Path, logs: Path) -> subprocess.Popen[str]:
    arguments = [str(model), "--log-dir", str(logs), "--batch", "1", "--time", "60"]
    return subprocess.Popen(
        [sys.executable, "-m", "ferplus_tvm", "tune", *arguments],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def lines_until(process: subprocess.Popen[str], what: str) -> list[str]:
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if what in line:
            break
    return lines


def trials(logs: Path) -> int:
    return len(list(read_trials(logs / HERE)))


@pytest.mark.skipif(os.name == "nt", reason="interrupts by signal")
@pytest.mark.parametrize(
    "whole_group",
    [pytest.param(True, id="from a terminal"), pytest.param(False, id="by kill -INT", marks=LONG)],
)
def test_ctrl_c_keeps_what_was_measured(
    short_model: Path, tmp_path: Path, whole_group: bool
) -> None:
    with start(short_model, tmp_path) as process:
        lines_until(process, "tried")
        for _ in range(2):
            if whole_group:
                os.killpg(process.pid, signal.SIGINT)
            else:
                os.kill(process.pid, signal.SIGINT)
            time.sleep(0.02)
        output, errors = process.communicate(timeout=60)
    assert "batch sizes  1\n" in output  # the options, which are printed before the work starts
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "stopped" in errors.splitlines()[-1]
    measured = [t for t in read_trials(tmp_path / HERE) if t["seconds"] is not None]
    assert len(measured) == trials(tmp_path) >= 3
    report = run("--report", "--log-dir", tmp_path, "--plot", tmp_path / "plot.png")
    assert report.returncode == 0 and str(tmp_path) in report.stdout


def kill_at_random(model: Path, logs: Path, times: int) -> None:
    delays = random.Random(3)
    known = 0
    for _ in range(times):
        with start(model, logs) as process:
            lines_until(process, "tried")
            time.sleep(delays.uniform(0, 3))
            process.kill()
            process.communicate(timeout=60)
        assert trials(logs) > known
        known = trials(logs)
    result = fer.tune(model, log_dir=logs, time_limit=10, batch_sizes=[1])
    assert len(TuningLog(logs, HERE).layers) == result.layers
    # Nothing is tried twice.
    tried = [
        json.dumps([trial["workload"], trial["config"]], sort_keys=True)
        for trial in read_trials(logs / HERE)
    ]
    assert len(tried) == len(set(tried)) == known + result.tried


@pytest.mark.skipif(os.name == "nt", reason="kills by signal")
def test_a_kill_at_any_moment_leaves_a_log_that_the_next_run_goes_on_with(
    short_model: Path, tmp_path: Path
) -> None:
    kill_at_random(short_model, tmp_path, 1)


@pytest.mark.long
@pytest.mark.skipif(os.name == "nt", reason="kills by signal")
def test_many_kills_leave_a_log_that_the_next_run_goes_on_with(
    short_model: Path, tmp_path: Path
) -> None:
    kill_at_random(short_model, tmp_path, 40)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"target": '{"kind": "llvm"}'}, ("name of its target",)),
        ({"target": "cortex-a72"}, ("cortex-a72", "--rpc")),
        ({"rpc": "127.0.0.1:1/pi"}, ("native", "--rpc")),
    ],
)
def test_targets_that_cannot_be_tuned_here_are_refused(
    options: dict[str, Any], parts: tuple[str, ...], tmp_path: Path
) -> None:
    with pytest.raises(TargetError) as caught:
        fer.tune(log_dir=tmp_path, **options)
    assert_sentence(str(caught.value), *parts)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options",
    [{"time_limit": 1}, {"threads": 0}, {"batch_sizes": []}, {"rpc": "pi", "target": "aarch64"}],
)
def test_arguments_out_of_their_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected|is"):
        fer.tune(**options)


def test_a_missing_package_is_told_with_the_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    find: Callable[[str], Any] = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "tornado" else find(name)
    )
    with pytest.raises(MissingExtraError, match=r"tornado.*pip install 'ferplus_tvm\[tune\]'"):
        fer.tune()


def test_without_a_tracker_it_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(DeviceError) as caught:
        fer.tune(target="cortex-a72", log_dir=tmp_path, rpc="127.0.0.1:1/pi")
    assert_sentence(str(caught.value), "127.0.0.1:1", "tvm.exec.rpc_tracker")
