"""Check that the fields of a dataclass hold what their annotations say."""

from __future__ import annotations

import functools
import math
import re
import types
from dataclasses import is_dataclass
from typing import Any, cast, get_args, get_origin, get_type_hints


def expect_types(value: Any) -> None:
    """See that the fields of a dataclass hold what their annotations say, all the way down.

    Raises
    ------
    ValueError
        If one does not.
    """
    for name, kind in _hints(cast(Any, type(value))).items():
        if not _is(getattr(value, name), kind):
            raise ValueError(f"its field {name} is of another type")


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _is(value: Any, kind: Any) -> bool:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return True
    if origin is types.UnionType:
        return any(_is(value, each) for each in arguments)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if arguments[-1] is Ellipsis:
            return all(_is(item, arguments[0]) for item in value)
        return len(value) == len(arguments) and all(map(_is, value, arguments))
    if origin is dict:
        return isinstance(value, dict) and all(
            _is(key, arguments[0]) and _is(item, arguments[1]) for key, item in value.items()
        )
    if isinstance(kind, type) and is_dataclass(kind) and isinstance(value, kind):
        expect_types(value)
        return True
    if kind in (int, float):  # which a truth value is, to Python
        allowed = (int, float) if kind is float else int
        number = isinstance(value, allowed) and not isinstance(value, bool)
        return number and math.isfinite(value)
    if kind is str:  # of characters that can be written, as half of a surrogate pair cannot
        return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)
    return isinstance(value, kind)
