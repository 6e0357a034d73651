"""Files as Keras, TensorFlow and PyTorch really write them answer as onnxruntime says."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from ferplus_tvm.importer import load_model

FOLDER = Path(__file__).parent / "exports" / "data"
STORED = sorted(FOLDER.glob("*.onnx"))


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_answers_as_the_file_does(path):
    assert_answers_as_the_file_does(path)


@pytest.mark.long
@pytest.mark.parametrize(
    "module, needs",
    [("from_keras", ("tensorflow", "tf2onnx", "keras")), ("from_torch", ("torch", "onnxscript"))],
)
def test_what_the_installed_tools_export_answers_as_the_file_does(module, needs, tmp_path):
    missing = [name for name in needs if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (extra exporters)")
    subprocess.run(
        [sys.executable, "-m", f"tests.importer.exports.{module}", str(tmp_path)],
        check=True,
        capture_output=True,
    )
    made = sorted(tmp_path.glob("*.onnx"))
    assert len(made) > 20
    for path in made:
        assert_answers_as_the_file_does(path)


def assert_answers_as_the_file_does(path):
    imported = load_model(path)
    shape = (3, imported.channels, imported.size, imported.size)
    faces = (np.random.default_rng(1).random(shape) * 255).astype(np.float32)
    scores = run(imported.proto.SerializeToString(), faces)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    channels_last = session.get_inputs()[0].shape[-1] in (1, 3)
    answer = run(path, faces.transpose(0, 2, 3, 1) if channels_last else faces)
    if np.allclose(answer.sum(axis=1), 1, atol=1e-5) and answer.min() >= 0:
        assert np.abs(softmax(scores) - answer).max() < 1e-5  # the file ends in a softmax
        return
    if np.allclose(np.exp(answer).sum(axis=1), 1, atol=1e-5):
        scores, answer = softmax(scores), np.exp(answer)
    assert np.abs(scores - answer).max() < 1e-5 * np.abs(answer).max()


def run(model, faces):
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: faces})[0]


def softmax(scores):
    shares = np.exp(scores.astype(np.float64) - scores.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)
