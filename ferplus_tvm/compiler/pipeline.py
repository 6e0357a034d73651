"""The whole compiler on one page: from an ONNX model to a checked library."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ferplus_tvm.artifact import reference_inputs
from ferplus_tvm.artifact.manifest import Manifest
from ferplus_tvm.compiler import build, export, reference, test_data
from ferplus_tvm.compiler.detector import CompiledDetector
from ferplus_tvm.compiler.dump import Dump
from ferplus_tvm.compiler.interface import import_model
from ferplus_tvm.compiler.options import CompileOptions
from ferplus_tvm.compiler.test_data import SetResult
from ferplus_tvm.compiler.verify import Verification, expect_passed, verify_as
from ferplus_tvm.errors import (
    ArtifactError,
    GpuError,
    TuningLogError,
    UnsupportedModelError,
    VerificationError,
)
from ferplus_tvm.host.temporary import temporary_folder
from ferplus_tvm.kernels import backend_of
from ferplus_tvm.kernels.backend import Backend, Config
from ferplus_tvm.kernels.workloads import Pool, Workload
from ferplus_tvm.lowering.layers import layers_of
from ferplus_tvm.lowering.planner import Lookup
from ferplus_tvm.lowering.writer import lower
from ferplus_tvm.records.find import find
from ferplus_tvm.records.log import TuningLog
from ferplus_tvm.targets import TOLERANCE, ResolvedTarget
from ferplus_tvm.toolchain.available import require_tools
from ferplus_tvm.zoo import resolve as resolve_model

_log = logging.getLogger(__name__)

STAGES = ("import", "reference", "lower", "compile", "link", "verify")
"""What is reported as progress, in order."""

_SEED = 20160801  # the month in which the FER+ paper appeared; any number would do
_FACES = 4


@dataclass(frozen=True)
class CompileResult:
    """The output of a compilation.

    Attributes
    ----------
    path
        The library that was written.
    manifests
        What the library says of itself, for each target.
    verified
        False where this machine cannot run the code of a target; `ferplus_tvm.verify` does the
        check on the device.
    seconds
        The time that the compilation took, verification included.
    runtime
        The copy of ``libtvm_runtime`` beside the library, or None where none was asked for.
    warnings
        What was assumed of the pixels and labels of the model, or contradicts what is stated, and
        how to state it.
    notes
        What was taken from the model's metadata, or changed on import in a way that matters.
    test_data
        For each target that could be run, the results of the test data sets that lie beside the
        model; empty where there are none.
    """

    path: Path
    manifests: tuple[Manifest, ...]
    verified: bool
    seconds: float
    runtime: Path | None
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    test_data: dict[str, tuple[SetResult, ...]]

    @property
    def manifest(self) -> Manifest:
        """The manifest of the first target."""
        return self.manifests[0]


def expect_tools(options: CompileOptions) -> None:
    """See that the files and tools that a compilation ends with are there, before it begins.

    Raises
    ------
    CompileError
        If a runtime library is to be copied that is not at hand, or a compiler is missing.
    TemporaryFolderError
        If there is no folder for temporary files, or no room in it.
    """
    if options.with_runtime:
        export.find_runtime(options)
    if options.dump is None:  # which shows what comes before linking, without a linker too
        for each in options.targets:
            require_tools(each)
        with temporary_folder():
            pass  # for the linker's files


def run(options: CompileOptions, progress: Callable[[str], None]) -> CompileResult:
    """Compile what the options say; progress and errors are those of `ferplus_tvm.compile`."""
    start = time.perf_counter()

    def enter(stage: str) -> None:
        _log.info("%s (%.1f s)", stage, time.perf_counter() - start)
        progress(stage)

    runtime = export.find_runtime(options) if options.with_runtime else []
    phases = Dump(options)

    # ONNX -> tidy graph -> Relax -> layers
    enter("import")
    path = resolve_model(options.model)
    imported, interface = import_model(
        path,
        scaling=options.scaling,
        labels=options.labels,
        channels=options.channels,
        output=options.model_output,
    )
    face = (imported.channels, imported.size, imported.size)
    tolerance = TOLERANCE[options.precision]
    sets, unusable = test_data.beside(
        path, test_data.Contract(face, imported.classes, interface.scaling, tolerance)
    )
    warnings = (*interface.warnings, *unusable)
    if not interface.graph_scales:
        warnings += tuple(test_data.unlike_pixels(sets))
    if options.strict and warnings:
        raise UnsupportedModelError(f"not compiled, since {'; and '.join(warnings)}")
    phases.imported(imported.proto)
    layers = layers_of(imported.proto)

    # fixed faces and their scores in float64
    enter("reference")
    given = reference_inputs.inputs(_SEED, _FACES, face)
    expected = reference.scores(imported.proto, given)
    detector = CompiledDetector(options.detector) if options.detector else None

    # for each target: layers -> kernels, weights as they want them -> native code
    parts = []
    for each in options.targets:
        enter("lower")
        log = find(options.tuning_logs, each)
        if log is not None and log.target != each.log:
            _log.info("%s has no tuning log: that of %s is taken", each.log, log.target)
        backend = backend_of(each)
        lowered = lower(layers, options.batch_sizes, backend, _lookup(log, backend))
        faces = detector.lower(each) if detector and each.gpu is None else None
        if faces is not None:
            lowered.module.update(faces.module)
        phases.lowered(each, lowered.module)
        enter("compile")
        executable = build.executable(lowered.module, each)
        phases.compiled(each, executable)
        enter("link")
        image = export.link_image(executable, each)
        parts.append(export.Part(each, lowered, faces, image, log.target if log else ""))

    # all of it -> library file under a temporary name
    acceptance = export.acceptance(_SEED, expected, tolerance)
    weights = export.lay_out([part.weights for part in parts])
    images = [part.image for part in parts]
    manifests: Sequence[Manifest] = [
        export.describe(
            options,
            imported,
            interface,
            part,
            weights.tensors,
            index,
            acceptance,
            detector.describe(part.faces, index) if detector and part.faces else None,
        )
        for part, index in zip(parts, weights.index, strict=True)
    ]
    if options.require_tuned:
        _expect_tuned(manifests)
    with export.temporary(options.output) as unfinished:
        manifests = export.write(unfinished, images, weights.block, manifests)

        # run it, record what was measured, and only then give it its name
        enter("verify")
        checks = [_verified(unfinished, options, each, sets) for each in options.targets]
        if any(check is not None for check in checks):
            manifests = [
                manifest if check is None else check.recorded(manifest)
                for manifest, check in zip(manifests, checks, strict=True)
            ]
            manifests = export.write(unfinished, images, weights.block, manifests)
        copied = [export.copy_runtime(path, options.output.parent) for path in runtime]
        os.replace(unfinished, options.output)
    seconds = time.perf_counter() - start
    verified = None not in checks
    notes = interface.notes
    if sets and not verified:
        notes += (
            f"{len(sets)} test data sets were not run for every target: run 'ferplus-tvm verify' "
            "with --test-data on the device",
        )
    _log.info("wrote %s in %.1f s", options.output, seconds)
    copy = copied[0] if copied else None
    return CompileResult(
        options.output,
        tuple(manifests),
        verified,
        seconds,
        copy,
        warnings,
        notes,
        {
            manifest.target: check.test_data
            for manifest, check in zip(manifests, checks, strict=True)
            if sets and check is not None
        },
    )


def _verified(
    unfinished: Path,
    options: CompileOptions,
    target: ResolvedTarget,
    sets: Sequence[test_data.DataSet],
) -> Verification | None:
    """Return how far the code for a target is off the references, or None if it cannot run here."""
    if not target.runs_here:
        return None
    alone = len(options.targets) == 1
    name = str(options.output) if alone else f"{options.output} for {target.name}"
    try:
        check = verify_as(unfinished, name, target.name, sets)
    except (ArtifactError, GpuError) as error:
        raise VerificationError(f"{name} cannot be run to be checked: {error}") from error
    expect_passed(check, name)
    return check


def _lookup(log: TuningLog | None, backend: Backend) -> Lookup:
    """Return what looks a workload's record up; a pooling has none."""

    def lookup(workload: Workload) -> Config | None:
        if log is None or isinstance(workload, Pool):
            return None
        return log.config(workload, backend)

    return lookup


def _expect_tuned(manifests: Sequence[Manifest]) -> None:
    for manifest in manifests:
        missed = list(dict.fromkeys(manifest.untuned))
        if missed:
            raise TuningLogError(
                f"{len(missed)} kernels have no tuning record for {manifest.target} "
                f"({', '.join(missed)}): give the logs that hold them, or compile without "
                "--require-tuned"
            )
