"""The whole tuning on one page: from an ONNX model to the records of its layers on a target."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ferplus_tvm.compiler.options import batch_sizes_of, with_precision
from ferplus_tvm.errors import MissingExtraError, TargetError, TuningLogError
from ferplus_tvm.host import cpu, gpu
from ferplus_tvm.host.temporary import temporary_folder
from ferplus_tvm.importer import load_model
from ferplus_tvm.lowering import cuda
from ferplus_tvm.lowering.layers import Layer as ModelLayer
from ferplus_tvm.lowering.layers import layers_of
from ferplus_tvm.lowering.plan import plan
from ferplus_tvm.records.log import TuningLog, find, search_path
from ferplus_tvm.records.provenance import Gain
from ferplus_tvm.targets import Precision, ResolvedTarget, resolve
from ferplus_tvm.toolchain import cuda_compiler
from ferplus_tvm.toolchain.link import require_linker
from ferplus_tvm.tuning import gpu as on_gpus
from ferplus_tvm.tuning.builder import Builder
from ferplus_tvm.tuning.device import Device
from ferplus_tvm.tuning.interrupt import interrupts_held
from ferplus_tvm.tuning.journal import Journal, open_journal
from ferplus_tvm.tuning.search import Search
from ferplus_tvm.tuning.space import Config, Layer, record_of
from ferplus_tvm.tuning.task import LayerTask, Task
from ferplus_tvm.tuning.tuner import Generation, Tuner, counts
from ferplus_tvm.tuning.validate import Comparison
from ferplus_tvm.tuning.worker import Address
from ferplus_tvm.zoo import resolve as resolve_model

_log = logging.getLogger(__name__)

_FOR_NETWORKS = 0.3  # of the time
_COMPARING = 0.02  # of the time, for each comparison of whole networks, but at least
_LEAST_COMPARING = 2.0  # seconds
_LEAST_SECONDS = 10


@dataclass(frozen=True)
class TuneResult:
    """What a tuning did.

    folder
        the target's log.
    tried, failed
        configurations in this run.
    layers
        that were tuned, all batch sizes counted.
    changed
        layers whose kept record is another than before; presets count as what was before.
    rejected
        kernels whose fastest configuration made the whole network slower, so that it is not kept.
    gains
        the whole network's time with presets over its time now.
    seconds
        the time it took, the imports in the processes that work for it not counted.
    importing
        the time of those.
    measuring
        the share of ``seconds`` in which the device, or each of several, was measured on.
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
    """What is reported while it goes on.

    stage
        ``import``, ``search`` or ``networks``.
    left
        seconds that the stage may still take.
    generation
        in a search, what was measured last.
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
    _expect_packages()
    sizes = batch_sizes_of(batch_sizes)
    if time_limit < _LEAST_SECONDS:
        raise ValueError(f"time_limit is {time_limit} s: expected {_LEAST_SECONDS} or more")
    if threads is not None and threads < 1:
        raise ValueError(f"threads is {threads}: expected 1 or more, or None for the default")
    address = None if rpc is None else Address.parse(rpc)
    resolved = _resolve(target, address, precision)
    found = layers_of(load_model(resolve_model(model)).proto)

    with interrupts_held() as interrupted, ExitStack() as opened:
        folder = opened.enter_context(temporary_folder())
        # one process for each device, and builders, each of which imports TVM
        started = time.perf_counter()
        progress(Progress("import", 0))
        on_gpu = resolved.gpu is not None

        def device() -> Device:
            made = Device(address, threads, interrupted, on_gpu)
            opened.callback(made.close)
            made.prepare()
            return made

        devices = [device()]
        devices += [device() for _ in range(devices[0].count() - 1)]
        builder = Builder(resolved, folder, workers=cpu.default_threads())
        opened.callback(builder.close)
        builder.prepare()
        devices[0].hold()
        devices[0].release()
        most = devices[0].threads
        importing = time.perf_counter() - started

        # the log, and every layer as it would be without it
        started = time.perf_counter()
        journal = opened.enter_context(
            open_journal(
                log_dir,
                resolved,
                cpu=_machine(resolved, address),
                threads=counts(most),
                command=_command(model, resolved, sizes, time_limit, threads, address),
            )
        )
        searches = _searches(found, sizes, resolved, journal)

        # layer by layer
        end = started + time_limit
        stop_searching = end - _FOR_NETWORKS * time_limit

        def report(generation: Generation) -> None:
            _log.debug("%s: gain %.3f", generation.task.layer.name, generation.gain)
            progress(Progress("search", stop_searching - time.perf_counter(), generation))

        tuner = Tuner(journal, builder, searches, interrupted, report=report)
        tuner.run(devices, stop_searching)
        if interrupted.is_set():
            raise KeyboardInterrupt

        # whole networks, with the records kept before and with the new ones
        progress(Progress("networks", end - time.perf_counter()))
        before = [(search, search.entry.result.used) for search in searches]
        comparison = Comparison(journal, found, builder, devices[0], folder, interrupted)
        comparing = max(_COMPARING * time_limit, _LEAST_COMPARING)
        rejected = comparison.keep(searches, comparing, end)
        seconds = time.perf_counter() - started
        measuring = sum(device.measuring for device in devices) / len(devices)
        return TuneResult(
            resolved.name,
            journal.folder,
            tuner.tried,
            tuner.failed,
            len(searches),
            sum(search.entry.result.used != used for search, used in before),
            rejected,
            tuple(gain for gain in journal.provenance.gains if gain.batch in sizes),
            seconds,
            importing,
            measuring / seconds,
        )


def _machine(target: ResolvedTarget, address: Address | None) -> str:
    """Return the name of what is measured on."""
    if address is not None:
        return f"devices with the key {address.key!r}"
    if target.gpu is not None:
        return gpu.devices()[0].name
    return cpu.name()


def _expect_packages() -> None:
    for package in ("tvm", "cloudpickle", "psutil", "tornado"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError.of(f"tuning (no module {package})", "tune")


def _resolve(target: str, address: Address | None, precision: Precision) -> ResolvedTarget:
    resolved = with_precision(resolve(target), precision)
    if resolved.name == "custom":
        raise TargetError(
            "a tuning log has the name of its target, and TVM's JSON has none: give native or a "
            "name that 'ferplus-tvm targets' lists"
        )
    if address is not None and target in ("native", "cuda"):
        raise TargetError(
            f"the target {target} is this machine, but --rpc measures on others: give the name of "
            "their CPU or GPU that 'ferplus-tvm targets' lists"
        )
    if address is None and not resolved.runs_here:
        raise TargetError(
            f"this machine cannot run what is compiled for {target}: tune on one that can, or give "
            "its address with --rpc"
        )
    require_linker(resolved)
    if resolved.gpu is not None:
        cuda_compiler.require_compiler()
    return resolved


def _command(
    model: str | os.PathLike[str],
    target: ResolvedTarget,
    sizes: Sequence[int],
    time_limit: float,
    threads: int | None,
    address: Address | None,
) -> str:
    """Return the command line of this run, without paths and hosts."""
    parts = ["ferplus-tvm tune", os.path.basename(model), "--target", target.name]
    parts += ["--batch", ",".join(map(str, sizes)), "--time", f"{time_limit:g}"]
    parts += [] if target.precision == "float32" else ["--precision", target.precision]
    parts += [] if threads is None else ["--threads", str(threads)]
    parts += [] if address is None else ["--rpc", f"TRACKER:{address.port}/{address.key}"]
    return " ".join(parts)


def _searches(
    layers: Sequence[ModelLayer], sizes: Sequence[int], target: ResolvedTarget, journal: Journal
) -> list[Search]:
    """Return every layer once, with the configurations that other logs have for it."""
    elsewhere = _elsewhere(target)
    found: dict[Layer, Search] = {}
    for batch in sizes:
        for task, preset in _tasks(layers, batch, target):
            layer = task.layer
            if layer in found:
                found[layer].count += 1
                continue
            seed = elsewhere(layer)
            seeds = [] if seed is None else [seed]
            found[layer] = Search(task, journal.entry(layer), 1, preset, seeds)
    return list(found.values())


def _tasks(
    layers: Sequence[ModelLayer], batch: int, target: ResolvedTarget
) -> Iterator[tuple[LayerTask, Config]]:
    """Give every layer that can be tuned, with its preset, in the network's order."""
    if target.gpu is not None:
        for step in cuda.plan(layers, batch, target.gpu, target.precision, lambda layer: None):
            layer = step.recorded_as
            if layer is not None:
                yield (
                    on_gpus.GpuTask(layer, target.gpu, target.precision),
                    on_gpus.record_of(layer, step.config),
                )
        return
    unit = target.vector_unit
    for position, planned in enumerate(plan(layers, batch, unit, lambda layer: None)):
        layer = planned.recorded_as
        if layer is not None:
            yield Task(layer, unit, first=position == 0), record_of(planned.config)


def _elsewhere(target: ResolvedTarget) -> Callable[[Layer], Config | None]:
    """Return what looks a layer up in the user's and the shipped logs.

    They are only to begin with: a bad one is left out, and a compilation says what is wrong.
    """
    log: TuningLog | None = None
    with contextlib.suppress(TuningLogError):
        log = find(search_path(None), target)

    def lookup(layer: Layer) -> Config | None:
        with contextlib.suppress(TuningLogError):
            return None if log is None else log.config(layer)
        _log.warning(
            "the record of %s in the log of %s is left out: 'ferplus-tvm compile' says what is "
            "wrong with it",
            layer.name,
            target.log,
        )
        return None

    return lookup
