"""The pictures that ``photo`` writes: drawings and crops."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ferplus_tvm.errors import InputError
from ferplus_tvm.vision.photo import Photo

if TYPE_CHECKING:
    from PIL import Image

_QUALITY = 92  # of JPEG


class PhotoFiles:
    """Writes drawings and crops under the photos' names, and never over a photo.

    Parameters
    ----------
    draw, crops
        The folders, which are made where they are not there; None for none.
    sources
        The photos.

    Raises
    ------
    InputError
        If a folder cannot be made.
    """

    def __init__(self, draw: Path | None, crops: Path | None, sources: Sequence[str]) -> None:
        self._draw, self._crops = draw, crops
        self._taken = {os.path.realpath(source) for source in sources}
        for folder in (draw, crops):
            if folder is not None:
                try:
                    folder.mkdir(parents=True, exist_ok=True)
                except OSError as error:
                    raise InputError(
                        f"the folder {folder} cannot be made ({error.strerror}): name another one"
                    ) from error

    def write(self, photo: Photo) -> None:
        """Write what is wanted of a photo: ``NAME-faces.jpg``, ``NAME-1.png``, ``NAME-2.png``...

        Raises
        ------
        InputError
            If a file cannot be written, or the photo can be read no more.
        """
        stem = "stdin" if photo.source == "-" else Path(photo.source).stem
        if self._draw is not None:
            image = photo.draw()
            path = self._free(self._draw, f"{stem}-faces", ".jpg")
            _save(image, path, quality=_QUALITY)
        if self._crops is not None:
            for number, image in enumerate(photo.crops(), 1):
                _save(image, self._free(self._crops, f"{stem}-{number}", ".png"))

    def _free(self, folder: Path, stem: str, suffix: str) -> Path:
        """Return a name that no photo has, and nothing that was written before it in this run."""
        path, count = folder / f"{stem}{suffix}", 1
        while os.path.realpath(path) in self._taken:
            count += 1
            path = folder / f"{stem}-again{count}{suffix}"
        self._taken.add(os.path.realpath(path))
        return path


def _save(image: Image.Image, path: Path, **options: Any) -> None:
    try:
        image.save(path, **options)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{path} cannot be written ({reason}): name another folder, or make room"
        ) from error
