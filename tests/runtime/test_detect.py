"""The faces that a library finds in a picture, beside OpenCV's and onnxruntime's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import ferplus_tvm as fer
from ferplus_tvm.errors import EngineClosedError, InputError, NoDetectorError, VerificationError
from ferplus_tvm.zoo import DETECTOR
from ferplus_tvm.zoo.registry import local_path
from tests import artifacts
from tests.artifacts import assert_sentence

NEAR = 5e-5  # pixels, and of a score


@pytest.fixture(scope="module")
def finder(detector_library: Path) -> Iterator[fer.Engine]:
    with fer.load(detector_library, threads=2) as opened:
        yield opened


def astronaut() -> NDArray[np.uint8]:
    """Return NASA's portrait of Eileen Collins, 512 x 512, in the public domain."""
    data = pytest.importorskip("skimage.data", reason="the picture is scikit-image's")
    return np.asarray(data.astronaut())


def admiral() -> NDArray[np.uint8]:
    """Return the US Navy's portrait of Grace Hopper, 512 x 600, in the public domain."""
    matplotlib = pytest.importorskip("matplotlib", reason="the picture is matplotlib's")
    path = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    return np.asarray(Image.open(path).convert("RGB"))


def both() -> NDArray[np.uint8]:
    """Return a picture with both of them, 640 x 400."""
    picture = np.full((400, 640, 3), 90, np.uint8)
    picture[:400, :320] = astronaut()[:400, 80:400]
    smaller = Image.fromarray(admiral()).resize((300, 352), Image.Resampling.BILINEAR)
    picture[20:372, 330:630] = np.asarray(smaller)
    return picture


def opencv(picture: NDArray[np.uint8], height: int, width: int) -> NDArray[np.float32]:
    """Return OpenCV's rows (x, y, w, h, points, score) of a picture padded to a size."""
    cv2 = pytest.importorskip("cv2", reason="compares with opencv-python-headless >=4.8, <5")
    if not hasattr(cv2, "FaceDetectorYN"):
        pytest.skip("this OpenCV has no FaceDetectorYN")
    padded = np.zeros((height, width, 3), np.uint8)
    padded[: picture.shape[0], : picture.shape[1]] = picture[..., ::-1]
    model = str(local_path(DETECTOR))
    _, rows = cv2.FaceDetectorYN.create(model, "", (width, height), 0.6, 0.3, 5000).detect(padded)
    found = np.empty((0, 15), np.float32) if rows is None else rows
    return found[np.argsort(-found[:, 14])]


def as_rows(faces: list[fer.Detection]) -> NDArray[np.float64]:
    return np.array([[*face.box, *np.ravel(face.points), face.score] for face in faces])


@pytest.mark.parametrize(("make", "count"), [(astronaut, 1), (admiral, 1), (both, 2)])
def test_faces_are_those_of_opencv(finder: fer.Engine, make: Any, count: int) -> None:
    picture = make()

    found = finder.detect(picture)

    assert len(found) == count
    np.testing.assert_allclose(as_rows(found), opencv(picture, 640, 640), rtol=0, atol=NEAR)


def test_a_small_picture_is_looked_at_in_the_small_size(finder: fer.Engine) -> None:
    small = np.asarray(Image.fromarray(both()).resize((320, 200), Image.Resampling.BILINEAR))

    found = finder.detect(small)

    assert len(found) == 2
    np.testing.assert_allclose(as_rows(found), opencv(small, 320, 320), rtol=0, atol=NEAR)


def test_boxes_of_a_large_picture_are_in_its_own_pixels(finder: fer.Engine) -> None:
    picture = both()
    large = np.asarray(Image.fromarray(picture).resize((2560, 1600), Image.Resampling.BICUBIC))

    few, many = as_rows(finder.detect(picture)), as_rows(finder.detect(large))

    assert len(many) == 2
    np.testing.assert_allclose(many[:, :14] / 4, few[:, :14], rtol=0, atol=3)
    left, top, width, height = many[many[:, 0].argmin(), :4]
    # The astronaut's face is in the left half, and her eyes are within its box.
    assert 0 < left < left + width < 1280 and 0 < top < top + height < 1600


def test_values_are_those_of_onnxruntime(finder: fer.Engine) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    picture = np.random.default_rng(7).integers(0, 256, (640, 640, 3)).astype(np.uint8)

    values = finder.on_session(lambda session: session.detect(picture, (640, 640)))

    session = onnxruntime.InferenceSession(str(local_path(DETECTOR)))
    bgr = picture[None, ..., ::-1].transpose(0, 3, 1, 2).astype(np.float32)
    names = [output.name for output in session.get_outputs()]
    made = dict(zip(names, session.run(None, {"input": np.ascontiguousarray(bgr)}), strict=True))
    rows = [
        np.concatenate([made[f"{head}_{stride}"][0] for head in ("cls", "obj", "bbox", "kps")], 1)
        for stride in (8, 16, 32)
    ]
    np.testing.assert_allclose(values, np.concatenate(rows), rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (1, 2000), (3000, 1), (100, 1000), (641, 641), (997, 1409)]
)
def test_no_face_is_an_empty_list(finder: fer.Engine, height: int, width: int) -> None:
    assert finder.detect(np.full((height, width, 3), 200, np.uint8)) == []


