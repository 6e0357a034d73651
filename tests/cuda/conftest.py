"""A small network, and an emulated GPU to compile it for and to run it on."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from tests.chains import Chain
from tests.cuda.emulator import COMPILER, HERE, compile_library

SIZES = (1, 4)
ARCHS = ("sm_80", "sm_90")

needs_emulation = pytest.mark.skipif(
    COMPILER is None or sys.platform != "linux", reason="needs Linux and a C++ compiler"
)

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


@pytest.fixture(scope="session")
def emulation(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a machine whose nvcc, driver and CUDA runtime library are emulated."""
    folder = tmp_path_factory.mktemp("emulation")
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
    paths = [str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]
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
def library(model: Path, run_on: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network for two architectures, compiled where there is no GPU."""
    output = tmp_path_factory.mktemp("cuda") / "gpu.so"
    names = ",".join(f"cuda/{arch}" for arch in ARCHS)
    sizes = ",".join(map(str, SIZES))
    command = ["compile", str(model), "--target", names, "--batch", sizes, "-o", str(output)]
    done = run_on(command, STATUS=100)
    assert done.returncode == 0, done.stderr
    return output
