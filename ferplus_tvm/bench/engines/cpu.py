"""Engines on the CPU.

Each is opened with its own defaults but for the number of threads: what a user gets who does the
same.  ``openvino-float32`` is the exception.  OpenVINO by itself takes bfloat16 where the CPU has
it, so it is measured at float32 as well.
"""

from __future__ import annotations

import importlib.metadata

from ferplus_tvm.bench.engines.opened import Faces, FaceShape, Opened, Scores


def open_ours(path: str, threads: int, batch: int, face: FaceShape, device: str) -> Opened:
    """Open a library of ours."""
    import ferplus_tvm

    # On a GPU there are none.
    engine = ferplus_tvm.load(path, threads=threads or None, device=device)
    precision = engine.manifest.precision
    return Opened(precision, ferplus_tvm.__version__, engine.scores, engine=engine)


def open_onnxruntime(path: str, threads: int, batch: int, face: FaceShape, device: str) -> Opened:
    """Open an ONNX model with onnxruntime."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    return Opened(
        "float32", onnxruntime.__version__, lambda x: session.run(None, {given.name: x})[0]
    )


def open_openvino(
    path: str, threads: int, batch: int, face: FaceShape, device: str, **properties: str
) -> Opened:
    """Open an ONNX model with OpenVINO, for one batch size."""
    import openvino

    core = openvino.Core()
    network = core.read_model(path)
    network.reshape([batch, *face])
    wanted = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", **properties}
    compiled = core.compile_model(network, "CPU", wanted)
    request = compiled.create_infer_request()

    def run(x: Faces) -> Scores:
        request.infer({0: x}, share_inputs=True)
        scores: Scores = request.get_output_tensor(0).data.copy()
        return scores

    own = str(compiled.get_property("INFERENCE_PRECISION_HINT").to_string())
    precision = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}.get(own, own)
    return Opened(precision, importlib.metadata.version("openvino"), run)


def open_openvino_float32(
    path: str, threads: int, batch: int, face: FaceShape, device: str
) -> Opened:
    """Open an ONNX model with OpenVINO, made to work at float32."""
    return open_openvino(path, threads, batch, face, device, INFERENCE_PRECISION_HINT="f32")


def open_torch(path: str, threads: int, batch: int, face: FaceShape, device: str) -> Opened:
    """Open an ONNX model with PyTorch, which runs it operator by operator."""
    import torch

    from ferplus_tvm.bench.engines.torch_model import of_onnx

    torch.set_num_threads(threads)
    network = of_onnx(path)

    def run(x: Faces) -> Scores:
        with torch.inference_mode():
            scores: Scores = network(torch.from_numpy(x)).numpy()
        return scores

    return Opened("float32", str(torch.__version__).split("+")[0], run)
