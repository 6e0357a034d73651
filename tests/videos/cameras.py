"""Cameras for tests on Linux: what they do is said in files, and FFmpeg reads them as any other."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from ferplus_tvm.vision.crop import Picture
from tests.vision.support import montage

SOURCE = Path(__file__).with_name("v4l2.c")
PHOTO, (BOX,) = montage((320, 240), (20, 10, 0.38))
"""What the cameras see, and where the face is."""


def built(folder: Path) -> Path | str:
    """Build what answers in place of the kernel, or say why there are no such cameras here."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if sys.platform != "linux" or compiler is None:
        return "cameras for tests need Linux and a C compiler"
    output = folder / "v4l2.so"
    command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(output), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True)
    return output


class Cameras:
    """Cameras that programs see which run in `environment`."""

    def __init__(self, library: Path, folder: Path) -> None:
        self._dev = folder / "dev"
        self._dev.mkdir()
        picture = folder / "picture.yuyv"
        picture.write_bytes(_yuyv(PHOTO).tobytes())
        self._jpeg = folder / "picture.jpg"
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAKE_CAMERAS": str(self._dev),
            "FAKE_PICTURE": str(picture),
        }

    def plug(self, number: int, does: str) -> None:
        """Add a camera that does what v4l2.c says."""
        (self._dev / f"video{number}").write_text(does)

    def unplug(self, number: int) -> None:
        """Remove a camera, which programs may be reading."""
        (self._dev / f"video{number}").unlink()

    def offer_jpeg(self, image: Image.Image) -> None:
        """Have all cameras offer this picture as JPEG too."""
        image.save(self._jpeg)
        self.environment["FAKE_JPEG"] = str(self._jpeg)


def _yuyv(image: Image.Image) -> Picture:
    """Return YUYV 4:2:2 with the levels of television, 16 to 235."""
    levels = np.asarray(image.convert("YCbCr")).astype(np.float32)
    packed = np.empty((*levels.shape[:2], 2), np.float32)
    packed[..., 0] = 16 + levels[..., 0] * 219 / 255
    colours = 128 + (levels[:, 0::2, 1:] - 128) * 224 / 255
    packed[:, 0::2, 1], packed[:, 1::2, 1] = colours[..., 0], colours[..., 1]
    return np.rint(packed).astype(np.uint8)
