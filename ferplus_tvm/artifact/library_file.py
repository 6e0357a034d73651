r"""The file format of a compiled library, version 3: writing, reading, checking.

A library is one file, for one target or for several::

    native image     what the dynamic loader maps (ELF); it ignores all that follows
    padding          zeros up to a multiple of 4096 bytes
    ...              images of further targets, each with its padding
    weights          float arrays as the kernels want them, each at a multiple of 64 bytes; an array
                     that several targets want is there once
    manifests        UTF-8 JSON, a list of `Manifest`, one for each image
    footer           112 bytes, little endian:
                       0  u64  length of the native images and their padding
                       8  u64  length of the weights
                      16  u64  length of the manifests
                      24  u64  length of the file
                      32  32s  sha256 of the manifests
                      64  32s  sha256 of the footer's first 64 bytes
                      96  12s  magic "FERPLUS-TVM\\n"
                     108  u32  format version

The last 16 bytes, magic and version, keep their place and meaning in every future version.  A
reader MUST refuse a file whose magic, version, lengths or checksums are off before it hands the
file to the dynamic loader, and MAY leave the weights' checksums out where the caller says that
they have been verified before.  The checksums find accidents; whoever can write the file can also
write its checksums.  Versions 1 and 2, which no release has written, are refused.

The image of the target that fits this CPU, or the GPU asked for, best is used.  The first one is
mapped from the file itself; another is copied to a temporary file, from which the dynamic loader
maps it.

A file is mapped while an engine uses it: replace it by renaming another over it, as `write` does,
never by writing into it.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from ferplus_tvm.artifact import manifest as manifests
from ferplus_tvm.artifact.manifest import ITEM_BYTES, ChecksumLevel, Manifest
from ferplus_tvm.errors import (
    ArtifactDamagedError,
    ArtifactError,
    ArtifactFormatError,
    CpuFeatureError,
    GpuError,
)
from ferplus_tvm.host import cpu, gpu

FORMAT = 3
PAGE = 4096
ALIGNMENT = 64
CHUNK = 1 << 22
_FOOTER = struct.Struct("<4Q32s32s12sI")
_SIGNED = 64
_MAGIC = b"FERPLUS-TVM\n"
_MARK = b"__tvm_ffi_"  # how the names of all that TVM compiles begin


class Artifact:
    """A library file, mapped and checked.

    manifests
        what it says of itself, for each target that it holds.
    manifest
        that of the target to use here: the one asked for, or the best for this CPU.
    file
        its device and number, which a file of the same name that takes its place has not.
    weights
        a writable, private (copy on write) view of the weights in the mapped file; processes
        share its pages as long as nobody writes.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        checksum: ChecksumLevel = "full",
        meanwhile: Callable[[], object] = lambda: None,
        target: str | None = None,
        device: gpu.Device | None = None,
    ) -> None:
        """Map the file and check it; ``meanwhile`` is called while the weights are hashed.

        The part for ``target`` is chosen, or the best for ``device``, by default for this CPU.

        Raises
        ------
        ArtifactError
            `ArtifactFormatError` or `ArtifactDamagedError` for a file that is not a whole library
            of ours, `ArtifactError` itself for one that cannot be read at all or has no such
            target.
        """
        if checksum not in ("full", "manifest"):
            raise ValueError(f"checksum is {checksum!r}: expected 'full' or 'manifest'")
        self.path = Path(os.path.abspath(path))
        self._map, self.file = _map(self.path)
        self._view = memoryview(self._map)
        try:
            images, weights, text = _check_footer(self.path, self._view)
            self.manifests = manifests.from_json(bytes(self._view[images + weights :][:text]))
            end = 0
            for each in self.manifests:
                if each.image_offset != end or each.image_bytes < 1:
                    raise _damaged(self.path, "its images and its manifests disagree")
                end += each.image_bytes
                _compare(self.path, "code", self._view[each.image_offset : end], each.image_sha256)
                _check_tensors(self.path, each, weights)
            if end != images:
                raise _damaged(self.path, "its images and its manifests disagree")
            self.weights = self._view[images : images + weights]
            self.manifest = self._choose(target, device)
            if checksum == "full":
                _check_weights(self.path, self.manifest, self.weights, meanwhile)
        except BaseException:
            self.close()
            raise

    def image(self) -> bytes:
        """Return the native image of the target that is used."""
        start = self.manifest.image_offset
        return bytes(self._view[start : start + self.manifest.image_bytes])

    def pin(self) -> mmap.mmap:
        """Return a map of the file's first page, which keeps its number from being reused."""
        with self.path.open("rb") as file:
            return mmap.mmap(file.fileno(), PAGE, access=mmap.ACCESS_READ)

    def _choose(self, target: str | None, device: gpu.Device | None) -> Manifest:
        if target is not None:
            found = next((each for each in self.manifests if each.target == target), None)
            if found is None:
                names = ", ".join(each.target for each in self.manifests)
                raise ArtifactError(
                    f"{self.path} holds nothing for the target {target!r}: expected one of {names}"
                )
            return found
        if device is None and all(each.gpu_arch for each in self.manifests):
            with suppress(GpuError):  # whoever wants to run it is told then
                device = gpu.devices()[0]
        of_kind = [each for each in self.manifests if bool(each.gpu_arch) == (device is not None)]
        able = [each for each in of_kind if _is_here(each) and not _missing(each)]
        if device is not None:
            able = [each for each in able if device.runs(each.gpu_arch)]
        if able:
            return max(able, key=_rank)
        return min(of_kind or self.manifests, key=lambda each: len(_missing(each)))

    def close(self) -> None:
        """Let go of the map; arrays over it must be gone."""
        with suppress(BufferError):  # somebody still holds an array: the last one frees the map
            if hasattr(self, "weights"):
                self.weights.release()
            self._view.release()
            self._map.close()


