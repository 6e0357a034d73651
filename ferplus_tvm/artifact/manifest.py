"""What a compiled library says of itself: a frozen dataclass for each target, and its JSON.

Standard library only.  The manifests are read and checked before the dynamic loader sees the file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from ferplus_tvm.artifact.detector import Detector
from ferplus_tvm.artifact.layout import ITEM_BYTES
from ferplus_tvm.artifact.scaling import Scaling
from ferplus_tvm.artifact.typecheck import expect_types
from ferplus_tvm.artifact.validate import validate

ChecksumLevel = Literal["full", "manifest"]
"""``full`` checks every byte; ``manifest`` everything but the weights."""


@dataclass(frozen=True)
class Tensor:
    """A weight array, in C order.

    Attributes
    ----------
    name
        Its name in the model, with what was done to it.
    offset
        Where it begins, in bytes from the beginning of the weights; a multiple of 64.
    shape
        Its shape, as the kernels want it.
    dtype
        ``float32`` or ``float16``.
    """

    name: str
    offset: int
    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


@dataclass(frozen=True)
class Function:
    """The entry point for one batch size.

    Attributes
    ----------
    name
        Its name in the library's code.
    weights
        The weights that it takes after the input, as indices into `Manifest.tensors`.
    """

    name: str
    weights: tuple[int, ...]


@dataclass(frozen=True)
class Kernel:
    """The kernel that runs a layer at one batch size.

    Attributes
    ----------
    layer
        The layer's name in the model.
    fused
        The name of a pooling that the kernel computes too, or None.
    batch
        The batch size.
    kernel
        The kernel's name, by which tuning knows it.
    algorithm
        Its algorithm, for example ``direct`` or ``winograd``.
    tiling
        Its configuration.
    tunable
        Whether there is anything to tune.
    tuned
        Whether there was a tuning record; a preset is used where none was found.
    why
        What the algorithm was compared with.
    milliseconds
        The time to expect on one core at 3 GHz, or on a GPU at 1.75 GHz.
    flops
        Floating point operations of the layer computed directly, two per multiply-add.
    executed_flops
        Those of the algorithm's multiply-adds, which are fewer for Winograd's; without transforms.
    activation_bytes
        The bytes of the activations that are read and written.
    """

    layer: str
    fused: str | None
    batch: int
    kernel: str
    algorithm: str
    tiling: str
    tunable: bool
    tuned: bool
    why: str
    milliseconds: float
    flops: int
    executed_flops: int
    activation_bytes: int


@dataclass(frozen=True)
class Check:
    """The model's own acceptance test, which `ferplus_tvm.verify` repeats on any device.

    Attributes
    ----------
    seed, faces
        The arguments of `ferplus_tvm.artifact.reference_inputs.inputs`, which makes the inputs.
    reference
        Their scores, computed in float64.
    tolerance
        The largest difference allowed, relative to the largest score.
    error
        The difference measured when the library was compiled, or None if it could not run there.
    """

    seed: int
    faces: int
    reference: tuple[tuple[float, ...], ...]
    tolerance: float
    error: float | None


@dataclass(frozen=True)
class Manifest:
    """Everything that is said of a library, or of one target's part of it.

    Attributes
    ----------
    model_name, model_sha256
        The model that was compiled, and the hash of its file.
    created_with
        The version of this package.
    target, target_config
        The target's name, and TVM's description of it.
    triple, arch, system
        The LLVM target triple, the CPU architecture and the operating system.
    cpu_features
        What the CPU must have, by LLVM's names.
    gpu_arch
        The architecture of the GPU that computes, for example ``sm_90``, or "" for a CPU.
    tvm_version, tvm_ffi_version
        The versions of apache-tvm and apache-tvm-ffi that it was compiled with.
    runtime_id
        The build id of the ``libtvm_runtime`` that it was compiled with, or "" if the target's
        own was not at hand.
    precision
        How GEMMs are computed: ``float32``, ``tf32`` or ``float16``.
    input_shape, output_shape
        ("N", C, S, S) and ("N", K): square faces of C channels, 1 for grey or 3 for RGB, and
        scores of K classes.
    value_range
        Black and white of the input's pixels, 0 and 255.
    scaling
        What the model's file wanted of these pixels, which the library does itself.
    labels
        The names of the classes, in the order of the scores.
    warnings
        What was assumed of the model when the library was compiled, such as the range of its
        pixels, or contradicts what was stated, in sentences.
    functions
        The entry points by batch size.
    kernels
        The kernel of each layer at each batch size.
    tuning_logs
        The target whose tuning log was used, or "".
    check
        The acceptance test.
    detector
        The face detector, or None where there is none.
    options
        The compile options, resolved.
    image_offset, image_bytes, image_sha256
        Where the ELF image begins in the file, its length with the padding behind it, and its
        hash.
    weights_bytes, chunk_bytes, weights_sha256
        The length of the weights, and their hashes, one for each ``chunk_bytes``.
    tensors
        The weights of all targets; those of the functions here are among them.
    """

    model_name: str
    model_sha256: str
    created_with: str
    target: str
    target_config: dict[str, Any]
    triple: str
    arch: str
    system: str
    cpu_features: tuple[str, ...]
    gpu_arch: str
    tvm_version: str
    tvm_ffi_version: str
    runtime_id: str
    precision: str
    input_shape: tuple[int | str, ...]
    output_shape: tuple[int | str, ...]
    value_range: tuple[float, float]
    scaling: Scaling
    labels: tuple[str, ...]
    warnings: tuple[str, ...]
    functions: dict[int, Function]
    kernels: tuple[Kernel, ...]
    tuning_logs: str
    check: Check
    detector: Detector | None
    options: dict[str, Any]
    image_offset: int
    image_bytes: int
    image_sha256: str
    weights_bytes: int
    chunk_bytes: int
    weights_sha256: tuple[str, ...]
    tensors: tuple[Tensor, ...]

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """The compiled batch sizes, in increasing order."""
        return tuple(sorted(self.functions))

    @property
    def face_shape(self) -> tuple[int, int, int]:
        """The shape of one face, (C, S, S)."""
        _, channels, height, width = self.input_shape
        return int(channels), int(height), int(width)

    @property
    def tunable(self) -> tuple[Kernel, ...]:
        """The kernels that have something to tune, unlike a pooling."""
        return tuple(kernel for kernel in self.kernels if kernel.tunable)

    @property
    def untuned(self) -> tuple[str, ...]:
        """The names of the kernels that could have a tuning record, and have none."""
        return tuple(kernel.kernel for kernel in self.tunable if not kernel.tuned)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain

    @classmethod
    def from_dict(cls, values: Any) -> Manifest:
        """Read what `to_dict` returned; what is something else raises one of several errors."""
        names = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or set(values) != names:
            raise ValueError("its fields are not those of the format")
        found = cls(**{**values, **{name: read(values[name]) for name, read in _READERS.items()}})
        expect_types(found)
        validate(found)
        return found


def _function(value: dict[str, Any]) -> Function:
    return Function(value["name"], tuple(value["weights"]))


def _tensor(value: dict[str, Any]) -> Tensor:
    return Tensor(**{**value, "shape": tuple(value["shape"])})


def _check(value: dict[str, Any]) -> Check:
    return Check(**{**value, "reference": tuple(tuple(row) for row in value["reference"])})


_READERS: dict[str, Callable[[Any], Any]] = {
    "cpu_features": tuple,
    "input_shape": tuple,
    "output_shape": tuple,
    "value_range": tuple,
    "scaling": lambda value: Scaling(**{name: tuple(each) for name, each in value.items()}),
    "labels": tuple,
    "warnings": tuple,
    "weights_sha256": tuple,
    "functions": lambda value: {int(batch): _function(f) for batch, f in value.items()},
    "kernels": lambda value: tuple(Kernel(**kernel) for kernel in value),
    "tensors": lambda value: tuple(_tensor(tensor) for tensor in value),
    "check": _check,
    "detector": lambda value: None if value is None else Detector.from_dict(value),
}
