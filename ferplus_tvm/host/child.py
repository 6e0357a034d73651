"""How this package starts Python processes of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def python(*arguments: str) -> list[str]:
    """Return the command of this Python, to which nothing in the current folder is a module."""
    return [sys.executable, "-P", *arguments]


def environment() -> dict[str, str]:
    """Return this process's environment, in which a child finds this package too."""
    parent = str(Path(__file__).parents[2])
    paths = [parent, os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
