"""Check that a file is a whole library, before the dynamic loader sees it."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ferplus_tvm.artifact.layout import ALIGNMENT, FOOTER, FORMAT, ITEM_BYTES, MAGIC, PAGE, SIGNED
from ferplus_tvm.artifact.manifest import Manifest
from ferplus_tvm.errors import ArtifactDamagedError, ArtifactError, ArtifactFormatError
from ferplus_tvm.host import cpu

_MARK = b"__tvm_ffi_"  # how the names of all that TVM compiles begin


def check_footer(path: Path, view: memoryview) -> tuple[int, int, int]:
    """Return the lengths of images, weights and manifests, after the manifests' checksum.

    Raises
    ------
    ArtifactFormatError
        If it is not a library of ours, or one of another format.
    ArtifactDamagedError
        If it is truncated or altered.
    """
    magic, version = struct.unpack("<12sI", bytes(view[-16:])) if len(view) >= 16 else (b"", 0)
    if magic != MAGIC:
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
    if version != FORMAT or len(view) < FOOTER.size:
        raise damaged(path, "its footer is wrong")
    footer = bytes(view[-FOOTER.size :])
    image, weights, manifest, length, digest, signature, _, _ = FOOTER.unpack(footer)
    if hashlib.sha256(footer[:SIGNED]).digest() != signature:
        raise damaged(path, "its footer does not match its checksum")
    if length != len(view) or image + weights + manifest + FOOTER.size != length:
        raise damaged(path, f"it has {len(view)} bytes where {length} were written")
    if hashlib.sha256(view[image + weights :][:manifest]).digest() != digest:
        raise damaged(path, "its manifest does not match its checksum")
    return image, weights, manifest


def _without_footer(path: Path, view: memoryview) -> ArtifactError:
    """Say what a file without our footer is."""
    head = bytes(view[:256])
    end = _elf_end(view)
    kind = "no library"
    if end is not None:
        if len(view) < end:
            return damaged(path, f"it has {len(view)} bytes and its code alone needs {end}")
        if _MARK in bytes(view[:end]):
            if len(view) >= end + PAGE:
                return damaged(path, "its end is missing")
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


def check_tensors(path: Path, manifest: Manifest, length: int) -> None:
    """See that every weight lies within the ``length`` bytes of the weights.

    Raises
    ------
    ArtifactDamagedError
        If one does not.
    """
    if manifest.weights_bytes != length or manifest.chunk_bytes < 1:
        raise damaged(path, "its manifest and its footer disagree")
    for tensor in manifest.tensors:
        known = tensor.dtype in ITEM_BYTES
        fits = known and tensor.offset >= 0 and tensor.offset + tensor.nbytes <= length
        if tensor.offset % ALIGNMENT or not fits:
            raise damaged(path, f"its weight {tensor.name!r} lies outside of the file")


def check_weights(
    path: Path, manifest: Manifest, weights: memoryview, meanwhile: Callable[[], object]
) -> None:
    """Compare the chunks' digests on all CPUs allowed; hashing releases the interpreter lock.

    ``meanwhile`` is called while they are hashed.

    Raises
    ------
    ArtifactDamagedError
        If one is another.
    """
    starts = range(0, len(weights), manifest.chunk_bytes)
    if len(starts) != len(manifest.weights_sha256):
        raise damaged(path, "its weights have another length than their checksums")

    def check(start: int, digest: str) -> None:
        with weights[start : start + manifest.chunk_bytes] as chunk:
            compare(path, "weights", chunk, digest)

    with ThreadPoolExecutor(cpu.default_threads()) as pool:
        try:
            checked = pool.map(check, starts, manifest.weights_sha256)
        except RuntimeError:  # the main thread has ended, after which no pool takes work
            checked = map(check, starts, manifest.weights_sha256)
        meanwhile()
        list(checked)


def compare(path: Path, what: str, content: memoryview, digest: str) -> None:
    """Compare a part of the file with its sha256.

    Raises
    ------
    ArtifactDamagedError
        If it is another.
    """
    if hashlib.sha256(content).hexdigest() != digest:
        raise damaged(path, f"its {what} does not match the checksum")


def damaged(path: Path, what: str) -> ArtifactDamagedError:
    """Return the error of a file that is not as it was written."""
    return ArtifactDamagedError(
        f"{path} is truncated or altered ({what}): copy it again from where it was compiled, or "
        "compile it again"
    )
