"""``ferplus-tvm targets``."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Annotated

import typer

from ferplus_tvm.cli.output import print_facts, print_table
from ferplus_tvm.errors import MissingExtraError

if TYPE_CHECKING:
    from ferplus_tvm.host.gpu import Device


def targets(
    detect: Annotated[
        bool, typer.Option("--detect", help="Only say what this machine is, and what it runs.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program.")] = False,
) -> None:
    """List the targets: hardware, vector width, whether they run here, what building needs."""
    try:
        import tvm as _tvm  # noqa: F401
    except ModuleNotFoundError:
        raise MissingExtraError.of("listing targets", "compile") from None
    if detect:
        _detect(as_json)
        return
    from ferplus_tvm.targets import NAMED, resolve
    from ferplus_tvm.toolchain.link import find_linker, missing_linker

    entries: list[dict[str, object]] = []
    for name in ("native", *NAMED):
        resolved = resolve(name)
        hardware = NAMED[name].hardware if name in NAMED else f"this CPU ({resolved.name})"
        linker = find_linker(resolved.triple)
        entries.append(
            {
                "name": name,
                "hardware": hardware,
                "triple": resolved.triple,
                "gpu": None,
                "float32_lanes": resolved.vector_unit.lanes,
                "features": sorted(resolved.features),
                "runs_here": resolved.runs_here,
                "linker": linker,
                "needs": None if linker else missing_linker(resolved.triple),
            }
        )
    entries += _gpus()
    if as_json:
        typer.echo(json.dumps(entries, indent=2))
        return
    rows = [
        (
            str(entry["name"]),
            str(entry["hardware"]),
            "GPU" if entry["gpu"] else f"{entry['float32_lanes']} floats",
            "yes" if entry["runs_here"] else "no",
            str(entry["needs"] or "nothing more"),
        )
        for entry in entries
    ]
    print_table(("name", "hardware", "vectors", "runs here", "building needs"), rows, "hardware")


def _gpus() -> list[dict[str, object]]:
    """Return the GPU targets, first this machine's if it has one."""
    from ferplus_tvm.errors import TargetError
    from ferplus_tvm.targets import GPUS, resolve
    from ferplus_tvm.toolchain.cuda_compiler import missing_compiler
    from ferplus_tvm.toolchain.link import find_linker, missing_linker

    names = [f"cuda/{arch}" for arch in GPUS]
    with contextlib.suppress(TargetError):
        resolve("cuda")
        names.insert(0, "cuda")
    entries: list[dict[str, object]] = []
    for name in names:
        resolved = resolve(name)
        assert resolved.gpu is not None
        linker = find_linker(resolved.triple)
        missing = [None if linker else missing_linker(resolved.triple), missing_compiler()]
        entries.append(
            {
                "name": name,
                "hardware": (
                    f"this GPU ({resolved.name})" if name == "cuda" else resolved.gpu.hardware
                ),
                "triple": resolved.triple,
                "gpu": resolved.gpu.arch,
                "float32_lanes": None,
                "features": sorted(resolved.features),
                "runs_here": resolved.runs_here,
                "linker": linker,
                "needs": "; ".join(filter(None, missing)) or None,
            }
        )
    return entries


def _detect(as_json: bool) -> None:
    from ferplus_tvm.host import cpu
    from ferplus_tvm.targets import detect

    native, able = detect()
    gpus, no_gpu = _devices()
    if as_json:
        facts = {
            "cpu": cpu.name(),
            "native": native.config,
            "name": native.name,
            "features": sorted(native.features),
            "runs": able,
            "gpus": [{"name": each.name, "arch": each.arch} for each in gpus],
        }
        typer.echo(json.dumps(facts, indent=2))
        return
    unit = native.vector_unit
    print_facts(
        [
            ("CPU", cpu.name()),
            ("native", f"{native.name} ({native.triple})"),
            ("vectors", f"{unit.registers} registers of {unit.lanes} floats"),
            ("features", " ".join(sorted(native.features))),
            ("GPU", ", ".join(f"{each.name} ({each.arch})" for each in gpus) or no_gpu),
            ("runs", ", ".join(able) or "no named target"),
        ]
    )


def _devices() -> tuple[tuple[Device, ...], str]:
    """Return the GPUs of this machine, or why there is none."""
    from ferplus_tvm.errors import GpuError
    from ferplus_tvm.host import gpu

    try:
        return gpu.devices(), ""
    except GpuError as error:
        return (), f"none: {error}"
