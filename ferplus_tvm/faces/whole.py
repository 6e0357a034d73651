"""Tell whole photos from crops of one face, which the model would answer all the same."""

from __future__ import annotations

import logging
import threading

_log = logging.getLogger(__name__)
_warned = threading.Lock()  # taken by the one warning of this process

# A detector's box of a face is about as wide as high, or higher; a photo has 4:3, 3:2 or 16:9.
_WIDEST, _HIGHEST = 1.25, 1.6
_LEAST_SIDE = 320  # of the longer side: smaller pictures may be crops of any shape
_CAMERA = 3_000_000  # pixels; hardly a face is cropped so large


def looks_whole(width: int, height: int) -> bool:
    """Whether a picture of this size is plainly no crop of one face."""
    if width * height >= _CAMERA:
        return True
    odd = width >= _WIDEST * height or height > _HIGHEST * width
    return odd and max(width, height) >= _LEAST_SIDE


def warn_if_whole(width: int, height: int, name: str) -> None:
    """Log a warning, once in a process, if a picture that is taken for a face looks whole.

    Parameters
    ----------
    width, height
        Those of the picture, in pixels.
    name
        What messages call it.
    """
    if looks_whole(width, height) and _warned.acquire(blocking=False):
        _log.warning(
            "%s has %d x %d pixels, so it looks like a whole photo, and is answered as if all of "
            "it were one face: give it to engine.analyze, on the command line to photo, which "
            "find the faces in it; this is said once in a process",
            name,
            width,
            height,
        )
