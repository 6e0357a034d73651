"""``ferplus-tvm targets``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from ferplus_tvm.cli.output import print_facts, print_table
from ferplus_tvm.errors import MissingExtraError


def targets(
    detect: Annotated[
        bool, typer.Option("--detect", help="Only say what this machine is, and what it runs.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program.")] = False,
) -> None:
    """List the named targets: hardware, vector width, whether they run here, what they need."""
    try:
        import tvm as _tvm  # noqa: F401
    except ModuleNotFoundError:
        raise MissingExtraError.of("listing targets", "compile") from None
    if detect:
        _detect(as_json)
        return
    from ferplus_tvm.link import find_linker, missing_linker
    from ferplus_tvm.targets import NAMED, resolve

    entries = []
    for name in ("native", *NAMED):
        resolved = resolve(name)
        unit = resolved.vector_unit
        hardware = NAMED[name].hardware if name in NAMED else f"this CPU ({resolved.name})"
        linker = find_linker(resolved.triple)
        entries.append(
            {
                "name": name,
                "hardware": hardware,
                "triple": resolved.triple,
                "float32_lanes": unit.lanes,
                "features": sorted(resolved.features),
                "runs_here": resolved.runs_here,
                "linker": linker,
                "needs": None if linker else missing_linker(resolved.triple),
            }
        )
    if as_json:
        typer.echo(json.dumps(entries, indent=2))
        return
    rows = [
        (
            str(entry["name"]),
            str(entry["hardware"]),
            f"{entry['float32_lanes']} floats",
            "yes" if entry["runs_here"] else "no",
            str(entry["needs"] or "nothing more"),
        )
        for entry in entries
    ]
    print_table(("name", "hardware", "vectors", "runs here", "linking needs"), rows, "hardware")


def _detect(as_json: bool) -> None:
    from ferplus_tvm import cpu
    from ferplus_tvm.targets import detect

    native, able = detect()
    if as_json:
        facts = {
            "cpu": cpu.name(),
            "native": native.config,
            "name": native.name,
            "features": sorted(native.features),
            "runs": able,
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
            ("runs", ", ".join(able) or "no named target"),
        ]
    )
