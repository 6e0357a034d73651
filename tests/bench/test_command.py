"""The command line of the benchmark."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ferplus_tvm.bench.report import data, text


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
    report = data.read(out / "bench.json")
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
        ["--peers", "torch-graph", "--device", "cpu"],
        ["--device", "tpu"],
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
