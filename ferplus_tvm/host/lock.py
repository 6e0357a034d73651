"""One process at a time: an advisory lock that dies with its owner.

The lock belongs to an open file, so the system gives it back however the process ends, kill
included. The file itself stays, empty: removing it while another process waits on it would let
two of them in.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_POLL_SECONDS = 0.2

if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


@contextmanager
def exclusive(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock on ``path``, which is created where needed, for the length of a block.

    Parameters
    ----------
    path : Path
        The lock file, in a folder that exists.
    waiting : callable
        Called about five times a second for as long as another process or thread has the lock.

    Raises
    ------
    OSError
        The file cannot be created, or its file system has no locks.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        while not _try_lock(descriptor):
            waiting()
            time.sleep(_POLL_SECONDS)
        try:
            yield
        finally:
            _unlock(descriptor)
    finally:
        os.close(descriptor)


_ABANDONED_SECONDS = 60  # within which a file may have been made and not been locked yet


def hold(descriptor: int) -> Callable[[], None]:
    """Lock an open temporary file as one in use; return what closes it and so gives it back.

    Where a locked file cannot be written under another descriptor, on Windows, or the file system
    has no locks, it is not locked, and nothing is taken for abandoned there.
    """
    if sys.platform == "win32":
        os.close(descriptor)
        return lambda: None
    with contextlib.suppress(OSError):
        _try_lock(descriptor)
    return lambda: os.close(descriptor)


def remove_abandoned(folder: Path, prefix: str, suffix: str) -> None:
    """Remove temporary files whose process has ended without removing them.

    Only those that `tempfile.mkstemp` has named: nothing else may begin with ``prefix``.
    """
    if sys.platform == "win32":
        return
    name = re.compile(f"{re.escape(prefix)}[a-z0-9_]{{8}}{re.escape(suffix)}")
    for entry in os.scandir(folder):
        with contextlib.suppress(OSError):  # it is another user's, or gone by now
            old = time.time() - entry.stat(follow_symlinks=False).st_mtime > _ABANDONED_SECONDS
            if not (name.fullmatch(entry.name) and old and entry.is_file(follow_symlinks=False)):
                continue
            descriptor = os.open(entry.path, os.O_RDWR)
            try:
                if _try_lock(descriptor):
                    os.unlink(entry.path)
            finally:
                os.close(descriptor)
