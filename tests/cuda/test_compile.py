"""Compiling for GPUs on a machine without one."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import pytest

import ferplus_tvm as fer
from ferplus_tvm import targets
from ferplus_tvm.artifact.library_file import Artifact
from ferplus_tvm.compiler.pipeline import CompileResult
from ferplus_tvm.errors import CudaCompilerError, GpuError, TargetError
from ferplus_tvm.host import gpu
from ferplus_tvm.toolchain import cuda_compiler
from tests.artifacts import assert_sentence
from tests.cuda.conftest import ARCHS, SIZES

EM_CUDA = 190

needs_cuda_compiler = pytest.mark.skipif(
    cuda_compiler.missing_compiler() is not None,
    reason=f"needs a CUDA compiler: {cuda_compiler.missing_compiler()}",
)


@pytest.fixture(scope="module")
def compiled(model: Path, tmp_path_factory: pytest.TempPathFactory) -> CompileResult:
    output = tmp_path_factory.mktemp("cuda") / "gpu.so"
    return fer.compile(model, ",".join(f"cuda/{arch}" for arch in ARCHS), output, SIZES)


def images_of_cuda(image: bytes) -> list[int]:
    """Return the flags of every ELF file for NVIDIA's architecture within a library."""
    found, at = [], image.find(b"\x7fELF", 1)
    while at >= 0:
        (machine,) = struct.unpack_from("<H", image, at + 18)
        if machine == EM_CUDA:
            found.append(struct.unpack_from("<I", image, at + 48)[0])
        at = image.find(b"\x7fELF", at + 1)
    return found


@needs_cuda_compiler
def test_a_library_holds_machine_code_for_each_architecture_and_no_source(
    compiled: CompileResult,
) -> None:
    assert [each.gpu_arch for each in compiled.manifests] == list(ARCHS)
    assert [each.target for each in compiled.manifests] == [f"cuda/{arch}" for arch in ARCHS]
    for arch in ARCHS:
        artifact = Artifact(compiled.path, target=f"cuda/{arch}")
        image = artifact.image()
        artifact.close()
        (flags,) = images_of_cuda(image)
        assert int(arch.removeprefix("sm_")) in (flags & 0xFF, flags >> 8 & 0xFF)
        assert b"__global__" not in image


@needs_cuda_compiler
def test_it_is_not_checked_here_and_carries_what_to_check_it_with(compiled: CompileResult) -> None:
    if any(targets.resolve(f"cuda/{arch}").runs_here for arch in ARCHS):
        pytest.skip("this machine has a GPU that runs it")
    assert not compiled.verified
    for manifest in compiled.manifests:
        assert manifest.check.error is None and len(manifest.check.reference) > 1
        assert manifest.batch_sizes == SIZES
    with pytest.raises(GpuError) as caught:
        fer.verify(compiled.path)
    assert_sentence(str(caught.value), "cuda/sm_80", "GPU")


@needs_cuda_compiler
def test_architectures_share_the_weights(compiled: CompileResult) -> None:
    first, second = compiled.manifests
    assert set(first.functions[1].weights) == set(second.functions[1].weights)
    assert len(first.tensors) == len(first.functions[1].weights)


@needs_cuda_compiler
def test_half_precision_halves_the_weights(
    model: Path, compiled: CompileResult, tmp_path: Path
) -> None:
    half = fer.compile(model, "cuda/sm_90", tmp_path / "m.so", SIZES, precision="float16")
    assert half.manifest.precision == "float16"
    assert half.manifest.weights_bytes < 0.55 * compiled.manifest.weights_bytes
    assert half.manifest.check.tolerance > compiled.manifest.check.tolerance


@needs_cuda_compiler
def test_a_library_for_gpus_is_not_loaded_on_a_cpu(compiled: CompileResult) -> None:
    with pytest.raises(GpuError) as caught:
        fer.load(compiled.path)
    assert_sentence(str(caught.value), "device='cuda:0'", "sm_80")


