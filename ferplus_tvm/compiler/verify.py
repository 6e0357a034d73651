"""Run a library in a child process and compare it with its reference, and with test data."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.artifact import reference_inputs
from ferplus_tvm.artifact.detector import DetectorFunction
from ferplus_tvm.artifact.fit import refusal
from ferplus_tvm.artifact.library_file import read_manifest
from ferplus_tvm.artifact.manifest import Manifest
from ferplus_tvm.compiler.test_data import Contract, DataSet, SetResult, error_of, in_folder
from ferplus_tvm.errors import ArtifactError, GpuError, VerificationError, last_line
from ferplus_tvm.host import gpu
from ferplus_tvm.host.child import Child, ChildDiedError, ChildTimeoutError

if TYPE_CHECKING:
    from ferplus_tvm.runtime.engine import Engine

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
    test_data
        The result of each test data set that was run.
    detector
        For each size, (height, width), of the library's face detector the largest difference from
        its reference, in probabilities and in cells of its grids; empty where there is none.
    """

    errors: dict[int, float]
    tolerance: float
    test_data: tuple[SetResult, ...] = ()
    detector: dict[tuple[int, int], float] = field(default_factory=dict)

    @property
    def error(self) -> float:
        """The largest error of the scores."""
        return max(self.errors.values())

    def recorded(self, manifest: Manifest) -> Manifest:
        """Return the manifest of the library with these errors in it."""
        detector = manifest.detector
        if detector is not None:
            functions = tuple(
                replace(each, check=replace(each.check, error=self.detector[each.size]))
                for each in detector.functions
            )
            detector = replace(detector, functions=functions)
        return replace(manifest, check=replace(manifest.check, error=self.error), detector=detector)


def verify(
    path: str | os.PathLike[str], *, test_data: str | os.PathLike[str] | None = None
) -> Verification:
    """Check that a library gives the reference scores on this machine.

    The library runs in a process of its own, so that even a crash is only an error here.  Every
    compiled batch size answers the same faces.  Of a library for several targets the one that is
    used here is checked.

    Parameters
    ----------
    path
        A compiled library.
    test_data
        A folder with test data sets of the model, as its archive in the ONNX Model Zoo has them
        (``test_data_set_0/input_0.pb``, ``output_0.pb``), or one such set.  The inputs are what
        the model's file takes, in its own range of values.

    Raises
    ------
    ArtifactError
        If the library cannot be used here at all.
    GpuError
        If it is for a GPU that is not here.
    InputError
        If there are no test data in the folder, or they cannot be read or are of another shape.
    VerificationError
        If it crashes, hangs, or its scores are off the reference or a test data set by more than
        the tolerance.
    """
    result = check(path, test_data)
    expect_passed(result, os.path.abspath(path))
    return result


def check(
    path: str | os.PathLike[str], test_data: str | os.PathLike[str] | None = None
) -> Verification:
    """Check a library as `verify` does, but return the results of test data that it fails, too."""
    path = Path(os.path.abspath(path))
    sets: list[DataSet] = []
    if test_data is not None:
        sets = in_folder(Path(test_data).expanduser(), Contract.of(read_manifest(path)))
    return verify_as(path, str(path), sets=sets)


def expect_passed(result: Verification, name: str) -> None:
    """Raise for a library that fails a test data set.

    Raises
    ------
    VerificationError
        If it does; the message names the worst.
    """
    failed = [each for each in result.test_data if not each.passed]
    if failed:
        worst = max(failed, key=lambda each: each.error)
        raise VerificationError(
            f"{name} fails {len(failed)} of {len(result.test_data)} test data sets, "
            f"{worst.name} by {worst.error:.1e} of the largest output: expected at most "
            f"{worst.tolerance:.0e}; see that they are of this model and that its scaling is stated"
        )


