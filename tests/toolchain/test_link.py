"""Finding a compiler that links for a target, and linking with it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tvm
import tvm_ffi

from ferplus_tvm import targets
from ferplus_tvm.errors import LinkerError
from ferplus_tvm.host import cpu
from ferplus_tvm.kernels.cpu import pool
from ferplus_tvm.kernels.cpu.tensorir import NO_HALO
from ferplus_tvm.kernels.workloads import Pool
from ferplus_tvm.targets import ResolvedTarget
from ferplus_tvm.toolchain.link import find_linker, link

pytestmark = pytest.mark.skipif(os.name != "posix", reason="fakes compilers by shell scripts")

NATIVE = targets.resolve("native")
FOREIGN_ARCH = "aarch64" if cpu.architecture() == "x86_64" else "x86_64"
FOREIGN = f"{FOREIGN_ARCH}-unknown-linux-gnu"

Fake = Callable[..., Path]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fake:
    """Leave no compiler on this machine; return a function that puts a fake one on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.delenv("CXX", raising=False)
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "ziglang" else find_spec(name)
    )

    def make(name: str, script: str = "exit 0") -> Path:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    return make


def test_without_a_compiler_there_is_none(fake: Fake) -> None:
    assert find_linker(NATIVE.triple) is None
    assert find_linker(FOREIGN) is None


@pytest.mark.parametrize("driver", ["cc", "gcc", "clang", "g++"])
def test_the_usual_names_are_found(fake: Fake, driver: str) -> None:
    path = fake(driver)
    assert find_linker(NATIVE.triple) == [str(path)]


