"""A whole photo is no face, and `predict` says so once."""

from __future__ import annotations

import logging
import threading

import numpy as np
import pytest
from PIL import Image

import ferplus_tvm as fer
from ferplus_tvm.faces import whole
from ferplus_tvm.faces.whole import looks_whole


@pytest.fixture(autouse=True)
def nothing_was_said_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole, "_warned", threading.Lock())


@pytest.mark.parametrize(
    "size", [(640, 480), (1920, 1080), (480, 800), (4000, 3000), (3000, 4000), (3000, 3000)]
)
def test_photos_of_cameras_and_frames_of_videos_look_whole(size: tuple[int, int]) -> None:
    assert looks_whole(*size)


@pytest.mark.parametrize(
    "size", [(48, 48), (64, 64), (300, 390), (500, 500), (1200, 1500), (100, 60), (200, 310)]
)
def test_crops_do_not(size: tuple[int, int]) -> None:
    assert not looks_whole(*size)


@pytest.mark.parametrize("as_array", [False, True])
def test_it_is_said_once(caplog: pytest.LogCaptureFixture, as_array: bool) -> None:
    photo = Image.new("RGB", (640, 480), "grey")
    given = np.asarray(photo) if as_array else photo
    with caplog.at_level(logging.WARNING):
        fer.preprocess(np.full((64, 64), 90, np.uint8))
        assert not caplog.records
        fer.preprocess([given, given])
    (record,) = caplog.records
    assert "item 1 of 2 has 640 x 480 pixels" in record.getMessage()
    assert "analyze" in record.getMessage() and "photo" in record.getMessage()
