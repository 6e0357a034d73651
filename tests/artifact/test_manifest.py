import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferplus_tvm.artifact.manifest import Check, Kernel, Manifest
from ferplus_tvm.artifact.manifest_json import from_json, to_json
from ferplus_tvm.artifact.scaling import RAW, Scaling
from ferplus_tvm.errors import ArtifactDamagedError
from ferplus_tvm.faces.labels import EMOTIONS
from tests.artifacts import assert_sentence, manifest


def test_json_and_back_gives_the_same_manifest() -> None:
    original = manifest(model_name="Gefühl 情緒 \U0001f600", options={"a": [1, None, {"b": 2.5}]})

    (restored,) = from_json(to_json([original]))

    assert restored == original
    assert isinstance(restored.tensors[0].shape, tuple)
    assert isinstance(restored.check.reference[0], tuple)


def test_numbers_survive_json_exactly() -> None:
    check = dataclasses.replace(manifest().check, reference=((0.1, 1 / 3, 1e-300, 7.0) * 2,))

    (restored,) = from_json(to_json([manifest(check=check)]))

    assert restored.check.reference == check.reference


def test_to_dict_holds_only_what_any_json_reader_knows() -> None:
    plain = manifest().to_dict()

    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["functions"]["8"] == {"name": "main_batch8", "weights": [0, 1]}


def test_batch_sizes_are_in_increasing_order() -> None:
    assert manifest().batch_sizes == (1, 8)


def test_untuned_names_the_kernels_without_a_record() -> None:
    kernels = (
        Kernel("a", None, 1, "conv_a", "direct", "tuning record", True, True, "fast", 0.5, 9, 9, 4),
        Kernel(
            "b", "pool", 1, "conv_b", "winograd", "lanes=16", True, False, "faster", 0.25, 9, 4, 4
        ),
    )

    assert manifest(kernels=kernels).untuned == ("conv_b",)


def test_a_manifest_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        manifest().arch = "other"  # type: ignore[misc]


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Manifest)])
def test_a_missing_field_is_refused(field: str) -> None:
    values = manifest().to_dict()
    del values[field]

    with pytest.raises(ArtifactDamagedError) as caught:
        from_json(json.dumps([manifest().to_dict(), values]).encode())

    assert_sentence(str(caught.value), "manifest", "compile the library again")


def test_a_field_too_many_is_refused() -> None:
    values = {**manifest().to_dict(), "surprise": 1}

    with pytest.raises(ArtifactDamagedError):
        from_json(json.dumps([manifest().to_dict(), values]).encode())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("functions", [1]),
        ("functions", {"one": {"name": "f", "weights": []}}),
        ("functions", {"1": {"weights": []}}),
        ("tensors", [{"name": "a"}]),
        ("tensors", None),
        ("kernels", [{"layer": "a", "colour": "blue"}]),
        ("check", {"seed": 1}),
        ("labels", 8),
        ("weights_sha256", None),
    ],
)
def test_a_field_of_another_kind_is_refused(field: str, value: object) -> None:
    values = {**manifest().to_dict(), field: value}

    with pytest.raises(ArtifactDamagedError):
        from_json(json.dumps([manifest().to_dict(), values]).encode())


JSON = st.none() | st.integers() | st.text() | st.lists(st.integers()) | st.just({})


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_anything_else_is_refused(text: bytes) -> None:
    with pytest.raises(ArtifactDamagedError):
        from_json(text)


def test_half_a_character_is_refused() -> None:
    text = to_json([manifest(model_name="NAME")])
    with pytest.raises(ArtifactDamagedError, match="model_name"):
        from_json(text.replace(b"NAME", rb"\ud800"))


@pytest.mark.parametrize("changed", [{"std": [0.0]}, {"mean": ["0.5"]}, {"gamma": [1.0]}], ids=str)
def test_a_scaling_that_cannot_be_is_refused(changed: dict[str, Any]) -> None:
    values = manifest().to_dict()
    assert Manifest.from_dict(values).scaling == RAW
    values["scaling"] |= changed

    with pytest.raises((ValueError, TypeError)):
        Manifest.from_dict(values)


FER2013 = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


def test_a_library_of_another_network_says_its_own_shapes_and_labels() -> None:
    scaling = Scaling((0.0, 1.0), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    check = Check(1, 2, ((0.5,) * 7, (1.5,) * 7), 1e-4, None)
    original = manifest(
        input_shape=("N", 3, 48, 48),
        output_shape=("N", 7),
        labels=FER2013,
        check=check,
        scaling=scaling,
    )

    (restored,) = from_json(to_json([original]))

    assert restored == original
    assert restored.face_shape == (3, 48, 48) and restored.labels == FER2013


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"input_shape": ("N", 2, 64, 64)}, "input shape"),
        ({"input_shape": ("N", 64, 64, 1)}, "input shape"),
        ({"input_shape": ("N", 1, 64, 48)}, "input shape"),
        ({"input_shape": ("N", 1, 31, 31)}, "input shape"),
        ({"input_shape": ("N", 1, 225, 225)}, "input shape"),
        ({"input_shape": (1, 1, 64, 64)}, "input shape"),
        ({"input_shape": ("N", 1, 64)}, "input shape"),
        ({"output_shape": ("N", 7)}, "8 labels"),
        ({"output_shape": (8,)}, "8 labels"),
        ({"labels": EMOTIONS[:7]}, "7 labels"),
        ({"output_shape": ("N", 1), "labels": ("face",)}, "1 labels"),
        ({"output_shape": ("N", 65), "labels": tuple(map(str, range(65)))}, "65 labels"),
        ({"labels": (*EMOTIONS[:7], "neutral")}, "names of their own"),
        ({"labels": (*EMOTIONS[:7], " ")}, "names of their own"),
        ({"value_range": (0.0, 1.0)}, "value range"),
        ({"scaling": Scaling(mean=(1.0, 2.0, 3.0))}, "scaling"),
        ({"check": Check(1, 1, ((0.0,) * 7,), 1e-4, None)}, "each label"),
        ({"check": Check(1, 2, ((0.0,) * 8,), 1e-4, None)}, "each face"),
        ({"check": Check(1, 0, (), 1e-4, None)}, "each face"),
        ({"check": Check(-1, 1, ((0.0,) * 8,), 1e-4, None)}, "seed"),
    ],
    ids=str,
)
def test_a_manifest_that_contradicts_itself_is_refused(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ArtifactDamagedError) as caught:
        from_json(to_json([manifest(**changes)]))

    assert_sentence(str(caught.value), named, "compile the library again")