def verify_as(
    path: Path, name: str, target: str | None = None, sets: Sequence[DataSet] = ()
) -> Verification:
    """Check a library as `check` does, under another name.

    Parameters
    ----------
    path
        The file, which may have a temporary name.
    name
        What errors call it.
    target
        Of a library for several targets the one to check, by default the one used here.
    sets
        Test data to run, too.
    """
    manifest = read_manifest(path, target)
    problem = refusal(manifest)
    if problem:
        raise type(problem)(f"{name} cannot be verified here: {problem}")
    try:
        measured, off_sets, off_faces = _in_a_process(path, name, target, sets)
    except (ArtifactError, GpuError) as error:
        raise type(error)(str(error).replace(str(path), name)) from error
    results = [
        SetResult(each.name, error, each.tolerance)
        for each, error in zip(sets, off_sets, strict=True)
    ]
    result = Verification(measured, manifest.check.tolerance, tuple(results), off_faces)
    if result.error > result.tolerance:
        worst = max(measured, key=lambda batch: measured[batch])
        raise VerificationError(
            f"{name} is off the float64 reference by {result.error:.1e} of the largest score at "
            f"batch {worst}: expected at most {result.tolerance:.0e}; report this with the output "
            "of 'ferplus-tvm doctor'"
        )
    for each in manifest.detector.functions if manifest.detector else ():
        if off_faces[each.size] > each.check.tolerance:
            raise VerificationError(
                f"the face detector of {name} is off the float64 reference by "
                f"{off_faces[each.size]:.1e} for pictures of {each.width}x{each.height}: expected "
                f"at most {each.check.tolerance:.0e}; report this with the output of 'ferplus-tvm "
                "doctor'"
            )
    return result


def _in_a_process(
    path: Path, name: str, target: str | None, sets: Sequence[DataSet]
) -> tuple[dict[int, float], list[float], dict[tuple[int, int], float]]:
    """Return what `measure` does, called in a process of its own."""
    try:
        process = Child()
    except OSError as error:  # no memory, or no process to be had
        raise VerificationError(
            f"no process could be started to check {name} ({error.strerror or error}): try again"
        ) from error
    with process:
        try:
            return process.call(measure, path, target, sets, timeout=_TIMEOUT)
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


def measure(
    path: Path, target: str | None, sets: Sequence[DataSet]
) -> tuple[dict[int, float], list[float], dict[tuple[int, int], float]]:
    """Return the error of every batch size, of every test data set, and of the face detector.

    Those of scores are relative to the largest score of their reference.  The library's code is
    run in this process.
    """
    from ferplus_tvm.runtime.engine import Engine

    manifest = read_manifest(path, target)
    with Engine(path, target=target, device=_device(manifest.gpu_arch)) as engine:
        expected = engine.manifest.check
        faces = reference_inputs.inputs(expected.seed, expected.faces, manifest.face_shape)
        reference = np.asarray(expected.reference)
        measured = {}
        off_sets = [0.0] * len(sets)
        for batch in engine.manifest.batch_sizes:
            scores, rows = _scores(engine, faces, batch)
            measured[batch] = reference_inputs.relative_error(scores, reference[rows])
            for at, each in enumerate(sets):
                scores, rows = _scores(engine, each.pixels, batch)
                off_sets[at] = max(off_sets[at], error_of(scores, each.outputs[rows]))
        detector = engine.manifest.detector
        functions = detector.functions if detector else ()
        off_faces = {each.size: _detector_error(engine, each) for each in functions}
    return measured, off_sets, off_faces


def _detector_error(engine: Engine, function: DetectorFunction) -> float:
    """Return how far the detector is off its reference in pictures of a size."""
    check = function.check
    picture = reference_inputs.picture(check.seed, function.height, function.width)
    values = engine.on_session(lambda session: session.detect(picture, function.size))
    off = float(np.max(np.abs(values[list(check.places)] - np.asarray(check.reference))))
    return off if np.isfinite(off) else float("inf")


def _scores(
    engine: Engine, faces: NDArray[np.float32], batch: int
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Return scores by one batch size alone, and the rows of ``faces`` that they are of."""
    rows = np.arange(-(-len(faces) // batch) * batch) % len(faces)
    parts = [engine.scores(faces[rows[at : at + batch]]) for at in range(0, len(rows), batch)]
    return np.concatenate(parts), rows


def _device(arch: str) -> str:
    """Return the device to check on: for a GPU's library the first that runs it."""
    if not arch:
        return "cpu"
    return next(f"cuda:{each.index}" for each in gpu.devices() if each.runs(arch))
