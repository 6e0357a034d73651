"""Who was seen when, and the plots of it."""

from __future__ import annotations

import io
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ferplus_tvm.errors import InputError, MissingExtraError
from ferplus_tvm.faces.labels import EMOTIONS
from ferplus_tvm.videos.frame import Frame
from ferplus_tvm.videos.timeline import BINS, Timeline
from ferplus_tvm.videos.words import clock, length
from tests.videos.clips import face_of

PICTURE = np.zeros((2, 2, 3), np.uint8)
HAPPY, SAD = EMOTIONS.index("happiness"), EMOTIONS.index("sadness")


def frame(number: int, time: float, faces: dict[int, int]) -> Frame:
    """Return a frame in which tracks have an emotion, by its number, for sure."""
    found = [face_of(track, *[0.0] * each, 30.0) for track, each in faces.items()]
    return Frame(number, time, 2, 2, tuple(found), PICTURE, "a.mp4")


def timeline(*frames: tuple[float, dict[int, int]]) -> Timeline:
    made = Timeline(EMOTIONS)
    for number, (time, faces) in enumerate(frames):
        made.add(frame(number, time, faces))
    made.close()
    return made


@pytest.fixture
def two() -> Timeline:
    """Person 7 is happy, then sad; person 2 is seen at the end."""
    return timeline((0, {7: HAPPY}), (0.3, {7: SAD}), (1.0, {}), (1.5, {7: SAD, 2: HAPPY}))


def test_each_frame_lasts_until_the_next_and_the_last_as_long_as_the_one_before(
    two: Timeline,
) -> None:
    seven, other = two.people
    assert (seven.track, other.track) == (7, 2)
    assert (seven.first, seven.last) == (0, 2.0) and (other.first, other.last) == (1.5, 2.0)
    assert seven.label_seconds[HAPPY] == pytest.approx(0.3)
    assert seven.label_seconds[SAD] == pytest.approx(0.7 + 0.5)
    assert seven.seconds == pytest.approx(1.5) and other.seconds == pytest.approx(0.5)
    shares = seven.probabilities[:20]  # bins of 0.1 s
    assert shares[:3, HAPPY] == pytest.approx(1) and shares[3:10, SAD] == pytest.approx(1)
    assert np.isnan(shares[10:15]).all() and shares[15:20, SAD] == pytest.approx(1)


def test_the_last_frame_lasts_no_longer_than_the_video() -> None:
    made = Timeline(EMOTIONS)
    for number, time in enumerate((0.0, 0.3, 0.6)):
        made.add(frame(number, time, {7: SAD}))
    made.close(end=0.7)
    assert made.end == pytest.approx(0.7) and made.people[0].seconds == pytest.approx(0.7)


def test_an_hour_is_kept_in_as_many_bins_and_no_second_is_lost() -> None:
    made = timeline(*((0.5 * n, {1: HAPPY if n < 3600 else SAD}) for n in range(7200)))
    (person,) = made.people
    assert person.bins.shape == (BINS, len(EMOTIONS)) and made.bin * BINS >= 3600
    assert made.bin < 2 * 3600 / BINS
    assert person.bins.sum() == pytest.approx(3600) and person.seconds == pytest.approx(3600)
    middle = round(1800 / made.bin)
    assert person.probabilities[: middle - 1, HAPPY] == pytest.approx(1)
    assert person.probabilities[middle + 1 : int(3600 / made.bin), SAD] == pytest.approx(1)