def test_a_view_of_other_strides_is_read_as_it_looks(finder: fer.Engine) -> None:
    picture = both()
    bgr = np.ascontiguousarray(picture[..., ::-1])

    assert finder.detect(bgr[..., ::-1]) == finder.detect(picture)


def test_emotions_are_the_same_with_a_detector_beside(
    finder: fer.Engine, narrow_library: Path
) -> None:
    faces = np.random.default_rng(0).uniform(0, 255, (3, 1, 64, 64)).astype(np.float32)
    with fer.load(narrow_library) as plain:
        assert plain.manifest.detector is None
        np.testing.assert_array_equal(finder.scores(faces[:1]), plain.scores(faces[:1]))


def test_a_library_without_one_says_what_to_do(narrow_library: Path) -> None:
    with fer.load(narrow_library) as plain, pytest.raises(NoDetectorError) as caught:
        plain.detect(np.zeros((64, 64, 3), np.uint8))
    assert_sentence(str(caught.value), str(narrow_library), "--detector", "detector=True")


def test_a_larger_side_than_the_detector_has_is_refused(finder: fer.Engine) -> None:
    """It would be shrunk again, and small faces be missed without a word."""
    with pytest.raises(NoDetectorError) as caught:
        finder.analyze(both(), max_side=1250)
    assert_sentence(str(caught.value), "max_side is 1250", "640", "--detector-size 1280x1280")
    with pytest.raises(NoDetectorError) as caught:
        finder.analyze(both(), max_side=4097)  # which no detector can be compiled for
    assert_sentence(str(caught.value), "max_side is 4097", "640", "small_faces")
    assert "--detector-size" not in str(caught.value)

    def nobody(picture: NDArray[np.uint8]) -> list[Any]:
        return []

    assert finder.analyze(both(), max_side=1250, detector=nobody).faces == ()


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((64, 64), np.uint8),
        np.zeros((64, 64, 4), np.uint8),
        np.zeros((64, 64, 3), np.float32),
        np.zeros((1, 64, 64, 3), np.uint8),
        np.zeros((0, 64, 3), np.uint8),
        "photo.jpg",
    ],
    ids=str,
)
def test_what_is_no_picture_is_refused(finder: fer.Engine, wrong: Any) -> None:
    with pytest.raises(InputError) as caught:
        finder.detect(wrong)
    assert_sentence(str(caught.value), "uint8 (H, W, 3)")


@pytest.mark.parametrize("score", [-0.1, 1.5, float("nan")])
def test_a_score_out_of_range_is_refused(finder: fer.Engine, score: float) -> None:
    with pytest.raises(ValueError, match=r"0\.\.1"):
        finder.detect(np.zeros((64, 64, 3), np.uint8), min_score=score)


def test_a_closed_engine_finds_nothing(detector_library: Path) -> None:
    engine = fer.load(detector_library)
    engine.close()
    with pytest.raises(EngineClosedError):
        engine.detect(np.zeros((64, 64, 3), np.uint8))


def test_verify_checks_every_size(detector_library: Path) -> None:
    result = fer.verify(detector_library)

    assert set(result.detector) == {(320, 320), (640, 640)}
    assert max(result.detector.values()) < 2e-5
    recorded = fer.read_manifest(detector_library).detector
    assert recorded is not None
    assert all(each.check.error == result.detector[each.size] for each in recorded.functions)


def test_a_detector_that_is_off_does_not_verify(detector_library: Path, tmp_path: Path) -> None:
    opened = fer.read_manifest(detector_library)
    detector = opened.detector
    assert detector is not None
    small, large = detector.functions
    reference = [list(row) for row in small.check.reference]
    reference[-1][5] += 0.01
    check = replace(small.check, reference=tuple(map(tuple, reference)))
    changed = replace(detector, functions=(replace(small, check=check), large))
    path = artifacts.rewrite(detector_library, tmp_path / "off.so", detector=changed)

    with pytest.raises(VerificationError) as caught:
        fer.verify(path)

    assert_sentence(str(caught.value), "face detector", "1.0e-02", "320x320")


def test_a_picture_leaves_nothing_behind_for_a_smaller_one(finder: fer.Engine) -> None:
    picture = astronaut()
    face = picture[40:240, 130:330]
    before = finder.detect(face)
    assert len(before) == 1

    finder.detect(np.tile(picture, (1, 2, 1)))

    assert finder.detect(face) == before
