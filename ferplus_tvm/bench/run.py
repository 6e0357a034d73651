"""The whole benchmark on one page: from a library, or none, to a report."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Sequence
from typing import Any

from ferplus_tvm.bench import environment, subjects
from ferplus_tvm.bench.engines import catalog
from ferplus_tvm.bench.engines.gpu import number_of
from ferplus_tvm.bench.engines.opened import OURS
from ferplus_tvm.bench.measurements import Measurements
from ferplus_tvm.bench.options import BenchOptions
from ferplus_tvm.bench.report import warnings
from ferplus_tvm.bench.report.data import BenchWarning, Report
from ferplus_tvm.bench.timing import load, scenarios
from ferplus_tvm.bench.timing.rows import Call
from ferplus_tvm.errors import BenchError
from ferplus_tvm.host import cpu
from ferplus_tvm.host.temporary import temporary_folder

_DEFAULT = BenchOptions()
_MODULES = ("tvm", "onnx", "psutil", "matplotlib", "packaging")


def bench(
    library: str | os.PathLike[str] | None = None,
    model: str | os.PathLike[str] = "bundled",
    options: BenchOptions = _DEFAULT,
    *,
    command: str = "ferplus_tvm.bench.run.bench(...)",
    progress: Callable[[str], None] = lambda doing: None,
) -> tuple[Report, list[Call]]:
    """Measure a library beside other engines; return the report and every timed call.

    Parameters
    ----------
    library
        A compiled library; None compiles ``model`` for this machine first.
    model
        The model that the library holds, which the peers run: a name of the zoo or the path of an
        ONNX file.  They are given the graph as it was imported, with any batch size.
    options
        What is measured, and for how long.
    command
        What the report says it was made by.
    progress
        Called with what is done next.

    Raises
    ------
    BenchError
        If an engine cannot be measured, or the engines do not run the same model.
    MissingExtraError
        If a peer is not installed.
    ArtifactError, ModelError, DownloadError, CompileError, GpuError
        If the library, the model or the GPU cannot be had.
    ValueError
        If a peer is none.
    """
    catalog.expect_installed(_MODULES)
    device = subjects.device_of(library, options.device)
    named = catalog.default_peers(device) if options.peers is None else options.peers
    catalog.expect_peers(named, device)
    if device != "cpu" and (options.cold_start or options.by_layer or options.threads):
        raise BenchError(
            f"cold starts, layers and numbers of threads are measured on a CPU, and this is "
            f"{device}: leave out --cold, --layers and --threads"
        )
    # Windows keeps an opened library busy until its process ends.
    with temporary_folder() as folder:
        if library is None:
            progress("compiling the model for this machine")
            library = folder / "ferplus.so"
            subjects.compile_library(model, device, options, library)
        ours = subjects.open_library(library, device)
        model_file = folder / "model.onnx"
        others = subjects.peers_of(ours, named, model_file, device)
        if any(subject.path == model_file for subject in others):
            subjects.write_model(model, ours, model_file)
        number = None if device == "cpu" else number_of(device)
        busy, record = load.before(), environment.record(number)
        found = Measurements([ours, *others], device, progress)
        sizes, counts = _measure(found, options)
        told = (
            *warnings.of_machine([count for count in counts if count], busy),
            *(each for one in found.libraries for each in warnings.of_library(one, sizes)),
            *warnings.of_rows(found.rows),
        )
        return _report(found, record, told, command), found.calls


def _measure(found: Measurements, options: BenchOptions) -> tuple[list[int], list[int]]:
    """Make all measurements; return the batch sizes and the numbers of threads."""
    manifest = found.ours
    sizes = sorted(set(options.batch_sizes or manifest.batch_sizes))
    counts = [0]
    if found.device == "cpu":
        counts = sorted(set(options.threads or (1, cpu.default_threads())))
    for batch in sizes:
        for count in counts:
            by_layer = options.by_layer and batch in manifest.functions
            found.interleaved(batch, count, options.seconds / len(counts), by_layer)
    for count in counts if options.end_to_end else ():
        found.end_to_end(count, options.seconds / len(counts))
    if options.cold_start:
        found.cold_starts(counts[0])
    if options.mlperf is not None:
        found.mlperf(scenarios.FORMS[options.mlperf], counts[-1], sizes[-1])
    return sorted({*sizes, *subjects.needed_sizes(options)}), counts


def _report(
    found: Measurements, record: dict[str, Any], told: Sequence[BenchWarning], command: str
) -> Report:
    about = {
        each.name: {**each.about(), "off_float64": found.off_float64[each.name]}
        for each in found.libraries
        if each.name in found.off_float64
    }
    return Report(
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        command=command,
        environment=record,
        library=about.pop(OURS),
        peer_libraries=about,
        model={"name": found.ours.model_name, "sha256": found.ours.model_sha256},
        rows=tuple(found.rows),
        scenarios=tuple(found.outcomes),
        cold=tuple(found.starts),
        cold_ratios=tuple(found.start_ratios),
        rooflines=tuple(found.rooflines.values()),
        layers=tuple(found.layers),
        left_out=found.left_out,
        warnings=tuple(dict.fromkeys(told)),
    )
