"""``ferplus-tvm targets``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from ferplus_tvm.cli.output import print_table
from ferplus_tvm.errors import MissingExtraError


def targets(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program.")] = False,
) -> None:
    """List the named targets: hardware, vector width, and whether a linker is at hand."""
    try:
        import tvm as _tvm  # noqa: F401
    except ModuleNotFoundError:
        raise MissingExtraError.of("listing targets", "compile") from None
    from ferplus_tvm.link import find_linker
    from ferplus_tvm.targets import NAMED, resolve

    entries = []
    for name in ("native", *NAMED):
        resolved = resolve(name)
        unit = resolved.vector_unit
        hardware = NAMED[name].hardware if name in NAMED else f"this CPU ({resolved.name})"
        entries.append(
            {
                "name": name,
                "hardware": hardware,
                "triple": resolved.triple,
                "float32_lanes": unit.lanes,
                "features": sorted(resolved.features),
                "runs_here": resolved.runs_here,
                "linker": find_linker(resolved.triple),
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
            "found" if entry["linker"] else "missing",
        )
        for entry in entries
    ]
    print_table(("name", "hardware", "vectors", "runs here", "linker"), rows, fold="hardware")
    if any(entry["linker"] is None for entry in entries):
        typer.echo(
            "A missing linker: install the cross compiler (on Debian g++-aarch64-linux-gnu), or "
            "pip install ziglang."
        )