def test_of_thousands_of_people_those_seen_longest_are_kept() -> None:
    made = Timeline(EMOTIONS)
    for n in range(2000):
        made.add(frame(n, 1.0 * n, {0: HAPPY, n // 2 + 1: SAD}))
    made.close()
    assert len(made.people) <= 400
    assert len(made.people) + made.left_out == 1001
    assert made.people[0].track == 0 and made.people[0].seconds == pytest.approx(2000)


def test_times_are_written_as_clocks_show_them() -> None:
    assert [clock(each) for each in (0, 59.6, 61, 3723)] == ["0:00", "1:00", "1:01", "1:02:03"]
    assert [clock(each, tenths=True) for each in (0.25, 59.96)] == ["0:00.2", "1:00.0"]
    assert [length(each) for each in (4.25, 61, 3723)] == ["4.2 s", "1:01 min", "1:02:03 h"]


def test_frames_of_one_moment_count_once_and_those_of_another_video_are_refused() -> None:
    made = timeline((0, {1: SAD}), (0, {1: HAPPY}), (0.5, {1: HAPPY}), (0.5, {1: HAPPY}))
    (person,) = made.people
    assert person.label_seconds[HAPPY] == person.seconds == pytest.approx(1)

    (person,) = timeline((0, {1: SAD}), (0, {1: HAPPY})).people
    assert person.label_seconds[HAPPY] == person.seconds > 0

    made = Timeline(EMOTIONS)
    made.add(frame(0, 0.5, {}))
    made.close()
    with pytest.raises(ValueError, match=r"of 0 s, after one of 0\.5 s.*for each video"):
        made.add(frame(0, 0, {}))


def test_a_timeline_goes_on_after_a_plot_of_it(two: Timeline) -> None:
    two.add(frame(4, 2.0, {7: SAD}))
    two.add(frame(5, 2.5, {}))
    two.close()
    assert two.start == 0 and two.people[0].seconds == pytest.approx(2)
    assert two.people[0].probabilities[20:25, SAD] == pytest.approx(1)


def test_the_png_has_the_colours_of_the_drawing(two: Timeline, tmp_path: Path) -> None:
    path = tmp_path / "emotions.png"
    two.plot(path, "Emotions in a.mp4")

    pixels = np.asarray(Image.open(io.BytesIO(path.read_bytes())).convert("RGB")).reshape(-1, 3)
    happy, sad, contempt = (
        int((pixels == colour).all(axis=1).sum())
        for colour in ((0xF0, 0xE4, 0x42), (0x00, 0x72, 0xB2), (0xE6, 0x9F, 0x00))
    )
    # 0.8 s of happiness and 1.2 s of sadness in all; contempt is in the legend alone.
    assert happy > 10 * contempt > 0
    assert (happy - contempt) / (sad - contempt) == pytest.approx(0.8 / 1.2, rel=0.02)


class Page(HTMLParser):
    """What a page says, and what it would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "i", "use"):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("meta", "i", "use"):
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and self._open:
            self.texts.setdefault(self._open[-1], []).append(data.strip())


def test_the_page_says_all_in_words_and_loads_nothing(two: Timeline, tmp_path: Path) -> None:
    path = tmp_path / "emotions.html"
    two.plot(path, "Emotions in <b>.mp4")

    page = Page(path.read_text(encoding="utf-8"))
    assert page.texts["title"] == page.texts["h1"] == ["Emotions in <b>.mp4"]
    assert "script" not in page.texts and "b" not in page.texts
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "img", "iframe")
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#")
    assert ("html", {"lang": "en"}) in page.tags
    (svg,) = (attributes for tag, attributes in page.tags if tag == "svg")
    assert svg["role"] == "img" and svg["aria-label"]
    assert {"person 7: 1.5 s, mostly sadness (80 %)", "not seen", *EMOTIONS} <= {
        *page.texts["text"]
    }
    assert {attributes.get("scope") for tag, attributes in page.tags if tag == "th"} == {
        "col",
        "row",
    }
    # Person 7: from, to, the emotion, and parts of the time.
    assert page.texts["td"][:6] == ["1.5 s", "0:00.0", "0:02.0", "sadness", "0 %", "20 %"]
    # Over time: intervals of 0.1 s, whose first has person 7 alone.
    rows = page.texts["th"]
    assert "0:00.0 to 0:00.1" in rows and "0:01.9 to 0:02.0" in rows
    assert "happiness 100 %" in page.texts["td"] and "sadness 100 %" in page.texts["td"]


@pytest.mark.parametrize("people", [0, 40])
def test_nobody_and_a_crowd_are_drawn_too(tmp_path: Path, people: int) -> None:
    faces = dict.fromkeys(range(1, people + 1), HAPPY)
    made = timeline((0, faces), (9, faces))
    made.plot(tmp_path / "a.html", "Emotions")

    page = Page((tmp_path / "a.html").read_text())
    texts = page.texts
    said = "no face found" if people == 0 else "and 28 more, who are seen for a shorter time"
    assert said in texts["text"]
    (height,) = (attributes["height"] for tag, attributes in page.tags if tag == "svg")
    assert float((height or "").removesuffix("pt")) < 72 * 15
    assert sum(each.startswith("person ") for each in texts.get("text", [])) == min(people, 12)


def test_what_cannot_be_drawn_is_said(
    two: Timeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"expected \.png or \.html"):
        two.plot(tmp_path / "a.pdf", "Emotions")
    with pytest.raises(InputError, match="cannot be written"):
        two.plot(tmp_path / "none" / "a.png", "Emotions")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"ferplus_tvm\[video\]"):
        two.plot(tmp_path / "a.png", "Emotions")
