"""Temporary folders that do not outlive their use, even where a kill ends the process.

A folder is locked for as long as a process uses it, and the system gives the lock back however the
process ends.  So a folder that nobody has locked is abandoned, and whoever makes the next one
removes it.  Where a folder cannot be locked, on Windows and on some network file systems, nothing
is taken for abandoned.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ferplus_tvm.errors import TemporaryFolderError

if sys.platform != "win32":
    import fcntl

ROOM = 8 << 20
"""The bytes that have to be free for a linker's files; LLVM ends the process where they are not."""

_PREFIX = "ferplus-tvm."  # of folders that are locked, and of no others
_STEP = "make room in it, or let the environment variable TMPDIR name another one"
_NAME = re.compile(re.escape(_PREFIX) + "[a-z0-9_]{8}")  # as `tempfile.mkdtemp` names a folder


@contextmanager
def temporary_folder(room: int = ROOM) -> Iterator[Path]:
    """Make a folder in the directory that ``TMPDIR`` names, and remove it at the end of the block.

    Folders that killed processes of this user have left there are removed first.

    Parameters
    ----------
    room
        The bytes that have to be free for what the block writes.

    Raises
    ------
    TemporaryFolderError
        If no folder can be made, or it is too small, or full at the end of the block.
    """
    remove_abandoned()
    with _naming_the_folder():
        path, lock = _make()
    try:
        free = shutil.disk_usage(path).free
        if free < room:
            raise TemporaryFolderError(
                f"the folder for temporary files, {tempfile.gettempdir()}, has room for "
                f"{free / 1e6:.1f} MB, and {room / 1e6:.1f} MB are needed: {_STEP}"
            )
        yield Path(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT) and _is_full(path):
            raise TemporaryFolderError(
                f"the folder for temporary files, {tempfile.gettempdir()}, is full "
                f"({error.strerror}): {_STEP}"
            ) from error
        raise
    finally:
        # What stays, as a library in use does on Windows, must not hide the block's own error.
        shutil.rmtree(path, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def temporary_file() -> IO[bytes]:
    """Open a file without a name in the directory that ``TMPDIR`` names.

    Raises
    ------
    TemporaryFolderError
        If there can be none.
    """
    with _naming_the_folder():
        return tempfile.TemporaryFile()


def remove_abandoned() -> None:
    """Remove the folders that killed processes of this user have left."""
    if sys.platform == "win32":
        return
    with contextlib.suppress(OSError), os.scandir(tempfile.gettempdir()) as entries:
        for entry in entries:
            if not _NAME.fullmatch(entry.name):
                continue
            with contextlib.suppress(OSError):  # it is in use, no folder, or gone by now
                if entry.stat(follow_symlinks=False).st_uid == os.getuid():
                    lock = _lock(entry.path)
                    shutil.rmtree(entry.path, ignore_errors=True)
                    os.close(lock)


@contextmanager
def _naming_the_folder() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        try:
            folder = tempfile.gettempdir()
        except FileNotFoundError:  # whose message lists where it has looked
            raise TemporaryFolderError(
                f"there is no folder for temporary files ({reason}): let the environment variable "
                "TMPDIR name one that can be written to"
            ) from error
        raise TemporaryFolderError(
            f"the folder for temporary files, {folder}, cannot be written to ({reason}): {_STEP}"
        ) from error


def _is_full(path: str) -> bool:
    """Tell whether nothing more can be written into a folder, for want of blocks or of inodes."""
    try:
        Path(path, "more").write_bytes(bytes(4096))
    except OSError:
        return True
    return False


def _make() -> tuple[str, int | None]:
    """Make a folder and lock it; return it with the descriptor that holds the lock, if any does."""
    while True:
        path = tempfile.mkdtemp(prefix=_PREFIX)
        if sys.platform == "win32":
            return path, None
        try:
            lock = _lock(path)
        except (FileNotFoundError, BlockingIOError):
            continue  # before it was locked, another process took it for abandoned
        except OSError:
            return path, None
        if os.path.isdir(path):
            return path, lock
        os.close(lock)


def _lock(path: str) -> int:
    """Lock a folder, unless another descriptor has; return the descriptor that holds the lock."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
