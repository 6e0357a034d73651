"""A library for RGB faces on an emulated GPU, which takes them with the channels last."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from ferplus_tvm.artifact import reference_inputs
from tests.artifacts import assert_sentence
from tests.conftest import Shared
from tests.cuda.conftest import Run, needs_emulation
from tests.importer.networks import Net
from tests.importer.support import run

pytestmark = needs_emulation

FACE = (3, 32, 32)

CODE = """
    import ctypes, json
    import numpy as np
    import tvm_ffi
    import ferplus_tvm as fer
    from ferplus_tvm.artifact import reference_inputs

    def on_gpu(array):
        allocate = tvm_ffi.get_global_func("runtime.TVMTensorAllocWithScope")
        device, kind = tvm_ffi.device("cuda:0"), tvm_ffi.dtype("float32")
        tensor = allocate(tvm_ffi.Shape(array.shape), kind, device, None)
        memory = (ctypes.c_float * array.size).from_address(tensor.data_ptr())
        np.ctypeslib.as_array(memory)[:] = array.ravel()
        return tensor

    def read(tensor, shape):
        memory = (ctypes.c_float * int(np.prod(shape))).from_address(tensor.data_ptr())
        return np.ctypeslib.as_array(memory).reshape(shape).tolist()

    found = {{"scores": [], "on_gpu": []}}
    with fer.load({path!r}, device="cuda:0") as engine:
        faces = reference_inputs.inputs(7, 5, engine.face_shape)
        for n in (1, 3, 5):
            found["scores"].append(engine.scores(faces[:n]).tolist())
            last = on_gpu(faces[:n].transpose(0, 2, 3, 1))
            found["on_gpu"].append(read(engine.scores_on_gpu(last), (n, 4)))
        try:
            engine.scores_on_gpu(on_gpu(faces))
        except fer.errors.InputError as error:
            found["said"] = str(error)
    print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def network() -> onnx.ModelProto:
    net = Net(5)
    x = net.pool(net.add("Relu", net.conv(net.scale("faces"), 3, 8)))
    x = net.pool(net.add("Relu", net.conv(x, 8, 8)), kernel_shape=[4, 4], strides=[4, 4])
    return net.model(net.dense(net.add("Flatten", x, axis=1), 8 * 16, 4), ("N", *FACE))


def test_scores_are_those_of_onnxruntime_from_the_host_and_from_the_gpu(
    network: onnx.ModelProto, run_on: Run, shared: Shared
) -> None:
    def build(folder: Path) -> Path:
        model, output = folder / "rgb.onnx", folder / "rgb.so"
        onnx.save(network, model)
        command = ["compile", str(model), "--labels", "a,b,c,d", "--target", "cuda/sm_90"]
        done = run_on([*command, "--batch", "1,4", "-o", str(output)])
        assert done.returncode == 0, done.stderr
        return output

    done = run_on(CODE.format(path=str(shared.make("rgb_gpu", build))))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)

    expected = run(network, reference_inputs.inputs(7, 5, FACE))
    for n, scores, on_gpu in zip((1, 3, 5), found["scores"], found["on_gpu"], strict=True):
        assert reference_inputs.relative_error(np.asarray(scores), expected[:n]) < 1e-5
        assert on_gpu == scores
    assert_sentence(found["said"], "(N, 32, 32, 3)", "(5, 3, 32, 32)", "permute(0, 2, 3, 1)")
