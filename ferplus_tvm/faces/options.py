"""How faces are read from images and arrays: the keyword arguments of `ferplus_tvm.preprocess`."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal, Self, TypedDict


class PreprocessOptions(TypedDict, total=False):
    """The keyword arguments of `ferplus_tvm.preprocess` and of `Engine.predict`, all optional.

    Attributes
    ----------
    channel_order
        Order of the colours in arrays: ``"RGB"``, the default, or ``"BGR"`` for those of OpenCV.
        Images know their own.
    value_range
        (black, white) of all arrays, and of images of 16 and 32 bits (modes I;16, I and F), whose
        range no format fixes.  By default it follows from the type: bool 0..1, uint16 and I;16
        0..65535, all else 0..255.  (0, 255) also says of an image of 8 bits that is nearly black
        that it is meant to be.
    background
        Grey level behind transparent pixels, 0..255; 255 (white) by default, as most viewers show
        it.
    resample
        ``"bilinear"``, the default: Pillow's triangle filter, which widens with the scale and so
        antialiases.  ``"numpy"``: what the model zoo once documented,
        ``np.resize(img, (1, 64, 64))``, for those who must reproduce it.  It repeats or cuts off
        the stored numbers (channels interleaved, not turned upright, palette indices as they are)
        and does not show the face.
    """

    channel_order: Literal["RGB", "BGR"]
    value_range: tuple[float, float] | None
    background: float
    resample: Literal["bilinear", "numpy"]


@dataclass(frozen=True)
class CheckedOptions:
    """What a call asks for, checked, with the defaults of what was left out.

    Attributes
    ----------
    size, channels
        Those of `preprocess`.
    channel_order, value_range, background, resample
        Those of `PreprocessOptions`.
    """

    size: int = 64
    channels: int = 1
    channel_order: str = "RGB"
    value_range: tuple[float, float] | None = None
    background: float = 255
    resample: str = "bilinear"

    @classmethod
    def of(cls, options: PreprocessOptions, size: int, channels: int) -> Self:
        """Check options.

        Raises
        ------
        TypeError
            For an option that does not exist.
        ValueError
            For a value that an option does not take.
        """
        given: dict[str, Any] = {**options}
        names = [field.name for field in fields(cls) if field.name not in ("size", "channels")]
        unknown = sorted(set(given) - set(names))
        if unknown:
            raise TypeError(f"there is no option {unknown[0]!r}: expected {', '.join(names)}")
        return cls(size, channels, **given)

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size is {self.size!r}; expected a number of pixels, at least 1")
        if self.channels not in (1, 3):
            raise ValueError(f"channels is {self.channels!r}; expected 1 (grey) or 3 (RGB)")
        if self.channel_order not in ("RGB", "BGR"):
            raise ValueError(f"channel_order is {self.channel_order!r}; expected 'RGB' or 'BGR'")
        if self.resample not in ("bilinear", "numpy"):
            raise ValueError(f"resample is {self.resample!r}; expected 'bilinear' or 'numpy'")
        if not 0 <= self.background <= 255:
            raise ValueError(f"background is {self.background!r}; expected a grey level, 0..255")
        if self.value_range is not None:
            low, high = self.value_range
            if not (low < high and math.isfinite(high - low)):
                raise ValueError(
                    f"value_range is {self.value_range!r}; expected (black, white), two finite "
                    "numbers, the first one smaller"
                )
