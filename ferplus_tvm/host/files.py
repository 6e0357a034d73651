"""Files that are replaced atomically, and the permissions of new files."""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path


def replace(path: Path, content: bytes) -> None:
    """Replace a file atomically.

    The content is written under a temporary name, flushed to the disk, and renamed.

    Parameters
    ----------
    path
        The file to replace or to create, in a folder that exists.
    content
        The whole new content.

    Raises
    ------
    OSError
        If it cannot be written.  The old file is unchanged then.
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
    """Give a temporary file the permissions that a new file would have.

    Parameters
    ----------
    path
        A file that `tempfile` has created for this user alone.
    mode
        The permissions that would be asked for, from which the umask is taken.
    """
    path.chmod(mode & ~_mask())


@functools.cache
def _mask() -> int:
    # The umask can be read only by setting it.  A file that another thread creates meanwhile gets
    # other permissions, so it is read once.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
