"""Files that take the place of older ones as a whole."""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path


def replace(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, see it on the disk, and give it its name.

    Raises
    ------
    OSError
        If it cannot be written; what was there before is whole.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        permit_as_new(Path(name), 0o666)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def permit_as_new(path: Path, mode: int) -> None:
    """Give a file of a temporary name the permissions that a new one of ``mode`` would have."""
    path.chmod(mode & ~_mask())


@functools.cache
def _mask() -> int:
    # Python tells it only by setting it, which another thread's new file could see: once is enough.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
