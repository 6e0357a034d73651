"""``ferplus-tvm compile``."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

import ferplus_tvm
from ferplus_tvm.cli.model_options import InputRange, Mean, ModelOutput, Std, parse_scaling
from ferplus_tvm.cli.output import print_facts, print_table, stages

if TYPE_CHECKING:
    from ferplus_tvm.artifact.detector import Detector
    from ferplus_tvm.artifact.manifest import Kernel, Manifest
    from ferplus_tvm.compiler.options import CompileOptions
    from ferplus_tvm.compiler.pipeline import CompileResult
    from ferplus_tvm.targets import Precision, ResolvedTarget


def parse_batch_sizes(text: str) -> tuple[int, ...]:
    """Read ``1,8,32``."""
    from ferplus_tvm.compiler.options import LARGEST_BATCH

    try:
        sizes = tuple(int(size) for size in text.split(","))
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1 or max(sizes) > LARGEST_BATCH:
        raise typer.BadParameter(
            f"{text!r} is not a list of sizes in 1..{LARGEST_BATCH}, such as 1,8,32"
        )
    return sizes


def parse_detector_sizes(texts: Sequence[str]) -> list[tuple[int, int]]:
    """Read ``640x480``, width x height; return (height, width) of each."""
    sizes = []
    for text in texts:
        found = re.fullmatch(r"(\d+)[xX](\d+)", text)
        if found is None:
            raise typer.BadParameter(
                f"{text!r} is not a picture size: expected width x height, such as 640x480; repeat "
                "the option for several",
                param_hint="--detector-size",
            )
        sizes.append((int(found[2]), int(found[1])))
    return sizes


def compile_(
    model: Annotated[
        str, typer.Argument(help="A name that `models list` shows, or the path of an ONNX file.")
    ] = "bundled",
    output: Annotated[Path, typer.Option("--output", "-o", help="The library to write.")] = Path(
        "ferplus.so"
    ),
    target: Annotated[
        str,
        typer.Option(
            help="native, cuda for this machine's GPU, a name that `targets` shows, several with "
            "commas for one library that serves them all, or TVM's JSON."
        ),
    ] = "native",
    batch: Annotated[
        str, typer.Option(metavar="SIZES", help="Batch sizes to compile for.")
    ] = "1,8,32",
    precision: Annotated[
        str, typer.Option(help="float32, or for GPUs tf32 or float16, by tensor cores.")
    ] = "float32",
    tuning_logs: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Tuning logs to look into before yours and the shipped."),
    ] = None,
    require_tuned: Annotated[
        bool, typer.Option("--require-tuned", help="Fail where a kernel has no tuning record.")
    ] = False,
    with_runtime: Annotated[
        bool, typer.Option("--with-runtime", help="Put libtvm_runtime beside the library.")
    ] = False,
    dump: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write what the compiler saw after each phase into this folder: tidy ONNX, "
            "Relax, TensorIR, assembly or CUDA source.",
        ),
    ] = None,
    input_range: InputRange = None,
    mean: Mean = None,
    std: Std = None,
    channels: Annotated[
        int | None,
        typer.Option(help="1 for grey faces or 3 for RGB, where the file leaves it open."),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="The classes in the order of the scores, a,b,c, or a data set's: ferplus, "
            "fer2013, affectnet8, affectnet7 or rafdb.",
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail where there would be a warning of the model.")
    ] = False,
    model_output: ModelOutput = None,
    detector: Annotated[
        bool,
        typer.Option("--detector", help="Put a face detector in, for whole pictures (CPUs only)."),
    ] = False,
    detector_size: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WxH",
            help="A picture size to compile the detector for in place of the usual ones, width x "
            "height in multiples of 32, such as 1280x736; to be repeated.",
        ),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show each layer's kernel, and why it was chosen.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program.")] = False,
) -> None:
    """Compile a FER+ model into a library for a target, or for several."""
    wanted: dict[str, Any] = {
        "model": model,
        "target": target,
        "output": output,
        "batch_sizes": parse_batch_sizes(batch),
        "precision": parse_precision(precision),
        "tuning_logs": tuning_logs,
        "require_tuned": require_tuned,
        "with_runtime": with_runtime,
        "dump": dump,
        **parse_scaling(input_range, mean, std),
        "channels": channels,
        "labels": labels,
        "strict": strict,
        "model_output": model_output,
        "detector": parse_detector_sizes(detector_size) if detector_size else detector,
    }
    compile_model = ferplus_tvm.compile  # which says what to install where the extra is missing
    from ferplus_tvm.compiler.options import CompileOptions
    from ferplus_tvm.compiler.pipeline import STAGES

    try:
        options = CompileOptions.of(**wanted)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    print_facts(_resolved(options), err=as_json)
    with stages(STAGES) as progress:
        result = compile_model(**wanted, isolated=True, progress=progress)
    for note in result.notes:
        typer.echo(f"note: {note}", err=True)
    for warning in result.warnings:
        typer.echo(f"warning: {warning}", err=True)
    if as_json:
        typer.echo(json.dumps(summary(result), indent=2))
        return
    size = result.path.stat().st_size
    typer.echo()
    print_facts(
        [
            ("library", f"{result.path} ({size / 1e6:.1f} MB)"),
            *(fact for manifest in result.manifests for fact in _of_target(manifest, result.path)),
            *_test_data(result),
            ("time", f"{result.seconds:.1f} s"),
            *([("runtime", str(result.runtime))] if result.runtime else []),
        ]
    )
    for manifest in result.manifests:
        if manifest.untuned:
            typer.echo(f"\nPresets for {manifest.target}, since no tuning record was found for:")
            for name in dict.fromkeys(manifest.untuned):
                typer.echo(f"  {name}")
    for manifest in result.manifests if explain else ():
        machine = "GPU at 1.75 GHz" if manifest.gpu_arch else "core at 3 GHz"
        typer.echo(f"\nEstimates for one {machine} of {manifest.target}:")
        print_table(
            ("layer", "batch", "algorithm", "tiling", "time", "why"),
            [_explained(kernel) for kernel in manifest.kernels],
            fold="why",
        )


def parse_precision(text: str) -> Precision:
    """Read ``float32``, ``tf32`` or ``float16``."""
    from ferplus_tvm.targets import Precision

    if text not in get_args(Precision):
        raise typer.BadParameter(
            f"{text!r} is not one of {', '.join(get_args(Precision))}", param_hint="--precision"
        )
    return cast("Precision", text)


def _resolved(options: CompileOptions) -> list[tuple[str, str]]:
    """Return the options as they will be used."""
    return [
        ("model", str(options.model)),
        *(("target", hardware(target)) for target in options.targets),
        ("batch sizes", ", ".join(map(str, options.batch_sizes))),
        ("precision", options.precision),
        *(("tuning logs", str(folder)) for folder in options.tuning_logs),
        ("output", str(options.output)),
        *([("dump", str(options.dump))] if options.dump else []),
        *([("scaling", str(options.scaling))] if options.scaling else []),
        *([("labels", ", ".join(options.labels))] if options.labels else []),
        *([("detector", _sizes(options.detector))] if options.detector else []),
    ]


def hardware(target: ResolvedTarget) -> str:
    """Return a resolved target in one line: its name, triple and CPU features."""
    features = " ".join(sorted(target.features)) or "no CPU features beyond the architecture's"
    gpu = "" if target.gpu is None else f"{target.gpu.hardware}; host "
    return f"{target.name} ({gpu}{target.triple}: {features})"


def _of_target(manifest: Manifest, library: Path) -> list[tuple[str, str]]:
    error = manifest.check.error
    checked = (
        f"largest difference from float64 {error:.1e} of the largest score"
        if error is not None
        else f"not run here: 'ferplus-tvm verify {library.name}' does it on the device"
    )
    return [
        ("target", manifest.target),
        ("tuned", _tuned(manifest)),
        ("checked", checked),
        *([("detector", described(manifest.detector))] if manifest.detector else []),
    ]


def described(detector: Detector) -> str:
    """Say what a library's face detector is, and how far it was found off its reference."""
    errors = [each.check.error for each in detector.functions]
    known = [error for error in errors if error is not None]
    off = f"{max(known):.1e} off float64" if len(known) == len(errors) else "not yet run"
    return f"{detector.model_name} for pictures of {_sizes(detector.sizes)} ({off})"


