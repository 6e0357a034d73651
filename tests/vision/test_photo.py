"""An engine with whole photos: over YuNet by onnxruntime, as a detector of the caller's own."""

from __future__ import annotations

import io
import json
import logging
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import ferplus_tvm as fer
from ferplus_tvm.errors import InputError, NoDetectorError
from ferplus_tvm.vision.photo import Photo
from tests.artifacts import assert_sentence
from tests.vision.support import FACE, HOPPER, group_photo, montage, overlap, yunet

GROUP, BOXES = group_photo()


@pytest.fixture(scope="module")
def narrow(narrow_library: Path) -> Iterator[fer.Engine]:
    with fer.load(narrow_library, threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def photo(narrow: fer.Engine) -> Photo:
    return narrow.analyze(GROUP, detector=yunet)


# --- faces -----------------------------------------------------------------------------------


def test_each_face_of_a_photo_has_a_prediction(photo: Photo) -> None:
    assert (photo.width, photo.height) == GROUP.size and len(photo.faces) == 3
    for face, box in zip(photo.faces, BOXES, strict=True):
        assert overlap(face.box, box) > 0.75
        assert len(face.points) == 5 and 0.6 <= face.score <= 1 and face.track is None
        assert face.roll is not None and abs(face.roll) < 8
        assert set(face.prediction.probabilities) == set(fer.EMOTIONS)


def test_the_bundled_model_reads_her_face_as_in_a_crop_by_hand(engine: fer.Engine) -> None:
    """Cut by Pillow alone: 1.3 widths around the face's centre."""
    x, y, width, height = FACE
    side = 1.3 * width
    left, top = x + width / 2 - side / 2, y + height / 2 - side / 2
    by_hand = Image.open(HOPPER).crop(tuple(map(round, (left, top, left + side, top + side))))

    (face,) = engine.analyze(HOPPER, detector=yunet).faces

    expected = engine.predict(by_hand).probabilities
    for label, probability in face.prediction.probabilities.items():
        assert probability == pytest.approx(expected[label], abs=0.05)


def test_a_turned_face_is_read_as_the_upright_one(engine: fer.Engine) -> None:
    image, _ = montage((900, 900), (200, 150, 1.0))
    turned = image.rotate(-35, Image.Resampling.BICUBIC)  # clockwise

    (upright,) = engine.analyze(image, detector=yunet).faces
    (face,) = engine.analyze(turned, detector=yunet).faces

    assert face.roll is not None and 20 < face.roll < 45  # which YuNet makes smaller than it is
    assert face.prediction.label == upright.prediction.label
    assert face.prediction.probability == pytest.approx(upright.prediction.probability, abs=0.1)


def test_boxes_of_a_detector_give_the_same_predictions(narrow: fer.Engine, photo: Photo) -> None:
    expected = [face.prediction for face in photo.faces]
    assert narrow.predict_faces(GROUP, photo.faces) == expected
    boxes = np.array([face.box for face in photo.faces])  # none is turned by 20 degrees
    assert narrow.predict_faces(GROUP, boxes) == expected
    assert narrow.predict_faces(GROUP, []) == []


def test_a_detector_may_return_rows_or_nothing(narrow: fer.Engine, photo: Photo) -> None:
    def rows(picture: Any) -> Any:
        found = yunet(picture)
        return np.array([[*each.box, *np.ravel(each.points), each.score] for each in found])

    assert narrow.analyze(GROUP, detector=rows).faces == photo.faces
    assert narrow.analyze(GROUP, detector=lambda _: None).faces == ()


def test_corners_of_a_detector_are_refused(narrow: fer.Engine) -> None:
    with pytest.raises(InputError, match="look like corners"):
        narrow.analyze(GROUP, detector=lambda _: [(400, 300, 460, 380), (500, 20, 560, 90)])


def test_a_photo_without_a_face_is_an_answer(narrow: fer.Engine) -> None:
    found = narrow.analyze(Image.new("RGB", (300, 200), "teal"), detector=yunet)
    assert found.faces == () and found.rows() == [] and found.crops() == []
    assert found.draw().size == (300, 200)


def test_a_library_without_a_detector_says_so(narrow: fer.Engine) -> None:
    for on_error in ("raise", "skip", "return"):
        with pytest.raises(NoDetectorError) as caught:
            narrow.analyze_batch([GROUP], on_error=on_error)  # type: ignore[call-overload]
        assert_sentence(str(caught.value), "--detector", "detector=True")


# --- batches ---------------------------------------------------------------------------------


def test_all_faces_of_all_photos_are_one_batch(
    narrow: fer.Engine, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = []
    score = narrow._scores

    def counted(faces: Any) -> Any:
        batches.append(len(faces))
        return score(faces)

    monkeypatch.setattr(narrow, "_scores", counted)
    empty = Image.new("RGB", (90, 90), "teal")

    one, two, three = narrow.analyze_batch([GROUP, empty, np.asarray(GROUP)], detector=yunet)

    assert batches == [6]
    assert [len(each.faces) for each in (one, two, three)] == [3, 0, 3]
    for found in (one, three):
        for face, expected in zip(found.faces, photo.faces, strict=True):
            assert face.box == expected.box
            np.testing.assert_allclose(
                face.prediction.scores, expected.prediction.scores, rtol=0, atol=1e-3
            )


def test_bad_photos_do_not_end_a_batch(
    narrow: fer.Engine, caplog: pytest.LogCaptureFixture
) -> None:
    batch = [GROUP, b"no photo", "missing.jpg"]

    found = narrow.analyze_batch(batch, on_error="return", detector=yunet)
    assert isinstance(found[0], Photo) and len(found[0].faces) == 3
    assert_sentence(str(found[1]), "item 2 of 3")
    assert_sentence(str(found[2]), "missing.jpg")

    with caplog.at_level(logging.WARNING):
        skipped = narrow.analyze_batch(batch, on_error="skip", detector=yunet)
    assert skipped[0] == found[0] and skipped[1:] == [None, None]
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"skipped: {error}" for error in found[1:]]

    with pytest.raises(InputError, match="item 2 of 3"):
        narrow.analyze_batch(batch, detector=yunet)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"min_faces": 3}, TypeError),
        ({"views": "both"}, ValueError),
        ({"min_score": 7}, ValueError),
        ({"on_error": "ignore"}, ValueError),
        ({"channel_order": "GBR"}, ValueError),
    ],
)
def test_wrong_options_are_named(
    narrow: fer.Engine, wrong: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match=next(iter(wrong))):
        narrow.analyze_batch([GROUP], detector=yunet, **wrong)


