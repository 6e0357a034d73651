"""Run a library in a child process and compare it with the reference in its manifest."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ferplus_tvm import errors
from ferplus_tvm.artifact import reference_inputs
from ferplus_tvm.artifact.library_file import read_manifest, refusal
from ferplus_tvm.errors import VerificationError
from ferplus_tvm.host import child, gpu

_TIMEOUT = 300


@dataclass(frozen=True)
class Verification:
    """What the check measured: the largest relative error of each batch size."""

    errors: dict[int, float]
    tolerance: float

    @property
    def error(self) -> float:
        """The largest error of all."""
        return max(self.errors.values())


def verify(path: str | os.PathLike[str]) -> Verification:
    """Check that a library gives the reference scores on this machine.

    The library runs in a process of its own, so that even a crash is only an error here.  Every
    compiled batch size answers the same faces.  Of a library for several targets the one that is
    used here is checked.

    Raises
    ------
    ArtifactError
        If the library cannot be used here at all.
    GpuError
        If it is for a GPU that is not here.
    VerificationError
        If it crashes, hangs, or its scores are off the reference by more than the tolerance.
    """
    path = Path(os.path.abspath(path))
    return verify_as(path, str(path))


def verify_as(path: Path, name: str, target: str | None = None) -> Verification:
    """Do the same with a file that errors should call ``name``: one that has not got it yet.

    Of a library for several targets, ``target`` is checked, by default the one used here.
    """
    manifest = read_manifest(path, target)
    problem = refusal(manifest)
    if problem:
        raise type(problem)(f"{name} cannot be verified here: {problem}")
    command = child.python("-m", "ferplus_tvm.compiler.verify", str(path))
    command += [] if target is None else [target]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT,
            check=False,
            env=child.environment(),
        )
    except OSError as error:  # no memory, or no process to be had
        raise VerificationError(
            f"no process could be started to check {name} ({error.strerror or error}): try again"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise VerificationError(
            f"{name} did not answer within {_TIMEOUT} seconds: expected some milliseconds a face"
        ) from error
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        cause = said[-1]
        if done.returncode < 0:
            cause = f"ended by {signal.Signals(-done.returncode).name}"
        raise VerificationError(
            f"{name} could not be run to be checked ({cause}): compile it for this machine, and if "
            "it was, report this with the output of 'ferplus-tvm doctor'"
        )
    answer = json.loads(done.stdout)
    if "refused" in answer:
        raise getattr(errors, answer["refused"])(answer["message"].replace(str(path), name))
    measured = {int(batch): float(error) for batch, error in answer.items()}
    result = Verification(measured, manifest.check.tolerance)
    if result.error > result.tolerance:
        worst = max(measured, key=lambda batch: measured[batch])
        raise VerificationError(
            f"{name} is off the float64 reference by {result.error:.1e} of the largest score at "
            f"batch {worst}: expected at most {result.tolerance:.0e}; report this with the output "
            "of 'ferplus-tvm doctor'"
        )
    return result


def _answer(path: str, target: str | None = None) -> dict[Any, Any]:
    """Return the error of every batch size, or why the library was refused; in the child."""
    from ferplus_tvm.runtime.engine import Engine

    manifest = read_manifest(path, target)
    try:
        engine = Engine(path, target=target, device=_device(manifest.gpu_arch))
    except (errors.ArtifactError, errors.GpuError) as error:
        return {"refused": type(error).__name__, "message": str(error)}
    with engine:
        expected = engine.manifest.check
        faces = reference_inputs.inputs(expected.seed, expected.faces)
        reference = np.asarray(expected.reference)
        measured = {}
        for batch in engine.manifest.batch_sizes:
            rows = np.arange(-(-expected.faces // batch) * batch) % expected.faces
            scores = np.concatenate(
                [engine.scores(faces[rows[at : at + batch]]) for at in range(0, len(rows), batch)]
            )
            measured[batch] = reference_inputs.relative_error(scores, reference[rows])
    return measured


def _device(arch: str) -> str:
    """Return the device to check on: for a GPU's library the first that runs it."""
    if not arch:
        return "cpu"
    return next(f"cuda:{each.index}" for each in gpu.devices() if each.runs(arch))


if __name__ == "__main__":
    print(json.dumps(_answer(*sys.argv[1:])))
