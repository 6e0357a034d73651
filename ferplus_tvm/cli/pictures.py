"""The pictures that a command line names: files, folders of files, and standard input."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from ferplus_tvm.errors import InputError

# What file managers leave beside pictures, in lower case.
_LITTER = frozenset({".ds_store", "thumbs.db", "desktop.ini"})

# MPO is read as the JPEG that it begins with; for the others a message says how to read them.
_MORE_SUFFIXES = frozenset({".mpo", ".heic", ".heif", ".hif", ".avif", ".jxl"})


@dataclass
class Pictures:
    """The files that a command line names.

    Attributes
    ----------
    names
        Files, ``-``, and the folders that give none.
    problems
        Why a folder gives none, by its name.
    passed_over
        How many of what in folders were passed over.
    """

    names: list[str] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)
    passed_over: Counter[str] = field(default_factory=Counter)


def pictures(given: list[str], recursive: bool) -> Pictures:
    """Return the files that arguments name.

    Parameters
    ----------
    given
        Files, folders, or ``-``. A folder stands for its pictures, in order of their names.
    recursive
        Whether it also stands for those of the folders in it, which follow.

    """
    found = Pictures()
    for name in given:
        if name == "-" or not os.path.isdir(name):
            found.names.append(name)
            continue
        own: Counter[str] = Counter()
        try:
            inside = list(_in_folder(name, recursive, set(), _suffixes(), own))
            if not inside:
                step = (
                    "add --recursive for those in its folders"
                    if own["folder"]
                    else "expected files such as face.jpg"
                )
                raise InputError(f"the folder {name} holds no images: {step}")
        except InputError as error:
            inside = [name]
            found.problems[name] = str(error)
        found.names += inside
        found.passed_over += own
    return found


def said(passed_over: Counter[str]) -> str:
    """Say what was passed over, in one sentence."""
    parts = [
        f"{count} {what if count == 1 else what.replace(' or', 's or') + 's'}{note}"
        for what, note in (
            ("file", " without an image's suffix"),
            ("pipe or device", ""),
            ("broken link", ""),
            ("hidden folder", ""),
            ("folder", " (--recursive reads them)"),
        )
        if (count := passed_over[what])
    ]
    return f"passed over {', '.join(parts)}"


def _in_folder(
    folder: str,
    recursive: bool,
    entered: set[tuple[int, int]],
    suffixes: frozenset[str],
    passed_over: Counter[str],
) -> Iterator[str]:
    """Yield a folder's pictures; count what is passed over; enter no folder twice."""
    try:
        state = os.stat(folder)
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise InputError(
            f"the folder {folder} cannot be read ({error.strerror}): check its permissions"
        ) from error
    if (state.st_dev, state.st_ino) in entered:  # by a link
        return
    entered.add((state.st_dev, state.st_ino))
    folders = []
    for name in names:
        if name.startswith("._") or name.lower() in _LITTER:
            continue
        path = os.path.join(folder, name)
        if os.path.isdir(path):
            folders.append(name)
        elif not os.path.exists(path):
            passed_over["broken link"] += 1
        elif os.path.splitext(name)[1].lower() not in suffixes:
            passed_over["file"] += 1
        elif os.path.isfile(path):
            yield path
        else:
            passed_over["pipe or device"] += 1
    for name in folders:
        if not recursive:
            passed_over["folder"] += 1
        elif name.startswith(".") or name == "__MACOSX":
            passed_over["hidden folder"] += 1
        else:
            path = os.path.join(folder, name)
            yield from _in_folder(path, recursive, entered, suffixes, passed_over)


def _suffixes() -> frozenset[str]:
    """Return the suffixes of pictures; Pillow only writes some formats, such as PDF."""
    from PIL import Image

    formats = Image.registered_extensions().items()
    return frozenset(suffix for suffix, name in formats if name in Image.OPEN) | _MORE_SUFFIXES
