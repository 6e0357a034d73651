"""Times of a video in words."""

from __future__ import annotations


def clock(seconds: float, tenths: bool = False) -> str:
    """Return a time as 2:03 or 1:02:03, with ``tenths`` as 2:03.4."""
    units = round(10 * seconds) if tenths else 10 * round(seconds)
    minutes, units = divmod(units, 600)
    hours, minutes = divmod(minutes, 60)
    rest = f"{units / 10:04.1f}" if tenths else f"{units // 10:02d}"
    return f"{hours}:{minutes:02d}:{rest}" if hours else f"{minutes}:{rest}"


def length(seconds: float) -> str:
    """Return how long something lasts: 4.2 s, 2:03 min or 1:02:03 h."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{clock(seconds)} {'min' if seconds < 3600 else 'h'}"
