"""The package's types, as mypy shows them to an app."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

APP = """
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import ferplus_tvm as fer


def emotions(library: Path, pictures: list[str]) -> dict[str, float]:
    result = fer.compile("bundled", target="native", output=library, batch_sizes=[1, 8])
    error: float | None = result.manifest.check.error
    print(error, fer.EMOTIONS[0], fer.__version__)
    with fer.load(library, threads=2, device="cpu", checksum="manifest") as engine:
        found: list[fer.Prediction] = engine.predict_batch(pictures, channel_order="BGR")
        maybe: list[fer.Prediction | None] = engine.predict_batch(pictures, on_error="skip")
        scores: NDArray[np.float32] = engine.scores(np.zeros((1, 1, 64, 64)))
        print(scores, [each.label for each in maybe if each is not None])
    try:
        fer.verify(library)
    except fer.errors.FerplusError as problem:
        print(problem)
    return {each.label: each.probability for each in found}
"""

WRONG = """
import ferplus_tvm as fer

engine = fer.load("ferplus.so", threads="two")
label: int = engine.predict("face.jpg").label
answers: list[fer.Prediction] = engine.predict_batch([], on_error="skip")
fer.compile("bundled", precision="int4")
engine.predictions()
"""


def mypy(text: str, folder: Path, version: str) -> list[str]:
    """Return what mypy finds in an app, as it sees the installed package."""
    app = folder / "app.py"
    app.write_text(text)
    command = ["--strict", "--no-error-summary", f"--cache-dir={folder}/cache"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *command, f"--python-version={version}", "app.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("version", ["3.11", "3.13"])
def test_an_app_is_checked_strictly_without_a_complaint(tmp_path: Path, version: str) -> None:
    assert mypy(APP, tmp_path, version) == []


def test_an_apps_mistakes_are_found(tmp_path: Path) -> None:
    lines = {int(line.split(":")[1]) for line in mypy(WRONG, tmp_path, "3.12")}
    assert lines == {4, 5, 6, 7, 8}
