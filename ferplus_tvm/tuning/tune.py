"""The whole tuning on one page: from an ONNX model to the records of its layers on a target."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ferplus_tvm.compiler.interface import import_model
from ferplus_tvm.errors import TuningLogError
from ferplus_tvm.host import cpu
from ferplus_tvm.host.interrupt import interrupts_held
from ferplus_tvm.host.temporary import temporary_folder
from ferplus_tvm.kernels import backend_of
from ferplus_tvm.kernels.backend import Config
from ferplus_tvm.kernels.workloads import Conv, Dense
from ferplus_tvm.lowering.layers import LayeredModel, layers_of
from ferplus_tvm.lowering.planner import plan
from ferplus_tvm.records.find import find, search_path
from ferplus_tvm.records.log import Gain, TuningLog
from ferplus_tvm.targets import Precision, ResolvedTarget
from ferplus_tvm.tuning.builder import Builder
from ferplus_tvm.tuning.device import Device
from ferplus_tvm.tuning.generation import counts
from ferplus_tvm.tuning.journal import Journal, open_journal
from ferplus_tvm.tuning.options import TuneOptions
from ferplus_tvm.tuning.search import Search
from ferplus_tvm.tuning.task import LayerTask
from ferplus_tvm.tuning.tuner import Generation, Tuner
from ferplus_tvm.tuning.validate import Validation
from ferplus_tvm.zoo import resolve as resolve_model

_log = logging.getLogger(__name__)

_FOR_NETWORKS = 0.3  # of the time
_COMPARING = 0.02  # of the time, for each comparison of whole networks, but at least
_LEAST_COMPARING = 2.0  # seconds


@dataclass(frozen=True)
class TuneResult:
    """The outcome of a tuning.

    Attributes
    ----------
    folder
        The target's log.
    tried, failed
        The configurations of this run.
    layers
        How many layers were tuned, all batch sizes counted.
    changed
        How many of them have another kept record than before; a preset counts as one.
    rejected
        The kernels whose fastest configuration made the whole network slower, and is not kept.
    gains
        The whole network's time with presets over its time now.
    seconds
        The time it took, the imports of its processes not counted.
    importing
        The time of those.
    measuring
        The share of ``seconds`` in which a device was measured on, the mean of all devices.
    """

    target: str
    folder: Path
    tried: int
    failed: int
    layers: int
    changed: int
    rejected: tuple[str, ...]
    gains: tuple[Gain, ...]
    seconds: float
    importing: float
    measuring: float


@dataclass(frozen=True)
class Progress:
    """How far a tuning is.

    Attributes
    ----------
    stage
        ``import``, ``search`` or ``networks``.
    left
        The seconds that the stage may still take.
    generation
        In a search, what was measured last.
    """

    stage: str
    left: float
    generation: Generation | None = None


def tune(
    model: str | os.PathLike[str] = "bundled",
    target: str = "native",
    log_dir: str | os.PathLike[str] = "tuning_logs",
    time_limit: float = 300,
    *,
    batch_sizes: Iterable[int] = (1, 8, 32),
    precision: Precision = "float32",
    threads: int | None = None,
    rpc: str | None = None,
    input_range: Iterable[float] | None = None,
    mean: float | Iterable[float] | None = None,
    std: float | Iterable[float] | None = None,
    model_output: str | None = None,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> TuneResult:
    """Find the fastest configuration of each layer on the target itself, and keep it in a log.

    What was tried before is in the log and not tried again.  Interrupted at any moment, by a kill
    too, the log is whole, and the next run goes on with it.

    Parameters
    ----------
    model
        A name of the zoo (a string such as ``"bundled"``) or the path of an ONNX file.
    target
        ``"native"``, a name of `ferplus_tvm.targets.NAMED`, or a GPU: ``"cuda"`` for this machine's
        or one such as ``"cuda/sm_90"``.
    log_dir
        The folder of tuning logs; the target's own is made in it where needed.
    time_limit
        Seconds, at least 10; a search that has tried everything ends before.  What is under way
        when they are over is finished.
    batch_sizes
        The batch sizes to tune.
    precision
        What a GPU computes with, as for `ferplus_tvm.compile`; each has its own log.
    threads
        Each configuration is measured with one thread and with so many, which count the same; by
        default what keeps the device busy.  A GPU has one.
    rpc
        ``tracker:port/key``: measure on the devices that TVM's RPC tracker has under a key, all of
        them at the same time.  RPC has no authentication: use it in a network that you trust.
    input_range, mean, std, model_output
        What is stated of the model, as for `ferplus_tvm.compile`: the kernel of the first layer
        scales the pixels.
    progress
        Called as it goes on, from the threads that do the work, one for each device.

    Raises
    ------
    MissingExtraError
        If a package that only tuning needs is not installed.
    ModelError, DownloadError
        If the model cannot be had or compiled.
    TargetError
        If the target does not exist, or this machine cannot run it and no device is given.
    LinkerError
        If no compiler is found that links for the target.
    TuningLogError
        If the log is damaged, another machine's, or in use.
    DeviceError
        If no device can be reached, or the last was lost.
    CompileError
        If nothing can be built.
    ValueError
        For an argument out of its range.
    """
    options = TuneOptions.of(
        model,
        target,
        batch_sizes=batch_sizes,
        time_limit=time_limit,
        precision=precision,
        threads=threads,
        rpc=rpc,
        input_range=input_range,
        mean=mean,
        std=std,
        model_output=model_output,
    )
    imported, _ = import_model(resolve_model(model), scaling=options.scaling, output=model_output)
    layers = layers_of(imported.proto)

    with interrupts_held() as interrupted, ExitStack() as opened:
        folder = opened.enter_context(temporary_folder())
        # one process for each device, and builders, each of which imports TVM
        started = time.perf_counter()
        progress(Progress("import", 0))

        def device() -> Device:
            on_gpu = options.target.gpu is not None
            made = Device(options.address, options.threads, interrupted, on_gpu)
            opened.callback(made.close)
            made.prepare()
            return made

        devices = [device()]
        devices += [device() for _ in range(devices[0].count() - 1)]
        builder = Builder(options.target, folder, workers=cpu.default_threads())
        opened.callback(builder.close)
        builder.prepare()
        devices[0].hold()
        devices[0].release()
        importing = time.perf_counter() - started

        # the log, and every layer as it would be without it
        started = time.perf_counter()
        journal = opened.enter_context(
            open_journal(
                log_dir,
                options.target,
                cpu=options.machine,
                threads=counts(devices[0].threads),
                command=options.command,
            )
        )
        searches = _searches(layers, options, journal)

        # layer by layer
        end = started + time_limit
        stop_searching = end - _FOR_NETWORKS * time_limit

        def report(generation: Generation) -> None:
            _log.debug("%s: gain %.3f", generation.task.workload.name, generation.gain)
            progress(Progress("search", stop_searching - time.perf_counter(), generation))

        tuner = Tuner(journal, builder, searches, interrupted, report=report)
        tuner.run(devices, stop_searching)
        if interrupted.is_set():
            raise KeyboardInterrupt

        # whole networks, with the records kept before and with the new ones
        progress(Progress("networks", end - time.perf_counter()))
        before = [(search, search.entry.used) for search in searches]
        validation = Validation(journal, layers, builder, devices[0], folder, interrupted)
        comparing = max(_COMPARING * time_limit, _LEAST_COMPARING)
        rejected = validation.run(searches, comparing, end)
        seconds = time.perf_counter() - started
        measuring = sum(device.measuring for device in devices) / len(devices)
        return TuneResult(
            options.target.name,
            journal.folder,
            tuner.tried,
            tuner.failed,
            len(searches),
            sum(search.entry.used != used for search, used in before),
            rejected,
            tuple(g for g in journal.provenance.gains if g.batch in options.batch_sizes),
            seconds,
            importing,
            measuring / seconds,
        )


def _searches(layers: LayeredModel, options: TuneOptions, journal: Journal) -> list[Search]:
    """Return every layer that can be tuned once, with what other logs have for it."""
    backend = backend_of(options.target)
    elsewhere = _elsewhere(options.target)
    found: dict[Conv | Dense, Search] = {}
    for batch in options.batch_sizes:
        for at, planned in enumerate(plan(layers, batch, backend, lambda workload: None)):
            workload, preset = planned.key, planned.config
            if not isinstance(workload, Conv | Dense) or not backend.tunable(workload, preset):
                continue
            if workload in found:
                found[workload].count += 1
                continue
            task = LayerTask(workload, backend, first=at == 0)
            seed = elsewhere(workload)
            seeds = [] if seed is None else [seed]
            found[workload] = Search(task, journal.entry(workload), 1, preset, seeds)
    return list(found.values())


def _elsewhere(target: ResolvedTarget) -> Callable[[Conv | Dense], Config | None]:
    """Return what looks a layer up in the user's and the shipped logs.

    They are only to begin with: a bad one is left out, and a compilation says what is wrong.
    """
    log: TuningLog | None = None
    with contextlib.suppress(TuningLogError):
        log = find(search_path(None), target)
    backend = backend_of(target)

    def lookup(workload: Conv | Dense) -> Config | None:
        try:
            return None if log is None else log.config(workload, backend)
        except TuningLogError:
            _log.warning(
                "the record of %s in the log of %s is left out: 'ferplus-tvm compile' says what "
                "is wrong with it",
                workload.name,
                target.log,
            )
            return None

    return lookup
