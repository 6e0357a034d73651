"""The names of a model's classes: as a caller states them, or by the name of a data set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

from ferplus_tvm.faces.labels import EMOTIONS

LONGEST = 100
"""The most characters that the name of a class may have."""

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
        The names in the order of the scores, as a sequence or with commas between them, or a key
        of `ORDERS`.

    Raises
    ------
    ValueError
        If they are not two or more different names of 1 to 100 printable characters.
    TypeError
        If they are no text.
    """
    if isinstance(given, str):
        if given.strip().lower() in ORDERS:
            return ORDERS[given.strip().lower()]
        if "," not in given:
            raise ValueError(
                f"labels is {given!r}: expected one of {', '.join(ORDERS)}, or the names of the "
                "classes in the order of the scores, with commas between them"
            )
        given = given.split(",")
    ordered = isinstance(given, Iterable) and not isinstance(given, Set | Mapping)
    listed = list(given) if ordered else []
    if not ordered or not all(isinstance(name, str) for name in listed):
        raise TypeError(
            f"labels is {given!r}: expected a list of text, the names in the order of the scores"
        )
    names = tuple(name.strip() for name in listed)
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


def same_order(names: Iterable[str], others: Iterable[str]) -> bool:
    """Tell whether two lists name the same classes in the same order, as far as can be seen.

    By their first three letters, since happy is happiness, and Anger is angry, unless the names are
    the same ones.
    """
    first, second = ([name.casefold() for name in each] for each in (names, others))
    if set(first) == set(second):
        return first == second
    return [name[:3] for name in first] == [name[:3] for name in second]
