"""``ferplus-tvm verify``."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ferplus_tvm.cli.output import print_facts, print_table


def verify(
    library: Annotated[Path, typer.Argument(help="A library that `compile` wrote.")],
    test_data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Run test data sets of the model, too: a folder with test_data_set_0, as the ONNX "
            "Model Zoo's archives have it, or one such set.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program.")] = False,
) -> None:
    """Run a library on this machine and compare its scores with the reference that it carries.

    The exit status is 1 if it is off that, or fails a test data set.
    """
    from ferplus_tvm.compiler.verify import check, expect_passed

    result = check(library, test_data)
    if as_json:
        sets = [asdict(each) | {"passed": each.passed} for each in result.test_data]
        facts: dict[str, object] = {"errors": result.errors, "tolerance": result.tolerance}
        if result.detector:
            facts["detector"] = {f"{w}x{h}": error for (h, w), error in result.detector.items()}
        typer.echo(json.dumps(facts if test_data is None else {**facts, "test_data": sets}))
    else:
        print_facts(
            [
                *((f"batch {batch}", f"{error:.1e}") for batch, error in result.errors.items()),
                ("allowed", f"{result.tolerance:.0e}"),
                *(
                    (f"detector {width}x{height}", f"{error:.1e}")
                    for (height, width), error in result.detector.items()
                ),
            ]
        )
        typer.echo("ok: largest difference of a score, relative to the largest score")
        if result.detector:
            typer.echo("of the face detector: of a probability, or in cells of its grids")
        if test_data is not None:
            typer.echo()
            rows = [
                (
                    each.name,
                    f"{each.error:.1e}",
                    f"{each.tolerance:.0e}",
                    "pass" if each.passed else "fail",
                )
                for each in result.test_data
            ]
            header = ("test data", "difference", "allowed", "result")
            print_table(header, rows, fold="test data")
    expect_passed(result, os.path.abspath(library))