# --- views -----------------------------------------------------------------------------------


def test_mirror_is_the_mean_of_the_scores_of_both_views(
    narrow: fer.Engine, sample_face: Path
) -> None:
    faces = fer.preprocess(sample_face)
    expected = (narrow.scores(faces) + narrow.scores(faces[..., ::-1])) / 2

    found = narrow.predict(sample_face, views="mirror")

    np.testing.assert_allclose(found.scores, expected[0], rtol=1e-5)
    assert narrow.predict_batch([sample_face], views="mirror") == [found]
    assert narrow.predict_batch([sample_face], views="mirror", on_error="skip") == [found]
    assert found != narrow.predict(sample_face)


def test_a_photo_and_its_mirror_image_have_the_same_mirrored_scores(narrow: fer.Engine) -> None:
    picture = np.asarray(GROUP)
    boxes = np.array([(100.0, 50.0, 60.0, 70.0)])
    mirrored = boxes.copy()
    mirrored[:, 0] = GROUP.width - boxes[:, 0] - boxes[:, 2]

    (one,) = narrow.predict_faces(picture, boxes, views="mirror")
    (other,) = narrow.predict_faces(picture[:, ::-1], mirrored, views="mirror")

    np.testing.assert_allclose(one.scores, other.scores, rtol=1e-3, atol=1e-3)


# --- what comes out --------------------------------------------------------------------------


def test_it_is_plain_data(photo: Photo) -> None:
    told = json.loads(json.dumps(photo.to_dict()))
    assert told["source"] == "the image" and len(told["faces"]) == 3
    assert told["faces"][0]["box"] == list(photo.faces[0].box)
    assert told["faces"][0]["prediction"] == photo.faces[0].prediction.to_dict()
    assert pickle.loads(pickle.dumps(photo)) == photo
    assert "neutral" not in str(photo.faces[0]) or "%" in str(photo.faces[0])


def test_rows_hold_the_numbers_of_the_faces(photo: Photo) -> None:
    rows = photo.rows()
    assert [row["face"] for row in rows] == [1, 2, 3]
    for row, face in zip(rows, photo.faces, strict=True):
        assert (row["x"], row["y"], row["w"], row["h"]) == face.box
        assert row["label"] == face.prediction.label
        assert {label: row[label] for label in fer.EMOTIONS} == face.prediction.probabilities
        assert row["source"] == "the image" and row["frame"] is row["error"] is None


def test_a_drawing_changes_the_photo_around_its_faces_only(photo: Photo, tmp_path: Path) -> None:
    path = tmp_path / "drawn.png"
    image = photo.draw(path)
    assert Image.open(path).size == image.size == GROUP.size
    changed = (np.asarray(image) != np.asarray(GROUP)).any(-1)
    for face in photo.faces:
        x, y, width, height = map(round, face.box)
        edge = changed[y : y + height + 1, x]
        assert edge.all()
        middle = changed[y + height // 4 : y + height // 2, x + width // 4 : x + width // 2]
        assert not middle.any()
    assert changed.mean() < 0.2


def test_crops_are_what_predict_takes(engine: fer.Engine) -> None:
    photo = engine.analyze(GROUP, detector=yunet)
    for crop, face in zip(photo.crops(), photo.faces, strict=True):
        assert crop.width == crop.height == pytest.approx(1.3 * face.box[2], abs=1)
        # Whole levels, and a filter that does not look beyond the square.
        found = engine.predict(crop).probabilities
        for label, probability in face.prediction.probabilities.items():
            assert found[label] == pytest.approx(probability, abs=0.03)


def test_a_photo_from_a_file_object_can_be_drawn_though_it_is_read(narrow: fer.Engine) -> None:
    file = io.BytesIO()
    GROUP.save(file, "PNG")
    file.seek(0)
    found = narrow.analyze(file, detector=yunet)
    assert len(found.faces) == 3 and found.draw().size == GROUP.size


def test_a_photo_that_is_gone_cannot_be_drawn(narrow: fer.Engine, tmp_path: Path) -> None:
    path = tmp_path / "group.png"
    GROUP.save(path)
    found = narrow.analyze(path, detector=yunet)
    path.unlink()
    with pytest.raises(InputError, match="does not exist"):
        found.draw()


@pytest.mark.parametrize("size", [(30, 30), (4000, 60)])
def test_labels_stay_in_the_picture(narrow: fer.Engine, size: tuple[int, int]) -> None:
    found = narrow.analyze(
        Image.new("RGB", size, "grey"), min_face=1, detector=lambda _: [(0, 0, 20, 9)]
    )
    assert found.draw().size == size
