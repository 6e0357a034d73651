"""``ferplus-tvm bench``."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ferplus_tvm.cli.compile import parse_batch_sizes
from ferplus_tvm.cli.output import print_table

if TYPE_CHECKING:
    from ferplus_tvm.bench.report import Report


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
        str,
        typer.Option(
            metavar="NAMES",
            help="onnxruntime, openvino, torch, or paths of other libraries; empty for none.",
        ),
    ] = "onnxruntime",
    batch: Annotated[str, typer.Option(metavar="SIZES", help="Batch sizes to measure.")] = "1,8,32",
    threads: Annotated[
        str | None,
        typer.Option(metavar="NUMBERS", help="Such as 1,2; by default 1 and all."),
    ] = None,
    seconds: Annotated[
        float,
        typer.Option(min=0.1, help="For each batch size, shared by the numbers of threads."),
    ] = 20,
    end_to_end: Annotated[
        bool, typer.Option("--end-to-end", help="Also from a JPEG's bytes to the label.")
    ] = False,
    cold: Annotated[
        bool, typer.Option("--cold", help="Also from a new process to its first answer.")
    ] = False,
    layers: Annotated[
        bool, typer.Option("--layers", help="Also each kernel, and what this machine can do.")
    ] = False,
    mlperf: Annotated[
        Literal["short", "full"] | None,
        typer.Option(help="Also MLPerf's SingleStream and Offline; full takes 20 minutes each."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write JSON, CSV, HTML and PNG into this folder."),
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
    sizes = parse_batch_sizes(batch)
    counts = None if threads is None else _numbers(threads)
    most = _percent(max_slowdown)
    if not seconds > 0:  # not a number
        raise typer.BadParameter(f"--seconds is {seconds}: expected a number above 0")
    from ferplus_tvm.bench import gate as gates
    from ferplus_tvm.bench import report as reports
    from ferplus_tvm.bench.engines import PEERS, is_peer
    from ferplus_tvm.bench.run import bench as measure

    named = [name for name in (part.strip() for part in peers.split(",")) if name]
    for name in named:
        if not is_peer(name):
            raise typer.BadParameter(
                f"{name!r} is no peer: expected {', '.join(PEERS)}, or the path of a library"
            )
    baseline = None if gate is None else reports.read(gate)
    with _shown() as progress:
        report, calls = measure(
            library,
            model,
            peers=named,
            batch_sizes=sizes,
            threads=counts,
            seconds=seconds,
            end_to_end=end_to_end,
            cold_start=cold,
            by_layer=layers,
            form=mlperf,
            command=_command(sys.argv),
            progress=progress,
        )
    if as_json:
        typer.echo(report.to_json(), nl=False)
    else:
        _print(report)
    if out is not None:
        written = reports.write(out, report, calls)
        typer.echo(f"report: {out}, with {', '.join(path.name for path in written)}", err=True)
    if baseline is not None:
        changes = gates.compare(report, baseline)
        for change in changes:
            typer.echo(
                f"gate: {change.what}: {change.slowdown:+.1%} ({change.least:+.1%} beyond noise)",
                err=True,
            )
        gates.expect(changes, most)


def _print(report: Report) -> None:
    from ferplus_tvm.bench import text

    header, rows = text.latency(report.rows)
    print_table(header, rows, fold="engine")
    for line in text.evidence(report.rows):
        typer.echo(line)
    if report.scenarios:
        typer.echo()
        header, rows = text.scenarios(report.scenarios)
        print_table(header, rows, fold="metric")
    if report.cold:
        typer.echo()
        header, rows = text.cold(report.cold, report.cold_ratios)
        print_table(header, rows, fold="engine")
    for each in report.layers:
        typer.echo(f"\nbatch {each.batch}, {each.threads} thread(s), layer by layer:")
        header, rows = text.layers(each)
        print_table(header, rows, fold="layer")
    for line in text.limits(report):
        typer.echo(line)
    if report.spoiled_by:
        typer.echo("\nWhat spoils these figures:")
        for line in report.spoiled_by:
            typer.echo(f"  {line}")
    typer.echo()
    for line in text.verdicts(report.rows):
        typer.echo(line)


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
