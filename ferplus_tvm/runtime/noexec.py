"""File systems that are mounted noexec, from which the dynamic loader cannot map code."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ferplus_tvm.artifact.manifest import Manifest


def noexec_problem(path: Path, manifest: Manifest, runtime: Path) -> str | None:
    """Return why no code can be run from where a library lies, or None.

    Parameters
    ----------
    path
        The library.
    manifest
        That of the target that is used.
    runtime
        The runtime library that it is run with.
    """
    places = [(runtime, str(runtime), "put it and the library into another folder")]
    if manifest.image_offset == 0:
        places.append((path, str(path), "put it into another folder"))
    elif (folder := _temporary()) is not None:
        copied = f"{folder}, to which the code for {manifest.target} in {path} is copied,"
        places.append((folder, copied, "let the environment variable TMPDIR name another folder"))
    for place, what, step in places:
        mount = noexec_mount(place)
        if mount is not None:
            return (
                f"{what} lies on a file system that is mounted noexec ({mount}), from which no "
                f"code can be run: {step}, or mount that with exec"
            )
    return None


def noexec_mount(path: Path) -> Path | None:
    """Return where the file system of a file is mounted, if that is noexec; Linux alone tells."""
    if sys.platform != "linux" or not path.exists():
        return None
    if not os.statvfs(path).f_flag & os.ST_NOEXEC:
        return None
    real = Path(os.path.realpath(path))
    return next(each for each in (real, *real.parents) if each.is_mount())


def _temporary() -> Path | None:
    import tempfile  # slow to import, and hardly ever needed

    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        return None
