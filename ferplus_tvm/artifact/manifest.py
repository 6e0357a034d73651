"""What a compiled library says of itself: a frozen dataclass for each target, and its JSON.

Standard library only.  The manifests are read and checked before the dynamic loader sees the file.
"""

from __future__ import annotations

import functools
import json
import math
import re
import types
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

from ferplus_tvm.errors import ArtifactDamagedError

ITEM_BYTES = {"float32": 4, "float16": 2}
"""The types that weights are stored in, with their sizes."""


@dataclass(frozen=True)
class Tensor:
    """One weight array, C order, at ``offset`` bytes into the weights (a multiple of 64)."""

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
    """The entry point for one batch size, and the weights that it takes after the input."""

    name: str
    weights: tuple[int, ...]


@dataclass(frozen=True)
class Kernel:
    """What runs a layer at one batch size.

    fused
        the name of a pooling that the kernel took in, or None.
    tiling
        the kernel's configuration.
    tunable
        whether there is anything to tune.
    tuned
        whether there was a tuning record; a preset is used where none was found.
    why
        what the algorithm was compared with.
    milliseconds
        the time to expect on one core at 3 GHz, or on a GPU at 1.75 GHz.
    flops
        floating point operations of the layer computed directly, two per multiply-add.
    executed_flops
        those of the algorithm's multiply-adds, which are fewer for Winograd's; without transforms.
    activation_bytes
        of the activations that are read and written.
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

    seed, faces
        make the inputs (see `ferplus_tvm.artifact.reference_inputs.inputs`).
    reference
        their scores, computed in float64.
    tolerance
        the largest difference allowed, relative to the largest score.
    error
        the difference measured when the library was compiled, or None if it could not run there.
    """

    seed: int
    faces: int
    reference: tuple[tuple[float, ...], ...]
    tolerance: float
    error: float | None


@dataclass(frozen=True)
class Manifest:
    """Everything that is said of a library, or of one target's part of it.

    image_offset, image_bytes, image_sha256
        of the ELF image and the padding behind it.
    weights_sha256
        of the weights, one digest per ``chunk_bytes``.
    cpu_features
        what the CPU must offer, by LLVM's names.
    gpu_arch
        the architecture of the GPU that computes, for example ``sm_90``, or "" for a CPU.
    runtime_id
        the build id of the ``libtvm_runtime`` that it was compiled with, or "" if the target's
        own was not at hand.
    functions
        by batch size.
    tensors
        the weights of all targets; those of the functions here are among them.
    value_range
        of the input's pixels.
    options
        the compile options, resolved.
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
    labels: tuple[str, ...]
    functions: dict[int, Function]
    kernels: tuple[Kernel, ...]
    tuning_logs: str
    check: Check
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
        _expect_types(found)
        wrong = found._wrong_number()
        if wrong:
            raise ValueError(wrong)
        return found

    def _wrong_number(self) -> str | None:
        """Return which numbers cannot be, as a checksum does not tell."""
        if self.gpu_arch and not re.fullmatch(r"sm_[1-9]\d{1,2}", self.gpu_arch):
            return "its GPU architecture cannot be"
        if not 0 < self.check.tolerance <= 1:
            return "its tolerance cannot be"
        if min(self.image_offset, self.image_bytes, self.weights_bytes, self.chunk_bytes) < 0:
            return "its lengths cannot be"
        for tensor in self.tensors:
            if (
                tensor.dtype not in ITEM_BYTES
                or tensor.offset < 0
                or min(tensor.shape, default=0) < 0
            ):
                return f"its weight {tensor.name!r} cannot be"
        for kernel in self.kernels:
            if min(kernel.flops, kernel.executed_flops, kernel.activation_bytes) < 0:
                return f"its kernel {kernel.kernel!r} cannot be"
        for batch, function in self.functions.items():
            if batch < 1 or not all(0 <= index < len(self.tensors) for index in function.weights):
                return f"its function for batch {batch} takes weights that are not there"
        return None if self.functions else "it has no functions"


def _expect_types(value: Any) -> None:
    """See that the fields of a dataclass hold what their annotations say, all the way down."""
    for name, kind in _hints(cast(Any, type(value))).items():
        if not _is(getattr(value, name), kind):
            raise ValueError(f"its field {name} is of another type")


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _is(value: Any, kind: Any) -> bool:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return True
    if origin is types.UnionType:
        return any(_is(value, each) for each in arguments)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if arguments[-1] is Ellipsis:
            return all(_is(item, arguments[0]) for item in value)
        return len(value) == len(arguments) and all(map(_is, value, arguments))
    if origin is dict:
        return isinstance(value, dict) and all(
            _is(key, arguments[0]) and _is(item, arguments[1]) for key, item in value.items()
        )
    if isinstance(kind, type) and is_dataclass(kind) and isinstance(value, kind):
        _expect_types(value)
        return True
    if kind in (int, float):  # which a truth value is, to Python
        allowed = (int, float) if kind is float else int
        number = isinstance(value, allowed) and not isinstance(value, bool)
        return number and math.isfinite(value)
    if kind is str:  # of characters that can be written, as half of a surrogate pair cannot
        return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)
    return isinstance(value, kind)


def to_json(manifests: Sequence[Manifest]) -> bytes:
    """Return the manifests of a library as UTF-8 JSON, a list."""
    listed = [manifest.to_dict() for manifest in manifests]
    return json.dumps(listed, ensure_ascii=False, separators=(",", ":")).encode()


def from_json(text: bytes) -> tuple[Manifest, ...]:
    """Read the manifests of a library, whose checksum has been verified.

    Raises
    ------
    ArtifactDamagedError
        If they are not manifests of this format all the same.
    """
    try:
        listed = json.loads(text, parse_constant=_refuse_constant)
        if not isinstance(listed, list) or not listed:
            raise ValueError("it is not a list")
        return tuple(Manifest.from_dict(values) for values in listed)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ArtifactDamagedError(
            f"the library's manifest cannot be read ({error}): expected the fields of its "
            "format; compile the library again"
        ) from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"it holds {name}")


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
    "labels": tuple,
    "weights_sha256": tuple,
    "functions": lambda value: {int(batch): _function(f) for batch, f in value.items()},
    "kernels": lambda value: tuple(Kernel(**kernel) for kernel in value),
    "tensors": lambda value: tuple(_tensor(tensor) for tensor in value),
    "check": _check,
}

ChecksumLevel = Literal["full", "manifest"]
"""``full`` checks every byte; ``manifest`` everything but the weights."""
