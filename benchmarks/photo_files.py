"""The photos, the clip and the models that `photos.py` measures with."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from ferplus_tvm.artifact import library_file
from ferplus_tvm.bench.subjects import Subject, write_model
from ferplus_tvm.zoo import DETECTOR
from ferplus_tvm.zoo.registry import local_path

OURS = "ferplus_tvm"


def people(width: int, count: int) -> Image.Image:
    """Return a photo of 4:3 with Eileen Collins and Grace Hopper, or with four of each."""
    import matplotlib
    import skimage.data

    first = Image.fromarray(skimage.data.astronaut())
    second = Image.open(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg")
    rows = 1 if count == 2 else 2
    wide, high = width // (2 * rows), width * 3 // 4 // rows
    photo = Image.new("RGB", (width, width * 3 // 4), (90, 110, 130))
    for at in range(count):
        column, row = at % (2 * rows), at // (2 * rows)
        one = (first, second)[(column + row) % 2].convert("RGB")
        one = one.resize((wide, wide * one.height // one.width), Image.Resampling.LANCZOS)
        photo.paste(one, (column * wide, row * high + (high - one.height) // 2))
    return photo


def write_clip(path: Path, seconds: float) -> bool:
    """Write a clip of both, who drift; return whether that is possible here."""
    try:
        import av
    except ModuleNotFoundError:
        return False
    import ferplus_tvm

    if not hasattr(ferplus_tvm, "video"):
        return False
    photo = people(1000, 2)
    with av.open(str(path), "w") as clip:
        stream = clip.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 640, 480, "yuv420p"
        for at in range(round(25 * seconds)):
            shift = round(20 * math.sin(at / 12))
            shown = photo.resize((640, 480), box=(20 + shift, 15, 980 + shift, 735))
            clip.mux(stream.encode(av.VideoFrame.from_image(shown)))
        clip.mux(stream.encode())
    return True


def write_models(library: Path, model: str, folder: Path) -> None:
    """Write what peers run: the model for any batch size, YuNet for any size of picture."""
    shutil.copy(library, folder / "ferplus.so")
    manifest = library_file.read_manifest(library)
    write_model(model, Subject(OURS, OURS, library, manifest), folder / "ferplus.onnx")
    detector = onnx.load(local_path(DETECTOR))
    sides = detector.graph.input[0].type.tensor_type.shape.dim
    sides[2].dim_param, sides[3].dim_param = "height", "width"
    for output in detector.graph.output:
        output.type.tensor_type.shape.dim[1].dim_param = f"places_{output.name}"
    onnx.save(detector, folder / "yunet.onnx")
    weights = folder / "deepface" / ".deepface" / "weights"
    weights.mkdir(parents=True)
    shutil.copy(local_path(DETECTOR), weights / "face_detection_yunet_2023mar.onnx")
    onnx.save(emotion_model_of_deepface(), weights / "facial_expression_model_weights.onnx")


def emotion_model_of_deepface() -> onnx.ModelProto:
    """Return a model of the layers of deepface's emotion model, with random weights.

    They are those of ``deepface/models/demography``; its speed is that of the real one.
    """
    random = np.random.default_rng(0)
    weights, nodes, last = [], [], "channels_first"

    def add(kind: str, *shape: int, **attributes: Any) -> None:
        nonlocal last
        name, given = f"{kind}_{len(nodes)}", [last]
        if shape:
            array = random.normal(0, math.prod(shape[1:]) ** -0.5, shape).astype(np.float32)
            weights.append(numpy_helper.from_array(array, f"{name}_w"))
            given.append(f"{name}_w")
        nodes.append(helper.make_node(kind, given, [name], name, **attributes))
        last = name

    nodes.append(helper.make_node("Transpose", ["input"], [last], perm=[0, 3, 1, 2]))
    before = 1
    for block in ((64, 5), (64, 3, 64, 3), (128, 3, 128, 3)):
        for channels, side in zip(block[::2], block[1::2], strict=True):
            add("Conv", channels, before, side, side)
            add("Relu")
            before = channels
        pool, side = ("MaxPool", 5) if before == 64 and len(block) == 2 else ("AveragePool", 3)
        add(pool, kernel_shape=[side, side], strides=[2, 2])
    add("Flatten")
    for before, after in ((128, 1024), (1024, 1024), (1024, 7)):
        add("Gemm", after, before, transB=1)
        add("Relu" if after == 1024 else "Softmax")
    given = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 48, 48, 1])
    made = helper.make_tensor_value_info(last, TensorProto.FLOAT, ["n", 7])
    graph = helper.make_graph(nodes, "emotions", [given], [made], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
