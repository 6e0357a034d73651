"""The mean over time, against the sum that it stands for."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferplus_tvm.faces.labels import EMOTIONS
from ferplus_tvm.faces.postprocess import Prediction, postprocess
from ferplus_tvm.videos.smooth import Smoother

SCORES = st.lists(st.floats(-30, 30), min_size=8, max_size=8)


def prediction(*scores: float) -> Prediction:
    return postprocess([*scores, *[0.0] * (8 - len(scores))])[0]


@given(st.lists(st.tuples(st.floats(0, 0.5), SCORES), min_size=1, max_size=12), st.floats(0.01, 2))
def test_it_is_the_mean_that_forgets_over_time(
    shown: list[tuple[float, list[float]]], seconds: float
) -> None:
    smoother, time = Smoother(seconds), 0.0
    times, rows = [], []
    for past, scores in shown:
        time += past
        one = postprocess(scores)[0]
        times.append(time)
        rows.append(list(one.probabilities.values()))
        found = smoother.add(time, one)

        weights = [math.exp((each - time) / seconds) for each in times]
        expected = np.average(rows, axis=0, weights=weights)
        assert list(found.probabilities) == list(EMOTIONS)
        np.testing.assert_allclose(list(found.probabilities.values()), expected, atol=1e-9)
        assert sum(found.probabilities.values()) == pytest.approx(1)
        assert found.label == EMOTIONS[int(np.argmax(list(found.probabilities.values())))]


def test_0_is_off() -> None:
    smoother = Smoother(0)
    for number in range(3):
        one = prediction(number, 2.0)
        assert smoother.add(number / 25, one) == one


def test_the_frame_rate_hardly_matters() -> None:
    """A smile that begins at 1 s, seen by two cameras."""
    found = []
    for fps in (10, 50):
        smoother = Smoother(0.25)
        for frame in range(int(1.25 * fps) + 1):
            mean = smoother.add(frame / fps, prediction(9.0 if frame / fps < 1 else 0.0, 5.0))
        found.append(mean.probabilities["happiness"])
    assert found[0] == pytest.approx(found[1], abs=0.1)
    assert found[1] == pytest.approx(1 - math.exp(-1), abs=0.05)


def test_one_wrong_frame_does_not_change_the_label() -> None:
    smoother = Smoother(0.25)
    labels = [
        smoother.add(frame / 25, prediction(0.0 if frame == 12 else 6.0, 4.0)).label
        for frame in range(25)
    ]
    assert set(labels) == {"neutral"}


def test_a_probability_that_rounds_to_0_stays_a_finite_score() -> None:
    found = Smoother(0.25).add(0, prediction(2000.0))
    assert found.probability == 1 and np.isfinite(found.scores).all()
