from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import ferplus_tvm as fer
from ferplus_tvm.artifact import library_file
from ferplus_tvm.artifact.manifest import Tensor
from ferplus_tvm.compiler import export
from ferplus_tvm.errors import CompileError
from ferplus_tvm.host import runtime_library
from tests.artifacts import assert_sentence


def weights(*shapes: tuple[int, ...]) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    return {f"w{i}": rng.random(shape, np.float32) for i, shape in enumerate(shapes)}


def test_weights_lie_one_after_the_other_at_multiples_of_64_bytes() -> None:
    given = weights((3,), (16,), (2, 9), (1,))

    laid_out = export.lay_out([given])
    tensors, block = laid_out.tensors, laid_out.block

    assert laid_out.index == ({"w0": 0, "w1": 1, "w2": 2, "w3": 3},)
    assert tensors == (
        Tensor("w0", 0, (3,), "float32"),
        Tensor("w1", 64, (16,), "float32"),
        Tensor("w2", 128, (2, 9), "float32"),
        Tensor("w3", 256, (1,), "float32"),
    )
    assert len(block) == 260
    for tensor in tensors:
        size = 4 * int(np.prod(tensor.shape))
        stored = np.frombuffer(bytes(block[tensor.offset :][:size]), np.float32)
        np.testing.assert_array_equal(stored.reshape(tensor.shape), given[tensor.name])


def test_a_weight_in_another_memory_order_is_stored_in_c_order() -> None:
    weight = np.arange(12, dtype=np.float32).reshape(3, 4)

    assert export.lay_out([{"w": np.asfortranarray(weight)}]).block == weight.tobytes()


def test_what_two_targets_want_alike_is_there_once() -> None:
    first, second = weights((3,), (16,)), weights((3,), (16,))
    second["w1"] = 2 * second["w1"]

    laid_out = export.lay_out([first, second])

    assert [tensor.name for tensor in laid_out.tensors] == ["w0", "w1", "w1"]
    assert laid_out.index == ({"w0": 0, "w1": 1}, {"w0": 0, "w1": 2})
    assert len(laid_out.block) == 128 + 64


def test_the_acceptance_test_is_written_as_plain_numbers() -> None:
    reference = np.array([[0.1, -2.5], [1e-9, 3.0]])

    check = export.acceptance(7, reference, 1e-4)

    assert check.reference == ((0.1, -2.5), (1e-9, 3.0))
    assert (check.seed, check.faces, check.tolerance, check.error) == (7, 2, 1e-4, None)
    assert all(type(score) is float for row in check.reference for score in row)


def test_a_temporary_name_lies_beside_the_output_and_is_gone_afterwards(tmp_path: Path) -> None:
    output = tmp_path / "ferplus.so"

    with export.temporary(output) as path:
        assert path.parent == tmp_path and path != output and path.suffix == ".so"
        assert path.exists()
    assert list(tmp_path.iterdir()) == []

    with pytest.raises(ZeroDivisionError), export.temporary(output) as path:
        path.write_bytes(b"half")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []

    with pytest.raises(KeyboardInterrupt), export.temporary(output):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_renamed_temporary_stays(tmp_path: Path) -> None:
    output = tmp_path / "ferplus.so"

    with export.temporary(output) as path:
        path.write_bytes(b"whole")
        path.replace(output)

    assert output.read_bytes() == b"whole" and list(tmp_path.iterdir()) == [output]


def test_trouble_with_the_disk_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(CompileError) as caught, export.temporary(tmp_path / "ferplus.so"):
        raise OSError(28, "No space left on device")
    assert_sentence(str(caught.value), str(tmp_path / "ferplus.so"), "No space left on device")

    with (
        pytest.raises(CompileError) as caught,
        export.temporary(tmp_path / "missing" / "ferplus.so"),
    ):
        pass
    assert_sentence(str(caught.value), str(tmp_path / "missing"), "give another output")


def test_the_runtime_is_copied_whole_and_replaces_an_older_copy(tmp_path: Path) -> None:
    runtime = runtime_library.installed()
    assert runtime is not None
    (tmp_path / runtime.name).write_bytes(b"old")

    copy = export.copy_runtime(runtime, tmp_path)

    assert copy == tmp_path / runtime.name and copy.read_bytes() == runtime.read_bytes()
    assert list(tmp_path.iterdir()) == [copy]


def test_a_runtime_that_is_not_installed_is_not_promised(
    narrow_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_library, "installed", lambda: None)

    with pytest.raises(CompileError) as caught:
        fer.compile(narrow_model, output=tmp_path / "x.so", with_runtime=True)

    assert_sentence(str(caught.value), "is not on this machine")


def test_the_image_is_a_shared_library_that_holds_no_weights(narrow_library: Path) -> None:
    opened = library_file.Artifact(narrow_library)
    length = narrow_library.stat().st_size - len(opened.weights)
    data = narrow_library.read_bytes()

    largest = max(opened.manifest.tensors, key=lambda tensor: int(np.prod(tensor.shape)))
    weight = bytes(opened.weights[largest.offset : largest.offset + 4096])
    assert data.count(weight) == 1
    assert length < 1e6
