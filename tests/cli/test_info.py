"""What ``ferplus-tvm info`` says of a library, of whatever network it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ferplus_tvm.artifact.manifest import Check
from ferplus_tvm.artifact.scaling import Scaling
from ferplus_tvm.cli.info import info
from tests import artifacts

FER2013 = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
OTHER: dict[str, Any] = {
    "input_shape": ("N", 1, 48, 48),
    "output_shape": ("N", 7),
    "labels": FER2013,
    "check": Check(1, 1, ((0.5,) * 7,), 1e-4, None),
    "scaling": Scaling((0.0, 1.0), (0.5,), (0.25,)),
}


def facts(path: Path, capsys: pytest.CaptureFixture[str], **changes: Any) -> dict[str, str]:
    """Return what is printed, by its name."""
    info(artifacts.write(path / "x.so", **changes))
    lines = capsys.readouterr().out.splitlines()
    return dict(line.split("  ", 1) for line in lines if "  " in line)


def test_the_contract_of_another_network_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {name: value.strip() for name, value in facts(tmp_path, capsys, **OTHER).items()}

    assert found["input"] == "Nx1x48x48 grey pixels in 0..255"
    assert found["output"] == f"Nx7 scores of {', '.join(FER2013)}"
    assert "to 0..1, less the mean 0.5, divided by 0.25" in found["scaling"]
    assert "the library does it itself" in found["scaling"]
    assert "warning" not in found


def test_what_was_assumed_is_no_fact(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = facts(tmp_path, capsys, warnings=("raw pixels 0..255 are assumed",))

    assert found["warning"].strip() == "raw pixels 0..255 are assumed"


def test_that_of_fer_plus_takes_its_pixels_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = facts(tmp_path, capsys)

    assert found["input"].strip() == "Nx1x64x64 grey pixels in 0..255"
    assert found["scaling"].strip() == "none: the model's file takes these pixels"


def test_colour_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = facts(tmp_path, capsys, input_shape=("N", 3, 224, 224))

    assert found["input"].strip() == "Nx3x224x224 RGB pixels in 0..255"


def test_a_program_gets_the_scaling_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    info(artifacts.write(tmp_path / "x.so", **OTHER), as_json=True)

    manifest = json.loads(capsys.readouterr().out)["manifest"]
    assert manifest["scaling"] == {"input_range": [0.0, 1.0], "mean": [0.5], "std": [0.25]}
    assert manifest["labels"] == list(FER2013)
