"""Who is who, from boxes alone and with looks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ferplus_tvm.videos.track import Tracker, looks_of
from ferplus_tvm.vision.crop import Box
from tests.vision.support import overlap

SIZE = 100.0  # of a face, in pixels


def box_at(x: float, y: float = 300.0, size: float = SIZE) -> Box:
    return x - size / 2, y - size * 0.6, size, size * 1.2


def look(person: int, frame: int) -> NDArray[np.float32]:
    """Return grey values that are a person's, and a little those of the frame."""
    grey = np.random.default_rng(person).normal(size=64)
    grey += 0.3 * np.random.default_rng([person, frame]).normal(size=64)
    grey -= grey.mean()
    return (grey / np.linalg.norm(grey)).astype(np.float32)


class Scene:
    """People whose places are known, as a detector sees them."""

    def __init__(self, fps: float, seed: int) -> None:
        self.tracker = Tracker()
        self.random = np.random.default_rng(seed)
        self.fps = fps
        self.frames = 0
        self.numbers: dict[str, list[int]] = {}

    def show(self, jitter: float, looks: bool = False, **places: Box) -> None:
        """Show people in any order; one who is mostly behind an earlier one is not seen."""
        seen: dict[str, Box] = {}
        for name, place in places.items():
            if not any(overlap(place, other) > 0.3 for other in seen.values()):
                seen[name] = place
        names = [str(name) for name in self.random.permutation(list(seen))]
        boxes = [tuple(seen[name] + self.random.normal(0, jitter * SIZE, 4)) for name in names]
        given = [look(ord(name[0]), self.frames) for name in names] if looks else None
        numbers = self.tracker.update(self.frames / self.fps, boxes, given)  # type: ignore[arg-type]
        self.frames += 1
        assert len(set(numbers)) == len(numbers)
        for name, number in zip(names, numbers, strict=True):
            self.numbers.setdefault(name, []).append(number)

    def assert_nobody_is_taken_for_another(self) -> None:
        kept = [set(numbers) for numbers in self.numbers.values()]
        assert sum(map(len, kept)) == len(set().union(*kept))


@settings(max_examples=40)
@given(
    st.integers(0, 1000), st.sampled_from([10, 25, 30]), st.floats(0.1, 3), st.floats(0.001, 0.02)
)
def test_people_who_walk_keep_their_numbers(
    seed: int, fps: float, speed: float, jitter: float
) -> None:
    scene = Scene(fps, seed)
    for frame in range(40):
        moved = speed * SIZE * frame / fps
        people = {"ann": box_at(moved), "bob": box_at(3000 - moved, 700), "cy": box_at(50, 1100)}
        missed = scene.random.choice([*people, ""], p=[0.1, 0.1, 0.1, 0.7]) if frame > 3 else ""
        people.pop(str(missed), None)
        scene.show(jitter, **people)
    assert {name: set(numbers) for name, numbers in scene.numbers.items()} == {
        name: {numbers[0]} for name, numbers in scene.numbers.items()
    }
    assert sorted(numbers[0] for numbers in scene.numbers.values()) == [1, 2, 3]


@settings(max_examples=40)
@given(
    st.integers(0, 1000),
    st.sampled_from([10, 25, 30]),
    st.floats(0.3, 2),
    st.floats(0.001, 0.02),
    st.floats(-0.6, 0.6),
    st.booleans(),
)
def test_nothing_of_one_is_taken_for_another_who_passes(
    seed: int, fps: float, speed: float, jitter: float, below: float, looks: bool
) -> None:
    scene = Scene(fps, seed)
    for frame in range(int(4 * fps)):
        away = speed * SIZE * (frame / fps - 2)
        scene.show(
            jitter, looks, ann=box_at(1000 + away), bob=box_at(1000 - away, 300 + below * SIZE)
        )
    scene.assert_nobody_is_taken_for_another()
    if looks:  # and who is seen all the time stays who she is
        assert set(scene.numbers["ann"]) == {scene.numbers["ann"][0]}


