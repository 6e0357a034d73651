"""Take the test data, and the model, out of the zoo's archive of a model.

Such a ``.tar.gz`` holds ``model.onnx`` and ``test_data_set_0/input_0.pb`` and ``output_0.pb``, with
or without a folder around them.  Nothing is unpacked under a name of the archive's: what is known
gets a name of ours, and the rest is passed over.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

from ferplus_tvm.zoo.models import ZooFile
from ferplus_tvm.zoo.registry import is_intact

_MOST_MEMBERS = 1000
_LARGEST_TENSOR = 1 << 24
_LARGEST_ARCHIVE = 1 << 28  # bytes after decompression: an archive of the zoo has 36 MB
_TENSOR = re.compile(r"(?:[^/]+/)*(test_data_set_\d{1,4})/((?:input|output)_\d{1,2}\.pb)")
_MODEL = re.compile(r"(?:[^/]+/)*[^/]+\.onnx")


class ArchiveError(Exception):
    """The archive is not one of the zoo's; the text says why."""


def unpack(archive: Path, folder: Path, model: ZooFile, model_path: Path) -> None:
    """Make the folder of a model's test data, and the model's file if the right one is in there.

    The folder appears when it is complete.  One caller at a time may be at work on it.

    Parameters
    ----------
    archive
        The ``.tar.gz``.
    folder
        The folder to make, whose parent exists; it may exist if it is empty.
    model
        What the model's file should be.
    model_path
        Where the model's file belongs.

    Raises
    ------
    ArchiveError
        If the archive is damaged, has no test data, or holds what no archive of the zoo does: a
        link, a device, a path that leads out of the folder, a name twice, or very much.
    OSError
        If it cannot be read, or the folder cannot be made.
    """
    unfinished = folder.with_name(folder.name + ".unpacking")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed
    try:
        unfinished.mkdir()
        with gzip.open(archive) as stream:
            _unpack(_Bounded(stream), unfinished, model)
        found = unfinished / model.file_name
        if is_intact(model, found):
            os.replace(found, model_path)
        found.unlink(missing_ok=True)
        if not any(unfinished.iterdir()):
            raise ArchiveError("holds no test data")
        if folder.exists():
            folder.rmdir()
        unfinished.rename(folder)
    # A damaged header is a ValueError in some fields.
    except (tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile, ValueError) as error:
        raise ArchiveError(f"is damaged ({error})") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _unpack(stream: _Bounded, folder: Path, model: ZooFile) -> None:
    """Write the tensors and the model that a tar stream holds into a folder."""
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        for count, member in enumerate(tar, 1):
            if count > _MOST_MEMBERS:
                raise ArchiveError(f"has more than {_MOST_MEMBERS} members")
            _check(member)
            tensor = _TENSOR.fullmatch(member.name)
            if tensor and member.size > _LARGEST_TENSOR:
                raise ArchiveError(f"holds {member.size} bytes in {tensor[2]} of {tensor[1]}")
            content = tar.extractfile(member)
            if content is None:
                continue
            if tensor:
                (folder / tensor[1]).mkdir(exist_ok=True)
                _write(content, folder / tensor[1] / tensor[2])
            elif _MODEL.fullmatch(member.name) and member.size == model.size:
                _write(content, folder / model.file_name)


def _check(member: tarfile.TarInfo) -> None:
    """Refuse what an archive of the zoo has no use for."""
    path = PurePosixPath(member.name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in member.name:
        raise ArchiveError(f"holds the path {member.name[:200]!r}, which leads out of its folder")
    if member.issparse() or not (member.isreg() or member.isdir()):
        raise ArchiveError(f"holds {member.name[:200]!r}, which is neither a file nor a folder")


def _write(content: IO[bytes], path: Path) -> None:
    try:
        with path.open("xb") as file:
            shutil.copyfileobj(content, file)
    except FileExistsError:
        raise ArchiveError(f"holds {path.name} of {path.parent.name} twice") from None


class _Bounded(io.RawIOBase):
    """A stream that ends with an error after a number of bytes, so that no bomb goes off."""

    def __init__(self, stream: BinaryIO | gzip.GzipFile) -> None:
        self._stream = stream
        self._left = _LARGEST_ARCHIVE

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, as few as are left."""
        data = self._stream.read(min(size, self._left + 1) if size >= 0 else self._left + 1)
        self._left -= len(data)
        if self._left < 0:
            raise ArchiveError(f"has more than {_LARGEST_ARCHIVE} bytes when it is unpacked")
        return data
