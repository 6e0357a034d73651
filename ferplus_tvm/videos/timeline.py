"""Emotions over time, for each person of a video, in as much memory however long it is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ferplus_tvm.videos.frame import Frame
    from ferplus_tvm.vision.photo import Face

Floats = NDArray[np.float64]

BINS = 600
"""The most bins of a timeline: as many as a plot can show."""

_FIRST_BIN = 0.1  # seconds
_LONE_FRAME = 0.04  # seconds that a frame lasts which is the only one
_MOST_PEOPLE = 200  # of whom more is kept than that they were there
_GONE = 10.0  # seconds after which a track does not go on


@dataclass
class Person:
    """One person of a video: a track.

    Attributes
    ----------
    track
        Its number.
    first, last
        When the person was seen first, and until when, in seconds of the video.
    label_seconds
        How long each label was the most probable one, smoothed, in the order of the labels.
    bins
        For each bin of the timeline and each label, the probability summed over the seconds in
        which the person was seen.
    """

    track: int
    first: float
    last: float
    label_seconds: Floats
    bins: Floats

    @property
    def seconds(self) -> float:
        """How long the person was seen."""
        return float(self.label_seconds.sum())

    @property
    def probabilities(self) -> Floats:
        """The mean probability of each label in each bin; NaN where the person was not seen."""
        seen = self.bins.sum(axis=1, keepdims=True)
        shares = np.full_like(self.bins, np.nan)
        np.divide(self.bins, seen, out=shares, where=seen > 0)
        return shares


class Timeline:
    """Gathers who is seen when in a video, and with which emotion; and plots it.

    Its memory does not grow with the video: time is kept in bins, each twice as long whenever the
    video is too long for all of them, and of hundreds of people those are kept who are seen
    longest.

    Parameters
    ----------
    labels
        Those of the model.

    Attributes
    ----------
    start, end
        The time of the first frame, and until when the last one lasts, in seconds.
    bin
        The length of a bin in seconds; the first one begins at `start`.
    left_out
        How many people are not kept.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)
        self.start = self.end = 0.0
        self.bin = _FIRST_BIN
        self.left_out = 0
        self._people: dict[int, Person] = {}
        self._shown: tuple[float, tuple[Face, ...]] | None = None
        self._last: float | None = None
        self._duration = _LONE_FRAME

    @property
    def people(self) -> list[Person]:
        """Those who are kept, the longest seen first; the last frame counts once it is closed."""
        return sorted(self._people.values(), key=lambda each: (-each.seconds, each.track))

    def add(self, frame: Frame) -> None:
        """Add a frame, which lasts until the next one begins.

        Raises
        ------
        ValueError
            If it is before the last one, as the first frame of another video is.
        """
        if self._last is None:
            self.start = frame.time
        elif frame.time < self._last:
            raise ValueError(
                f"the frame is of {frame.time:g} s, after one of {self._last:g} s; expected "
                "frames in order: make a timeline for each video"
            )
        elif self._shown is not None and frame.time > self._last:
            self._duration = frame.time - self._last
            self._count()
        self._shown, self._last = (frame.time, frame.faces), frame.time

    def plot(self, path: str | os.PathLike[str], title: str = "Emotions over time") -> None:
        """Close it, and draw the emotions of each person.

        Parameters
        ----------
        path
            ``.png``, or ``.html`` for a page that needs no other file, and says all in tables too.
        title
            What stands above.

        Raises
        ------
        InputError
            If the file has another suffix, or cannot be written.
        MissingExtraError
            If matplotlib is not installed.
        """
        from ferplus_tvm.videos.plot import plot

        self.close()
        plot(self, title, path)

    def close(self, end: float | None = None) -> None:
        """Count the last frame; again is harmless.

        Parameters
        ----------
        end
            When the video ends, in seconds, if that is known and nearer than the last frame lasts:
            it counts as long as the one before.
        """
        if self._shown is not None:
            if end is not None and self._shown[0] < end:
                self._duration = min(self._duration, end - self._shown[0])
            self._count()
            self._shown = None

    def _count(self) -> None:
        assert self._shown is not None
        time, faces = self._shown
        self.end = max(self.end, time + self._duration)
        while self.end - self.start > BINS * self.bin:
            self.bin *= 2
            for person in self._people.values():
                halves = person.bins.reshape(BINS // 2, 2, -1).sum(axis=1)
                person.bins = np.concatenate([halves, np.zeros_like(halves)])
        for face in faces:
            if face.track is not None:
                self._see(face.track, face, time)
        if len(self._people) > 2 * _MOST_PEOPLE:
            self._drop(time)

    def _see(self, track: int, face: Face, time: float) -> None:
        prediction = face.smoothed or face.prediction
        count = len(self.labels)
        person = self._people.setdefault(
            track, Person(track, time, time, np.zeros(count), np.zeros((BINS, count)))
        )
        person.last = time + self._duration
        person.label_seconds[prediction.class_ids[0]] += self._duration
        shares = np.array([*prediction.probabilities.values()])
        begin, end = ((each - self.start) / self.bin for each in (time, person.last))
        for number in range(int(begin), min(int(end), BINS - 1) + 1):
            part = min(end, number + 1) - max(begin, number)
            person.bins[number] += part * self.bin * shares

    def _drop(self, time: float) -> None:
        """Drop those who were seen for the shortest time, and are gone."""
        for person in self.people[_MOST_PEOPLE:]:
            if person.last < time - _GONE:
                del self._people[person.track]
                self.left_out += 1


def mostly(person: Person, labels: Sequence[str]) -> str:
    """Say which label was a person's most probable one for the longest time."""
    best = int(np.argmax(person.label_seconds))
    share = person.label_seconds[best] / person.seconds
    return f"mostly {labels[best]} ({share:.0%})".replace("%", " %")
