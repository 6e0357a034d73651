"""A library for every named target, as far as a linker for it is at hand."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest

import ferplus_tvm as fer
from ferplus_tvm import targets
from ferplus_tvm.toolchain.link import find_linker, missing_linker
from tests.artifacts import read_manifests

_ELF_MACHINES = {"x86_64": 62, "aarch64": 183, "riscv64": 243}
_SHARED, _RELOCATABLE = 3, 1
_MACH_O_ARM64 = struct.pack("<II", 0xFEEDFACF, 0x0100000C)


@pytest.mark.long
@pytest.mark.parametrize("name", targets.NAMED)
def test_every_named_target_has_a_library(name: str, narrow_model: Path, tmp_path: Path) -> None:
    resolved = targets.resolve(name)
    if find_linker(resolved.triple) is None:
        pytest.skip(f"needs {missing_linker(resolved.triple)}")
    result = fer.compile(narrow_model, name, tmp_path / "m.so", [1])
    head = result.path.read_bytes()[:64]
    if resolved.system == "darwin":
        assert head.startswith(_MACH_O_ARM64)
    else:
        assert head.startswith(b"\x7fELF\x02\x01")
        kind, machine = struct.unpack_from("<HH", head, 16)
        assert kind == (_SHARED if resolved.loadable else _RELOCATABLE)
        assert machine == _ELF_MACHINES[resolved.arch]
    (manifest,) = read_manifests(result.path)
    assert manifest.target == name and set(manifest.cpu_features) == resolved.features
    assert result.verified == resolved.runs_here


@pytest.mark.long
def test_a_linker_takes_an_object_and_leaves_what_is_behind_it(
    narrow_model: Path, tmp_path: Path
) -> None:
    resolved = targets.resolve("riscv64")
    linker = find_linker(resolved.triple)
    if linker is None:
        pytest.skip(f"needs {missing_linker(resolved.triple)}")
    compiled = fer.compile(narrow_model, "riscv64", tmp_path / "m.o", [1]).path
    output = tmp_path / "m.so"
    command = [*linker, "-shared", "-nostdlib", "-o", str(output), str(compiled)]
    subprocess.run(command, check=True, timeout=60)
    assert struct.unpack_from("<HH", output.read_bytes(), 16) == (_SHARED, _ELF_MACHINES["riscv64"])
    assert output.stat().st_size < compiled.stat().st_size


def test_detecting_names_this_cpu_and_what_it_runs() -> None:
    native, able = targets.detect()
    assert native.runs_here and all(targets.resolve(name).runs_here for name in able)
    unable = set(targets.NAMED) - set(able)
    assert not any(targets.resolve(name).runs_here for name in unable)
    if native.name in targets.NAMED:
        assert able[0] == native.name
    sizes = [len(targets.resolve(name).features) for name in able[1:]]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize(
    ("triple", "needed"),
    [
        ("riscv64-unknown-linux-gnu", "g++-riscv64-linux-gnu"),
        ("arm64-apple-macosx11.0.0", "pip install ziglang"),
    ],
)
def test_what_linking_needs_is_named(triple: str, needed: str) -> None:
    assert needed in missing_linker(triple)
