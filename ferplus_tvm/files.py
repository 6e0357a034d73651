"""Permissions of files that are made under a temporary name, which only their owner may read."""

from __future__ import annotations

import functools
import os
from pathlib import Path


def permit_as_new(path: Path, mode: int) -> None:
    """Give a file the permissions that any new one of ``mode`` would have had."""
    path.chmod(mode & ~_mask())


@functools.cache
def _mask() -> int:
    # Python tells it only by setting it, which another thread's new file could see: once is enough.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
