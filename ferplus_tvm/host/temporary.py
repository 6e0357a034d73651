"""Temporary folders that do not outlive their use, even where a kill ends the process.

A folder is locked for as long as a process uses it, and the system gives the lock back however the
process ends.  So a folder that nobody has locked is abandoned, and whoever makes the next one
removes it.  Where a folder cannot be locked, on Windows and on some network file systems, nothing
is taken for abandoned.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.platform != "win32":
    import fcntl

_PREFIX = "ferplus-tvm."  # of folders that are locked, and of no others
_NAME = re.compile(re.escape(_PREFIX) + "[a-z0-9_]{8}")  # as `tempfile.mkdtemp` names a folder


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Make a folder in the directory that ``TMPDIR`` names, and remove it at the end of the block.

    Folders that killed processes of this user have left there are removed first.

    Raises
    ------
    OSError
        If no folder can be made.
    """
    remove_abandoned()
    path, lock = _make()
    try:
        yield Path(path)
    finally:
        # What stays, as a library in use does on Windows, must not hide the block's own error.
        shutil.rmtree(path, ignore_errors=True)
        if lock is not None:
            os.close(lock)


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
