"""Small made-up libraries, and changed copies of real ones."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

from ferplus_tvm.artifact import library_file
from ferplus_tvm.artifact.manifest import Check, Function, Kernel, Manifest, Tensor
from ferplus_tvm.artifact.scaling import RAW
from ferplus_tvm.faces.labels import EMOTIONS
from ferplus_tvm.host import cpu

WEIGHTS = bytes(range(256)) * 3
"""Of a made-up library: 192 float32 values."""


def manifest(**changes: Any) -> Manifest:
    """Return a made-up manifest for this machine."""
    values: dict[str, Any] = {
        "model_name": "made-up",
        "model_sha256": "0" * 64,
        "created_with": "a test",
        "target": "znver4",
        "target_config": {"kind": "llvm", "mcpu": "znver4"},
        "triple": "x86_64-unknown-linux-gnu",
        "arch": cpu.architecture(),
        "system": cpu.system(),
        "cpu_features": (),
        "gpu_arch": "",
        "tvm_version": "0.27.0.post1",
        "tvm_ffi_version": "0.1.14.post1",
        "runtime_id": "",
        "precision": "float32",
        "input_shape": ("N", 1, 64, 64),
        "output_shape": ("N", 8),
        "value_range": (0.0, 255.0),
        "scaling": RAW,
        "labels": EMOTIONS,
        "warnings": (),
        "functions": {8: Function("main_batch8", (0, 1)), 1: Function("main_batch1", (1,))},
        "kernels": (
            Kernel(
                "Conv1",
                None,
                1,
                "conv",
                "direct",
                "lanes=16",
                True,
                False,
                "the only one",
                0.5,
                9,
                9,
                4,
            ),
        ),
        "tuning_logs": "",
        "check": Check(1, 1, ((0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.5),), 1e-4, None),
        "detector": None,
        "options": {"batch_sizes": [1, 8]},
        "image_offset": 0,
        "image_bytes": 0,
        "image_sha256": "",
        "weights_bytes": 0,
        "chunk_bytes": 0,
        "weights_sha256": (),
        "tensors": (Tensor("a", 0, (4, 8), "float32"), Tensor("b", 128, (160,), "float32")),
    }
    return Manifest(**{**values, **changes})


def read_manifests(path: Path) -> tuple[Manifest, ...]:
    """Return what a library says of itself, for each target that it holds."""
    opened = library_file.Artifact(path)
    opened.close()
    return opened.manifests


def elf_image(size: int = 300) -> bytes:
    """Return what passes for a 64-bit little-endian ELF file of TVM's, and is none."""
    header = bytearray(64)
    header[:6] = b"\x7fELF\x02\x01"
    struct.pack_into("<Q", header, 0x28, size - 64)  # section headers: where, of what size, many
    struct.pack_into("<HH", header, 0x3A, 64, 1)
    name = b"__tvm_ffi_main"
    return bytes(header) + name + b"\x90" * (size - 64 - len(name))


def write(path: Path, **changes: Any) -> Path:
    """Write a made-up library."""
    with path.open("wb") as file:
        library_file.write(file, [elf_image()], WEIGHTS, [manifest(**changes)])
    return path


def rewrite(source: Path, path: Path, weights: bytes | None = None, **changes: Any) -> Path:
    """Write a copy of a library with other weights or another manifest, checksums included."""
    original = library_file.Artifact(source)
    data = source.read_bytes()
    image = data[: image_length(data)]
    weights = bytes(original.weights) if weights is None else weights
    with path.open("wb") as file:
        library_file.write(file, [image], weights, [replace(original.manifest, **changes)])
    original.close()
    return path


def image_length(data: bytes) -> int:
    """Return where the weights begin, as the footer says."""
    return int(struct.unpack_from("<Q", data, len(data) - 112)[0])


def by_hand(image: bytes, weights: bytes, text: bytes, version: int = 4) -> bytes:
    """Build a library file as the format's documentation says, image padded already."""
    total = len(image) + len(weights) + len(text) + 112
    lengths = struct.pack("<QQQQ", len(image), len(weights), len(text), total)
    signed = lengths + hashlib.sha256(text).digest()
    footer = signed + hashlib.sha256(signed).digest() + b"FERPLUS-TVM\n"
    return image + weights + text + footer + struct.pack("<I", version)


def assert_sentence(message: str, *parts: str) -> None:
    """Assert that an error's message is one sentence on one line that names ``parts``."""
    assert "\n" not in message and "Traceback" not in message
    assert len(message) > 40 and not message.endswith((".", " ")) and ". " not in message
    for part in parts:
        assert part in message