@pytest.mark.parametrize("variable", ["CC", "CXX"])
def test_the_environment_comes_first_with_its_arguments(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    fake("cc")
    fake("mine")
    monkeypatch.setenv(variable, "mine --flag 'two words'")
    assert find_linker(NATIVE.triple) == ["mine", "--flag", "two words"]


def test_cc_comes_before_cxx(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    fake("one")
    fake("two")
    monkeypatch.setenv("CC", "one")
    monkeypatch.setenv("CXX", "two")
    assert find_linker(NATIVE.triple) == ["one"]


def test_the_environment_is_about_this_machine_only(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake("cc")
    monkeypatch.setenv("CC", "cc")
    assert find_linker(FOREIGN) is None


@pytest.mark.parametrize("triple", [FOREIGN, f"{FOREIGN_ARCH}-linux-gnu"])
def test_a_cross_compiler_is_found_by_its_prefix(fake: Fake, triple: str) -> None:
    fake("gcc")
    cross = fake(f"{FOREIGN_ARCH}-linux-gnu-gcc")
    assert find_linker(triple) == [str(cross)]


@pytest.mark.parametrize(
    ("triple", "zig"),
    [
        ("x86_64-unknown-linux-gnu", "x86_64-linux-gnu"),
        ("aarch64-unknown-linux-gnu", "aarch64-linux-gnu"),
        ("arm64-apple-darwin23.1.0", "aarch64-macos"),
    ],
)
def test_zig_is_told_the_target(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, triple: str, zig: str
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "ziglang" or None)
    assert find_linker(triple) == [sys.executable, "-m", "ziglang", "cc", "-target", zig]


def test_zig_comes_last(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "ziglang" or None)
    cross, own = fake(f"{FOREIGN_ARCH}-linux-gnu-gcc"), fake("gcc")
    assert find_linker(FOREIGN) == [str(cross)]
    assert find_linker(NATIVE.triple) == [str(own)]


def fails(target: ResolvedTarget, output: Path) -> str:
    with pytest.raises(LinkerError) as caught:
        link(target, output, ["kernels.o"])
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", ["native", "x86-64-v3", "aarch64"])
def test_no_compiler_is_an_error_that_says_what_to_install(
    fake: Fake, tmp_path: Path, name: str
) -> None:
    target = targets.resolve(name)
    message = fails(target, tmp_path / "out.so")
    assert f"links for {target.arch} ({target.triple}) was found" in message
    native = target.arch == cpu.architecture()
    assert ("install gcc or clang" if native else f"install g++-{target.arch}-linux-gnu") in message
    assert "pip install ziglang" in message


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo first >&2; echo 'ld: no space left' >&2; exit 3", "(ld: no space left)"),
        ("echo 'on stdout'; exit 3", "(on stdout)"),
        ("exit 3", "(it said nothing)"),
        # what gcc and lld add after the error itself
        (
            "echo 'ld: cannot find x' >&2; echo 'collect2: error: ld returned 1' >&2; exit 3",
            "(ld: cannot find x)",
        ),
        (
            "echo 'ld.lld: error: bad' >&2; echo '>>> referenced by y' >&2; echo >&2; exit 3",
            "(ld.lld: error: bad)",
        ),
    ],
)
def test_a_failing_compiler_is_an_error_with_its_reason(
    fake: Fake, tmp_path: Path, script: str, reason: str
) -> None:
    path = fake("cc", script)
    message = fails(NATIVE, tmp_path / "out.so")
    assert message.startswith(f"{path} failed with status 3 to link for {NATIVE.triple} ")
    assert reason in message


def test_a_file_that_cannot_be_run_is_an_error(fake: Fake, tmp_path: Path) -> None:
    path = fake("cc")
    path.write_text("#!/no/such/interpreter\n")
    assert fails(NATIVE, tmp_path / "out.so").startswith(f"{path} did not link the library: ")


def test_the_compiler_is_told_objects_and_output(fake: Fake, tmp_path: Path) -> None:
    record = tmp_path / "arguments"
    fake("cc", f'for word in "$@"; do echo "$word" >> "{record}"; done')
    output = tmp_path / "a library.so"
    link(NATIVE, output, ["one.o", "the other.o"])
    words = record.read_text().splitlines()
    assert words[-3:] == [str(output), "one.o", "the other.o"]
    assert {"-shared", "-fPIC", "-o"} <= set(words)


@pytest.mark.skipif(find_linker(NATIVE.triple) is None, reason="no compiler on this machine")
def test_a_linked_kernel_loads_and_runs(tmp_path: Path) -> None:
    workload = Pool(1, 4, 4, NATIVE.vector_unit.lanes, (2, 2), (2, 2), (0, 0, 0, 0))
    config = pool.Config.preset(workload, NATIVE.vector_unit)
    function = pool.define(workload, config, NO_HALO)
    kernel = tmp_path / "kernel.o"
    tvm.compile(function, target=NATIVE.tvm_target()).mod.write_to_file(str(kernel), "o")
    output = tmp_path / "kernel.so"
    link(NATIVE, output, [str(kernel)])

    x = np.random.default_rng(0).standard_normal((1, 4, 4, workload.channels), np.float32)
    y = tvm.runtime.tensor(np.zeros((1, 2, 2, workload.channels), np.float32))
    tvm_ffi.load_module(str(output))["main"](tvm.runtime.tensor(x), y)
    np.testing.assert_array_equal(y.numpy(), workload.reference(x))


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_an_object_of_another_machine_is_an_error(tmp_path: Path) -> None:
    target = targets.resolve("aarch64" if FOREIGN_ARCH == "aarch64" else "x86-64-v2")
    workload = Pool(1, 4, 4, 4, (2, 2), (2, 2), (0, 0, 0, 0))
    config = pool.Config.preset(workload, target.vector_unit)
    function = pool.define(workload, config, NO_HALO)
    kernel = tmp_path / "kernel.o"
    tvm.compile(function, target=target.tvm_target()).mod.write_to_file(str(kernel), "o")
    with pytest.raises(LinkerError, match="failed with status 1 to link for") as caught:
        link(NATIVE, tmp_path / "kernel.so", [str(kernel)])
    assert "collect2" not in str(caught.value)
