"""``ferplus-tvm info``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ferplus_tvm.artifact.scaling import RAW
from ferplus_tvm.cli.output import print_facts

if TYPE_CHECKING:
    from ferplus_tvm.artifact.manifest import Manifest


def info(
    library: Annotated[Path, typer.Argument(help="A library that `compile` wrote.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program.")] = False,
) -> None:
    """Show what a library says of itself, and whether this machine can run it."""
    from ferplus_tvm.artifact.fit import refusal
    from ferplus_tvm.artifact.library_file import Artifact

    artifact = Artifact(library, checksum="manifest")
    artifact.close()
    manifest = artifact.manifest
    targets = [each.target for each in artifact.manifests]
    problem = refusal(manifest)
    reason = str(problem) if problem else _runtime_problem(library, manifest)
    if as_json:
        answer = {
            "runs_here": reason is None,
            "reason": reason,
            "targets": targets,
            "manifest": manifest.to_dict(),
        }
        typer.echo(json.dumps(answer, indent=2))
        return
    tunable = len(manifest.tunable)
    error = manifest.check.error
    algorithms: dict[str, list[str]] = {}
    for kernel in manifest.kernels:
        layers = algorithms.setdefault(kernel.algorithm, [])
        if kernel.layer not in layers:
            layers.append(kernel.layer)
    print_facts(
        [
            ("runs here", "yes" if reason is None else f"no: {reason}"),
            ("model", f"{manifest.model_name} (sha256 {manifest.model_sha256})"),
            *([("targets", ", ".join(targets))] if len(targets) > 1 else []),
            (
                "target" if len(targets) == 1 else "used here",
                f"{manifest.target} ({manifest.triple})",
            ),
            ("needs", _needs(manifest)),
            ("batch sizes", ", ".join(map(str, manifest.batch_sizes))),
            ("precision", manifest.precision),
            ("input", _input(manifest)),
            ("scaling", _scaling(manifest)),
            ("output", f"{_shape(manifest.output_shape)} scores of {', '.join(manifest.labels)}"),
            *(("warning", sentence) for sentence in manifest.warnings),
            ("weights", f"{manifest.weights_bytes / 1e6:.1f} MB"),
            ("tuned", f"{tunable - len(manifest.untuned)} of {tunable} kernels"),
            *((name, ", ".join(layers)) for name, layers in algorithms.items()),
            ("checked", "not yet run" if error is None else f"{error:.1e} off float64"),
            *_detector(manifest),
            ("made with", f"{manifest.created_with}, apache-tvm {manifest.tvm_version}"),
            ("runs with", f"apache-tvm-ffi {manifest.tvm_ffi_version}"),
        ]
    )


def _detector(manifest: Manifest) -> list[tuple[str, str]]:
    """Say whether there is a face detector, and whose it is."""
    from ferplus_tvm.cli.compile import described

    detector = manifest.detector
    if detector is None:
        return [("detector", "none: compile with --detector to find faces in whole pictures")]
    holders = [line for line in detector.notice.splitlines() if line.startswith("Copyright")]
    return [
        ("detector", f"{described(detector)} (sha256 {detector.model_sha256})"),
        ("its notice", "; ".join(holders) + " (in full with --json)"),
    ]


def _needs(manifest: Manifest) -> str:
    needs = [f"a GPU that runs {manifest.gpu_arch}"] if manifest.gpu_arch else []
    return ", ".join([*needs, *manifest.cpu_features]) or "nothing beyond the architecture"


def _runtime_problem(path: Path, manifest: Manifest) -> str | None:
    from ferplus_tvm.errors import RuntimeLibraryError
    from ferplus_tvm.runtime.loader import choose_runtime
    from ferplus_tvm.runtime.noexec import noexec_problem

    path = Path(os.path.abspath(path))  # as `load` takes it
    try:
        runtime = choose_runtime(path.parent, manifest)
    except RuntimeLibraryError as error:
        return str(error)
    return noexec_problem(path, manifest, runtime)


def _shape(shape: tuple[int | str, ...]) -> str:
    return "x".join(map(str, shape))


def _input(manifest: Manifest) -> str:
    black, white = manifest.value_range
    colour = "grey" if manifest.face_shape[0] == 1 else "RGB"
    return f"{_shape(manifest.input_shape)} {colour} pixels in {black:g}..{white:g}"


def _scaling(manifest: Manifest) -> str:
    """Say what the library does to its pixels before the model's first layer."""
    if manifest.scaling == RAW:
        return "none: the model's file takes these pixels"
    return f"to {manifest.scaling}, which the model's file takes; the library does it itself"
