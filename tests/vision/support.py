"""Photos with several people, and YuNet by onnxruntime as a detector of another's."""

from __future__ import annotations

import functools
from pathlib import Path

import matplotlib
import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

import ferplus_tvm.zoo
from ferplus_tvm.vision.detections import Detection, decode

YUNET = Path(ferplus_tvm.zoo.__file__).parent / "data" / "face_detection_yunet_2023mar.onnx"
STRIDES = (8, 16, 32)

# Rear Admiral Grace M. Hopper; by the US Navy, in the public domain.
HOPPER = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
FACE = (183, 121, 171, 213)
"""Where the face is in her photo of 512 x 600: x, y, width and height, by eye and YuNet."""


def montage(
    size: tuple[int, int], *places: tuple[int, int, float]
) -> tuple[Image.Image, list[tuple[float, ...]]]:
    """Return a photo with her in it at places (x, y, scale), and where the faces are."""
    image = Image.new("RGB", size, (90, 110, 130))
    one = Image.open(HOPPER)
    boxes = []
    for x, y, scale in places:
        small = one.resize((round(one.width * scale), round(one.height * scale)))
        image.paste(small, (x, y))
        left, top, width, height = (each * scale for each in FACE)
        boxes.append((x + left, y + top, width, height))
    return image, boxes


def group_photo() -> tuple[Image.Image, list[tuple[float, ...]]]:
    """Return a photo of three, the largest face first."""
    return montage((900, 640), (20, 20, 1.0), (560, 40, 0.5), (600, 400, 0.35))


def overlap(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Return the intersection over union of two boxes."""
    sides = [
        min(one[i] + one[i + 2], other[i] + other[i + 2]) - max(one[i], other[i]) for i in (0, 1)
    ]
    common = max(0.0, sides[0]) * max(0.0, sides[1])
    return common / (one[2] * one[3] + other[2] * other[3] - common)


@functools.cache
def _session() -> onnxruntime.InferenceSession:
    model = onnx.load(YUNET)
    dimensions = model.graph.input[0].type.tensor_type.shape.dim
    dimensions[2].dim_param, dimensions[3].dim_param = "height", "width"
    for output in model.graph.output:
        output.type.tensor_type.shape.dim[1].dim_param = f"places_{output.name}"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def yunet(picture: NDArray[np.uint8]) -> list[Detection]:
    """Find faces in RGB, (H, W, 3), as ``cv2.FaceDetectorYN`` does."""
    height, width = (-(-side // 32) * 32 for side in picture.shape[:2])
    x = np.zeros((1, 3, height, width), np.float32)
    x[0, :, : picture.shape[0], : picture.shape[1]] = np.moveaxis(picture[..., ::-1], -1, 0)
    session = _session()
    heads = ("cls", "obj", "bbox", "kps")
    names = [f"{head}_{stride}" for stride in STRIDES for head in heads]
    rows = session.run(names, {session.get_inputs()[0].name: x})
    values = [np.concatenate([each[0] for each in rows[i : i + 4]], axis=1) for i in (0, 4, 8)]
    return decode(np.concatenate(values), height, width, STRIDES, 0.6)