def read_manifest(path: str | os.PathLike[str], target: str | None = None) -> Manifest:
    """Return the manifest of the target that would be used here, or of the one given.

    Raises
    ------
    ArtifactError
        As for `Artifact`.
    """
    artifact = Artifact(path, checksum="manifest", target=target)
    artifact.close()
    return artifact.manifest


def write(
    file: BinaryIO,
    images: Sequence[bytes],
    weights: bytes | bytearray,
    described: Sequence[Manifest],
) -> tuple[Manifest, ...]:
    """Write a library; return the manifests, with their checksums, offsets and lengths."""
    padded = [image + b"\0" * (-len(image) % PAGE) for image in images]
    chunks = [weights[at : at + CHUNK] for at in range(0, len(weights), CHUNK)]
    digests = tuple(hashlib.sha256(chunk).hexdigest() for chunk in chunks)
    complete = []
    end = 0
    for image, manifest in zip(padded, described, strict=True):
        complete.append(
            replace(
                manifest,
                image_offset=end,
                image_bytes=len(image),
                image_sha256=hashlib.sha256(image).hexdigest(),
                weights_bytes=len(weights),
                chunk_bytes=CHUNK,
                weights_sha256=digests,
            )
        )
        end += len(image)
    text = manifests.to_json(complete)
    length = end + len(weights) + len(text) + _FOOTER.size
    lengths = struct.pack("<4Q", end, len(weights), len(text), length)
    signed = lengths + hashlib.sha256(text).digest()
    for part in (*padded, weights, text, signed, hashlib.sha256(signed).digest(), _MAGIC):
        file.write(part)
    file.write(struct.pack("<I", FORMAT))
    return tuple(complete)


