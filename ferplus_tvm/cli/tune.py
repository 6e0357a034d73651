"""``ferplus-tvm tune``."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ferplus_tvm.cli.compile import parse_batch_sizes, parse_precision
from ferplus_tvm.cli.output import print_facts, print_table
from ferplus_tvm.errors import TuningLogError

if TYPE_CHECKING:
    from ferplus_tvm.records.log import TuningLog
    from ferplus_tvm.targets import Precision
    from ferplus_tvm.tuning.report import LayerReport
    from ferplus_tvm.tuning.tune import Progress, TuneResult

_LOG_DIR = Path("tuning_logs")
_INTERRUPTED = 130  # as a shell calls a program that Ctrl-C ended


def tune(
    model: Annotated[
        str, typer.Argument(help="A name that `models list` shows, or the path of an ONNX file.")
    ] = "bundled",
    target: Annotated[
        str, typer.Option(help="native, cuda, or a name that `targets` shows.")
    ] = "native",
    batch: Annotated[
        str, typer.Option(metavar="SIZES", help="Batch sizes to tune for.")
    ] = "1,8,32",
    log_dir: Annotated[
        Path, typer.Option(metavar="DIR", help="The folder of tuning logs to go on with.")
    ] = _LOG_DIR,
    seconds: Annotated[
        float,
        typer.Option(
            "--time",
            min=10,
            metavar="SECONDS",
            help="The time to take; what is under way is finished.",
        ),
    ] = 300,
    precision: Annotated[
        str, typer.Option(help="float32, or for GPUs tf32 or float16, by tensor cores.")
    ] = "float32",
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Measure with one thread and with so many; by default all."),
    ] = None,
    rpc: Annotated[
        str | None,
        typer.Option(
            metavar="TRACKER:PORT/KEY",
            help="Measure on the devices that TVM's RPC tracker has under a key.",
        ),
    ] = None,
    report: Annotated[
        bool, typer.Option("--report", help="Tune nothing; show what was tried, with a plot.")
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="PNG", help="The report's plot; by default tuning-TARGET.png here."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program.")] = False,
) -> None:
    """Find the fastest kernels on the target itself, and keep what is found in a tuning log.

    Run it again to go on where it ended, however it ended.
    """
    sizes = parse_batch_sizes(batch)
    kind = parse_precision(precision)
    if plot is not None and not report:
        raise typer.BadParameter("--plot belongs to --report")
    if report:
        _report(target, kind, log_dir, plot, as_json)
        return
    if rpc is not None:
        _expect_address(rpc)
    import ferplus_tvm

    try:
        with _shown(seconds) as progress:
            result = ferplus_tvm.tune(
                model,
                target,
                log_dir,
                seconds,
                batch_sizes=sizes,
                precision=kind,
                threads=threads,
                rpc=rpc,
                progress=progress,
            )
    except KeyboardInterrupt:
        typer.echo("stopped: what was measured is kept; the same command goes on", err=True)
        raise typer.Exit(_INTERRUPTED) from None
    if as_json:
        facts = asdict(result) | {"folder": str(result.folder)}
        typer.echo(json.dumps(facts, indent=2))
    else:
        _print(result, log_dir)


def _print(result: TuneResult, log_dir: Path) -> None:
    print_facts(
        [
            ("log", str(result.folder)),
            ("tried", f"{result.tried} configurations of {result.layers} layers"),
            *([("failed", str(result.failed))] if result.failed else []),
            ("changed", f"{result.changed} layers"),
            *(
                (
                    f"batch {gain.batch}",
                    f"{gain.ratio:.3f} times as fast as presets with {gain.threads} thread(s) "
                    f"(noise {gain.noise:.3f})",
                )
                for gain in result.gains
            ),
            *(
                ("left out", f"{kernel}: what is new made the whole network slower")
                for kernel in result.rejected
            ),
            (
                "time",
                f"{result.seconds:.0f} s, {result.measuring:.0%} of it measuring; imports "
                f"{result.importing:.1f} s",
            ),
        ]
    )
    typer.echo(
        f"\nUse it: ferplus-tvm compile --target {result.target} --tuning-logs {log_dir}"
        f"\nSee it: ferplus-tvm tune --report --target {result.target} --log-dir {log_dir}"
    )


def _expect_address(rpc: str) -> None:
    from ferplus_tvm.tuning.address import Address

    try:
        Address.parse(rpc)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


@contextmanager
def _shown(seconds: float) -> Iterator[Callable[[Progress], None]]:
    """Give a callback that shows progress: a bar on a terminal, otherwise a line a generation."""
    start = time.monotonic()
    if not sys.stderr.isatty():
        yield lambda progress: typer.echo(
            f"{time.monotonic() - start:5.0f} s  {_line(progress)}", err=True
        )
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=seconds)
        yield lambda progress: bar.update(
            task,
            description=_line(progress),
            completed=min(time.monotonic() - start, seconds),
        )


def _line(progress: Progress) -> str:
    generation = progress.generation
    if generation is None:
        return {
            "import": "starting the processes that build and measure",
            "networks": "comparing the whole network with what was kept before",
        }[progress.stage]
    best = ", ".join(f"{1e3 * seconds:.3f}" for seconds in generation.best)
    return (
        f"{generation.task.workload.name}: {generation.tried} tried, best {best} ms, "
        f"{generation.gain:.3f} x preset, {max(0.0, progress.left):.0f} s left"
    )


def _report(
    target: str, precision: Precision, log_dir: Path, plot: Path | None, as_json: bool
) -> None:
    from ferplus_tvm.compiler.options import with_precision
    from ferplus_tvm.records.find import find, search_path
    from ferplus_tvm.records.log import NAME, TuningLog
    from ferplus_tvm.targets import resolve
    from ferplus_tvm.tuning import report as reports

    resolved = with_precision(resolve(target), precision)
    if (log_dir / resolved.log / NAME).is_file():
        log: TuningLog | None = TuningLog(log_dir, resolved.log)  # also one that keeps nothing yet
    else:
        given = log_dir != _LOG_DIR or log_dir.is_dir()
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
        _print_report(log, layers)
    path = plot or Path(f"tuning-{log.target.replace('/', '-')}.png")
    try:
        reports.plot(layers, log.target, path)
    except OSError as error:
        raise TuningLogError(
            f"the plot {path} cannot be written ({error.strerror or error}): give another --plot"
        ) from error
    if not as_json:
        typer.echo(f"\nplot: {os.path.abspath(path)}")


def _print_report(log: TuningLog, layers: list[LayerReport]) -> None:
    from ferplus_tvm.tuning.report import tiling

    state = log.provenance
    assert state is not None  # a log without one is none
    threads = " and ".join(map(str, state.threads))
    print_facts(
        [
            ("log", f"{log.folder} ({state.date}, apache-tvm {state.tvm_version})"),
            ("measured on", f"{state.cpu}, {threads} thread(s)"),
            ("by", state.command),
            *(
                (f"batch {gain.batch}", f"{gain.ratio:.3f} with {gain.threads} thread(s)")
                for gain in state.gains
            ),
        ]
    )
    typer.echo("\nEach layer on its own; times over the preset's, below 1 where they are faster:")
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
    header = ("kernel", "tried", "best..median..worst", "gain", "kept", "preset")
    print_table(header, rows, fold="preset")


def _spread(times: tuple[float, ...]) -> tuple[float, ...]:
    return (min(times), statistics.median(times), max(times)) if times else ()
