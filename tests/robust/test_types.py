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
from PIL import Image

import ferplus_tvm as fer

OPENCV: fer.PreprocessOptions = {"channel_order": "BGR", "background": 0}


def faces(path: str) -> list[fer.Source]:
    image = Image.open(path)
    with open(path, "rb") as file:
        return [path, Path(path), file.read(), image, np.asarray(image), file]


def emotions(library: Path, images: list[str]) -> dict[str, float]:
    result: fer.CompileResult = fer.compile(
        "bundled", target="native", output=library, batch_sizes=[1, 8], isolated=True, timeout=60
    )
    manifest: fer.Manifest = fer.read_manifest(library)
    error: float | None = result.manifest.check.error
    print(error, fer.EMOTIONS[0], fer.__version__, manifest.tunable)
    print([target.name for target in fer.list_targets() if target.runs_here])
    model: Path = fer.fetch_model("bundled")
    with fer.load(library, threads=2, device="cpu", checksum="manifest") as engine:
        found: list[fer.Prediction] = engine.predict_batch(images, channel_order="BGR")
        maybe: list[fer.Prediction | None] = engine.predict_batch(images, on_error="skip")
        errors = [
            str(each)
            for each in engine.predict_batch(images, on_error="return")
            if isinstance(each, fer.errors.InputError)
        ]
        print(errors)
        scores: NDArray[np.float32] = engine.scores(np.zeros((1, 1, 64, 64)))
        found += engine.predict_batch(faces(images[0]), value_range=(0, 255), resample="numpy")
        found.append(engine.predict(np.zeros((48, 48), np.uint8), **OPENCV))
        print(scores, [each.label for each in maybe if each is not None])
        print(engine.scores(fer.preprocess(images, **OPENCV)))
    try:
        checked: fer.Verification = fer.verify(library)
        tuned: fer.TuneResult = fer.tune(model)
        gains: tuple[fer.Gain, ...] = tuned.gains
        print(checked.error, gains)
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
engine.predict("face.jpg", chanel_order="BGR")
engine.predict("face.jpg", channel_order="GBR")
engine.predict_batch(["face.jpg"], background="white")
engine.predict_batch(["face.jpg"], on_error="skip", resmaple="numpy")
fer.preprocess("face.jpg", value_range=1)
engine.predict(7)
fer.load("ferplus.so", checksum="none")
fer.load("ferplus.so", verify="full")
fer.compile("bundled", isolate=True)
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
    wrong = enumerate(WRONG.splitlines(), 1)
    assert lines == {number for number, line in wrong if line and "import" not in line}
