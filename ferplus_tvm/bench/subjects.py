"""The subjects of a benchmark: our library on its device, and the peers with their files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ferplus_tvm.artifact.library_file import Artifact
from ferplus_tvm.artifact.manifest import Manifest
from ferplus_tvm.bench.engines import catalog
from ferplus_tvm.bench.engines.gpu import number_of
from ferplus_tvm.bench.engines.opened import OURS
from ferplus_tvm.bench.options import DEFAULT_BATCH_SIZES, BenchOptions
from ferplus_tvm.errors import BenchError
from ferplus_tvm.host import gpu
from ferplus_tvm.runtime import session_cuda


@dataclass(frozen=True)
class Subject:
    """An engine to measure.

    Attributes
    ----------
    name
        Its name in the report.
    kind
        A kind of `ferplus_tvm.bench.engines.catalog.kinds`.
    path
        Its file: a library of ours, or the ONNX model.
    manifest
        What a library says of itself; None for the model.
    """

    name: str
    kind: str
    path: Path
    manifest: Manifest | None = None

    def about(self) -> dict[str, Any]:
        """Return what a report says of a library."""
        assert self.manifest is not None
        tunable = self.manifest.tunable
        return {
            "name": self.path.name,
            "bytes": self.path.stat().st_size,
            "target": self.manifest.target,
            "precision": self.manifest.precision,
            "batch_sizes": list(self.manifest.batch_sizes),
            "kernels": len(self.manifest.kernels),
            "tunable": len(tunable),
            "tuned": len(tunable) - len(self.manifest.untuned),
            "tuning_logs": self.manifest.tuning_logs,
            "created_with": self.manifest.created_with,
            "tvm": self.manifest.tvm_version,
        }


def device_of(library: str | os.PathLike[str] | None, asked: str | None) -> str:
    """Return the device to measure on: the one asked for, or what the library is for.

    Raises
    ------
    ArtifactError
        If it is no library.
    ValueError
        If what is asked for is no device.
    """
    if asked is not None:
        session_cuda.device_of(asked)
        return asked
    if library is None:
        return "cpu"
    return "cuda:0" if _manifest(library, "cpu").gpu_arch else "cpu"


def open_library(path: str | os.PathLike[str], device: str) -> Subject:
    """Return our library, to be measured on a device.

    Raises
    ------
    ArtifactError
        If it is no library.
    GpuError
        If there is no such GPU.
    BenchError
        If it is for another kind of device.
    """
    manifest = _manifest(path, device)
    if bool(manifest.gpu_arch) != (device != "cpu"):
        raise BenchError(
            f"{path} is for {manifest.target}, but is to be measured on {device}: give another "
            "--device, or compile it for that one"
        )
    return Subject(OURS, OURS, Path(path), manifest)


def _manifest(path: str | os.PathLike[str], device: str) -> Manifest:
    card = None if device == "cpu" else gpu.device(number_of(device))
    # The weights are checked by every engine that opens it.
    artifact = Artifact(path, checksum="manifest", device=card)
    artifact.close()
    return artifact.manifest


def compile_library(
    model: str | os.PathLike[str], device: str, options: BenchOptions, output: Path
) -> None:
    """Compile the model for a device, in a process of its own as ``ferplus-tvm compile`` does.

    Raises
    ------
    ModelError, DownloadError, CompileError
        If there is no such model, or it cannot be compiled.
    """
    from ferplus_tvm.compiler.compile import compile as compile_model

    sizes = sorted({*(options.batch_sizes or DEFAULT_BATCH_SIZES), *needed_sizes(options)})
    target = "native" if device == "cpu" else "cuda"
    compile_model(
        model, target, output, tuple(sizes), model_output=options.model_output, isolated=True
    )


def needed_sizes(options: BenchOptions) -> set[int]:
    """Return the batch sizes that are measured beside those asked for."""
    return {1} if options.end_to_end or options.cold_start or options.mlperf else set()


def write_model(model: str | os.PathLike[str], library: Subject, output: Path) -> None:
    """Write the model for the peers as it was imported: for raw pixels, with any batch size.

    Raises
    ------
    BenchError
        If it is not the library's.
    """
    from ferplus_tvm.importer import load_model
    from ferplus_tvm.zoo import resolve

    manifest = library.manifest
    assert manifest is not None
    imported = load_model(
        resolve(model),
        output=manifest.options.get("model_output"),
        scaling=manifest.scaling,
        channels=manifest.face_shape[0],
    )
    if manifest.model_sha256 != imported.sha256:
        raise BenchError(
            f"{library.path.name} holds the model {manifest.model_name}, but its peers "
            f"would run {imported.name}: give the library's own with --model"
        )
    output.write_bytes(imported.proto.SerializeToString())


def peers_of(library: Subject, named: Sequence[str], model: Path, device: str) -> list[Subject]:
    """Return the peers that `catalog.expect_peers` has passed, each under a name of its own.

    Raises
    ------
    ArtifactError
        If a path is that of no library.
    """
    kinds = catalog.kinds(device)
    found: dict[str, Subject] = {}
    for peer in dict.fromkeys(named):
        if peer in catalog.peers(device):
            file = library.path if kinds[peer].over_library else model
            manifest = library.manifest if kinds[peer].over_library else None
            found[peer] = Subject(kinds[peer].label, peer, file, manifest)
            continue
        path = Path(peer).resolve()
        if path not in {each.path for each in found.values() if each.kind == OURS}:
            name, number = path.name, 1
            while name == OURS or name in {each.name for each in found.values()}:
                number += 1
                name = f"{path.name} ({number})"
            found[peer] = Subject(name, OURS, path, _manifest(path, device))
    return list(found.values())
