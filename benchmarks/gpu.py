"""Measure a library on an NVIDIA GPU, beside onnxruntime's and PyTorch's, in one go.

    pip install '.[cuda,gpu,tune]' onnxruntime-gpu torch
    ferplus-tvm compile --target cuda --batch 1,8,32,128,1024 -o gpu.so
    ferplus-tvm tune --target cuda --batch 1,8,32,128,1024 --time 900 --log-dir logs
    ferplus-tvm compile --target cuda --batch 1,8,32,128,1024 --tuning-logs logs -o tuned.so
    python benchmarks/gpu.py gpu.so --beside tuned.so --out gpu.json

What is measured, for each batch size: faces on the host to scores on the host; faces on the GPU to
scores on the GPU; both for every engine, in turns, each call until the GPU is done.  A ratio is the
peer's time over ours in the same round: the median, and the 10th and 90th percentile.  Scores are
compared before anything is timed, with those of float64 that each library carries, and with ours,
which are those of the first library.  Where PyTorch is, its tensors are handed to the engine too.
Engines that are not installed, or that fail, are named with the reason.

The share is of what the card could do at its highest clock: multiply-adds of all its processors, in
float32, or on its tensor cores where the library's precision uses them.  Operations are counted as
of direct convolutions; Winograd's algorithm needs fewer, so its share may be above 100 %.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.metadata
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import ferplus_tvm as fer
from ferplus_tvm import targets
from ferplus_tvm.artifact import reference_inputs
from ferplus_tvm.errors import FerplusError
from ferplus_tvm.host import gpu

_WARM_UP = 20
_TURN = 0.05  # seconds
_MOST_CALLS = 50  # of a turn
_FEWEST_ROUNDS = 10
_PROCESSORS, _KILOHERTZ = 16, 13  # CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, _CLOCK_RATE

Call = Callable[[], Any]


@dataclass
class Contestant:
    """A call to time, and how to read its scores."""

    name: str
    where: str  # "host" or "GPU": where faces and scores are
    call: Call
    scores: Callable[[Any], np.ndarray]


def main() -> int:
    """Measure, print a table, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("library")
    parser.add_argument(
        "--beside", action="append", default=[], help="another library, such as a tuned one"
    )
    parser.add_argument("--model", default="bundled", help="the model that the library holds")
    parser.add_argument("--batch", help="batch sizes, such as 1,32; by default those compiled")
    parser.add_argument("--seconds", type=float, default=10, help="for each batch size")
    parser.add_argument("--peers", help="names with commas between them; by default all of them")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument(
        "--operations",
        type=float,
        help="floating point operations of a face; by default counted, where apache-tvm is there",
    )
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    paths = [options.library, *options.beside]
    names = ["ferplus_tvm", *(Path(path).stem for path in options.beside)]
    try:
        engines = [fer.load(path, device=options.device) for path in paths]
    except FerplusError as error:
        print(f"nothing is measured: {error}", file=sys.stderr)
        return 1
    engine, manifest = engines[0], engines[0].manifest
    number = int(options.device.partition(":")[2] or 0)
    sizes = manifest.batch_sizes
    if options.batch:
        sizes = tuple(int(size) for size in options.batch.split(","))
    errors = [_off_float64(each) for each in engines]
    refusal = _refusal(paths, names, engines, errors)
    if refusal:
        print(f"nothing is measured: {refusal}", file=sys.stderr)
        return 1
    report: dict[str, Any] = {
        "gpu": gpu.device(number).name,
        "driver": _nvidia_smi("driver_version"),
        "clock_and_power": _nvidia_smi("clocks.max.sm,clocks.sm,power.limit,pstate"),
        "versions": {name: _version(name) for name in ("onnxruntime-gpu", "torch")},
        "target": manifest.target,
        "precision": manifest.precision,
        "off_float64": max(errors),
        "libraries": [
            {"engine": name, "tuning_logs": each.manifest.tuning_logs, "off_float64": off}
            for name, each, off in zip(names, engines, errors, strict=True)
        ],
        "rows": [],
        "left_out": {},
    }
    peak = _peak(manifest.gpu_arch, manifest.precision, number)
    operations = options.operations or _operations(options.model)
    with _model(options.model) as model:
        for batch in sizes:
            faces = reference_inputs.inputs(1, min(batch, 64))[np.arange(batch) % min(batch, 64)]
            ours = engine.scores(faces)
            contestants = []
            for name, each in zip(names, engines, strict=True):
                contestants += _ours(name, each, faces, number)
            try:
                contestants.append(_ours_with_torch(engine, faces, number))
            except Exception as problem:  # as below
                report["left_out"][f"PyTorch's tensors, batch {batch}"] = _reason(problem)
            for name in options.peers.split(",") if options.peers else _PEERS:
                try:
                    open_peer = _PEERS[name]
                    contestants += open_peer(name, model, faces, number)
                except Exception as problem:  # whatever a peer raises, it is only left out
                    report["left_out"][f"{name}, batch {batch}"] = _reason(problem)
            for each in contestants:
                off = reference_inputs.relative_error(
                    each.scores(each.call()), ours.astype(np.float64)
                )
                report["rows"].append({"batch": batch, "engine": each.name, "off_ours": off})
            for where in ("host", "GPU"):
                group = [each for each in contestants if each.where == where]
                for each, times in zip(group, _rounds(group, options.seconds / 2), strict=True):
                    _row(report, batch, each).update(_summary(times, batch, operations, peak))
                first = _row(report, batch, group[0])["by_round"]
                for each in group:
                    row = _row(report, batch, each)
                    ratios = np.asarray(row.pop("by_round")) / first
                    row["over_ours"] = [float(np.percentile(ratios, at)) for at in (50, 10, 90)]
    for each in engines:
        each.close()
    _print(report)
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def _refusal(
    paths: list[str], names: list[str], engines: list[fer.Engine], errors: list[float]
) -> str | None:
    """Return why libraries cannot be measured beside the first, if so."""
    first = engines[0].manifest
    for path, engine, off in zip(paths, engines, errors, strict=True):
        own = engine.manifest
        if not off <= own.check.tolerance:
            return f"{path} is wrong here, off float64 by {off:.1e}"
        if (own.precision, own.batch_sizes) != (first.precision, first.batch_sizes):
            return (
                f"{path} is of {own.precision} and batch sizes {own.batch_sizes}, {paths[0]} of "
                f"{first.precision} and {first.batch_sizes}: compile both alike"
            )
    if len(set(names)) < len(names):
        return f"two libraries have the same name of {', '.join(names)}: rename one"
    return None


