"""What a user sees of ``demo``; .ci/run runs the whole of it."""

from __future__ import annotations

import html
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

import ferplus_tvm as fer
from ferplus_tvm.cli import app
from ferplus_tvm.compiler.pipeline import CompileResult
from ferplus_tvm.data import SAMPLE_PHOTO

PICTURE = Path(__file__).parents[2] / "docs" / "demo.svg"


@pytest.fixture
def shown(
    detector_library: Path, compiled: CompileResult, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, dict[str, Any]]:
    """What it prints, of a library that was compiled before; and what it compiles."""
    asked: dict[str, Any] = {}

    def already_compiled(**wanted: Any) -> Any:
        asked.update(wanted)
        return SimpleNamespace(path=detector_library, manifest=compiled.manifest, seconds=9.5)

    monkeypatch.setattr(fer, "compile", already_compiled)
    result = CliRunner().invoke(app, ["demo"], catch_exceptions=False)
    return result.stdout, asked


def test_a_face_and_a_photo_of_two_are_shown(shown: tuple[str, dict[str, Any]]) -> None:
    printed, asked = shown
    width, height = Image.open(SAMPLE_PHOTO).size

    assert asked["detector"] == [(height, width)]
    assert "sample_photo.jpg: 2 faces" in printed
    assert len(re.findall(r"^ +[12]  [a-z]+ +[\d.]+ %  at \d+,\d+  \d+ x \d+$", printed, re.M)) == 2
    assert "time per face" in printed


def test_the_readmes_picture_shows_what_it_prints(shown: tuple[str, dict[str, Any]]) -> None:
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", PICTURE.read_text(encoding="utf-8"))
    picture = " ".join(html.unescape("".join(texts)).replace("\xa0", " ").split())

    # Numbers, labels and bars are those of the machine and of the bundled model.
    words = set(re.findall(r"[a-z_.-]{3,}", shown[0])) - set(fer.EMOTIONS) - {"emeraldrapids"}
    assert {"sample_photo.jpg", "faces", "compile", "--detector"} < words
    assert words - set(re.findall(r"[a-z_.-]{3,}", picture)) == set()