@pytest.mark.parametrize("fps", [5, 10, 25])
@pytest.mark.parametrize("speed", [0.5, 1, 2])
def test_looks_tell_who_turned_round_from_who_passed(fps: float, speed: float) -> None:
    scene = Scene(fps, seed=0)
    for frame in range(int(4 * fps)):
        away = 20 + abs(speed * SIZE * (frame / fps - 2))
        scene.show(0.01, True, ann=box_at(1000 - away), bob=box_at(1000 + away))
    scene.assert_nobody_is_taken_for_another()


def test_who_is_away_for_less_than_a_second_keeps_the_number() -> None:
    tracker = Tracker()
    assert tracker.update(0, [box_at(500)]) == [1]
    assert tracker.update(0.9, []) == []
    assert tracker.update(1.0, [box_at(510)]) == [1]


def test_who_is_away_for_longer_gets_a_new_number_and_none_comes_twice() -> None:
    tracker = Tracker()
    assert tracker.update(0, [box_at(500)]) == [1]
    assert tracker.update(1.2, [box_at(500)]) == [2]
    assert tracker.update(2.0, [box_at(900), box_at(500)]) == [3, 2]
    assert tracker.update(9.0, [box_at(500)]) == [4]


def test_nobody_is_followed_across_a_cut() -> None:
    tracker = Tracker()
    assert tracker.update(0, [box_at(500)]) == [1]
    assert tracker.update(0.04, [box_at(500)], cut=True) == [2]


def test_another_face_in_the_same_place_is_another_person() -> None:
    tracker = Tracker()
    assert tracker.update(0, [box_at(500)], [look(1, 0)]) == [1]
    assert tracker.update(0.04, [box_at(500)], [look(1, 1)]) == [1]
    assert tracker.update(0.08, [box_at(500)], [look(2, 2)]) == [2]


def test_a_face_of_another_size_is_another_person() -> None:
    tracker = Tracker()
    assert tracker.update(0, [box_at(500)]) == [1]
    assert tracker.update(0.04, [box_at(500, size=40)]) == [2]


def test_one_frame_a_second_is_enough() -> None:
    tracker = Tracker()
    assert [tracker.update(time, [box_at(500)]) for time in (0, 1.001, 2.002)] == [[1]] * 3


@given(
    st.lists(
        st.tuples(
            st.floats(0, 0.6),
            st.booleans(),
            st.lists(
                st.tuples(st.floats(-50, 700), st.floats(-50, 500), st.floats(1, 300)), max_size=5
            ),
        ),
        max_size=12,
    )
)
def test_whatever_is_seen_numbers_differ_and_new_ones_are_new(
    shown: list[tuple[float, bool, list[tuple[float, float, float]]]],
) -> None:
    tracker, time, last = Tracker(), 0.0, 0
    for past, cut, places in shown:
        time += past
        numbers = tracker.update(time, [(x, y, size, size) for x, y, size in places], cut=cut)
        assert len(set(numbers)) == len(numbers) == len(places)
        new = [number for number in numbers if number > last]
        assert sorted(new) == list(range(last + 1, last + 1 + len(new)))
        assert not cut or len(new) == len(numbers)
        last += len(new)


def test_looks_do_not_mind_light_and_of_nothing_there_is_none() -> None:
    faces = np.random.default_rng(0).uniform(0, 120, (1, 1, 64, 64)).astype(np.float32)
    faces[0, 0, 20:40, 10:50] += 100
    (one,), (other,) = looks_of(faces), looks_of(faces * 0.5 + 40)
    assert one is not None and other is not None
    np.testing.assert_allclose(one, other, atol=1e-5)
    assert looks_of(np.full((1, 3, 48, 48), 90, np.float32)) == [None]
    assert looks_of(np.zeros((0, 1, 64, 64), np.float32)) == []
    assert looks_of(faces[..., :4, :4]) == [None]
