"""The engines that are measured: each opens a model for a number of threads and a batch size.

An engine is opened with its own defaults but for the number of threads; what a user of it gets who
does the same.  ``openvino-float32`` is the exception: OpenVINO by itself takes bfloat16 where the
CPU has it, so that it is measured at float32 as well.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.errors import MissingExtraError

Faces = NDArray[np.float32]
Scores = NDArray[np.float32]

OURS = "ferplus_tvm"


@dataclass(frozen=True)
class Opened:
    """An engine that is ready.

    run
        faces (N, 1, 64, 64) to scores (N, 8), for the batch size that it was opened for.
    precision
        of its arithmetic, as it says itself.
    version
        of its package.
    inside
        the engine itself.
    """

    run: Callable[[Faces], Scores]
    precision: str
    version: str
    inside: Any = None


def _ours(path: str, threads: int, batch: int) -> Opened:
    import ferplus_tvm

    del batch
    engine = ferplus_tvm.load(path, threads=threads)
    return Opened(engine.scores, engine.manifest.precision, ferplus_tvm.__version__, engine)


def _onnxruntime(path: str, threads: int, batch: int) -> Opened:
    import onnxruntime

    del batch
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    return Opened(lambda x: session.run(None, {given.name: x})[0], "float32", _version(onnxruntime))


def _openvino(path: str, threads: int, batch: int, **properties: str) -> Opened:
    import openvino

    core = openvino.Core()
    network = core.read_model(path)
    network.reshape([batch, 1, 64, 64])
    wanted = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", **properties}
    compiled = core.compile_model(network, "CPU", wanted)
    request = compiled.create_infer_request()

    def run(x: Faces) -> Scores:
        request.infer({0: x}, share_inputs=True)
        scores: Scores = request.get_output_tensor(0).data.copy()
        return scores

    own = str(compiled.get_property("INFERENCE_PRECISION_HINT").to_string())
    precision = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}.get(own, own)
    return Opened(run, precision, importlib.metadata.version("openvino"))


def _openvino_float32(path: str, threads: int, batch: int) -> Opened:
    return _openvino(path, threads, batch, INFERENCE_PRECISION_HINT="f32")


def _torch(path: str, threads: int, batch: int) -> Opened:
    import torch

    from ferplus_tvm.bench.torch_model import of_onnx

    del batch
    torch.set_num_threads(threads)
    network = of_onnx(path)

    def run(x: Faces) -> Scores:
        with torch.inference_mode():
            scores: Scores = network(torch.from_numpy(x)).numpy()
        return scores

    return Opened(run, "float32", _version(torch))


def _version(package: Any) -> str:
    return str(package.__version__).split("+")[0]


_OPENERS: dict[str, Callable[[str, int, int], Opened]] = {
    OURS: _ours,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "openvino-float32": _openvino_float32,
    "torch": _torch,
}

PEERS = ("onnxruntime", "openvino", "torch")
"""What a user may name; the path of another library of ours is a peer too."""


def is_peer(name: str) -> bool:
    """Whether a user may measure beside it."""
    return name in PEERS or Path(name).is_file()


AT_FLOAT32 = {"openvino": "openvino-float32"}
"""The same engine, made to work at float32 where its default is another precision."""

NAMES = {"torch": "torch (eager)"}
"""What a report calls a peer where that is more than its name."""

_EXTRAS = {"openvino": "openvino", "torch": "torch"}


def expect_installed(peers: Sequence[str]) -> None:
    """See that the benchmark's own packages and the peers' are there.

    Raises
    ------
    MissingExtraError
        If one is not.
    """
    for package in ("tvm", "onnx", "psutil", "packaging", "matplotlib", *peers):
        if importlib.util.find_spec(package) is None:
            extra = _EXTRAS.get(package, "bench")
            raise MissingExtraError.of(f"the benchmark (no module {package})", extra)


def open_engine(kind: str, path: str, threads: int, batch: int) -> Opened:
    """Open an engine of a kind over a file: a library for ours, an ONNX model for the others."""
    return _OPENERS[kind](path, threads, batch)


def faces(batch: int) -> Faces:
    """Return what every engine is given: noise and blobs in turn, as a library is checked with."""
    from ferplus_tvm.artifact import reference_inputs

    return reference_inputs.inputs(0, batch)
