r"""The file format of a compiled library, version 4: writing, reading, checking.

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
write its checksums.  Versions 1 to 3, which no release has written, are refused.

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
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from ferplus_tvm.artifact.checks import (
    check_footer,
    check_tensors,
    check_weights,
    compare,
    damaged,
)
from ferplus_tvm.artifact.fit import best
from ferplus_tvm.artifact.layout import CHUNK, FOOTER, FORMAT, MAGIC, PAGE
from ferplus_tvm.artifact.manifest import ChecksumLevel, Manifest
from ferplus_tvm.artifact.manifest_json import from_json, to_json
from ferplus_tvm.errors import ArtifactError, ArtifactFormatError
from ferplus_tvm.host import gpu


class Artifact:
    """A library file, mapped and checked.

    Attributes
    ----------
    path
        Its absolute path.
    manifests
        What it says of itself, for each target that it holds.
    manifest
        The manifest of the target to use here: the one asked for, or the best for this CPU.
    file
        Its device and number, which tell it from another file that takes its name.
    weights
        A writable, private (copy on write) view of the weights in the mapped file; processes
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
        """Map the file and check it.

        Parameters
        ----------
        path
            The file.
        checksum
            ``"full"`` checks every byte, ``"manifest"`` everything but the weights.
        meanwhile
            Called while the weights are hashed.
        target
            The target whose part is used, by default the best for the device.
        device
            The GPU to run on, or None for this CPU.

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
            images, weights, text = check_footer(self.path, self._view)
            self.manifests = from_json(bytes(self._view[images + weights :][:text]))
            end = 0
            for each in self.manifests:
                if each.image_offset != end or each.image_bytes < 1:
                    raise damaged(self.path, "its images and its manifests disagree")
                end += each.image_bytes
                compare(self.path, "code", self._view[each.image_offset : end], each.image_sha256)
                check_tensors(self.path, each, weights)
            if end != images:
                raise damaged(self.path, "its images and its manifests disagree")
            self.weights = self._view[images : images + weights]
            self.manifest = self._choose(target, device)
            if checksum == "full":
                check_weights(self.path, self.manifest, self.weights, meanwhile)
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
        return best(self.manifests, device)

    def close(self) -> None:
        """Let go of the map; arrays over it must be gone."""
        with suppress(BufferError):  # somebody still holds an array: the last one frees the map
            if hasattr(self, "weights"):
                self.weights.release()
            self._view.release()
            self._map.close()


def read_manifest(path: str | os.PathLike[str], target: str | None = None) -> Manifest:
    """Return the manifest of the target that would be used here, or of the one given.

    The file is checked, weights apart, and its code is not run.

    Parameters
    ----------
    path
        A compiled library.
    target
        One of its targets.

    Raises
    ------
    ArtifactFormatError
        If it is not a library of ours.
    ArtifactDamagedError
        If it is truncated or altered.
    ArtifactError
        If it cannot be read, or holds nothing for the target.
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
    """Write a library.

    Parameters
    ----------
    file
        A binary file to write to.
    images
        The native images, one for each target.
    weights
        The weights of all targets.
    described
        The manifest of each target, without checksums, offsets and lengths.

    Returns
    -------
    tuple of Manifest
        The manifests as they were written.
    """
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
    text = to_json(complete)
    length = end + len(weights) + len(text) + FOOTER.size
    lengths = struct.pack("<4Q", end, len(weights), len(text), length)
    signed = lengths + hashlib.sha256(text).digest()
    for part in (*padded, weights, text, signed, hashlib.sha256(signed).digest(), MAGIC):
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
