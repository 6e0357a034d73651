"""Engines on an NVIDIA GPU.

Each offers up to two calls: faces and scores on the host, and faces and scores on the GPU.  A call
lasts until the GPU has done its work.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ferplus_tvm.bench.engines import cpu
from ferplus_tvm.bench.engines.opened import Faces, FaceShape, OnGpu, Opened, Scores, faces

_WARM_UP = 3  # calls before a CUDA graph is captured


def number_of(device: str) -> int:
    """Return the number of a GPU's name: 1 of ``cuda:1``, and 0 of ``cuda``."""
    return int(device.partition(":")[2] or 0)


def open_ours(path: str, threads: int, batch: int, face: FaceShape, device: str) -> Opened:
    """Open a library of ours, and put the faces on the GPU."""
    opened = cpu.open_ours(path, threads, batch, face, device)
    engine = opened.engine
    assert engine is not None
    import tvm_ffi  # as the engine has it: by itself it would import PyTorch

    given = faces(batch, face)
    find = tvm_ffi.get_global_func
    place = tvm_ffi.device(f"cuda:{number_of(device)}")
    shape, dtype = tvm_ffi.Shape(given.shape), tvm_ffi.dtype("float32")
    x = find("runtime.TVMTensorAllocWithScope")(shape, dtype, place, None)
    pointer = ctypes.c_void_p(given.ctypes.data)
    find("runtime.TVMTensorCopyFromBytes")(x, pointer, given.nbytes)

    def read(scores: Any) -> Scores:
        result = np.empty((batch, len(engine.labels)), np.float32)
        copy = find("runtime.TVMTensorCopyToBytes")
        copy(scores, ctypes.c_void_p(result.ctypes.data), result.nbytes)
        return result

    return replace(opened, on_gpu=OnGpu(lambda: engine.scores_on_gpu(x), read))


def open_ours_with_torch(
    path: str, threads: int, batch: int, face: FaceShape, device: str
) -> Opened:
    """Open a library of ours, which is given PyTorch's tensors, and gives such, without a copy."""
    opened = cpu.open_ours(path, threads, batch, face, device)
    engine = opened.engine
    assert engine is not None
    import torch  # after the engine, as above

    x = torch.from_numpy(faces(batch, face)).to(torch.device("cuda", number_of(device)))
    on_gpu = OnGpu(
        lambda: torch.from_dlpack(engine.scores_on_gpu(x)), lambda scores: scores.cpu().numpy()
    )
    return replace(opened, scores=None, on_gpu=on_gpu)


def open_onnxruntime(
    path: str,
    threads: int,
    batch: int,
    face: FaceShape,
    device: str,
    *,
    graph: bool = False,
    tf32: bool = False,
) -> Opened:
    """Open an ONNX model with onnxruntime's CUDA provider."""
    import onnxruntime as ort

    number = number_of(device)
    options = {"device_id": number, "enable_cuda_graph": int(graph), "use_tf32": int(tf32)}
    session = ort.InferenceSession(path, providers=[("CUDAExecutionProvider", options)])
    if "CUDAExecutionProvider" not in session.get_providers():
        raise RuntimeError("onnxruntime runs it on the CPU: install onnxruntime-gpu for this CUDA")
    (output,) = session.get_outputs()
    given, taken = session.get_inputs()[0].name, output.name
    binding = session.io_binding()
    x = ort.OrtValue.ortvalue_from_numpy(faces(batch, face), "cuda", number)
    y = ort.OrtValue.ortvalue_from_shape_and_type(
        (batch, output.shape[1]), np.float32, "cuda", number
    )
    binding.bind_ortvalue_input(given, x)
    binding.bind_ortvalue_output(taken, y)

    def call() -> Any:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return y

    def scores(x: Faces) -> Scores:
        found: Scores = session.run(None, {given: x})[0]
        return found

    return Opened(
        "tf32" if tf32 else "float32",
        ort.__version__,
        None
        if graph
        else scores,  # a graph reads and writes the addresses that it was captured with
        OnGpu(call, lambda value: value.numpy()),
    )


def open_torch(
    path: str,
    threads: int,
    batch: int,
    face: FaceShape,
    device: str,
    *,
    precision: str = "float32",
    graph: bool = False,
    compiled: bool = False,
) -> Opened:
    """Open an ONNX model with PyTorch: eager, as a CUDA graph, or with ``torch.compile``."""
    import torch

    place = torch.device("cuda", number_of(device))
    # These hold for the whole process, which no other engine shares.
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.benchmark = True
    x = torch.from_numpy(faces(batch, face)).to(place)
    run = _torch_network(path, place, precision, compiled)
    with torch.inference_mode():
        for _ in range(_WARM_UP):
            run(x)
        torch.cuda.synchronize(place)
    if graph:
        run = _captured(run, x)

    def call() -> Any:
        with torch.inference_mode():
            scores = run(x)
        torch.cuda.synchronize(place)
        return scores

    def scores(given: Faces) -> Scores:
        with torch.inference_mode():
            x.copy_(torch.from_numpy(given))
            found: Scores = run(x).cpu().numpy()
        return found

    version = str(torch.__version__).split("+")[0]
    return Opened(precision, version, scores, OnGpu(call, lambda scores: scores.cpu().numpy()))


def _torch_network(path: str, place: Any, precision: str, compiled: bool) -> Callable[[Any], Any]:
    import torch

    from ferplus_tvm.bench.engines.torch_model import of_onnx

    fp16 = precision == "float16"
    network = of_onnx(path, place, torch.float16 if fp16 else None)
    if compiled:  # in the mode that captures CUDA graphs
        network = torch.compile(network, mode="reduce-overhead")
    return (lambda x: network(x.half()).float()) if fp16 else network


def _captured(network: Callable[[Any], Any], x: Any) -> Callable[[Any], Any]:
    """Return a network as a CUDA graph, which reads ``x`` whatever it is called with."""
    import torch

    graph = torch.cuda.CUDAGraph()
    with torch.inference_mode(), torch.cuda.graph(graph):
        written = network(x)

    def replay(_: Any, kept: Any = network) -> Any:  # the graph reads the network's weights
        graph.replay()
        return written

    return replay
