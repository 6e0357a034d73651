"""The whole compiler on one page: from an ONNX model to a checked library."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ferplus_tvm import check
from ferplus_tvm.compiler import export, lower, reference
from ferplus_tvm.compiler.options import CompileOptions
from ferplus_tvm.compiler.verify import verify_as
from ferplus_tvm.errors import TuningLogError
from ferplus_tvm.importer import load_model
from ferplus_tvm.importer.relax import to_relax
from ferplus_tvm.manifest import Manifest
from ferplus_tvm.rewrite.match import match
from ferplus_tvm.rewrite.place import place
from ferplus_tvm.tuning.database import find
from ferplus_tvm.zoo import resolve as resolve_model

STAGES = ("import", "reference", "place kernels", "compile", "link", "verify")
"""What is reported as progress, in order."""

_SEED = 20160801  # the month in which the FER+ paper appeared; any number would do
_FACES = 4
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class CompileResult:
    """What a compilation made.

    verified
        False if this machine cannot run the library; ``verify`` does the check on the device.
    seconds
        the time it took, verification included.
    """

    path: Path
    manifest: Manifest
    verified: bool
    seconds: float
    runtime: Path | None


def compile(
    model: str | os.PathLike[str] = "bundled",
    target: str | dict[str, Any] = "native",
    output: str | os.PathLike[str] = "ferplus.so",
    batch_sizes: Iterable[int] = (1, 8, 32),
    *,
    tuning_logs: str | os.PathLike[str] | None = None,
    require_tuned: bool = False,
    with_runtime: bool = False,
    progress: Callable[[str], None] = lambda stage: None,
) -> CompileResult:
    """Compile a FER+ model into a library for one target.

    Parameters
    ----------
    model
        A name of the zoo (a string such as ``"bundled"``) or the path of an ONNX file.
    target
        ``"native"``, a name of `ferplus_tvm.targets.NAMED`, or TVM's dictionary or JSON.
    output
        The library to write; it takes its final name once it is whole and verified.
    batch_sizes
        The batch sizes to compile for; an engine serves any number of faces with them.
    tuning_logs
        A folder of tuning logs to look into before the user's own and those that the package
        carries.  A target without a log takes that of the nearest target.
    require_tuned
        Refuse to use a preset where no record is found.
    with_runtime
        Put a copy of the target's ``libtvm_runtime`` beside the library.
    progress
        Called with the name of each stage of `STAGES` as it starts.

    Raises
    ------
    ModelError, DownloadError
        If the model cannot be had or compiled.
    TargetError
        If the target does not exist.
    TuningLogError
        If the tuning logs are missing or damaged, or a record that is required is not there.
    CompileError
        If linking fails, or the library's scores are off the reference.
    """
    start = time.perf_counter()
    options = CompileOptions.of(
        model, target, output, batch_sizes, tuning_logs, require_tuned, with_runtime
    )
    runtime = export.find_runtime(options) if with_runtime else None

    # ONNX -> tidy graph -> Relax -> layers
    progress("import")
    imported = load_model(resolve_model(options.model))
    layers = match(to_relax(imported.proto))

    # fixed faces and their scores in float64
    progress("reference")
    expected = reference.scores(imported.proto, check.inputs(_SEED, _FACES))

    # layers -> kernels, weights as they want them
    progress("place kernels")
    log = find(options.tuning_logs, options.target)
    placed = place(
        layers,
        options.batch_sizes,
        options.target.vector_unit,
        lambda layer: log.config(layer) if log else None,
    )

    # kernels -> native code -> library file under a temporary name
    progress("compile")
    executable = lower.build(placed.module, options.target)
    progress("link")
    image = export.link_image(executable, options.target)
    acceptance = export.acceptance(_SEED, expected, _TOLERANCE)
    manifest = export.describe(options, imported, placed, acceptance, log.target if log else "")
    if options.require_tuned:
        _expect_tuned(manifest)
    weights = export.lay_out(placed)
    with export.temporary(options.output) as unfinished:
        export.write(unfinished, image, weights, manifest)

        # run it, record what was measured, and only then give it its name
        progress("verify")
        verified = options.target.runs_here
        if verified:
            error = verify_as(unfinished, options.output).error
            manifest = replace(manifest, check=replace(manifest.check, error=error))
            export.write(unfinished, image, weights, manifest)
        copied = export.copy_runtime(runtime, options.output.parent) if runtime else None
        os.replace(unfinished, options.output)
    seconds = time.perf_counter() - start
    return CompileResult(options.output, manifest, verified, seconds, copied)


def _expect_tuned(manifest: Manifest) -> None:
    missed = list(dict.fromkeys(manifest.untuned))
    if missed:
        raise TuningLogError(
            f"{len(missed)} kernels have no tuning record for {manifest.target} "
            f"({', '.join(missed)}): give the logs that hold them, or compile without "
            "--require-tuned"
        )
