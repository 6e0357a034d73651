"""``ferplus-tvm bench``."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ferplus_tvm.cli.compile import parse_batch_sizes
from ferplus_tvm.cli.model_options import ModelOutput
from ferplus_tvm.cli.output import print_table

if TYPE_CHECKING:
    from ferplus_tvm.bench.options import BenchOptions
    from ferplus_tvm.bench.report.data import Report


def bench(
    library: Annotated[
        Path | None,
        typer.Argument(help="A compiled library; without one the model is compiled first."),
    ] = None,
    model: Annotated[
        str,
        typer.Option(help="The model that the library holds: a name of `models list`, or a path."),
    ] = "bundled",
    peers: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Engines and paths of other libraries, with commas; empty for none.  On a CPU "
            "onnxruntime (the default), openvino, torch; on a GPU by default all of onnxruntime, "
            "torch, torch-graph, torch-compile, and more.",
        ),
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(metavar="SIZES", help="Batch sizes; by default the library's, or 1,8,32."),
    ] = None,
    threads: Annotated[
        str | None,
        typer.Option(metavar="NUMBERS", help="Such as 1,2; by default 1 and all."),
    ] = None,
    seconds: Annotated[
        float,
        typer.Option(min=0.1, help="For each batch size, shared by the numbers of threads."),
    ] = 20,
    device: Annotated[
        str | None,
        typer.Option(help="cpu, or a GPU such as cuda:0; by default what the library is for."),
    ] = None,
    end_to_end: Annotated[
        bool, typer.Option("--end-to-end", help="Also from a JPEG's bytes to the label.")
    ] = False,
    cold: Annotated[
        bool, typer.Option("--cold", help="Also from a new process to its first answer.")
    ] = False,
    layers: Annotated[
        bool, typer.Option("--layers", help="Also each kernel, and this machine's roofline.")
    ] = False,
    mlperf: Annotated[
        Literal["short", "full"] | None,
        typer.Option(help="Also MLPerf's SingleStream and Offline; full takes 20 minutes each."),
    ] = None,
    model_output: ModelOutput = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write JSON, CSV, HTML and SVG into this folder."),
    ] = None,
    gate: Annotated[
        Path | None,
        typer.Option(metavar="JSON", help="Fail if ours is slower than in this report."),
    ] = None,
    max_slowdown: Annotated[
        str, typer.Option(metavar="PERCENT", help="What the gate lets pass.")
    ] = "5%",
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Measure a library beside other engines, each alone on the machine."""
    most = _percent(max_slowdown)
    options = _options(
        library,
        peers=None if peers is None else _words(peers),
        batch_sizes=None if batch is None else tuple(parse_batch_sizes(batch)),
        threads=None if threads is None else _numbers(threads),
        seconds=seconds,
        device=device,
        end_to_end=end_to_end,
        cold_start=cold,
        by_layer=layers,
        mlperf=mlperf,
        model_output=model_output,
    )
    from ferplus_tvm.bench.report import data
    from ferplus_tvm.bench.run import bench as measure

    baseline = None if gate is None else data.read(gate)
    with _shown() as progress:
        report, calls = measure(
            library, model, options, command=_command(sys.argv), progress=progress
        )
    if as_json:
        typer.echo(report.to_json(), nl=False)
    else:
        _print(report)
    if out is not None:
        from ferplus_tvm.bench.report.write import write

        written = write(out, report, calls)
        typer.echo(f"report: {out}, with {', '.join(path.name for path in written)}", err=True)
    if baseline is not None:
        _gate(report, baseline, most)


def _options(library: Path | None, **given: Any) -> BenchOptions:
    """Return the options; a wrong one is a wrong call, whatever it is measured for."""
    from ferplus_tvm.bench.engines import catalog
    from ferplus_tvm.bench.options import BenchOptions
    from ferplus_tvm.bench.subjects import device_of

    try:
        options = BenchOptions(**given)
        catalog.expect_peers(options.peers or (), device_of(library, options.device))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    return options


def _gate(report: Report, baseline: Report, most: float) -> None:
    from ferplus_tvm.bench import gate

    changes = gate.compare(report, baseline)
    for change in changes:
        typer.echo(
            f"gate: {change.what}: {change.slowdown:+.1%} ({change.least:+.1%} beyond noise)",
            err=True,
        )
    gate.expect(changes, most)


def _print(report: Report) -> None:
    from ferplus_tvm.bench.report import text, warnings
    from ferplus_tvm.bench.timing.rows import where

    print_table(*text.latency(report.rows), fold="engine")
    if report.scenarios:
        typer.echo()
        print_table(*text.scenarios(report.scenarios), fold="metric")
    if report.cold:
        typer.echo()
        print_table(*text.cold(report.cold, report.cold_ratios), fold="engine")
    for each in report.layers:
        typer.echo(f"\n{where('scores', each.batch, each.threads)}, layer by layer:")
        print_table(*text.layers(each), fold="layer")
    if report.rooflines:
        typer.echo("\nWhat this machine can do at most:")
        print_table(*text.rooflines(report.rooflines), fold="threads")
    for line in text.of_roofline(report.layers):
        typer.echo(line)
    for name, reason in report.left_out.items():
        typer.echo(f"left out: {name}: {reason}")
    lines = warnings.summary(report.warnings, len(report.rows))
    if lines:
        typer.echo("\nWarnings (--out and --json have each of them):")
        for line in lines:
            typer.echo(f"  {line}")
    typer.echo()
    for line in (text.evidence_in_short(report.rows), *text.verdicts(report.rows)):
        if line:
            typer.echo(line)


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in (part.strip() for part in text.split(",")) if word)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1:
        raise typer.BadParameter(f"{text!r} is not a list of numbers of threads, such as 1,2")
    return numbers


def _percent(text: str) -> float:
    """Read ``5%`` or ``5``."""
    try:
        value = float(text.strip().removesuffix("%"))
    except ValueError:
        value = -1.0
    if not 0 <= value < 1000:
        raise typer.BadParameter(f"{text!r} is not a slowdown in per cent, such as 5%")
    return value / 100


def _command(arguments: list[str]) -> str:
    """Return the command line without paths, which are nobody's business."""
    words = []
    before = ""
    for word in arguments[1:]:
        option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        values = value.split(",") if "--peers" in (before, option) else [value]
        names = (os.path.basename(each.rstrip(r"\/")) for each in values)
        words.append(option + equals + ",".join(names))
        before = word
    return shlex.join(["ferplus-tvm", *words])


@contextmanager
def _shown() -> Iterator[Callable[[str], None]]:
    """Give a callback that says what is done: a spinner on a terminal, otherwise lines."""
    if not sys.stderr.isatty():
        last = ""

        def line(doing: str) -> None:
            nonlocal last
            what = doing.rpartition(":")[0] if doing.endswith("%") else doing
            if what != last:
                typer.echo(what, err=True)
            last = what

        yield line
        return
    from rich.console import Console
    from rich.progress import Progress, TextColumn

    # Drawn only when there is news, between two rounds: a spinner would take part in the turns.
    with Progress(
        TextColumn("{task.description}"),
        console=Console(stderr=True),
        transient=True,
        auto_refresh=False,
    ) as shown:
        task = shown.add_task("starting")
        yield lambda doing: shown.update(task, description=doing, refresh=True)