def _map(path: Path) -> tuple[mmap.mmap, tuple[int, int]]:
    """Return a map of a file, and the device and number that tell it from any other."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_size == 0:
                raise ArtifactFormatError(
                    f"{path} is empty: expected a compiled library; compile it again"
                )
            # Copy on write, since an array over read-only memory cannot be handed to TVM.
            opened = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            return opened, (status.st_dev, status.st_ino)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ArtifactError(
            f"{path} cannot be read ({reason}): expected a library made by 'ferplus-tvm compile'"
        ) from error


def _check_footer(path: Path, view: memoryview) -> tuple[int, int, int]:
    """Return the lengths of images, weights and manifests, the last verified."""
    magic, version = struct.unpack("<12sI", bytes(view[-16:])) if len(view) >= 16 else (b"", 0)
    if magic != _MAGIC:
        raise _without_footer(path, view)
    if version > FORMAT:
        raise ArtifactFormatError(
            f"{path} has format {version}, but this version of ferplus_tvm reads formats up to "
            f"{FORMAT}: upgrade ferplus_tvm"
        )
    if 0 < version < FORMAT:
        raise ArtifactFormatError(
            f"{path} has format {version} of a version before the first release: compile it again"
        )
    if version != FORMAT or len(view) < _FOOTER.size:
        raise _damaged(path, "its footer is wrong")
    footer = bytes(view[-_FOOTER.size :])
    image, weights, manifest, length, digest, signature, _, _ = _FOOTER.unpack(footer)
    if hashlib.sha256(footer[:_SIGNED]).digest() != signature:
        raise _damaged(path, "its footer does not match its checksum")
    if length != len(view) or image + weights + manifest + _FOOTER.size != length:
        raise _damaged(path, f"it has {len(view)} bytes where {length} were written")
    if hashlib.sha256(view[image + weights :][:manifest]).digest() != digest:
        raise _damaged(path, "its manifest does not match its checksum")
    return image, weights, manifest


def _without_footer(path: Path, view: memoryview) -> ArtifactError:
    """Say what a file without our footer is."""
    head = bytes(view[:256])
    end = _elf_end(view)
    kind = "no library"
    if end is not None:
        if len(view) < end:
            return _damaged(path, f"it has {len(view)} bytes and its code alone needs {end}")
        if _MARK in bytes(view[:end]):
            if len(view) >= end + PAGE:
                return _damaged(path, "its end is missing")
            return ArtifactFormatError(
                f"{path} was stripped of what follows its code (the tool 'strip' does that): use "
                "the file as 'ferplus-tvm compile' wrote it"
            )
        kind = "some other shared library"
    lower = head.lower().lstrip()
    if lower.startswith((b"<!doctype", b"<html", b"<?xml")):
        kind = "a web page"
    elif head.startswith(b"version https://git-lfs"):
        kind = "a Git LFS pointer"
    elif path.suffix == ".onnx":
        kind = "a model, which has to be compiled first"
    return ArtifactFormatError(
        f"{path} is {kind}: expected a library made by 'ferplus-tvm compile'"
    )


def _elf_end(view: memoryview) -> int | None:
    """Return where a 64-bit ELF image ends (its section headers come last), or None."""
    if len(view) < 64 or bytes(view[:5]) != b"\x7fELF\x02":
        return None
    order = "<" if view[5] == 1 else ">"
    (table,) = struct.unpack_from(f"{order}Q", view, 0x28)
    size, count = struct.unpack_from(f"{order}HH", view, 0x3A)
    return int(table + size * count)


def _check_tensors(path: Path, manifest: Manifest, length: int) -> None:
    if manifest.weights_bytes != length or manifest.chunk_bytes < 1:
        raise _damaged(path, "its manifest and its footer disagree")
    for tensor in manifest.tensors:
        known = tensor.dtype in ITEM_BYTES
        fits = known and tensor.offset >= 0 and tensor.offset + tensor.nbytes <= length
        if tensor.offset % ALIGNMENT or not fits:
            raise _damaged(path, f"its weight {tensor.name!r} lies outside of the file")


def _check_weights(
    path: Path, manifest: Manifest, weights: memoryview, meanwhile: Callable[[], object]
) -> None:
    """Compare the chunks' digests on all CPUs allowed; hashing releases the interpreter lock."""
    starts = range(0, len(weights), manifest.chunk_bytes)
    if len(starts) != len(manifest.weights_sha256):
        raise _damaged(path, "its weights have another length than their checksums")

    def check(start: int, digest: str) -> None:
        with weights[start : start + manifest.chunk_bytes] as chunk:
            _compare(path, "weights", chunk, digest)

    with ThreadPoolExecutor(cpu.default_threads()) as pool:
        checked = pool.map(check, starts, manifest.weights_sha256)
        meanwhile()
        list(checked)


def _compare(path: Path, what: str, content: memoryview, digest: str) -> None:
    if hashlib.sha256(content).hexdigest() != digest:
        raise _damaged(path, f"its {what} does not match the checksum")


def _damaged(path: Path, what: str) -> ArtifactDamagedError:
    return ArtifactDamagedError(
        f"{path} is truncated or altered ({what}): copy it again from where it was compiled, or "
        "compile it again"
    )


def refusal(
    manifest: Manifest, device: gpu.Device | None = None
) -> CpuFeatureError | GpuError | None:
    """Return the error that says why this machine cannot run a library, or None if it can.

    Of one for a GPU, that is ``device``, by default any that this machine has.
    """
    reason = _reason_of_cpu(manifest)
    if reason:
        return CpuFeatureError(reason)
    if not manifest.gpu_arch:
        return None
    try:
        devices = gpu.devices() if device is None else (device,)
    except GpuError as error:
        return GpuError(f"it is compiled for a GPU ({manifest.target}), but {error}")
    if any(each.runs(manifest.gpu_arch) for each in devices):
        return None
    found = ", ".join(f"{each.name} is {each.arch}" for each in devices)
    return GpuError(
        f"its kernels are machine code for {manifest.gpu_arch}, and the GPU here is another "
        f"({found}): compile it with --target cuda on the machine with the GPU"
    )


def _reason_of_cpu(manifest: Manifest) -> str | None:
    if not _is_here(manifest):
        return (
            f"it is compiled for {manifest.arch} {manifest.system}, and this machine is "
            f"{cpu.architecture()} {cpu.system()}: compile it for this machine"
        )
    missing = _missing(manifest)
    if missing:
        return (
            f"it needs {', '.join(missing)}, which this CPU ({cpu.name()}) does not have: compile "
            "it for this machine, or for a lesser target such as x86-64-v2"
        )
    return None


def _is_here(manifest: Manifest) -> bool:
    return (manifest.arch, manifest.system) == (cpu.architecture(), cpu.system())


def _missing(manifest: Manifest) -> list[str]:
    return sorted(set(manifest.cpu_features) - cpu.features())


def _rank(manifest: Manifest) -> tuple[int, bool, bool, int]:
    """Order targets that a CPU runs: by the width of their vectors, then by all that they use.

    Those that a GPU runs: by the architecture.
    """
    features = manifest.cpu_features
    arch = int(manifest.gpu_arch.removeprefix("sm_") or 0)
    return arch, "avx512f" in features, "avx2" in features, len(features)
