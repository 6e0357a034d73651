"""The whole compiler on one page: from an ONNX model to a checked library."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ferplus_tvm.artifact import reference_inputs
from ferplus_tvm.artifact.manifest import Manifest
from ferplus_tvm.compiler import build, export, reference
from ferplus_tvm.compiler.dump import Dump
from ferplus_tvm.compiler.options import CompileOptions
from ferplus_tvm.compiler.verify import verify_as
from ferplus_tvm.errors import ArtifactError, GpuError, TuningLogError, VerificationError
from ferplus_tvm.importer import load_model
from ferplus_tvm.kernels import backend_of
from ferplus_tvm.kernels.backend import Backend, Config
from ferplus_tvm.kernels.workloads import Pool, Workload
from ferplus_tvm.lowering.layers import layers_of
from ferplus_tvm.lowering.planner import Lookup
from ferplus_tvm.lowering.writer import lower
from ferplus_tvm.records.find import find
from ferplus_tvm.records.log import TuningLog
from ferplus_tvm.targets import TOLERANCE, Precision, ResolvedTarget
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
    """

    path: Path
    manifests: tuple[Manifest, ...]
    verified: bool
    seconds: float
    runtime: Path | None

    @property
    def manifest(self) -> Manifest:
        """The manifest of the first target."""
        return self.manifests[0]


def compile(
    model: str | os.PathLike[str] = "bundled",
    target: str | dict[str, Any] = "native",
    output: str | os.PathLike[str] = "ferplus.so",
    batch_sizes: Iterable[int] = (1, 8, 32),
    *,
    precision: Precision = "float32",
    tuning_logs: str | os.PathLike[str] | None = None,
    require_tuned: bool = False,
    with_runtime: bool = False,
    dump: str | os.PathLike[str] | None = None,
    progress: Callable[[str], None] = lambda stage: None,
) -> CompileResult:
    """Compile a FER+ model into a library for a target, or for several.

    Parameters
    ----------
    model
        A name of the zoo (a string such as ``"bundled"``) or the path of an ONNX file.
    target
        ``"native"``, a name of `ferplus_tvm.targets.NAMED`, ``"cuda"`` for this machine's GPU, a
        GPU such as ``"cuda/sm_90"``, or TVM's dictionary or JSON.  Several names with commas
        between them make one library for all, of which the best part that a CPU or GPU can run is
        chosen when it is loaded; weights of the same layout and type are stored once.
    output
        The library to write; it takes its final name once it is whole and verified.
    batch_sizes
        The batch sizes to compile for; an engine serves any number of faces with them.
    precision
        ``"float32"``, or for GPUs ``"tf32"`` and ``"float16"``: GEMMs on tensor cores, of numbers
        with 11 significant bits, and with ``"float16"`` activations of half the size.  Scores are
        then off by some thousandths of the largest.
    tuning_logs
        A folder of tuning logs to look into before the user's own and those that the package
        carries.  A target without a log takes that of the nearest target.
    require_tuned
        Refuse to use a preset where no record is found.
    with_runtime
        Put a copy of the target's ``libtvm_runtime`` beside the library.
    dump
        A folder, existing or new, to write what the compiler saw after each phase into: the tidy
        ONNX model, Relax as imported, and for each target Relax with kernel calls, TensorIR, and
        assembly or CUDA source.  Files of an earlier dump are replaced.
    progress
        Called with the name of each stage of `STAGES` as it starts.

    Raises
    ------
    ModelError, DownloadError
        If the model cannot be had or compiled.
    TargetError
        If the target does not exist, or several are of different architectures or systems.
    TuningLogError
        If the tuning logs are missing or damaged, or a record that is required is not there.
    CompileError
        If linking or a GPU's compiler fails, the library's scores are off the reference, or the
        output or the dump cannot be written.
    """
    start = time.perf_counter()

    def enter(stage: str) -> None:
        _log.info("%s (%.1f s)", stage, time.perf_counter() - start)
        progress(stage)

    options = CompileOptions.of(
        model=model,
        target=target,
        output=output,
        batch_sizes=batch_sizes,
        precision=precision,
        tuning_logs=tuning_logs,
        require_tuned=require_tuned,
        with_runtime=with_runtime,
        dump=dump,
    )
    runtime = export.find_runtime(options) if with_runtime else []
    phases = Dump(options)

    # ONNX -> tidy graph -> Relax -> layers
    enter("import")
    imported = load_model(resolve_model(options.model))
    phases.imported(imported.proto)
    layers = layers_of(imported.proto)

    # fixed faces and their scores in float64
    enter("reference")
    expected = reference.scores(imported.proto, reference_inputs.inputs(_SEED, _FACES))

    # for each target: layers -> kernels, weights as they want them -> native code
    parts = []
    for each in options.targets:
        enter("lower")
        log = find(options.tuning_logs, each)
        if log is not None and log.target != each.log:
            _log.info("%s has no tuning log: that of %s is taken", each.log, log.target)
        backend = backend_of(each)
        lowered = lower(layers, options.batch_sizes, backend, _lookup(log, backend))
        phases.lowered(each, lowered.module)
        enter("compile")
        executable = build.executable(lowered.module, each)
        phases.compiled(each, executable)
        enter("link")
        image = export.link_image(executable, each)
        parts.append(export.Part(each, lowered, image, log.target if log else ""))

    # all of it -> library file under a temporary name
    acceptance = export.acceptance(_SEED, expected, TOLERANCE[precision])
    weights = export.lay_out([part.lowered for part in parts])
    images = [part.image for part in parts]
    manifests: Sequence[Manifest] = [
        export.describe(options, imported, part, weights.tensors, index, acceptance)
        for part, index in zip(parts, weights.index, strict=True)
    ]
    if options.require_tuned:
        _expect_tuned(manifests)
    with export.temporary(options.output) as unfinished:
        manifests = export.write(unfinished, images, weights.block, manifests)

        # run it, record what was measured, and only then give it its name
        enter("verify")
        errors = [_verified(unfinished, options, each) for each in options.targets]
        if any(error is not None for error in errors):
            manifests = [
                replace(manifest, check=replace(manifest.check, error=error))
                for manifest, error in zip(manifests, errors, strict=True)
            ]
            manifests = export.write(unfinished, images, weights.block, manifests)
        copied = [export.copy_runtime(path, options.output.parent) for path in runtime]
        os.replace(unfinished, options.output)
    seconds = time.perf_counter() - start
    verified = None not in errors
    _log.info("wrote %s in %.1f s", options.output, seconds)
    copy = copied[0] if copied else None
    return CompileResult(options.output, tuple(manifests), verified, seconds, copy)


def _verified(unfinished: Path, options: CompileOptions, target: ResolvedTarget) -> float | None:
    """Return how far the code for a target is off the reference, or None if it cannot run here."""
    if not target.runs_here:
        return None
    alone = len(options.targets) == 1
    name = str(options.output) if alone else f"{options.output} for {target.name}"
    try:
        return verify_as(unfinished, name, target.name).error
    except (ArtifactError, GpuError) as error:
        raise VerificationError(f"{name} cannot be run to be checked: {error}") from error


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
