"""Nothing asks the network unless a verb says so, and nothing of a model is executed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
from onnx import TensorProto

from ferplus_tvm.data import SAMPLE_FACE
from tests.chains import Chain

RunPython = Callable[..., str]

WATCH = """
import sys
seen = []
def hook(event, arguments):
    if event in {"socket.connect", "socket.getaddrinfo", "socket.bind", "socket.sendto"}:
        seen.append((event, repr(arguments)[:200]))
    if event in {"os.system", "os.exec", "subprocess.Popen", "os.posix_spawn"}:
        seen.append((event, repr(arguments[0])))
sys.addaudithook(hook)
"""


def test_an_app_never_asks_the_network(library: Path, run_python: RunPython) -> None:
    code = """
import ferplus_tvm as fer
with fer.load(sys.argv[1]) as engine:
    engine.predict(sys.argv[2])
    engine.predict_batch([b"https://example.com/face.jpg"], on_error="skip")
try:
    fer.preprocess("https://example.com/face.jpg")
except fer.errors.InputError:
    pass
assert seen == [], seen
"""
    run_python(WATCH + code, library, SAMPLE_FACE)


def test_compiling_asks_nobody_and_runs_only_compilers_and_this_python(
    narrow_model: Path, tmp_path: Path, run_python: RunPython
) -> None:
    code = """
import ferplus_tvm as fer
fer.compile(sys.argv[1], output=sys.argv[2], batch_sizes=[1])
fer.verify(sys.argv[2])
networks = [event for event, _ in seen if event.startswith("socket.")]
assert networks == [], seen
programs = {what for event, what in seen if event == "subprocess.Popen"}
assert all("python" in what or "cc" in what or "clang" in what or "c++" in what or "g++" in what
           for what in programs), programs
"""
    run_python(WATCH + code, narrow_model, tmp_path / "m.so", timeout=120)


def test_a_model_that_names_addresses_and_commands_is_only_data(
    tmp_path: Path, run_python: RunPython
) -> None:
    model = Chain().conv("https://example.com/a", 2).relu("$(touch owned)").flatten()
    proto = model.dense("; touch owned").model()
    proto.producer_name = "$(touch owned)"
    weight = proto.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    entry = weight.external_data.add()
    entry.key, entry.value = "location", "https://example.com/weights"
    onnx.save(proto, tmp_path / "m.onnx")
    code = """
import os
os.chdir(sys.argv[1])
from ferplus_tvm.errors import ModelError
from ferplus_tvm.importer import load_model
try:
    load_model("m.onnx")
except ModelError:
    pass
assert seen == [], seen
assert os.listdir(".") == ["m.onnx"]
"""
    run_python(WATCH + code, tmp_path)
