"""Run a library where only the runtime half is installed: no apache-tvm, no onnx, no typer."""

import importlib.util
import sys
from pathlib import Path

import ferplus_tvm as fer

for absent in ("tvm", "onnx", "typer"):
    assert importlib.util.find_spec(absent) is None, f"{absent} is installed here"
with fer.load(sys.argv[1]) as engine:
    face = Path(fer.__file__).parent / "data" / "sample_face.png"
    prediction = engine.predict(face)
assert prediction.label == "happiness", prediction
print(f"without the compiler half: {prediction}")
