"""How a model's file wants its pixels: the scaling that its training did outside of the graph.

numpy is imported where arrays come in, since a library's manifest is read without it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WHITE = 255.0
"""The largest value of a raw pixel; black is 0."""

_LEAST = 1e-30  # a factor that float32 holds with all of its digits


@dataclass(frozen=True)
class Scaling:
    """What becomes of raw pixels 0..255 before a model's file gets them.

    A value is ``(low + pixel / 255 * (high - low) - mean) / std``, as in torchvision's ToTensor
    and Normalize.  Values of the file are in the shape (..., C, H, W).

    Attributes
    ----------
    input_range
        ``(low, high)``: what black and white become before mean and std, the first one smaller.
    mean, std
        One number for all channels, or one for each; 0 and 1 change nothing.  A mean other than
        0 lies in the input range, and a std is above 0.

    Raises
    ------
    ValueError
        If the numbers cannot be such a scaling.
    """

    input_range: tuple[float, float] = (0.0, WHITE)
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        for name, numbers in (
            ("input_range", self.input_range),
            ("mean", self.mean),
            ("std", self.std),
        ):
            if not numbers or not all(map(_is_finite, numbers)):
                raise ValueError(f"{name} is {_listed(numbers)}: expected finite numbers")
        if len(self.input_range) != 2 or not self.input_range[0] < self.input_range[1]:
            raise ValueError(
                f"input_range is {_listed(self.input_range)}: expected the values of black and "
                "white, the first one smaller, such as (0, 1)"
            )
        low, high = self.input_range
        wrong = [each for each in self.mean if each != 0 and not low <= each <= high]
        if wrong:
            raise ValueError(
                f"the mean {wrong[0]:g} lies outside of the input range {low:g}..{high:g}: state "
                "the mean and the std of pixels in that range"
            )
        if min(self.std) <= 0:
            raise ValueError(f"std is {_listed(self.std)}: expected numbers above 0")
        if len({len(self.mean), len(self.std)} - {1}) > 1:
            raise ValueError(
                f"mean is {_listed(self.mean)} and std is {_listed(self.std)}: expected one "
                "number for all channels, or one for each"
            )

        offsets, factors = self.affine()
        if not all(_LEAST < factor < 1 / _LEAST for factor in factors) or not all(
            abs(offset) < 1 / _LEAST for offset in offsets
        ):
            raise ValueError(
                f"a scaling to {self} has numbers that float32 cannot hold: expected such as of "
                "pixels in 0..1 or 0..255"
            )

    @classmethod
    def of(
        cls,
        input_range: Iterable[float] | None = None,
        mean: float | Iterable[float] | None = None,
        std: float | Iterable[float] | None = None,
    ) -> Self | None:
        """Return the scaling that a caller states, or None if none is stated.

        Parameters
        ----------
        input_range
            (low, high).  Without it, mean and std have to show that they are of pixels 0..255.
        mean, std
            A number, or one for each channel.

        Raises
        ------
        ValueError
            If the numbers cannot be a scaling, or if mean and std are given without a range and
            may be meant for pixels in 0..1, as torchvision's are.
        TypeError
            If they are not numbers.
        """
        if input_range is None and mean is None and std is None:
            return None
        given = {"input_range": input_range, "mean": mean, "std": std}
        numbers: dict[str, Any] = {
            name: _numbers(name, each) for name, each in given.items() if each is not None
        }
        if input_range is None and not _of_bytes(
            numbers.get("mean", cls.mean), numbers.get("std", cls.std)
        ):
            stated = " and ".join(f"{name} {_listed(each)}" for name, each in numbers.items())
            raise ValueError(
                f"{stated} may be of pixels in 0..1 or in 0..255: state which by "
                "input_range=(0, 1) or (0, 255) (--input-range 0,1 on the command line)"
            )
        return cls(**numbers)

    @property
    def channels(self) -> int | None:
        """The number of channels that there are numbers for, or None if one is for all."""
        most = max(len(self.mean), len(self.std))
        return most if most > 1 else None

    def affine(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return offsets and factors, one or C of each: a value is (pixel - offset) * factor."""
        low, high = self.input_range
        offsets = tuple((mean - low) * (WHITE / (high - low)) for mean in self.mean)
        return offsets, tuple((high - low) / (WHITE * std) for std in self.std)

    def values(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Return what the file wants for raw pixels (..., C, H, W) in 0..255, as float32."""
        import numpy as np

        low, high = self.input_range
        ranged = low + np.asarray(pixels, np.float64) * ((high - low) / WHITE)
        return ((ranged - _spread(self.mean)) / _spread(self.std)).astype(np.float32)

    def pixels(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Return the raw pixels 0..255 of values (..., C, H, W) that the file wants, as float32."""
        import numpy as np

        low, high = self.input_range
        ranged = np.asarray(values, np.float64) * _spread(self.std) + _spread(self.mean)
        return ((ranged - low) * (WHITE / (high - low))).astype(np.float32)

    def __str__(self) -> str:
        low, high = self.input_range
        text = f"{low:g}..{high:g}"
        if any(self.mean):
            text += f", less the mean {_listed(self.mean)}"
        if any(each != 1 for each in self.std):
            text += f", divided by {_listed(self.std)}"
        return text


def _of_bytes(mean: tuple[float, ...], std: tuple[float, ...]) -> bool:
    """Tell whether a mean and a std can only be of pixels in 0..255."""
    plain_mean, plain_std = not any(mean), all(each == 1 for each in std)
    if plain_mean and plain_std:
        return False
    return (plain_mean or max(mean) > 1) and (plain_std or min(std) > 1)


def _spread(numbers: tuple[float, ...]) -> NDArray[np.float64]:
    """Return numbers as an array that goes along the channels of (..., C, H, W)."""
    import numpy as np

    return np.reshape(np.array(numbers, np.float64), (-1, 1, 1) if len(numbers) > 1 else ())


def _numbers(name: str, given: Any) -> tuple[float, ...]:
    """Return a number or an iterable of numbers as floats."""
    try:
        listed = [given] if isinstance(given, Real) else list(given)
    except TypeError:  # also of an array without dimensions
        listed = [given]
    if not all(map(_is_number, listed)):
        raise TypeError(f"{name} is {given!r}: expected numbers")
    if not listed:
        raise ValueError(f"{name} is {given!r}: expected a number, or one for each channel")
    return tuple(map(float, listed))


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return _is_number(value) and math.isfinite(value)


def _listed(numbers: Iterable[Any]) -> str:
    return ", ".join(f"{each:g}" if _is_number(each) else repr(each) for each in numbers)


RAW = Scaling()
"""Raw pixels 0..255, for files that scale their input themselves, as FER+ does."""
