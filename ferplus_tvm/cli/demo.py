"""``ferplus-tvm demo``."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import typer

import ferplus_tvm
from ferplus_tvm.cli.output import print_facts, stages
from ferplus_tvm.cli.photo import print_faces
from ferplus_tvm.cli.predict import print_bars
from ferplus_tvm.data import SAMPLE_FACE, SAMPLE_PHOTO
from ferplus_tvm.faces.preprocess import preprocess
from ferplus_tvm.host.temporary import temporary_folder
from ferplus_tvm.runtime.engine import Engine

if TYPE_CHECKING:
    from ferplus_tvm.compiler.pipeline import CompileResult

_CALLS = 50
_PHOTO_SIZE = (480, 640)
"""Height and width of the sample photo, the one size that the demo compiles the detector for."""


def demo() -> None:
    """Compile the bundled model for this CPU, and run a bundled face and photo through it."""
    compile_model = ferplus_tvm.compile  # which says what to install where the extra is missing
    from ferplus_tvm.compiler.pipeline import STAGES

    with temporary_folder() as folder:
        with stages(STAGES) as progress:
            output = folder / "ferplus.so"
            result = compile_model(
                output=output, detector=[_PHOTO_SIZE], isolated=True, progress=progress
            )
        with Engine(result.path) as engine:
            prediction = engine.predict(SAMPLE_FACE)
            photo = engine.analyze(SAMPLE_PHOTO)
            milliseconds = _time_per_face(engine)
            threads = engine.threads
    print_bars(prediction)
    typer.echo()
    print_faces(replace(photo, source=SAMPLE_PHOTO.name))
    typer.echo()
    _print_summary(result, prediction.label, milliseconds, threads)


def _print_summary(result: CompileResult, label: str, milliseconds: float, threads: int) -> None:
    error = result.manifest.check.error
    difference = "not measured" if error is None else f"{error:.1e} of the largest score"
    print_facts(
        [
            ("emotion", label),
            ("compile time", f"{result.seconds:.1f} s for {result.manifest.target}"),
            ("largest difference", f"{difference}, from a float64 reference"),
            ("time per face", f"{milliseconds:.2f} ms (batch 1, {threads} threads, median)"),
        ]
    )
    typer.echo("\nKeep a library with: ferplus-tvm compile --detector -o ferplus.so")


def _time_per_face(engine: Engine) -> float:
    """Return the median time of a call at batch 1, in milliseconds."""
    face = preprocess(SAMPLE_FACE)
    seconds = []
    for _ in range(_CALLS):
        start = time.perf_counter()
        engine.scores(face)
        seconds.append(time.perf_counter() - start)
    return 1e3 * statistics.median(seconds[_CALLS // 5 :])
