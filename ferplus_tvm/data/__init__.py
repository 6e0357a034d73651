"""Data that the package carries: the sample face, see README.md."""

from __future__ import annotations

from pathlib import Path

SAMPLE_FACE = Path(__file__).with_name("sample_face.png")
