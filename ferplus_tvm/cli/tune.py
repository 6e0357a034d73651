"""``ferplus-tvm tune``."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ferplus_tvm.cli.compile import hardware, parse_batch_sizes, parse_precision
from ferplus_tvm.cli.model_options import InputRange, Mean, ModelOutput, Std, parse_scaling
from ferplus_tvm.cli.output import print_facts
from ferplus_tvm.cli.tuning_report import LOG_DIR, print_report
from ferplus_tvm.errors import MissingExtraError

if TYPE_CHECKING:
    from ferplus_tvm.tuning.options import TuneOptions
    from ferplus_tvm.tuning.tune import Progress, TuneResult

_INTERRUPTED = 130  # a shell's exit status for a program that Ctrl-C ended


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
        Path, typer.Option(metavar="DIR", help="The folder of tuning logs, which a run adds to.")
    ] = LOG_DIR,
    seconds: Annotated[
        float,
        typer.Option(
            "--time",
            min=10,
            metavar="SECONDS",
            help="How long to tune; what has begun by then is finished.",
        ),
    ] = 300,
    precision: Annotated[
        str, typer.Option(help="float32, or for GPUs tf32 or float16, by tensor cores.")
    ] = "float32",
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Measure with one thread and with this many; by default all."),
    ] = None,
    rpc: Annotated[
        str | None,
        typer.Option(
            metavar="TRACKER:PORT/KEY",
            help="Measure on the devices that TVM's RPC tracker has under a key.",
        ),
    ] = None,
    input_range: InputRange = None,
    mean: Mean = None,
    std: Std = None,
    model_output: ModelOutput = None,
    report: Annotated[
        bool,
        typer.Option("--report", help="Do not tune; show what earlier runs tried, with a plot."),
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="PNG", help="The report's plot; by default tuning-TARGET.png here."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program.")] = False,
) -> None:
    """Search for the fastest kernels by measuring on the target, and keep them in a tuning log.

    A run that ended in any way is continued by running the same command again.
    """
    sizes = parse_batch_sizes(batch)
    kind = parse_precision(precision)
    if plot is not None and not report:
        raise typer.BadParameter("--plot belongs to --report")
    if report:
        print_report(target, kind, log_dir, plot, as_json)
        return
    wanted: dict[str, Any] = {
        "model": model,
        "target": target,
        "time_limit": seconds,
        "batch_sizes": sizes,
        "precision": kind,
        "threads": threads,
        "rpc": rpc,
        **parse_scaling(input_range, mean, std),
        "model_output": model_output,
    }
    import ferplus_tvm

    print_facts(_resolved(_options(**wanted), log_dir), err=as_json)
    try:
        with _shown(seconds) as progress:
            result = ferplus_tvm.tune(**wanted, log_dir=log_dir, progress=progress)
    except KeyboardInterrupt:
        typer.echo("stopped: what was measured is kept; run the same command to continue", err=True)
        raise typer.Exit(_INTERRUPTED) from None
    if as_json:
        facts = asdict(result) | {"folder": str(result.folder)}
        typer.echo(json.dumps(facts, indent=2))
    else:
        typer.echo()
        _print(result, log_dir)


def _options(**wanted: Any) -> TuneOptions:
    """Return the resolved options; a value out of its range is a wrong call."""
    try:
        from ferplus_tvm.tuning.options import TuneOptions
    except ModuleNotFoundError as error:
        raise MissingExtraError.of(f"tuning (no module {error.name})", "tune") from None
    try:
        return TuneOptions.of(**wanted)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _resolved(options: TuneOptions, log_dir: Path) -> list[tuple[str, str]]:
    """Return the options as they will be used."""
    target = options.target
    return [
        ("model", str(options.model)),
        ("target", hardware(target)),
        ("device", options.machine),
        ("batch sizes", ", ".join(map(str, options.batch_sizes))),
        ("precision", target.precision),
        *([] if target.gpu else [("threads", f"1 and {options.threads or 'all'}")]),
        ("time", f"{options.time_limit:g} s"),
        ("log", str(log_dir / target.log)),
    ]


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
                ("rejected", f"{kernel}: its fastest configuration made the whole network slower")
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


@contextmanager
def _shown(seconds: float) -> Iterator[Callable[[Progress], None]]:
    """Give a callback that shows a bar on a terminal, and otherwise prints a line a generation."""
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
            "networks": "validating: timing the whole network against the records kept before",
        }[progress.stage]
    best = ", ".join(f"{1e3 * seconds:.3f}" for seconds in generation.best)
    return (
        f"{generation.task.workload.name}: {generation.tried} tried, best {best} ms, "
        f"{generation.gain:.3f} x preset, {max(0.0, progress.left):.0f} s left"
    )
