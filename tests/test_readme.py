"""The README's commands and code do what they say."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ferplus_tvm.data import SAMPLE_FACE
from ferplus_tvm.targets import NAMED

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def environment(*first_on_path: Path) -> dict[str, str]:
    """This process's environment, from which another folder finds this package too."""
    path = [*map(str, first_on_path), os.environ["PATH"]]
    packages = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PATH": os.pathsep.join(path),
        "PYTHONPATH": os.pathsep.join(filter(None, packages)),
    }


@pytest.fixture
def workplace(library: Path, tmp_path: Path) -> Path:
    """A folder with what the README's commands name."""
    shutil.copy(library, tmp_path / "ferplus.so")
    face = Image.open(SAMPLE_FACE)
    face.save(tmp_path / "face.jpg")
    (tmp_path / "faces").mkdir()
    face.save(tmp_path / "faces" / "one.png")
    return tmp_path


def test_the_readme_has_code() -> None:
    assert blocks("python") and blocks("bash")


@pytest.mark.parametrize("code", blocks("python"))
def test_python_block_runs(code: str, workplace: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=workplace,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "happiness" in done.stdout


@pytest.mark.parametrize("script", blocks("bash"))
def test_bash_block_runs(script: str, workplace: Path) -> None:
    # The command as this interpreter has it, whatever else is on the path.
    command = workplace / "bin" / "ferplus-tvm"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ferplus_tvm "$@"\n')
    command.chmod(0o755)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=workplace,
        env=environment(command.parent),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_named_target_is_in_the_table() -> None:
    assert [name for name in NAMED if f"`{name}`" not in README] == []


def reports() -> list[tuple[str, dict[str, Any]]]:
    """The rows of the kept reports, as they lie on the disk."""
    found = []
    for name in ("bench", "bench-batch-32"):
        path = Path(__file__).parents[1] / "docs" / name / "bench.json"
        found += [(name, row) for row in json.loads(path.read_text())["rows"]]
    return found


def test_every_figure_beside_a_peer_is_one_of_the_kept_reports() -> None:
    lines = re.findall(
        r"^\| (\S.*?) \| (\d+)(.*?) \| (\d+) \| (\S+) \| (\S+) \| (.+?) \|$", README, re.M
    )
    lines = [line for line in lines if line[0].startswith(("onnxruntime", "openvino"))]
    assert len(lines) >= 15
    for peer, batch, way, threads, theirs, ours, ratio in lines:
        (row,) = (
            row
            for name, row in reports()
            if (row["batch"], row["threads"]) == (int(batch), int(threads))
            and row["way"] == ("jpeg" if "JPEG" in way else "scores")
            and name == ("bench-batch-32" if batch == "32" else "bench")
        )
        times = {each["engine"]: 1e3 * each["p50"] / row["batch"] for each in row["engines"]}
        assert (float(theirs), float(ours)) == pytest.approx(
            (times[peer], times["ferplus_tvm"]), abs=0.006
        )
        (told,) = (each for each in row["ratios"] if each["peer"] == peer)
        numbers = [float(number) for number in re.findall(r"\d+\.\d+", ratio)]
        assert numbers == pytest.approx([told["ratio"], told["low"], told["high"]], abs=0.006)


def test_the_readme_has_every_peer_batch_size_and_number_of_threads() -> None:
    for _, row in reports():
        for each in row["ratios"]:
            found = re.search(
                rf"^\| {re.escape(each['peer'])} \| {row['batch']}\b.* \| {row['threads']} \|",
                README,
                re.M,
            )
            assert found, each["peer"]


def test_the_kept_reports_were_made_by_the_commands_that_the_readme_shows() -> None:
    for name in ("bench", "bench-batch-32"):
        path = Path(__file__).parents[1] / "docs" / name / "bench.json"
        assert json.loads(path.read_text())["command"] in README


def test_every_figure_of_a_gpu_is_one_of_the_kept_reports() -> None:
    root = Path(__file__).parents[1] / "docs" / "gpu"
    for precision in ("float32", "tf32", "float16"):
        rows = json.loads((root / f"{precision}.json").read_text())["rows"]
        for row in rows:
            if not row["engine"].endswith(", on the GPU"):
                continue
            (line,) = re.findall(rf"^\| {precision} \| {row['batch']} \| .*$", README, re.M)
            if row["engine"].startswith("ferplus_tvm"):
                told = [float(cell.strip("% ")) for cell in line.split("|")[3:6]]
                per_cent = 100 * row["share_of_peak"]
                measured = [row["milliseconds"], row["faces_per_second"], per_cent]
                assert told == pytest.approx(measured, abs=0.51) and told[0] == pytest.approx(
                    measured[0], abs=6e-4
                )
            elif "orch" in row["engine"]:  # PyTorch's; another library of ours may stand beside
                middle, low, high = row["over_ours"]
                assert f"{middle:.2f} ({low:.2f}..{high:.2f})" in line


def test_pictures_and_pages_that_the_readme_shows_are_there() -> None:
    root = Path(__file__).parents[1]
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert len(links) > 8
    assert [link for link in links if not (root / link).exists()] == []
