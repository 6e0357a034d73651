"""What an engine takes on the disk: its packages with all that they need."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable
from pathlib import Path

from ferplus_tvm.bench.engines.opened import OURS
from ferplus_tvm.host import runtime_library
from ferplus_tvm.records.find import shipped

_SHARED = {"numpy", "pillow"}  # installed whatever the engine is


def installed_bytes(kind: str) -> int | None:
    """Return the bytes of an engine's packages on the disk, or None if one lists no files."""
    if kind != OURS:
        return _total(_size(package) for package in _with_dependencies(kind.split("-")[0]))
    folders = [Path(__file__).parents[2]]
    if folders[0] not in shipped().parents:  # in a checkout the logs lie beside the package
        folders.append(shipped())
    own = sum(f.stat().st_size for at in folders for f in at.rglob("*") if f.is_file())
    runtime = runtime_library.installed()
    return _total(
        [
            own,
            runtime.stat().st_size if runtime else 0,
            *(_size(package) for package in _with_dependencies("apache-tvm-ffi")),
        ]
    )


def _total(sizes: Iterable[int | None]) -> int | None:
    listed = list(sizes)
    return None if None in listed else sum(size or 0 for size in listed)


def _with_dependencies(package: str) -> set[str]:
    from packaging.requirements import Requirement

    found: set[str] = set()
    wanted = [package]
    while wanted:
        name = wanted.pop().lower().replace("_", "-")
        if name in found or name in _SHARED:
            continue
        try:
            needed = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        found.add(name)
        for text in needed:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                wanted.append(requirement.name)
    return found


def _size(package: str) -> int | None:
    files = importlib.metadata.files(package)
    if files is None:
        return None
    located = (Path(str(file.locate())) for file in files)
    return sum(path.stat().st_size for path in located if path.is_file())