def _off_float64(engine: fer.Engine) -> float:
    expected = engine.manifest.check
    scores = engine.scores(reference_inputs.inputs(expected.seed, expected.faces))
    return reference_inputs.relative_error(scores, np.asarray(expected.reference))


def _reason(problem: Exception) -> str:
    return str(problem).splitlines()[0] if str(problem) else repr(problem)


def _row(report: dict[str, Any], batch: int, each: Contestant) -> dict[str, Any]:
    return next(
        row for row in report["rows"] if (row["batch"], row["engine"]) == (batch, each.name)
    )


def _rounds(group: list[Contestant], seconds: float) -> list[list[float]]:
    """Return the seconds of a call in each round's turn, for each contestant."""
    calls = []
    for each in group:
        for _ in range(_WARM_UP):
            each.call()
        start = time.perf_counter()
        each.call()
        calls.append(int(np.clip(_TURN / (time.perf_counter() - start), 1, _MOST_CALLS)))
    times: list[list[float]] = [[] for _ in group]
    end = time.perf_counter() + seconds
    turn = 0
    while turn < _FEWEST_ROUNDS or time.perf_counter() < end:
        order = range(len(group)) if turn % 2 else reversed(range(len(group)))
        for at in order:
            call = group[at].call
            call()  # the first of a turn is not counted
            start = time.perf_counter()
            for _ in range(calls[at]):
                call()
            times[at].append((time.perf_counter() - start) / calls[at])
        turn += 1
    return times


