"""The engines by name: what a user may name as a peer, on a CPU and on a GPU."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ferplus_tvm.bench.engines import cpu, gpu
from ferplus_tvm.bench.engines.opened import FERPLUS_FACE, OURS, FaceShape, Opened
from ferplus_tvm.errors import MissingExtraError


@dataclass(frozen=True)
class Kind:
    """A kind of engine.

    Attributes
    ----------
    label
        Its name in a report.
    open
        Opens it from a file, a number of threads, a batch size, the shape of a face and a device.
    module
        The module that has to be installed; empty for ours.
    extra
        The extra of this package that installs it; empty on a GPU, where there is none.
    over_library
        Whether its file is a library of ours; otherwise it is the ONNX model.
    at_float32
        The kind that is the same engine, made to work at float32; empty where there is none.
    """

    label: str
    open: Callable[[str, int, int, FaceShape, str], Opened]
    module: str = ""
    extra: str = ""
    over_library: bool = False
    at_float32: str = ""


CPU_KINDS = {
    OURS: Kind(OURS, cpu.open_ours, over_library=True),
    "onnxruntime": Kind("onnxruntime", cpu.open_onnxruntime, "onnxruntime", "bench"),
    "openvino": Kind(
        "openvino", cpu.open_openvino, "openvino", "openvino", at_float32="openvino-float32"
    ),
    "openvino-float32": Kind("openvino-float32", cpu.open_openvino_float32, "openvino", "openvino"),
    "torch": Kind("PyTorch eager", cpu.open_torch, "torch", "torch"),
}

_graph, _compiled = "PyTorch CUDA graph", "torch.compile"
GPU_KINDS = {
    OURS: Kind(OURS, gpu.open_ours, over_library=True),
    "torch-tensors": Kind(
        f"{OURS}, PyTorch's tensors", gpu.open_ours_with_torch, "torch", over_library=True
    ),
    "onnxruntime": Kind("onnxruntime", gpu.open_onnxruntime, "onnxruntime"),
    "onnxruntime-graph": Kind(
        "onnxruntime CUDA graph", partial(gpu.open_onnxruntime, graph=True), "onnxruntime"
    ),
    "onnxruntime-graph-tf32": Kind(
        "onnxruntime CUDA graph",
        partial(gpu.open_onnxruntime, graph=True, tf32=True),
        "onnxruntime",
    ),
    "torch": Kind("PyTorch eager", gpu.open_torch, "torch"),
    "torch-graph": Kind(_graph, partial(gpu.open_torch, graph=True), "torch"),
    "torch-graph-tf32": Kind(
        _graph, partial(gpu.open_torch, graph=True, precision="tf32"), "torch"
    ),
    "torch-graph-float16": Kind(
        _graph, partial(gpu.open_torch, graph=True, precision="float16"), "torch"
    ),
    "torch-compile": Kind(_compiled, partial(gpu.open_torch, compiled=True), "torch"),
    "torch-compile-tf32": Kind(
        _compiled, partial(gpu.open_torch, compiled=True, precision="tf32"), "torch"
    ),
}

CPU_PEERS = ("onnxruntime", "openvino", "torch")
"""What a user may name on a CPU; the path of another library of ours is a peer too."""

GPU_PEERS = tuple(kind for kind in GPU_KINDS if kind != OURS)
"""The same on a GPU."""


def kinds(device: str) -> dict[str, Kind]:
    """Return the kinds of engines for a device, ``cpu`` or ``cuda:0``."""
    return CPU_KINDS if device == "cpu" else GPU_KINDS


def peers(device: str) -> tuple[str, ...]:
    """Return what a user may name for a device."""
    return CPU_PEERS if device == "cpu" else GPU_PEERS


def default_peers(device: str) -> tuple[str, ...]:
    """Return what is measured where a user names nothing."""
    return ("onnxruntime",) if device == "cpu" else GPU_PEERS


def expect_peers(named: Sequence[str], device: str) -> None:
    """See that names are those of peers on a device, or paths; on a CPU also that they are there.

    On a GPU, where all peers are measured unless some are named, one that is not there is left out.

    Raises
    ------
    ValueError
        If a name is no peer.
    MissingExtraError
        If a peer on a CPU is not installed, with the pip command.
    """
    known = peers(device)
    for name in named:
        if name not in known and not Path(name).is_file():
            expected = f"{', '.join(known[:-1])} or {known[-1]}"
            raise ValueError(
                f"{name!r} is no peer on {device}: expected {expected}, or the path of a library"
            )
        if name in known and device == "cpu":
            expect_installed([CPU_KINDS[name].module], CPU_KINDS[name].extra)


def expect_installed(modules: Sequence[str], extra: str = "bench") -> None:
    """See that modules are installed.

    Raises
    ------
    MissingExtraError
        If one is not, with the pip command.
    """
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError.of(f"the benchmark (no module {module})", extra)


def open_engine(
    kind: str,
    path: str,
    threads: int,
    batch: int,
    face: FaceShape = FERPLUS_FACE,
    device: str = "cpu",
) -> Opened:
    """Open an engine over a file: a library of ours, or an ONNX model as it was imported."""
    return kinds(device)[kind].open(path, threads, batch, face, device)
