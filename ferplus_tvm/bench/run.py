"""The whole benchmark on one page: from a library, or none, to a report."""

from __future__ import annotations

import datetime
import io
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ferplus_tvm.artifact.library_file import read_manifest
from ferplus_tvm.artifact.manifest import Manifest
from ferplus_tvm.bench import caveats, cold, engines, environment, layers, load, scenarios
from ferplus_tvm.bench.limits import Limits
from ferplus_tvm.bench.measure import Call, Row, measure
from ferplus_tvm.bench.process import EngineProcess
from ferplus_tvm.bench.report import LayersOf, Report
from ferplus_tvm.bench.samples import Ratio
from ferplus_tvm.data import SAMPLE_FACE
from ferplus_tvm.errors import BenchError
from ferplus_tvm.host import cpu

_COLD_RUNS = 10
_LAYER_CALLS = (20, 200)  # at least and at most
_LAYER_SECONDS = 2.0


@dataclass(frozen=True)
class Peer:
    """An engine to measure beside: its name in the report, its kind, and its file."""

    name: str
    kind: str
    path: str


def bench(
    library: str | os.PathLike[str] | None = None,
    model: str | os.PathLike[str] = "bundled",
    *,
    peers: Iterable[str] = ("onnxruntime",),
    batch_sizes: Iterable[int] = (1, 8, 32),
    threads: Iterable[int] | None = None,
    seconds: float = 20.0,
    end_to_end: bool = False,
    cold_start: bool = False,
    by_layer: bool = False,
    form: str | None = None,
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
    peers
        Names of `ferplus_tvm.bench.engines.PEERS`, or paths of other libraries.
    batch_sizes
        The batch sizes to measure.
    threads
        The numbers of threads; by default one, and what this process may use.
    seconds
        For each batch size, shared by the numbers of threads; warming up is part of it.
    end_to_end
        Also measure from a JPEG's bytes to the label.
    cold_start
        Also measure from the start of a process to its first answer.
    by_layer
        Also measure each kernel, and what this machine can do.
    form
        ``short`` or ``full``: also run MLPerf's scenarios.
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
    ArtifactError, ModelError, DownloadError, CompileError
        If the library or the model cannot be had.
    ValueError
        For an argument out of its range.
    """
    sizes = sorted(set(batch_sizes))
    counts = sorted(set(threads or {1, cpu.default_threads()}))
    if not sizes or sizes[0] < 1 or counts[0] < 1 or not seconds > 0:
        raise ValueError("batch_sizes, threads and seconds are to be positive")
    named = list(dict.fromkeys(peers))
    for peer in named:
        if not engines.is_peer(peer):
            raise ValueError(f"{peer!r} is no peer: expected {_or(engines.PEERS)}, or a library")
    engines.expect_installed([peer for peer in named if peer in engines.PEERS])
    needed = sorted({*sizes, 1}) if end_to_end or cold_start or form else sizes
    busy, record = load.before(), environment.record()

    with ExitStack() as opened:
        folder = Path(
            opened.enter_context(
                # Windows keeps an opened library busy until its process ends.
                tempfile.TemporaryDirectory(prefix="ferplus-tvm-", ignore_cleanup_errors=True)
            )
        )
        path, manifest = _library(library, model, needed, folder, progress)
        if set(named) & set(engines.PEERS):
            _write_model(model, path, manifest, folder)
        ours = Peer(engines.OURS, engines.OURS, str(path))
        others = _peers(named, str(folder / _MODEL))
        run = _Run([ours, *others], manifest, progress)
        for batch in sizes:
            for count in counts:
                with run.opened(count, batch) as processes:
                    run.in_turns(processes, batch, count, seconds / len(counts))
                    if by_layer and batch in manifest.functions:
                        run.by_layer(processes[0], batch, count)
        for count in counts if end_to_end else ():
            with run.opened(count, 1) as processes:
                run.pictures(processes, count, seconds / len(counts))
        if cold_start:
            run.cold(counts[0])
        if form is not None:
            run.scenarios(scenarios.FORMS[form], counts[-1], sizes[-1])

        report = Report(
            datetime.datetime.now(datetime.UTC).date().isoformat(),
            command,
            record,
            _about(path, manifest),
            {"name": manifest.model_name, "sha256": manifest.model_sha256},
            tuple(run.rows),
            tuple(run.outcomes),
            tuple(run.starts),
            tuple(run.start_ratios),
            tuple(run.limits.values()),
            tuple(run.layers),
            (
                *caveats.of_machine(counts, busy),
                *caveats.of_library(manifest, needed),
                *caveats.of_rows(run.rows),
            ),
        )
    return report, run.calls


_MODEL = "model.onnx"


def _peers(named: Sequence[str], model: str) -> list[Peer]:
    """Return peers, each under a name of its own."""
    found: dict[str, Peer] = {}
    for peer in named:
        if peer in engines.PEERS:
            found[peer] = Peer(engines.NAMES.get(peer, peer), peer, model)
            continue
        path = Path(peer).resolve()
        name, number = path.name, 1
        while name in found or name == engines.OURS:
            number += 1
            name = f"{path.name} ({number})"
        if str(path) not in {each.path for each in found.values()}:
            found[name] = Peer(name, engines.OURS, str(path))
    return list(found.values())


def _library(
    library: str | os.PathLike[str] | None,
    model: str | os.PathLike[str],
    sizes: Sequence[int],
    folder: Path,
    progress: Callable[[str], None],
) -> tuple[Path, Manifest]:
    """Return our library and its manifest; without one, the model is compiled."""
    if library is None:
        from ferplus_tvm.compiler.compile import compile as compile_model

        progress("compiling the model for this machine")
        compile_model(model, output=folder / "ferplus.so", batch_sizes=sizes, isolated=True)
    path = Path(library if library is not None else folder / "ferplus.so")
    manifest = read_manifest(path)  # whose weights every engine checks that opens it
    if manifest.gpu_arch:
        raise BenchError(
            f"{path} is for a GPU ({manifest.gpu_arch}): this measures CPUs; measure it with "
            "'python benchmarks/gpu.py', on the machine with the GPU"
        )
    return path, manifest


def _write_model(
    model: str | os.PathLike[str], library: Path, manifest: Manifest, folder: Path
) -> None:
    """Write the model for the peers, as it was imported."""
    from ferplus_tvm.importer import load_model
    from ferplus_tvm.zoo import resolve

    imported = load_model(resolve(model))
    if manifest.model_sha256 != imported.sha256:
        raise BenchError(
            f"{library.name} holds the model {manifest.model_name}, but its peers would run "
            f"{imported.name}: give the library's own with --model"
        )
    (folder / _MODEL).write_bytes(imported.proto.SerializeToString())


def _about(path: Path, manifest: Manifest) -> dict[str, Any]:
    return {
        "name": path.name,
        "bytes": path.stat().st_size,
        "target": manifest.target,
        "batch_sizes": list(manifest.batch_sizes),
        "kernels": len(manifest.kernels),
        "tuned": sum(kernel.tuned for kernel in manifest.kernels),
        "created_with": manifest.created_with,
        "tvm": manifest.tvm_version,
    }


class _Run:
    """What is measured, and what was found so far."""

    def __init__(
        self, all_engines: Sequence[Peer], manifest: Manifest, progress: Callable[[str], None]
    ) -> None:
        self._engines = all_engines
        self._manifest = manifest
        self._progress = progress
        self.rows: list[Row] = []
        self.calls: list[Call] = []
        self.layers: list[LayersOf] = []
        self.limits: dict[int, Limits] = {}
        self.outcomes: list[scenarios.Outcome] = []
        self.starts: list[cold.ColdStart] = []
        self.start_ratios: list[Ratio] = []
        self._programs: dict[str, cold.Program] = {}

    @contextmanager
    def opened(self, threads: int, batch: int) -> Iterator[list[EngineProcess]]:
        """Open every engine, ours first, and those of a lower precision at float32 too."""
        with ExitStack() as stack:
            processes = []
            for peer in self._engines:
                self._progress(f"batch {batch}, {threads} thread(s): opening {peer.name}")
                process = EngineProcess(peer.name, peer.kind, peer.path, threads, batch)
                processes.append(stack.enter_context(process))
                self._programs[process.label] = cold.Program(process.label, peer.kind, peer.path)
                again = engines.AT_FLOAT32.get(peer.kind)
                if again is not None and process.precision != "float32":
                    process = EngineProcess(again, again, peer.path, threads, batch)
                    processes.append(stack.enter_context(process))
                    self._programs[again] = cold.Program(again, again, peer.path)
            yield processes

    def in_turns(
        self,
        processes: Sequence[EngineProcess],
        batch: int,
        threads: int,
        seconds: float,
        way: str = "scores",
    ) -> None:
        """Measure engines beside each other."""

        def told(share: float) -> None:
            self._progress(f"batch {batch}, {threads} thread(s), {way}: {share:.0%}")

        row, calls = measure(processes, batch, threads, seconds, told, way)
        self.rows.append(row)
        self.calls += calls

    def pictures(self, processes: Sequence[EngineProcess], threads: int, seconds: float) -> None:
        """Measure from a JPEG's bytes to the label."""
        jpeg = sample_jpeg().hex()
        labels = {
            process.label: process.ask("take_pictures", jpeg=jpeg)["label"] for process in processes
        }
        exact = {process.label for process in processes if process.precision == "float32"}
        if len({labels[name] for name in exact}) > 1:
            raise BenchError(
                f"the engines see other emotions in the sample face ({labels}): expected the same; "
                "give the library's own model with --model"
            )
        self.in_turns(processes, 1, threads, seconds, "jpeg")

    def by_layer(self, process: EngineProcess, batch: int, threads: int) -> None:
        """Measure the kernels of our engine, and once what the machine can do."""
        where = f"batch {batch}, {threads} thread(s)"
        if threads not in self.limits:
            self._progress(f"{where}: what this machine can do")
            self.limits[threads] = Limits.of(process.ask("limits", threads=threads))
        self._progress(f"{where}: layer by layer")
        least, most = _LAYER_CALLS
        first = process.ask("layers", calls=least)["runs"]
        calls = min(most, int(_LAYER_SECONDS / sum(first[-1])))
        runs = process.ask("layers", calls=calls)["runs"] if calls > least else first
        found = layers.of_runs(self._manifest, batch, runs, self.limits[threads])
        self.layers.append(LayersOf(batch, threads, layers.of_limit(found), tuple(found)))

    def scenarios(self, form: scenarios.Form, threads: int, batch: int) -> None:
        """Run MLPerf's scenarios, each engine alone."""
        self._progress(f"SingleStream, {form.name} form")
        with self.opened(threads, 1) as processes:
            outcomes, calls = scenarios.single_stream(processes, threads, form)
            self.outcomes += outcomes
            self.calls += calls
        self._progress(f"Offline, {form.name} form")
        with self.opened(threads, batch) as processes:
            self.outcomes += scenarios.offline(processes, threads, batch, form)

    def cold(self, threads: int) -> None:
        """Start new processes."""
        programs = [each for each in self._programs.values() if each.kind in cold.PROGRAMS]
        self.starts, self.start_ratios = cold.measure(
            programs,
            threads,
            _COLD_RUNS,
            lambda share: self._progress(f"new processes: {share:.0%}"),
        )


def sample_jpeg() -> bytes:
    """Return the sample face as a JPEG."""
    from PIL import Image

    stream = io.BytesIO()
    with Image.open(SAMPLE_FACE) as picture:
        picture.convert("RGB").save(stream, "JPEG", quality=90)
    return stream.getvalue()


def _or(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
