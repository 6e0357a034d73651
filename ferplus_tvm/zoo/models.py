"""The known model files.

The sizes and hashes of the official files are those of the Git LFS pointers in the ONNX Model
Zoo (github.com/onnx/models, ``validated/vision/body_analysis/emotion_ferplus/model``).
"""

from __future__ import annotations

from dataclasses import dataclass

_FOLDER = "validated/vision/body_analysis/emotion_ferplus/model"
# The zoo's official mirror first: GitHub has answered with Git LFS pointers since July 2025.
_ADDRESSES = (
    f"https://huggingface.co/onnxmodelzoo/legacy_models/resolve/main/{_FOLDER}/",
    f"https://github.com/onnx/models/raw/main/{_FOLDER}/",
)


@dataclass(frozen=True, slots=True)
class ZooFile:
    """One known file.

    Attributes
    ----------
    file_name
        The name of the file in the cache folder or, for a bundled model, in the package.
    size
        The size of the file in bytes.
    sha256
        The hash of the whole file, as 64 lower-case hexadecimal digits.
    addresses
        The URLs to download from, in the order to try them; empty for a bundled model.
    """

    file_name: str
    size: int
    sha256: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ZooModel(ZooFile):
    """One known model.

    Attributes
    ----------
    name
        The name that `lookup` and `resolve` take.
    opset
        The version of ONNX's default operator set that the model uses.
    description
        What the model is, in one line.
    terms
        Licence and origin, in one line.
    archive
        The zoo's ``.tar.gz`` of the model and its test data, or None for a bundled model.
    unsupported
        What of it cannot be compiled yet, or "".
    detector
        Whether it finds faces, and is compiled into a library with ``detector=True``.
    notice
        The name of the file beside it that holds its licence, or "".
    """

    name: str
    opset: int
    description: str
    terms: str
    archive: ZooFile | None = None
    unsupported: str = ""
    detector: bool = False
    notice: str = ""


def _file(file_name: str, size: int, sha256: str) -> ZooFile:
    return ZooFile(file_name, size, sha256, tuple(folder + file_name for folder in _ADDRESSES))


def _official(
    name: str,
    opset: int,
    model: tuple[int, str],
    archive: tuple[int, str],
    description: str,
    unsupported: str = "",
) -> ZooModel:
    """Return the entry of a model and its archive, each given by its size and hash."""
    file = _file(f"{name}.onnx", *model)
    return ZooModel(
        file.file_name,
        file.size,
        file.sha256,
        file.addresses,
        name,
        opset,
        description,
        "MIT",
        _file(f"{name}.tar.gz", *archive),
        unsupported,
    )


BUNDLED = ZooModel(
    name="bundled",
    file_name="ferplus-bundled.onnx",
    size=17525870,
    sha256="6e1fdd5c1a43f29751937a607e19b31768bea4c5405cfafee9e82153ae82b189",
    opset=8,
    addresses=(),
    description="trained for this project, shipped with it; weights stored as fp16",
    terms="FER+ votes MIT, FER2013 images for research (see zoo/data/MODEL_CARD.md)",
)
"""The emotion model that needs no download."""

DETECTOR = ZooModel(
    name="yunet",
    file_name="face_detection_yunet_2023mar.onnx",
    size=232589,
    sha256="8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
    opset=11,
    addresses=(),
    description="YuNet 2023mar of OpenCV Zoo, the face detector; shipped with this package",
    terms="MIT; trained on WIDER FACE (see zoo/data/MODEL_CARD.md)",
    detector=True,
    notice="LICENSE.yunet",
)
"""The face detector, which needs no download either."""

MODELS: tuple[ZooModel, ...] = (
    BUNDLED,
    _official(
        "emotion-ferplus-8",
        8,
        (35040571, "a2a2ba6a335a3b29c21acb6272f962bd3d47f84952aaffa03b60986e04efa61c"),
        (32384240, "f200563a2cad231634970bb603ba74f68f01aab0f33a92251ec6d390c1991b1d"),
        "official model, float32",
    ),
    _official(
        "emotion-ferplus-7",
        7,
        (35040571, "f800ecfe8a41e6ebf675f5830146e1d0c5c491cd2292a3ef3494c901963d3e52"),
        (32384236, "6a0341e6f1ebcad345c42883c84591e219d751590d5fdb82d4b35f09722f22ce"),
        "official model, float32",
    ),
    _official(
        "emotion-ferplus-2",
        2,
        (35041945, "16f87fbec2f6b5cc1d84f90a16e9874493eb06a685104386cc79cc5ef1c46e75"),
        (32380999, "07dd46eb1b83213f6fb743de869e60fdefe7f486a4d308f7612b67b046b3b013"),
        "official model, float32, operators of 2017",
    ),
    _official(
        "emotion-ferplus-12-int8",
        12,
        (19300656, "3e47195d79e9593294df9e81a6d296a1e10969b68a717284081c29493a0ff5f1"),
        (18119569, "429cd3e9cdfc20330b76361c65e7aaeb4298b9edcd29282fd6f63b95aee00983"),
        "official model, partly quantized to int8",
        unsupported="int8 activations",
    ),
    DETECTOR,
)
"""Every model of the zoo; the first and the last are bundled, the others are downloaded."""
