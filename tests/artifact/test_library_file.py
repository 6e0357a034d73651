"""The file format, and damage to it."""

import hashlib
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ferplus_tvm as fer
from ferplus_tvm.artifact import layout, library_file, manifest_json
from ferplus_tvm.artifact.library_file import Artifact, read_manifest
from ferplus_tvm.artifact.manifest import Check, Function, Tensor
from ferplus_tvm.errors import ArtifactDamagedError, ArtifactFormatError
from tests import artifacts
from tests.artifacts import assert_sentence

REFUSED = (ArtifactDamagedError, ArtifactFormatError)

pytestmark = pytest.mark.usefixtures("no_loader")


@pytest.fixture
def made_up(tmp_path: Path) -> Path:
    return artifacts.write(tmp_path / "made-up.so")


# --- the format ------------------------------------------------------------------------------


def test_what_is_written_is_read_again(made_up: Path) -> None:
    opened = Artifact(made_up)

    assert bytes(opened.weights) == artifacts.WEIGHTS
    assert opened.manifest.model_name == "made-up"
    assert opened.manifest.functions == artifacts.manifest().functions
    assert opened.manifest.weights_bytes == len(artifacts.WEIGHTS)
    assert made_up.read_bytes().startswith(artifacts.elf_image())
    assert read_manifest(made_up) == opened.manifest


def test_the_file_is_laid_out_as_documented(made_up: Path) -> None:
    data = made_up.read_bytes()
    image = artifacts.elf_image().ljust(4096, b"\0")
    text = manifest_json.to_json([read_manifest(made_up)])

    assert data == artifacts.by_hand(image, artifacts.WEIGHTS, text)


def test_weights_lie_at_multiples_of_64_bytes_in_memory(made_up: Path) -> None:
    address = np.frombuffer(Artifact(made_up).weights, np.uint8).ctypes.data

    assert address % 64 == 0


def test_writing_to_the_weights_in_memory_leaves_the_file_alone(made_up: Path) -> None:
    before = made_up.read_bytes()
    opened = Artifact(made_up)

    np.frombuffer(opened.weights, np.uint8)[:] = 0
    opened.close()

    assert made_up.read_bytes() == before


@pytest.mark.parametrize("size", [0, 1, layout.CHUNK - 1, layout.CHUNK, layout.CHUNK + 1])
def test_weights_of_any_length_round_trip(tmp_path: Path, size: int) -> None:
    path = tmp_path / "x.so"
    weights = np.random.default_rng(size).bytes(size)
    with path.open("wb") as file:
        bare = artifacts.manifest(tensors=(), functions={1: Function("main_batch1", ())})
        library_file.write(file, [artifacts.elf_image()], weights, [bare])

    assert bytes(Artifact(path).weights) == weights


# --- truncated and altered files -------------------------------------------------------------


def test_every_truncation_is_refused(made_up: Path) -> None:
    for length in range(made_up.stat().st_size - 1, -1, -1):
        os.truncate(made_up, length)
        with pytest.raises(REFUSED) as caught:
            fer.load(made_up)
        assert_sentence(str(caught.value), str(made_up))


def test_every_altered_byte_is_refused(made_up: Path) -> None:
    data = made_up.read_bytes()
    with made_up.open("r+b") as file:
        for at in range(len(data)):
            os.pwrite(file.fileno(), bytes([data[at] ^ (1 << at % 8)]), at)
            with pytest.raises(REFUSED) as caught:
                fer.load(made_up)
            os.pwrite(file.fileno(), data[at : at + 1], at)
            assert_sentence(str(caught.value), str(made_up))


def test_appended_bytes_are_refused(made_up: Path) -> None:
    with made_up.open("ab") as file:
        file.write(b"\n")

    with pytest.raises(REFUSED):
        fer.load(made_up)


def test_verify_manifest_leaves_out_the_weights_alone(made_up: Path) -> None:
    data = made_up.read_bytes()
    weights = range(4096, 4096 + len(artifacts.WEIGHTS))
    with made_up.open("r+b") as file:
        for at in range(0, len(data), 7):
            os.pwrite(file.fileno(), bytes([data[at] ^ 1]), at)
            if at in weights:
                Artifact(made_up, checksum="manifest").close()
            else:
                with pytest.raises(REFUSED):
                    fer.load(made_up, checksum="manifest")
            os.pwrite(file.fileno(), data[at : at + 1], at)


def test_a_level_of_checksums_that_does_not_exist_is_a_value_error(made_up: Path) -> None:
    with pytest.raises(ValueError, match="'full' or 'manifest'"):
        fer.load(made_up, checksum="fully")  # type: ignore[arg-type]


@pytest.fixture
def copy(library: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(library, tmp_path / "copy.so"))


