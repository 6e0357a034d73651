"""From an executable and weights to the library file: link, lay out, describe, write."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm._version import __version__
from ferplus_tvm.artifact import layout, library_file
from ferplus_tvm.artifact.detector import Detector
from ferplus_tvm.artifact.manifest import Check, Function, Manifest, Tensor
from ferplus_tvm.compiler.detector import LoweredDetector
from ferplus_tvm.compiler.interface import Interface
from ferplus_tvm.compiler.options import CompileOptions
from ferplus_tvm.compiler.temporary_file import hold, remove_abandoned
from ferplus_tvm.errors import CompileError
from ferplus_tvm.host import runtime_library
from ferplus_tvm.host.files import permit_as_new
from ferplus_tvm.host.temporary import temporary_folder
from ferplus_tvm.importer import ImportedModel
from ferplus_tvm.lowering.writer import LoweredModel
from ferplus_tvm.targets import ResolvedTarget
from ferplus_tvm.toolchain.link import export_library


def link_image(executable: Any, target: ResolvedTarget) -> bytes:
    """Return the native image of an executable, linked for ``target``.

    Raises
    ------
    LinkerError
        If linking fails.
    CudaCompilerError
        If a GPU's kernels cannot be compiled.
    TemporaryFolderError
        If there is no room for temporary files.
    CompileError
        If they cannot be written or read for another reason.
    """
    try:
        with temporary_folder() as folder:
            image = folder / "image.so"
            export_library(executable, target, image)
            return image.read_bytes()
    except OSError as error:
        raise CompileError(
            f"the linker's temporary files cannot be used ({error.strerror or error}): let TMPDIR "
            "name another folder"
        ) from error


@dataclass(frozen=True)
class Part:
    """What was compiled for one target.

    Attributes
    ----------
    target
        The target.
    lowered
        The kernels that were chosen, and the weights packed for them.
    faces
        The face detector, or None.
    image
        The native image, linked.
    log
        The target whose tuning log was looked into, or "" where there was none.
    """

    target: ResolvedTarget
    lowered: LoweredModel
    faces: LoweredDetector | None
    image: bytes
    log: str

    @property
    def weights(self) -> dict[str, NDArray[Any]]:
        """All weights, by name."""
        return self.lowered.weights | (self.faces.weights if self.faces else {})


@dataclass(frozen=True)
class Weights:
    """The weights of all targets as one block.

    Attributes
    ----------
    block
        The bytes of all tensors, each at a multiple of 64 bytes.
    tensors
        What lies where in it.
    index
        For each target, the number in ``tensors`` of each of its weights, by the weight's name.
    """

    block: bytearray
    tensors: tuple[Tensor, ...]
    index: tuple[dict[str, int], ...]


def lay_out(of_targets: Sequence[Mapping[str, NDArray[Any]]]) -> Weights:
    """Lay the weights of all targets out; equal tensors of several targets are stored once."""
    block = bytearray()
    tensors: list[Tensor] = []
    known: dict[tuple[str, tuple[int, ...], str, bytes], int] = {}
    index = []
    for weights in of_targets:
        own = {}
        for name, weight in weights.items():
            content = np.ascontiguousarray(weight)
            digest = hashlib.sha256(content.data).digest()
            key = (name, weight.shape, str(weight.dtype), digest)
            if key not in known:
                known[key] = len(tensors)
                block += b"\0" * (-len(block) % layout.ALIGNMENT)
                tensors.append(Tensor(name, len(block), weight.shape, str(weight.dtype)))
                block += content.tobytes()
            own[name] = known[key]
        index.append(own)
    return Weights(block, tuple(tensors), tuple(index))


def acceptance(seed: int, reference: NDArray[np.float64], tolerance: float) -> Check:
    """Return the model's acceptance test, not yet run.

    Parameters
    ----------
    seed
        The seed that the faces are drawn with.
    reference
        Their scores (N, K) in float64.
    tolerance
        The largest difference allowed, relative to the largest score.
    """
    rows = tuple(tuple(float(score) for score in row) for row in reference)
    return Check(seed, len(rows), rows, tolerance, error=None)


def describe(
    options: CompileOptions,
    imported: ImportedModel,
    interface: Interface,
    part: Part,
    tensors: tuple[Tensor, ...],
    index: dict[str, int],
    check: Check,
    detector: Detector | None,
) -> Manifest:
    """Return a target's manifest, but for what is known only when the file is written.

    Parameters
    ----------
    tensors, index
        The weights of all targets, and the numbers of this target's: see `Weights`.
    """
    target, lowered = part.target, part.lowered
    own_runtime = runtime_library.installed() if target.is_host else None
    return Manifest(
        model_name=imported.name,
        model_sha256=imported.sha256,
        created_with=f"ferplus_tvm {__version__}",
        target=target.name,
        target_config=target.config,
        triple=target.triple,
        arch=target.arch,
        system=target.system,
        cpu_features=tuple(sorted(target.features)),
        gpu_arch=target.gpu.arch if target.gpu is not None else "",
        tvm_version=importlib.metadata.version("apache-tvm"),
        tvm_ffi_version=importlib.metadata.version("apache-tvm-ffi"),
        runtime_id=runtime_library.identity(own_runtime) if own_runtime else "",
        precision=target.precision,
        input_shape=("N", imported.channels, imported.size, imported.size),
        output_shape=("N", imported.classes),
        value_range=(0.0, 255.0),
        scaling=interface.scaling,
        labels=interface.labels,
        warnings=interface.warnings,
        functions={
            batch: Function(name, tuple(index[weight] for weight in lowered.arguments[batch]))
            for batch, name in lowered.functions.items()
        },
        kernels=lowered.kernels,
        tuning_logs=part.log if any(kernel.tuned for kernel in lowered.kernels) else "",
        check=check,
        detector=detector,
        options=options.describe(),
        image_offset=0,
        image_bytes=0,
        image_sha256="",
        weights_bytes=0,
        chunk_bytes=layout.CHUNK,
        weights_sha256=(),
        tensors=tensors,
    )


@contextmanager
def temporary(output: Path) -> Iterator[Path]:
    """Give a name beside ``output`` to write under, and remove what is left under it at the end.

    What a process that was killed has left beside ``output`` is removed, too.

    Raises
    ------
    CompileError
        If the folder cannot be written to.
    """
    prefix = f".{output.stem}.ferplus-tvm-"
    try:
        handle, name = tempfile.mkstemp(dir=output.parent, prefix=prefix, suffix=output.suffix)
    except OSError as error:
        raise CompileError(
            f"the folder {output.parent} cannot be written to ({error.strerror}): give another "
            "output"
        ) from error
    path = Path(name)
    held = hold(handle)
    try:
        remove_abandoned(output.parent, prefix, output.suffix)
        yield path
    except OSError as error:
        raise CompileError(
            f"{output} cannot be written ({error.strerror or error}): make room or give another "
            "output"
        ) from error
    finally:
        path.unlink(missing_ok=True)
        held()


def write(
    path: Path, images: Sequence[bytes], weights: bytearray, described: Sequence[Manifest]
) -> tuple[Manifest, ...]:
    """Write the library file through to the disk, with the permissions of any new program."""
    with path.open("wb") as file:
        complete = library_file.write(file, images, weights, described)
        file.flush()
        os.fsync(file.fileno())
    permit_as_new(path, 0o777)
    return complete


def find_runtime(options: CompileOptions) -> list[Path]:
    """Return the ``libtvm_runtime`` of the target, and for a GPU the library that it needs besides.

    Raises
    ------
    CompileError
        For the target of another machine, whose runtime library is not at hand.
    """
    own = runtime_library.installed()
    target = options.targets[0]  # all are of one architecture and system
    if own is not None and target.is_host:
        gpus = any(each.gpu is not None for each in options.targets)
        beside = own.parent / runtime_library.gpu_file_name(target.system)
        if gpus and not beside.is_file():
            raise CompileError(
                f"the {beside.name} that a GPU needs is not in {own.parent}: install the "
                "apache-tvm wheel for Linux or Windows, or compile without --with-runtime"
            )
        return [own, beside] if gpus else [own]
    name = runtime_library.file_name(target.system)
    raise CompileError(
        f"the {name} for {target.triple} is not on this machine: take it out of the "
        f"apache-tvm {importlib.metadata.version('apache-tvm')} wheel for that platform ('pip "
        "download --no-deps --only-binary :all: --platform ...', folder tvm/lib) and put it "
        "beside the library, and compile without --with-runtime"
    )


def copy_runtime(runtime: Path, folder: Path) -> Path:
    """Copy the runtime library into ``folder``, under a temporary name first."""
    with temporary(folder / runtime.name) as unfinished:
        shutil.copyfile(runtime, unfinished)
        unfinished.chmod(0o755)
        os.replace(unfinished, folder / runtime.name)
    return folder / runtime.name