def _summary(
    times: list[float], batch: int, operations: float | None, peak: float | None
) -> dict[str, Any]:
    median = statistics.median(times)
    share = operations * batch / median / peak if operations and peak else None
    return {
        "milliseconds": 1e3 * median,
        "p90_milliseconds": 1e3 * float(np.percentile(times, 90)),
        "faces_per_second": batch / median,
        "rounds": len(times),
        "share_of_peak": share,
        "by_round": times,
    }


def _ours(name: str, engine: fer.Engine, faces: np.ndarray, number: int) -> list[Contestant]:
    import tvm_ffi

    find = tvm_ffi.get_global_func
    device = tvm_ffi.device(f"cuda:{number}")
    shape, dtype = tvm_ffi.Shape(faces.shape), tvm_ffi.dtype("float32")
    x = find("runtime.TVMTensorAllocWithScope")(shape, dtype, device, None)
    content = np.ascontiguousarray(faces)
    pointer = ctypes.c_void_p(content.ctypes.data)
    find("runtime.TVMTensorCopyFromBytes")(x, pointer, content.nbytes)

    def to_host(scores: Any) -> np.ndarray:
        result = np.empty((len(faces), 8), np.float32)
        copy = find("runtime.TVMTensorCopyToBytes")
        copy(scores, ctypes.c_void_p(result.ctypes.data), result.nbytes)
        return result

    return [
        Contestant(name, "host", lambda: engine.scores(faces), np.asarray),
        Contestant(f"{name}, on the GPU", "GPU", lambda: engine.scores_on_gpu(x), to_host),
    ]


def _ours_with_torch(engine: fer.Engine, faces: np.ndarray, number: int) -> Contestant:
    """Return a call from PyTorch's tensor to PyTorch's tensor, without a copy."""
    import torch

    x = torch.from_numpy(np.ascontiguousarray(faces)).to(torch.device("cuda", number))
    return Contestant(
        "ferplus_tvm, PyTorch's tensors on the GPU",
        "GPU",
        lambda: torch.from_dlpack(engine.scores_on_gpu(x)),
        lambda scores: scores.cpu().numpy(),
    )


def _onnxruntime(name: str, model: str, faces: np.ndarray, number: int) -> list[Contestant]:
    import onnxruntime as ort

    graph = "graph" in name
    tf32 = int("tf32" in name)
    options = {"device_id": number, "enable_cuda_graph": int(graph), "use_tf32": tf32}
    provider = ("CUDAExecutionProvider", options)
    session = ort.InferenceSession(model, providers=[provider])
    if "CUDAExecutionProvider" not in session.get_providers():
        raise RuntimeError("onnxruntime runs it on the CPU: install onnxruntime-gpu for this CUDA")
    given, taken = session.get_inputs()[0].name, session.get_outputs()[0].name
    binding = session.io_binding()
    x = ort.OrtValue.ortvalue_from_numpy(faces, "cuda", number)
    y = ort.OrtValue.ortvalue_from_shape_and_type((len(faces), 8), np.float32, "cuda", number)
    binding.bind_ortvalue_input(given, x)
    binding.bind_ortvalue_output(taken, y)

    def on_gpu() -> Any:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return y

    found = [Contestant(f"{name}, on the GPU", "GPU", on_gpu, lambda value: value.numpy())]
    if not graph:
        found.append(
            Contestant(name, "host", lambda: session.run(None, {given: faces})[0], np.asarray)
        )
    return found


def _torch(name: str, model: str, faces: np.ndarray, number: int) -> list[Contestant]:
    import torch

    from ferplus_tvm.bench.torch_model import of_onnx

    torch.backends.cuda.matmul.allow_tf32 = "tf32" in name
    torch.backends.cudnn.allow_tf32 = "tf32" in name
    torch.backends.cudnn.benchmark = True
    device = torch.device("cuda", number)
    half = "float16" in name
    network = of_onnx(model, device, torch.float16 if half else None)
    x = torch.from_numpy(np.ascontiguousarray(faces)).to(device)
    if "compile" in name:
        network = torch.compile(network, mode="reduce-overhead")
    if half:
        whole = network

        def network(given: Any) -> Any:
            return whole(given.half()).float()

    with torch.inference_mode():
        for _ in range(3):
            network(x)
        torch.cuda.synchronize(device)
    run = network
    if "graph" in name:
        graph = torch.cuda.CUDAGraph()
        with torch.inference_mode(), torch.cuda.graph(graph):
            written = network(x)

        def run(_: Any, weights: Any = network) -> Any:  # which the graph reads
            graph.replay()
            return written

    def on_gpu() -> Any:
        with torch.inference_mode():
            scores = run(x)
        torch.cuda.synchronize(device)
        return scores

    def from_host() -> Any:
        with torch.inference_mode():
            x.copy_(torch.from_numpy(faces))
            return run(x).cpu().numpy()

    return [
        Contestant(f"{name}, on the GPU", "GPU", on_gpu, lambda scores: scores.cpu().numpy()),
        Contestant(name, "host", from_host, np.asarray),
    ]


