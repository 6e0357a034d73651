"""Data files of the package; README.md gives their source and terms."""

from __future__ import annotations

from pathlib import Path

SAMPLE_FACE = Path(__file__).with_name("sample_face.png")
"""An RGB image of 130x130 pixels that shows one face."""

SAMPLE_PHOTO = Path(__file__).with_name("sample_photo.jpg")
"""A JPEG of 640x480 pixels that shows two people."""