@pytest.mark.parametrize("keep", [0.999999, 0.9, 0.5, 0.011, 0.005, 0.000001])
def test_a_truncated_real_library_is_refused_as_damaged(copy: Path, keep: float) -> None:
    os.truncate(copy, int(copy.stat().st_size * keep))

    with pytest.raises(ArtifactDamagedError if keep > 1e-5 else REFUSED) as caught:
        fer.load(copy)

    assert_sentence(str(caught.value), str(copy))


@pytest.mark.parametrize("place", [0.002, 0.3, 0.6, 0.9, 0.999])
def test_an_altered_real_library_is_refused_as_damaged(copy: Path, place: float) -> None:
    at = int(copy.stat().st_size * place)
    with copy.open("r+b") as file:
        (byte,) = os.pread(file.fileno(), 1, at)
        os.pwrite(file.fileno(), bytes([byte ^ 0x10]), at)

    with pytest.raises(ArtifactDamagedError) as caught:
        fer.load(copy)

    assert_sentence(str(caught.value), str(copy), "checksum", "copy it again")


# --- made-up damage --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("random") / "random.so"


ANY_SIZE = st.integers(0, 2**64 - 1)


@given(
    head=st.sampled_from([b"", b"\x7fELF\x02\x01", b"\x7fELF\x02\x02", artifacts.elf_image(200)]),
    body=st.binary(max_size=300),
    lengths=st.tuples(ANY_SIZE, ANY_SIZE, ANY_SIZE, ANY_SIZE),
    tail=st.sampled_from([b"", b"FERPLUS-TVM\n\1\0\0\0", b"FERPLUS-TVM\n\0\0\0\0"]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_bytes_are_refused(
    scratch: Path, head: bytes, body: bytes, lengths: tuple[int, ...], tail: bytes
) -> None:
    scratch.write_bytes(head + body + struct.pack("<4Q", *lengths) + bytes(64) + tail)

    with pytest.raises(REFUSED):
        fer.load(scratch)


@given(lengths=st.tuples(ANY_SIZE, ANY_SIZE, ANY_SIZE), text=st.binary(max_size=50))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_lengths_that_do_not_fit_are_refused_although_they_are_signed(
    scratch: Path, lengths: tuple[int, ...], text: bytes
) -> None:
    data = bytearray(artifacts.by_hand(artifacts.elf_image(), b"", text))
    struct.pack_into("<3Q", data, len(data) - 112, *lengths)
    data[-48:-16] = hashlib.sha256(data[-112:-48]).digest()
    scratch.write_bytes(data)

    with pytest.raises(REFUSED):
        fer.load(scratch)


@pytest.mark.parametrize(
    "tensor",
    [
        Tensor("a", 32, (4,), "float32"),
        Tensor("a", 0, (193,), "float32"),
        Tensor("a", 704, (17,), "float32"),
        Tensor("a", -64, (4,), "float32"),
        Tensor("a", 0, (4,), "int64"),
    ],
    ids=["misaligned", "too long", "beyond the end", "before the start", "of another type"],
)
def test_a_weight_that_the_kernels_could_not_take_is_refused(
    tmp_path: Path, tensor: Tensor
) -> None:
    functions = {1: Function("main_batch1", (0,))}
    path = artifacts.write(tmp_path / "x.so", tensors=(tensor,), functions=functions)

    with pytest.raises(ArtifactDamagedError, match="its weight 'a'"):
        fer.load(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"functions": {1: Function("main_batch1", (2,))}},
        {"functions": {1: Function("main_batch1", (-1,))}},
        {"functions": {0: Function("main_batch0", (0,))}},
        {"functions": {}},
        {"tensors": (Tensor("a", 0, (-4,), "float32"), Tensor("b", 0, (4,), "float32"))},
        {"target": 5},
        {"labels": ("happiness", None)},
        {"options": []},
        {"value_range": (0.0, 255.0, 255.0)},
        {"scaling": (0.0, 1.0)},
        {"gpu_arch": None},
        {"gpu_arch": "nonsense"},
        {"value_range": (0.0, float("nan"))},
        {"value_range": (0.0, float("inf"))},
        {"check": Check(1, 1, ((0.0,) * 8,), float("nan"), None)},
        {"check": Check(1, 1, ((0.0,) * 8,), -1e-4, None)},
    ],
    ids=str,
)
def test_a_manifest_that_says_what_cannot_be_is_refused(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    path = artifacts.write(tmp_path / "x.so", **changes)

    with pytest.raises(ArtifactDamagedError, match="manifest cannot be read"):
        fer.load(path)


def test_reading_the_manifest_needs_only_the_standard_library(
    made_up: Path, run_python: Callable[..., str]
) -> None:
    root = Path(library_file.__file__).parents[1]
    code = """
import sys, types
package = types.ModuleType("ferplus_tvm")  # the package's __init__ imports the engine
package.__path__ = [sys.argv[2]]
sys.modules["ferplus_tvm"] = package
from ferplus_tvm.artifact.library_file import read_manifest
print(read_manifest(sys.argv[1]).model_name, "numpy" in sys.modules)
"""
    assert run_python(code, made_up, root).split() == ["made-up", "False"]
