import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ferplus_tvm as fer
from ferplus_tvm.artifact import reference_inputs
from ferplus_tvm.artifact.library_file import Artifact, read_manifest
from ferplus_tvm.compiler import verify as module
from ferplus_tvm.compiler.pipeline import CompileResult
from ferplus_tvm.errors import (
    ArtifactDamagedError,
    CpuFeatureError,
    RuntimeLibraryError,
    VerificationError,
)
from ferplus_tvm.host import child, cpu
from tests import artifacts
from tests.artifacts import assert_sentence


def test_a_good_library_passes_at_every_batch_size(compiled: CompileResult) -> None:
    result = fer.verify(compiled.path)

    assert set(result.errors) == {1, 3, 8}
    assert result.error == max(result.errors.values()) <= result.tolerance
    assert result.error == compiled.manifest.check.error


def test_the_reference_is_that_of_onnxruntime(compiled: CompileResult, onnx_scores: Any) -> None:
    manifest = read_manifest(compiled.path)
    expected = onnx_scores(reference_inputs.inputs(manifest.check.seed, manifest.check.faces))

    reference = np.asarray(manifest.check.reference)

    np.testing.assert_allclose(reference, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_the_inputs_are_the_same_for_ever() -> None:
    x = reference_inputs.inputs(seed=3, faces=5)

    assert x.shape == (5, 1, 64, 64) and x.dtype == np.float32
    assert x.min() >= 0 and x.max() <= 255 and np.array_equal(x, np.round(x))
    assert not np.array_equal(x[0], x[1])
    # Libraries in the field carry the scores of these very numbers.
    assert x[0, 0, 0, :6].tolist() == [106, 152, 249, 131, 184, 200]
    assert x[1, 0, 0, 0] == x[1, 0, 7, 7]
    assert x[1, 0, 60, 60] == 7


@pytest.mark.parametrize("layer", [0, 5, -1])
def test_altered_weights_are_noticed(narrow_library: Path, tmp_path: Path, layer: int) -> None:
    original = Artifact(narrow_library)
    weights = bytearray(original.weights)
    tensor = original.manifest.tensors[layer]
    values = np.frombuffer(weights, np.float32)[tensor.offset // 4 :][: int(np.prod(tensor.shape))]
    values[...] *= np.float32(1.02)
    path = artifacts.rewrite(narrow_library, tmp_path / "x.so", bytes(weights))

    with pytest.raises(VerificationError) as caught:
        fer.verify(path)

    assert_sentence(str(caught.value), str(path), "off the float64 reference", "at most 1e-04")


def test_scores_that_are_not_numbers_are_noticed(narrow_library: Path, tmp_path: Path) -> None:
    weights = bytearray(Artifact(narrow_library).weights)
    np.frombuffer(weights, np.float32)[:] = np.nan
    path = artifacts.rewrite(narrow_library, tmp_path / "x.so", bytes(weights))

    with pytest.raises(VerificationError, match="off the float64 reference by inf"):
        fer.verify(path)


def test_one_wrong_score_of_one_face_is_noticed() -> None:
    reference = np.linspace(-4, 8, 32).reshape(4, 8)
    scores = reference.astype(np.float32)
    assert reference_inputs.relative_error(scores, reference) < 1e-6

    scores[2, 5] += np.float32(0.08)

    assert reference_inputs.relative_error(scores, reference) == pytest.approx(0.01, rel=1e-3)


def test_a_library_for_another_machine_is_not_run(
    narrow_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "Child", None)
    monkeypatch.setattr(cpu, "features", frozenset)
    path = artifacts.rewrite(narrow_library, tmp_path / "x.so", cpu_features=("avx512f",))

    with pytest.raises(CpuFeatureError) as caught:
        fer.verify(path)

    assert_sentence(str(caught.value), "cannot be verified here", "avx512f")


def test_a_damaged_library_is_not_run(
    narrow_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "Child", None)
    path = Path(shutil.copy(narrow_library, tmp_path / "x.so"))
    os.truncate(path, path.stat().st_size - 1)

    with pytest.raises(ArtifactDamagedError):
        fer.verify(path)


def test_damaged_weights_are_noticed_in_the_child(narrow_library: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(narrow_library, tmp_path / "x.so"))
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xff" * 64)

    with pytest.raises(ArtifactDamagedError) as caught:
        fer.verify(path)

    assert_sentence(str(caught.value), str(path), "its weights", "checksum")


def test_what_the_child_refuses_is_raised_as_itself(narrow_library: Path, tmp_path: Path) -> None:
    path = artifacts.rewrite(narrow_library, tmp_path / "x.so", tvm_ffi_version="0.1.99")

    with pytest.raises(RuntimeLibraryError) as caught:
        fer.verify(path)

    assert_sentence(str(caught.value), "0.1.99")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        pytest.param(
            "import os, signal; os.kill(os.getpid(), signal.SIGILL)",
            "ended by SIGILL",
            marks=pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's"),
        ),
        pytest.param(
            "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
            "ended by SIGSEGV",
            marks=pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's"),
        ),
        ("raise SystemExit(3)", "ended with status 3"),
        ("raise RuntimeError('no such kernel')", "RuntimeError: no such kernel"),
        ("import time; time.sleep(60)", "did not answer within"),
    ],
)
def test_a_crash_or_hang_of_the_library_is_one_sentence(
    narrow_library: Path, monkeypatch: pytest.MonkeyPatch, code: str, said: str
) -> None:
    monkeypatch.setattr(child, "python", lambda *_: [sys.executable, "-c", code])
    monkeypatch.setattr(module, "_TIMEOUT", 0.5 if "sleep" in code else 60)

    with pytest.raises(VerificationError) as caught:
        fer.verify(narrow_library)

    assert_sentence(str(caught.value), str(narrow_library), said)


def test_nothing_in_the_current_folder_takes_part(
    narrow_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("numpy", "json", "tvm_ffi", "ferplus_tvm"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('the wrong one')")
    monkeypatch.chdir(tmp_path)

    assert fer.verify(narrow_library).error <= 1e-4