def _sizes(sizes: Sequence[tuple[int, int]]) -> str:
    return ", ".join(f"{width}x{height}" for height, width in sizes)


def _test_data(result: CompileResult) -> list[tuple[str, str]]:
    """Say how the test data sets that lie beside the model went: compiling fails if one fails."""
    of_all = [each for results in result.test_data.values() for each in results]
    if not of_all:
        return []
    count = len({each.name for each in of_all})
    worst = max(of_all, key=lambda each: each.error)
    sets = "1 set" if count == 1 else f"{count} sets"
    return [
        (
            "test data",
            f"{sets} passed, largest difference {worst.error:.1e} of the largest output "
            f"({worst.tolerance:.0e} allowed)",
        )
    ]


def _tuned(manifest: Manifest) -> str:
    tunable = len(manifest.tunable)
    text = f"{tunable - len(manifest.untuned)} of {tunable} kernels"
    own = (manifest.target, f"{manifest.target}-{manifest.precision}")
    if manifest.tuning_logs not in ("", *own):
        text += f", by the log of {manifest.tuning_logs}, the nearest to {manifest.target}"
    return text


def _explained(kernel: Kernel) -> tuple[str, ...]:
    layer = f"{kernel.layer} + {kernel.fused}" if kernel.fused else kernel.layer
    time = f"{kernel.milliseconds:.3g} ms"
    return (layer, str(kernel.batch), kernel.algorithm, kernel.tiling, time, kernel.why)


def summary(result: CompileResult) -> dict[str, object]:
    """Return what a program may want to know of a compilation."""
    return {
        "path": str(result.path),
        "bytes": result.path.stat().st_size,
        "verified": result.verified,
        "seconds": result.seconds,
        "runtime": str(result.runtime) if result.runtime else None,
        "warnings": list(result.warnings),
        "notes": list(result.notes),
        "test_data": {
            target: [asdict(each) for each in results]
            for target, results in result.test_data.items()
        },
        "manifests": [manifest.to_dict() for manifest in result.manifests],
    }
