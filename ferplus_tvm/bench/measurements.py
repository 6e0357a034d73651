"""The measurements of a benchmark, one after the other, and what they found."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from ferplus_tvm.artifact.manifest import Manifest
from ferplus_tvm.bench.engines import catalog
from ferplus_tvm.bench.engines.gpu import number_of
from ferplus_tvm.bench.engines.opened import OURS
from ferplus_tvm.bench.subjects import Subject
from ferplus_tvm.bench.timing import cold_start, gpu_card, layers, scenarios
from ferplus_tvm.bench.timing.interleaved import measure
from ferplus_tvm.bench.timing.layers import LayerTimes
from ferplus_tvm.bench.timing.process import EngineProcess
from ferplus_tvm.bench.timing.roofline import Roofline
from ferplus_tvm.bench.timing.rows import Call, Row, where
from ferplus_tvm.bench.timing.samples import Ratio
from ferplus_tvm.data import SAMPLE_FACE
from ferplus_tvm.errors import BenchError

_COLD_RUNS = 10
_LAYER_CALLS = (20, 200)  # at least and at most
_LAYER_SECONDS = 2.0


@dataclass
class Measurements:
    """Measures subjects, and keeps what was found.

    Attributes
    ----------
    subjects
        The engines, ours first.
    device
        ``cpu``, or a GPU such as ``cuda:0``.
    progress
        Called with what is done next.
    rows, calls, layers, rooflines, outcomes, starts, start_ratios
        As in `ferplus_tvm.bench.report.data.Report`.
    off_float64
        For each library, how far its scores are off the float64 reference in it.
    left_out
        For each peer that could not be opened, the reason.
    """

    subjects: Sequence[Subject]
    device: str
    progress: Callable[[str], None]
    rows: list[Row] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    layers: list[LayerTimes] = field(default_factory=list)
    rooflines: dict[int, Roofline] = field(default_factory=dict)
    outcomes: list[scenarios.Outcome] = field(default_factory=list)
    starts: list[cold_start.ColdStart] = field(default_factory=list)
    start_ratios: list[Ratio] = field(default_factory=list)
    off_float64: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    _programs: dict[str, cold_start.Program] = field(default_factory=dict)

    @property
    def ours(self) -> Manifest:
        """What our library says of itself."""
        manifest = self.subjects[0].manifest
        assert manifest is not None
        return manifest

    @property
    def libraries(self) -> list[Subject]:
        """The subjects that are libraries, ours first."""
        return [subject for subject in self.subjects if subject.kind == OURS]

    @functools.cached_property
    def _peak(self) -> float | None:
        """The faces per second that a GPU could do at most; None on a CPU."""
        if self.device == "cpu":
            return None
        return gpu_card.peak_faces_per_second(self.ours, number_of(self.device))

    def interleaved(self, batch: int, threads: int, seconds: float, by_layer: bool) -> None:
        """Measure all engines for a batch size, in each way that ours offers."""
        with self._opened(threads, batch) as processes:
            ways = processes[0].ways
            for way in ways:
                able = [each for each in processes if way in each.ways]
                for process in able:
                    process.begin(way)
                self._measure(able, batch, threads, seconds / len(ways), way)
            if by_layer:
                self._by_layer(processes[0], batch, threads)

    def end_to_end(self, threads: int, seconds: float) -> None:
        """Measure from a JPEG's bytes to the label."""
        with self._opened(threads, 1) as processes:
            able = [each for each in processes if "scores" in each.ways]
            for process in able:
                process.begin("scores")  # which are compared first
            jpeg, names = sample_jpeg(), self.ours.labels
            labels = {process.label: process.begin_jpeg(jpeg, names) for process in able}
            exact = {process.label for process in able if process.precision == "float32"}
            if len({labels[name] for name in exact}) > 1:
                raise BenchError(
                    f"the engines see other emotions in the sample face ({labels}): expected the "
                    "same; give the library's own model with --model"
                )
            self._measure(able, 1, threads, seconds, "jpeg")

    def cold_starts(self, threads: int) -> None:
        """Start new processes with the engines that were opened before."""
        programs = [each for each in self._programs.values() if each.kind in cold_start.PROGRAMS]
        self.starts, self.start_ratios = cold_start.measure(
            programs,
            threads,
            _COLD_RUNS,
            lambda share: self.progress(f"new processes: {share:.0%}"),
        )

    def mlperf(self, form: scenarios.Form, threads: int, batch: int) -> None:
        """Run MLPerf's scenarios, each engine alone."""
        self.progress(f"SingleStream, {form.name} form")
        with self._opened(threads, 1) as processes:
            outcomes, calls = scenarios.single_stream(_begun(processes), threads, form)
            self.outcomes += outcomes
            self.calls += calls
        self.progress(f"Offline, {form.name} form")
        with self._opened(threads, batch) as processes:
            self.outcomes += scenarios.offline(_begun(processes), threads, batch, form)

    @contextmanager
    def _opened(self, threads: int, batch: int) -> Iterator[list[EngineProcess]]:
        """Open every engine, ours first, and those of a lower precision at float32 too."""
        with ExitStack() as stack:
            processes: list[EngineProcess] = []
            for subject in self.subjects:
                self.progress(f"{where('scores', batch, threads)}: opening {subject.name}")
                try:
                    processes += self._open(stack, subject, threads, batch)
                except BenchError as error:
                    # A GPU may be too small for a peer, or its CUDA too old; a CPU takes all.
                    if subject is self.subjects[0] or self.device == "cpu":
                        raise
                    name = subject.name if subject.kind == OURS else subject.kind
                    self.left_out[f"{name}, batch {batch}"] = str(error)
            yield processes

    def _open(
        self, stack: ExitStack, subject: Subject, threads: int, batch: int
    ) -> list[EngineProcess]:
        kinds = catalog.kinds(self.device)

        def opened(name: str, kind: str) -> EngineProcess:
            path = str(subject.path)
            face = self.ours.face_shape
            process = EngineProcess(name, kind, path, threads, batch, face, self.device)
            self._programs[process.label] = cold_start.Program(process.label, kind, path, face)
            return stack.enter_context(process)

        process = opened(subject.name, subject.kind)
        self._expect_right(subject, process)
        again = kinds[subject.kind].at_float32
        if again and process.precision != "float32":
            return [process, opened(kinds[again].label, again)]
        return [process]

    def _expect_right(self, subject: Subject, process: EngineProcess) -> None:
        """See that a library's scores are right on this machine."""
        if process.off_float64 is None or subject.manifest is None:
            return
        tolerance = subject.manifest.check.tolerance
        if not process.off_float64 <= tolerance:
            raise BenchError(
                f"{subject.path.name} is wrong here: its scores are off float64 by "
                f"{process.off_float64:.1e} of the largest one, expected at most {tolerance:.0e}; "
                "run 'ferplus-tvm verify', and compile it again"
            )
        self.off_float64[subject.name] = process.off_float64

    def _measure(
        self, processes: Sequence[EngineProcess], batch: int, threads: int, seconds: float, way: str
    ) -> None:
        what = where(way, batch, threads)
        row, calls = measure(
            processes,
            batch,
            threads,
            seconds,
            lambda share: self.progress(f"{what}: {share:.0%}"),
            way,
            self._peak if way != "jpeg" else None,
        )
        self.rows.append(row)
        self.calls += calls

    def _by_layer(self, process: EngineProcess, batch: int, threads: int) -> None:
        """Measure the kernels of our engine, and once the machine's roofline."""
        what = where("scores", batch, threads)
        if threads not in self.rooflines:
            self.progress(f"{what}: the machine's roofline")
            told = process.ask("roofline", threads=threads)
            self.rooflines[threads] = Roofline.of(told)
        self.progress(f"{what}: layer by layer")
        least, most = _LAYER_CALLS
        first = process.ask("layers", calls=least)["runs"]
        calls = min(most, int(_LAYER_SECONDS / sum(first[-1])))
        runs = process.ask("layers", calls=calls)["runs"] if calls > least else first
        self.layers.append(layers.of_runs(self.ours, batch, runs, self.rooflines[threads]))


def _begun(processes: Sequence[EngineProcess]) -> list[EngineProcess]:
    """Return the engines that take faces on the host, begun for them."""
    able = [process for process in processes if "scores" in process.ways]
    for process in able:
        process.begin("scores")
    return able


def sample_jpeg() -> bytes:
    """Return the sample face as a JPEG."""
    from PIL import Image

    stream = io.BytesIO()
    with Image.open(SAMPLE_FACE) as image:
        image.convert("RGB").save(stream, "JPEG", quality=90)
    return stream.getvalue()
