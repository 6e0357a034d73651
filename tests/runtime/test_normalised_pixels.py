"""`Engine.scores` takes raw pixels at their word, and warns once of those that cannot be."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import ferplus_tvm as fer
from ferplus_tvm.runtime import inputs
from tests.network import faces

Scorer = Callable[[NDArray[np.float32]], NDArray[np.float32]]
RAW = np.round(faces(3, seed=4))
NORMALISED = RAW / 255


@pytest.fixture(autouse=True)
def nothing_was_said_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "_warned", threading.Lock())


def warnings(log: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in log.records if each.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (NORMALISED, "face 1 of 3 holds numbers in 0"),
        (NORMALISED * np.float32(1.01), "looks normalised"),
        (RAW / 127.5 - 1, "looks standardised"),
        ((RAW - 130) / 60, "looks standardised"),
        ((RAW > 127).astype(np.uint8), "holds numbers in 0..1, so it looks normalised"),
        (RAW > 127, "looks normalised"),
        (RAW * 257, "outside 0..255"),
        (RAW - 128, "outside 0..255"),
        (np.concatenate([RAW, NORMALISED[:1], RAW]), "face 4 of 7"),
        (np.concatenate([RAW, np.zeros_like(RAW), -RAW[:1]]), "face 7 of 7"),
    ],
    ids=str,
)
def test_pixels_that_cannot_be_raw_are_warned_of_and_computed_with_as_they_are(
    engine: fer.Engine,
    onnx_scores: Scorer,
    caplog: pytest.LogCaptureFixture,
    given: NDArray[np.generic],
    said: str,
) -> None:
    scores = engine.scores(given)

    (warning,) = warnings(caplog)
    assert said in warning and "0..255" in warning
    expected = onnx_scores(given.astype(np.float32))
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_it_is_said_once(engine: fer.Engine, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        engine.scores(NORMALISED)
        engine.scores(RAW * 257)

    assert len(warnings(caplog)) == 1
    with pytest.raises(fer.errors.InputError, match="NaN or infinite"):
        engine.scores(RAW * np.nan)


@pytest.mark.parametrize(
    "raw",
    [RAW, RAW.astype(np.uint8), RAW * 0, RAW * 0 + 255, RAW * np.float32(1.0000001), RAW[:0]],
    ids=["float32", "uint8", "black", "white", "rounded", "none"],
)
def test_raw_pixels_are_not_warned_of(
    engine: fer.Engine, caplog: pytest.LogCaptureFixture, raw: NDArray[np.generic]
) -> None:
    engine.scores(raw)

    assert warnings(caplog) == []


def test_what_predict_was_told_of_is_not_warned_of(
    engine: fer.Engine, caplog: pytest.LogCaptureFixture, sample_face: Path
) -> None:
    dark = np.linspace(0, 2, 4096, dtype=np.float32).reshape(64, 64)

    stated = engine.predict(dark, value_range=(0, 255))
    assert engine.predict_batch([dark], value_range=(0, 255)) == [stated]
    engine.predict_batch([sample_face, NORMALISED[0, 0]], on_error="return")

    assert warnings(caplog) == []
