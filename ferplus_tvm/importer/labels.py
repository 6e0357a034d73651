"""The names of a model's classes: as a caller states them, or by the name of a data set."""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Iterable, Mapping, Set
from contextlib import suppress
from typing import Any

from ferplus_tvm.faces.labels import EMOTIONS

LONGEST = 100
"""The most characters that the name of a class may have."""

LONGEST_TEXT = 4096
"""The most characters of a text that is read for names."""

ORDERS: dict[str, tuple[str, ...]] = {
    "ferplus": EMOTIONS,
    "fer2013": ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"),
    "affectnet8": (
        "neutral",
        "happiness",
        "sadness",
        "surprise",
        "fear",
        "disgust",
        "anger",
        "contempt",
    ),
    "affectnet7": ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger"),
    "rafdb": ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral"),
}
"""Data sets, and the classes in the order of their own numbers.

``ferplus`` are the columns of https://github.com/microsoft/FERPlus; ``fer2013`` are the numbers 0
to 6 of the Kaggle challenge's ``fer2013.csv``; ``affectnet8`` and ``affectnet7`` the expressions 0
to 7 and 0 to 6 of AffectNet (arXiv:1708.03985); ``rafdb`` the classes 1 to 7 of RAF-DB's
``list_patition_label.txt`` (http://www.whdeng.cn/raf/model1.html).  Where pictures were read from
folders, as torchvision's ImageFolder and Keras do, the classes stand by the alphabet instead.
"""


def labels_of(given: str | Iterable[str]) -> tuple[str, ...]:
    """Return the names of classes.

    Parameters
    ----------
    given
        The names in the order of the scores, as a sequence, or in a mapping with their numbers
        from 0, such as torchvision's ``class_to_idx``; either as text too, as JSON, Python's
        literal or separated by commas, semicolons, bars, tabs or lines; or a key of `ORDERS`.

    Raises
    ------
    ValueError
        If they are not two or more different names of 1 to 100 printable characters.
    TypeError
        If they are no text, or have no order.
    """
    names = labels_in(given) if isinstance(given, str) else _in_order(given)
    if names is None and isinstance(given, str):
        raise ValueError(
            f"labels is {given[:LONGEST]!r}: expected one of {', '.join(ORDERS)}, or the names of "
            "the classes in the order of the scores, with commas between them"
        )
    if names is None:
        raise TypeError(
            f"labels is {given!r}: expected a list of text, the names in the order of the scores"
        )
    return _checked(tuple(name.strip() for name in names))


def labels_in(text: str) -> list[str] | None:
    """Return the names of classes in a text of one of the forms of `labels_of`, None for others."""
    text = text.strip()
    if text.lower() in ORDERS:
        return list(ORDERS[text.lower()])
    if not 0 < len(text) <= LONGEST_TEXT:
        return None
    value = _literal(text)
    return _in_order(_separated(text) if value is None else value)


def _checked(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(names) < 2:
        raise ValueError(f"labels names {len(names)} classes: expected two or more")
    for name in names:
        if not 0 < len(name) <= LONGEST or not name.isprintable():
            raise ValueError(
                f"labels holds the name {name[:LONGEST]!r}: expected 1 to {LONGEST} printable "
                "characters"
            )
        if names.count(name) > 1:
            raise ValueError(f"labels names {name!r} twice: expected different names")
    return names


def _in_order(given: Any) -> list[str] | None:
    """Return names that have an order as a list, None for anything else."""
    if isinstance(given, Mapping):
        given = _by_index(given.items()) or _by_index((at, name) for name, at in given.items())
    if not isinstance(given, Iterable) or isinstance(given, Set | str):
        return None
    names = list(given)
    return names if all(isinstance(name, str) for name in names) else None


def _literal(text: str) -> Any:
    """Return what a text is as JSON or as Python's literal, None if it is neither."""
    if text[0] not in "[({":
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes that Python does not know
        for read in (json.loads, ast.literal_eval):
            # Deep nesting exhausts the parser; a dictionary as a key is no literal.
            with suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
                return read(text)
    return None


def _separated(text: str) -> list[str] | None:
    """Return the names in lines, or between separators, also with their numbers."""
    bare = text[1:-1] if text[0] + text[-1] in ("[]", "()", "{}") else text
    separator = next((each for each in "\n;,|\t" if each in bare), None)
    if separator is None:
        return None
    parts = [part.strip(" '\"\r") for part in bare.split(separator) if part.strip()]
    numbered = [re.fullmatch(r"(\d+)\s*[:=\s]\s*(.+)", part) for part in parts]
    return _by_index(m.groups() for m in numbered if m) if all(numbered) else parts


def _by_index(items: Iterable[Any]) -> list[str] | None:
    """Return names in the order of their numbers, None if these are not 0, 1, 2, ..."""
    named = {str(at): name for at, name in items}
    numbers = [str(at) for at in range(len(named))]
    return [named[at] for at in numbers] if set(named) == set(numbers) else None


def same_order(names: Iterable[str], others: Iterable[str]) -> bool:
    """Tell whether two lists name the same classes in the same order, as far as can be seen.

    By their first three letters, since happy is happiness, and Anger is angry, unless the names are
    the same ones.
    """
    first, second = ([name.casefold() for name in each] for each in (names, others))
    if set(first) == set(second):
        return first == second
    return [name[:3] for name in first] == [name[:3] for name in second]
