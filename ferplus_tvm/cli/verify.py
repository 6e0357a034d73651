"""``ferplus-tvm verify``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ferplus_tvm.cli.output import print_facts


def verify(
    library: Annotated[Path, typer.Argument(help="A library that `compile` wrote.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program.")] = False,
) -> None:
    """Run a library on this machine and compare its scores with the reference that it carries."""
    from ferplus_tvm.compiler.verify import verify as verify_library

    result = verify_library(library)
    if as_json:
        typer.echo(json.dumps({"errors": result.errors, "tolerance": result.tolerance}))
        return
    print_facts(
        [
            *((f"batch {batch}", f"{error:.1e}") for batch, error in result.errors.items()),
            ("allowed", f"{result.tolerance:.0e}"),
        ]
    )
    typer.echo("ok: largest difference of a score, relative to the largest score")
