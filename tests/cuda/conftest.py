"""A small network compiled for GPUs, and an emulated GPU to run it on."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

import ferplus_tvm as fer
from ferplus_tvm import targets
from ferplus_tvm.compiler import cuda, lower
from ferplus_tvm.compiler.pipeline import CompileResult
from ferplus_tvm.importer import load_model
from ferplus_tvm.importer.relax import to_relax
from ferplus_tvm.kernels.cuda import Precision
from ferplus_tvm.rewrite import place_kernels
from ferplus_tvm.rewrite.match import match
from tests.chains import Chain
from tests.cuda.emulator import COMPILER, HERE, compile_library, emulate

SIZES = (1, 4)
ARCHS = ("sm_80", "sm_90")

has_cuda_compiler = cuda.find_nvcc() is not None or cuda.has_nvrtc()
needs_cuda_compiler = pytest.mark.skipif(
    not has_cuda_compiler, reason="needs a CUDA compiler: nvcc, or pip install 'ferplus_tvm[cuda]'"
)
needs_emulation = pytest.mark.skipif(
    not has_cuda_compiler or COMPILER is None or sys.platform != "linux",
    reason="needs Linux, a C++ compiler, and a CUDA compiler",
)


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
def compiled(model: Path, tmp_path_factory: pytest.TempPathFactory) -> CompileResult:
    output = tmp_path_factory.mktemp("cuda") / "gpu.so"
    return fer.compile(model, ",".join(f"cuda/{arch}" for arch in ARCHS), output, SIZES)


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the libraries of the driver and of CUDA's runtime, both emulated."""
    folder = tmp_path_factory.mktemp("driver")
    versions = folder / "versions"
    versions.write_text(
        "libcudart.so.13 { global: cuda*; };\nlibcuda { global: cu[A-Z]*; local: *; };\n"
    )
    options = ["-Wl,-soname,libcuda.so.1", f"-Wl,--version-script={versions}"]
    compile_library((HERE / "driver.cpp").read_text(), folder / "libcuda.so.1", *options)
    (folder / "libcudart.so.13").symlink_to("libcuda.so.1")
    return folder


def emulated_kernels(model: Path, arch: str, precision: Precision, library: Path) -> Path:
    """Compile the kernels that a model's library for an architecture consists of, emulated."""
    target = targets.resolve(f"cuda/{arch}")
    layers = match(to_relax(load_model(model).proto))
    placed = place_kernels(layers, SIZES, target, precision, lambda layer: None)
    return emulate(cuda.generated(lower.build(placed.module, target)), library)


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def run_on(model: Path, driver: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run Python code, or a command, on a machine with an emulated GPU."""
    folder = tmp_path_factory.mktemp("kernels")
    libraries: dict[tuple[str, str], Path] = {}

    def run(
        code: str | list[str],
        arch: str = "sm_90",
        kernels: tuple[str, Precision] | None = None,
        **settings: object,
    ) -> subprocess.CompletedProcess[str]:
        key = kernels or (arch if arch in ARCHS else "sm_90", "float32")
        if key not in libraries:
            library = folder / f"{key[0]}-{key[1]}.so"
            libraries[key] = emulated_kernels(model, key[0], key[1], library)
        environment = {
            **os.environ,
            "LD_LIBRARY_PATH": str(driver),
            "FERPLUS_EMULATED_KERNELS": str(libraries[key]),
            "FERPLUS_EMULATED_ARCH": arch.removeprefix("sm_"),
            **{f"FERPLUS_EMULATED_{name}": str(value) for name, value in settings.items()},
        }
        command = (
            ["-m", "ferplus_tvm", *code]
            if isinstance(code, list)
            else ["-c", textwrap.dedent(code)]
        )
        return subprocess.run(
            [sys.executable, *command],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env=environment,
        )

    return run
