"""A detector in a manifest: kept as it is, and refused where it cannot be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ferplus_tvm.artifact.detector import Detector, DetectorCheck, DetectorFunction, places
from ferplus_tvm.artifact.manifest import Manifest
from ferplus_tvm.artifact.manifest_json import from_json, to_json
from ferplus_tvm.errors import ArtifactDamagedError
from tests.artifacts import assert_sentence, manifest

CHECK = DetectorCheck(1, (0, 7, 20), ((0.5,) * 16,) * 3, 1e-4, None)
SMALL = DetectorFunction("detect_32x32", 32, 32, (0, 1), CHECK)
LARGE = DetectorFunction("detect_64x32", 64, 32, (1,), CHECK)
DETECTOR = Detector("yunet", "8f" * 32, "Copyright (c) someone", (8, 16, 32), (SMALL, LARGE))


def test_json_and_back_gives_the_same_detector() -> None:
    original = manifest(detector=DETECTOR)

    (restored,) = from_json(to_json([original]))

    assert restored == original
    assert restored.detector is not None
    assert restored.detector.sizes == ((32, 32), (64, 32))


def test_places_are_those_of_all_grids() -> None:
    assert places(640, 640, (8, 16, 32)) == 8400
    assert places(32, 64, (8, 16, 32)) == 4 * 8 + 2 * 4 + 1 * 2


def small(**changes: Any) -> Detector:
    return replace(DETECTOR, functions=(replace(SMALL, **changes), LARGE))


def checked(**changes: Any) -> Detector:
    return small(check=replace(CHECK, **changes))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (replace(DETECTOR, model_sha256="8f"), "no model or no notice"),
        (replace(DETECTOR, notice=" "), "no model or no notice"),
        (replace(DETECTOR, strides=()), "strides"),
        (replace(DETECTOR, strides=(16, 8)), "strides"),
        (replace(DETECTOR, strides=(0, 8)), "strides"),
        (replace(DETECTOR, functions=()), "picture sizes"),
        (replace(DETECTOR, functions=(LARGE, SMALL)), "picture sizes"),
        (replace(DETECTOR, functions=(SMALL, SMALL)), "picture sizes"),
        (small(height=33), "size that cannot be"),
        (small(width=0), "size that cannot be"),
        (small(height=1 << 20), "size"),
        (small(weights=(2,)), "weights that are not there"),
        (small(weights=(-1,)), "weights that are not there"),
        (checked(places=()), "places"),
        (checked(places=(0, 0, 1)), "places"),
        (checked(places=(0, 1, 21)), "places"),
        (checked(places=(-1, 0, 1)), "places"),
        (checked(reference=((0.5,) * 16,) * 2), "reference"),
        (checked(reference=((0.5,) * 15,) * 3), "reference"),
        (checked(seed=-1), "check"),
        (checked(tolerance=0.0), "check"),
        (checked(tolerance=2.0), "check"),
    ],
)
def test_a_detector_that_cannot_be_is_refused(wrong: Detector, said: str) -> None:
    with pytest.raises(ArtifactDamagedError) as caught:
        from_json(to_json([manifest(detector=wrong)]))
    assert_sentence(str(caught.value), said, "compile the library again")


def test_one_of_a_gpu_is_refused() -> None:
    with pytest.raises(ArtifactDamagedError, match="runs on CPUs only"):
        from_json(to_json([manifest(detector=DETECTOR, gpu_arch="sm_90")]))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("functions", None),
        ("functions", [{"name": "a"}]),
        ("strides", ["8"]),
        ("strides", 8),
        ("notice", None),
        ("surprise", 1),
    ],
)
def test_a_field_of_another_kind_is_refused(field: str, value: object) -> None:
    values = manifest(detector=DETECTOR).to_dict()
    assert Manifest.from_dict(values).detector == DETECTOR
    values["detector"][field] = value
    with pytest.raises((ValueError, TypeError, KeyError, AttributeError)):
        Manifest.from_dict(values)
