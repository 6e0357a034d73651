"""A small network, and an emulated GPU to compile it for and to run it on."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx
import pytest
from numpy.typing import NDArray

from ferplus_tvm.kernels.cuda.launch import Launch
from tests.chains import Chain
from tests.conftest import Shared
from tests.cuda.emulator import COMPILER, HERE, Program, compile_library

SIZES = (1, 4)
ARCHS = ("sm_80", "sm_90")

needs_emulation = pytest.mark.skipif(
    COMPILER is None or sys.platform != "linux",
    reason="needs Linux and a C++ compiler (Debian: g++)",
)

RunEmulated = Callable[..., NDArray[Any]]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with every kind of layer: direct, fused and separate pooling, two dense layers."""
    chain = Chain().conv("first", 8).relu("r1").pool("p1")
    chain = chain.conv("second", 16).relu("r2").pool("p2")
    chain = chain.conv("third", 40).relu("r3").conv("fourth", 24).relu("r4")
    chain = chain.pool("p3", kernel=(3, 3), strides=(3, 3)).flatten().dense("fifth", 32).relu("r5")
    path = tmp_path_factory.mktemp("cuda") / "model.onnx"
    onnx.save(chain.dense("last").model(), path)
    return path


@pytest.fixture(scope="session", params=["emulated"])
def run_emulated(shared: Shared) -> RunEmulated:
    """Run kernels of a program on an emulated GPU; a test's name says that it is one."""
    if COMPILER is None:
        pytest.skip("needs a C++ compiler (Debian: g++)")

    def run(program: Program, kernels: Sequence[Launch], **arrays: NDArray[Any]) -> NDArray[Any]:
        return program.run(shared.make(program.name, program.build), kernels, **arrays)

    return run


@pytest.fixture(scope="session", params=["emulated"])
def emulation(shared: Shared) -> dict[str, str]:
    """The environment of a machine whose nvcc, driver and CUDA runtime library are emulated."""
    return shared.make("emulation", _emulation)


def _emulation(folder: Path) -> dict[str, str]:
    versions = folder / "versions"
    versions.write_text(
        "libcudart.so.13 { global: cuda*; };\nlibcuda { global: cu[A-Z]*; local: *; };\n"
    )
    options = ["-Wl,-soname,libcuda.so.1", f"-Wl,--version-script={versions}"]
    compile_library((HERE / "driver.cpp").read_text(), folder / "libcuda.so.1", *options)
    (folder / "libcudart.so.13").symlink_to("libcuda.so.1")
    nvcc = folder / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text(f'#!/bin/sh\nexec {sys.executable} -m tests.cuda.emulator "$@"\n')
    nvcc.chmod(0o755)
    # NVIDIA's own CUDA runtime library, where the extra `cuda` is installed, stays out.
    packages = folder / "packages"
    (packages / "nvidia").mkdir(parents=True)
    (packages / "nvidia" / "__init__.py").touch()
    paths = [str(packages), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]
    return {
        "CUDA_HOME": str(folder),
        "LD_LIBRARY_PATH": str(folder),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }


@pytest.fixture(scope="session")
def run_on(emulation: dict[str, str]) -> Run:
    """Run Python code, or a command, on a machine with an emulated GPU."""

    def run(
        code: str | list[str], arch: str = "sm_90", **settings: object
    ) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            **emulation,
            "FERPLUS_EMULATED_ARCH": arch.removeprefix("sm_"),
            **{f"FERPLUS_EMULATED_{name}": str(value) for name, value in settings.items()},
        }
        listed = isinstance(code, list)
        command = ["-m", "ferplus_tvm", *code] if listed else ["-c", textwrap.dedent(str(code))]
        return subprocess.run(
            [sys.executable, *command],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env=environment,
        )

    return run


@pytest.fixture(scope="session")
def library(model: Path, run_on: Run, shared: Shared) -> Path:
    """The network for two architectures, compiled where there is no GPU."""

    def build(folder: Path) -> Path:
        output = folder / "gpu.so"
        names = ",".join(f"cuda/{arch}" for arch in ARCHS)
        sizes = ",".join(map(str, SIZES))
        command = ["compile", str(model), "--target", names, "--batch", sizes, "-o", str(output)]
        done = run_on(command, STATUS=100)
        assert done.returncode == 0, done.stderr
        return output

    return shared.make("gpu_library", build)
