"""``ferplus-tvm targets``."""

from __future__ import annotations

import importlib.util
import json
from typing import TYPE_CHECKING, Annotated

import typer

from ferplus_tvm.cli.output import print_facts, print_table
from ferplus_tvm.errors import MissingExtraError

if TYPE_CHECKING:
    from ferplus_tvm.host.gpu import Device
    from ferplus_tvm.toolchain.available import AvailableTarget


def targets(
    detect: Annotated[
        bool,
        typer.Option(
            "--detect", help="Show this machine's CPU and GPU, and the targets that it runs."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program.")] = False,
) -> None:
    """List the targets: hardware, vector width, whether they run here, missing tools."""
    if detect:
        _detect(as_json)
        return
    from ferplus_tvm.toolchain.available import list_targets

    available = list_targets()
    if as_json:
        typer.echo(json.dumps([_facts(each) for each in available], indent=2))
        return
    rows = [
        (
            each.name,
            each.hardware,
            "GPU" if each.target.gpu else f"{each.target.vector_unit.lanes} x float32",
            "yes" if each.target.runs_here else "no",
            "; ".join(each.missing) or "none",
        )
        for each in available
    ]
    print_table(("name", "hardware", "vectors", "runs here", "missing tools"), rows, "hardware")


def _facts(available: AvailableTarget) -> dict[str, object]:
    """Return what ``--json`` prints of a target."""
    target = available.target
    return {
        "name": available.name,
        "hardware": available.hardware,
        "triple": target.triple,
        "gpu": target.gpu.arch if target.gpu else None,
        "float32_lanes": None if target.gpu else target.vector_unit.lanes,
        "features": sorted(target.features),
        "runs_here": target.runs_here,
        "linker": available.linker,
        "needs": "; ".join(available.missing) or None,
    }


def _detect(as_json: bool) -> None:
    if importlib.util.find_spec("tvm") is None:
        raise MissingExtraError.of("naming this CPU", "compile")
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
            ("vectors", f"{unit.registers} registers of {unit.lanes} x float32"),
            ("features", " ".join(sorted(native.features))),
            ("GPU", ", ".join(f"{each.name} ({each.arch})" for each in gpus) or no_gpu),
            ("runs", ", ".join(able) or "none of the named targets"),
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
