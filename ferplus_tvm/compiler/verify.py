"""Run a library in a child process and compare it with the reference in its manifest."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ferplus_tvm.artifact import reference_inputs
from ferplus_tvm.artifact.fit import refusal
from ferplus_tvm.artifact.library_file import read_manifest
from ferplus_tvm.errors import ArtifactError, GpuError, VerificationError, last_line
from ferplus_tvm.host import gpu
from ferplus_tvm.host.child import Child, ChildDiedError, ChildTimeoutError

_TIMEOUT = 300  # seconds


@dataclass(frozen=True)
class Verification:
    """The result of a check.

    Attributes
    ----------
    errors
        For each batch size the largest difference of a score from the reference, relative to the
        largest score of the reference.
    tolerance
        The largest difference that is allowed.
    """

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

    Parameters
    ----------
    path
        A compiled library.

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
    """Check a library as `verify` does, under another name.

    Parameters
    ----------
    path
        The file, which may have a temporary name.
    name
        What errors call it.
    target
        Of a library for several targets the one to check, by default the one used here.
    """
    manifest = read_manifest(path, target)
    problem = refusal(manifest)
    if problem:
        raise type(problem)(f"{name} cannot be verified here: {problem}")
    try:
        measured = _in_a_process(path, name, target)
    except (ArtifactError, GpuError) as error:
        raise type(error)(str(error).replace(str(path), name)) from error
    result = Verification(measured, manifest.check.tolerance)
    if result.error > result.tolerance:
        worst = max(measured, key=lambda batch: measured[batch])
        raise VerificationError(
            f"{name} is off the float64 reference by {result.error:.1e} of the largest score at "
            f"batch {worst}: expected at most {result.tolerance:.0e}; report this with the output "
            "of 'ferplus-tvm doctor'"
        )
    return result


def _in_a_process(path: Path, name: str, target: str | None) -> dict[int, float]:
    """Return what `measure` does, called in a process of its own."""
    try:
        process = Child()
    except OSError as error:  # no memory, or no process to be had
        raise VerificationError(
            f"no process could be started to check {name} ({error.strerror or error}): try again"
        ) from error
    with process:
        try:
            return process.call(measure, path, target, timeout=_TIMEOUT)
        except ChildTimeoutError:
            raise VerificationError(
                f"{name} did not answer within {_TIMEOUT:g} seconds: expected some milliseconds a "
                "face"
            ) from None
        except (ArtifactError, GpuError):
            raise
        except Exception as error:
            cause = f"{type(error).__name__}: {last_line(error)}"
            if isinstance(error, ChildDiedError):
                cause = f"the process ended {error.how}"
                cause += f" and printed {error.last_line!r}" if error.last_line else ""
            raise VerificationError(
                f"{name} could not be run to be checked ({cause}): compile it for this machine, "
                "and if it was, report this with the output of 'ferplus-tvm doctor'"
            ) from error


def measure(path: Path, target: str | None) -> dict[int, float]:
    """Return the error of every batch size, relative to the largest score of the reference.

    The library's code is run in this process.
    """
    from ferplus_tvm.runtime.engine import Engine

    manifest = read_manifest(path, target)
    with Engine(path, target=target, device=_device(manifest.gpu_arch)) as engine:
        expected = engine.manifest.check
        faces = reference_inputs.inputs(expected.seed, expected.faces, manifest.face_shape)
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