def test_without_a_cuda_compiler_it_says_what_to_install(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ferplus_tvm.toolchain.nvcc.find", lambda: None)
    monkeypatch.setattr("ferplus_tvm.toolchain.nvrtc.is_installed", lambda: False)
    with pytest.raises(CudaCompilerError) as caught:
        fer.compile(model, "cuda/sm_90", tmp_path / "m.so", SIZES)
    assert_sentence(str(caught.value), "nvcc", "pip install 'ferplus_tvm[cuda]'")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="a compiler as a shell script")
def test_a_cuda_compiler_that_fails_is_one_sentence(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvcc = tmp_path / "cuda" / "bin" / "nvcc"
    nvcc.parent.mkdir(parents=True)
    nvcc.write_text("#!/bin/sh\necho 'nvcc fatal   : Unsupported gpu architecture' >&2\nexit 1\n")
    nvcc.chmod(0o755)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "cuda"))
    with pytest.raises(CudaCompilerError) as caught:
        fer.compile(model, "cuda/sm_90", tmp_path / "m.so", SIZES)
    assert_sentence(str(caught.value), "Unsupported gpu architecture", "sm_90", "CUDA 12")
    assert not (tmp_path / "m.so").exists()


def test_precisions_of_a_gpu_are_refused_for_a_cpu(model: Path, tmp_path: Path) -> None:
    with pytest.raises(TargetError) as caught:
        fer.compile(model, "native", tmp_path / "m.so", precision="tf32")
    assert_sentence(str(caught.value), "tf32", "CPU", "--precision")
    with pytest.raises(ValueError, match="float32, tf32, float16"):
        fer.compile(model, "cuda/sm_90", tmp_path / "m.so", precision="int4")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("cuda/sm_70", ("sm_70", "sm_80")),
        ("cuda/sm90", ("did you mean 'cuda/sm_90'",)),
        ("cuda/", ("sm_80",)),
        ('{"kind": "cuda"}', ("None", "sm_80")),
        ('{"kind": "cuda", "arch": "sm_90", "host": {"kind": "cuda", "arch": "sm_90"}}', ("host",)),
    ],
)
def test_names_of_gpu_targets(
    name: str, parts: tuple[str, ...], model: Path, tmp_path: Path
) -> None:
    with pytest.raises(TargetError) as caught:
        fer.compile(model, name, tmp_path / "m.so")
    assert_sentence(str(caught.value), *parts)


@pytest.mark.parametrize("arch", targets.GPUS)
def test_every_gpu_target_resolves(arch: str) -> None:
    resolved = targets.resolve(f"cuda/{arch}")
    assert resolved.gpu is not None and resolved.gpu.arch == arch
    assert resolved.config["arch"] == arch
    major, minor = gpu.capability_of(arch)
    assert gpu.Device(0, "itself", (major, minor)).runs(arch)
    tegra = arch == "sm_87"
    assert gpu.Device(0, "later", (major, minor + 3)).runs(arch) != tegra
    if arch in ("sm_80", "sm_86"):
        assert not gpu.Device(0, "Orin", (8, 7)).runs(arch)
    assert not gpu.Device(0, "next generation", (major + 1, 0)).runs(arch)


def test_json_names_another_host() -> None:
    resolved = targets.resolve(
        '{"kind": "cuda", "arch": "sm_87", "host": {"kind": "llvm", "mtriple": '
        '"aarch64-unknown-linux-gnu"}}'
    )
    assert resolved.arch == "aarch64" and resolved.gpu == targets.GPUS["sm_87"]
    assert not resolved.runs_here


def test_cuda_without_a_gpu_says_to_name_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> tuple[gpu.Device, ...]:
        raise GpuError("no NVIDIA driver was found: install that of the GPU")

    monkeypatch.setattr(gpu, "devices", none)
    with pytest.raises(TargetError) as caught:
        targets.resolve("cuda")
    assert_sentence(str(caught.value), "cuda/sm_90", "driver")
