"""Temporary files that a killed compilation leaves beside its output are removed by the next one.

A temporary file is locked for as long as it is in use, and the system releases the lock however
the process ends.  So a file of such a name that nobody has locked is abandoned.  `FileLock` would
need a lock file beside each temporary file, which a kill would leave behind as well; so the lock is
on the temporary file itself.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

from filelock import lock_descriptor

_ABANDONED_SECONDS = 60  # a younger file may not have been locked yet


def hold(descriptor: int) -> Callable[[], None]:
    """Lock an open temporary file, and return a function that releases and closes it.

    Windows does not let another descriptor write to a locked file, and some file systems have no
    locks.  There the file is not locked, and no file is taken for abandoned.

    Parameters
    ----------
    descriptor
        An open file's, which belongs to this function from now on.
    """
    if sys.platform == "win32":
        os.close(descriptor)
        return lambda: None
    with contextlib.suppress(OSError):
        lock_descriptor(descriptor, blocking=False)
    return lambda: os.close(descriptor)


def remove_abandoned(folder: Path, prefix: str, suffix: str) -> None:
    """Remove the temporary files of processes that have ended without removing them.

    Parameters
    ----------
    folder
        Where they lie.
    prefix, suffix
        As they were given to `tempfile.mkstemp`.  Files with another name than it makes of them
        stay.
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
                if lock_descriptor(descriptor, blocking=False):
                    os.unlink(entry.path)
            finally:
                os.close(descriptor)