# torch.compile in the mode that records CUDA graphs.
_PEERS: dict[str, Callable[[str, str, np.ndarray, int], list[Contestant]]] = {
    "onnxruntime": _onnxruntime,
    "onnxruntime CUDA graph": _onnxruntime,
    "onnxruntime CUDA graph tf32": _onnxruntime,
    "PyTorch eager": _torch,
    "PyTorch CUDA graph": _torch,
    "PyTorch CUDA graph tf32": _torch,
    "PyTorch CUDA graph float16": _torch,
    "torch.compile": _torch,
    "torch.compile tf32": _torch,
}


@contextmanager
def _model(name: str) -> Iterator[str]:
    """Give the model as it was imported, which the peers run; or no file where that is missing."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        try:
            from ferplus_tvm.importer import load_model
            from ferplus_tvm.zoo import resolve

            path.write_bytes(load_model(resolve(name)).proto.SerializeToString())
        except ImportError as error:
            print(f"no peers: {error}; pip install 'ferplus_tvm[compile]'", file=sys.stderr)
        yield str(path)


def _operations(name: str) -> float | None:
    """Return the floating point operations of a face, counted as of direct convolutions."""
    try:
        from ferplus_tvm.importer import load_model
        from ferplus_tvm.lowering import cuda
        from ferplus_tvm.lowering.layers import layers_of
        from ferplus_tvm.zoo import resolve

        layers = layers_of(load_model(resolve(name)).proto)
    except ImportError:
        return None
    steps = cuda.plan(layers, 1, targets.GPUS["sm_90"], "float32", lambda layer: None)
    return float(sum(step.workload.flops for step in steps if step.weight is not None))


def _peak(arch: str, precision: str, number: int) -> float | None:
    """Return what the card could do in a second, at its highest clock."""
    driver = ctypes.CDLL("libcuda.so.1")

    def attribute(which: int) -> int:
        value = ctypes.c_int()
        driver.cuDeviceGetAttribute(ctypes.byref(value), which, number)
        return value.value

    kind = targets.GPUS[arch]
    rate = kind.fma_per_clock if precision == "float32" else kind.tensor_fma_per_clock
    rate *= 2 if precision == "float16" else 1
    return 2.0 * rate * attribute(_PROCESSORS) * attribute(_KILOHERTZ) * 1e3 or None


def _nvidia_smi(query: str) -> str:
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _print(report: dict[str, Any]) -> None:
    print(f"{report['gpu']}, driver {report['driver']}; {report['target']} {report['precision']}")
    print(f"off float64 by {report['off_float64']:.1e} of the largest score")
    head = ("batch", "engine", "ms", "faces/s", "over ours (10..90 %)", "of peak", "off ours")
    print(" | ".join(head))
    for row in report["rows"]:
        middle, low, high = row["over_ours"]
        share = row["share_of_peak"]
        cells = (
            str(row["batch"]),
            row["engine"],
            f"{row['milliseconds']:.4f}",
            f"{row['faces_per_second']:.0f}",
            f"{middle:.2f} ({low:.2f}..{high:.2f})",
            "?" if share is None else f"{share:.0%}",
            f"{row['off_ours']:.0e}",
        )
        print(" | ".join(cells))
    for what, reason in report["left_out"].items():
        print(f"left out: {what}: {reason}")


if __name__ == "__main__":
    sys.exit(main())
