"""``ferplus-tvm tune --report``."""

from __future__ import annotations

import json
import os
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ferplus_tvm.cli.output import print_facts, print_table
from ferplus_tvm.errors import TuningLogError

if TYPE_CHECKING:
    from ferplus_tvm.records.log import TuningLog
    from ferplus_tvm.targets import Precision
    from ferplus_tvm.tuning.report import LayerReport

LOG_DIR = Path("tuning_logs")
"""The folder of tuning logs where none is given."""


def print_report(
    target: str, precision: Precision, log_dir: Path, plot: Path | None, as_json: bool
) -> None:
    """Print what a tuning log says of each layer, and draw the plot of it."""
    from ferplus_tvm.compiler.options import with_precision
    from ferplus_tvm.records.find import find, search_path
    from ferplus_tvm.records.log import NAME, TuningLog
    from ferplus_tvm.targets import resolve
    from ferplus_tvm.tuning import report as reports

    resolved = with_precision(resolve(target), precision)
    if (log_dir / resolved.log / NAME).is_file():
        log: TuningLog | None = TuningLog(log_dir, resolved.log)  # also one that keeps nothing yet
    else:
        given = log_dir != LOG_DIR or log_dir.is_dir()
        log = find(search_path(log_dir if given else None), resolved)
    if log is None:
        raise TuningLogError(
            f"there is no tuning log for {resolved.log} in {log_dir}, among yours, or in the "
            f"package: make one with 'ferplus-tvm tune --target {resolved.name}'"
        )
    layers = reports.report(log)
    if as_json:
        typer.echo(json.dumps([asdict(layer) for layer in layers], indent=2))
    else:
        _print(log, layers)
    path = plot or Path(f"tuning-{log.target.replace('/', '-')}.png")
    try:
        reports.plot(layers, log.target, path)
    except OSError as error:
        raise TuningLogError(
            f"the plot {path} cannot be written ({error.strerror or error}): give another --plot"
        ) from error
    if not as_json:
        typer.echo(f"\nplot: {os.path.abspath(path)}")


def _print(log: TuningLog, layers: list[LayerReport]) -> None:
    from ferplus_tvm.tuning.report import tiling

    state = log.provenance
    assert state is not None  # a log without one is none
    threads = " and ".join(map(str, state.threads))
    print_facts(
        [
            ("log", f"{log.folder} ({state.date}, apache-tvm {state.tvm_version})"),
            ("measured on", f"{state.cpu}, {threads} thread(s)"),
            ("command", state.command),
            *(
                (f"batch {gain.batch}", f"{gain.ratio:.3f} with {gain.threads} thread(s)")
                for gain in state.gains
            ),
        ]
    )
    typer.echo("\nEach layer alone; times relative to the preset's, below 1 where they are faster:")
    rows = []
    for layer in layers:
        spread = [f"{time:.2f}" for time in _spread(layer.times)]
        rows.append(
            (
                layer.kernel,
                str(layer.tried),
                " ".join(spread),
                f"{1 / layer.kept_time:.3f}",
                tiling(layer.kept, layer.preset),
                tiling(layer.preset),
            )
        )
    header = ("kernel", "tried", "best, median, worst", "gain", "kept", "preset")
    print_table(header, rows, fold="preset")


def _spread(times: tuple[float, ...]) -> tuple[float, ...]:
    return (min(times), statistics.median(times), max(times)) if times else ()
