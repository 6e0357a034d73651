"""The pages that people read, and the code blocks in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
PAGES = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "examples" / "cpp" / "README.md",
    ROOT / "tuning_logs" / "README.md",
    ROOT / "ferplus_tvm" / "zoo" / "data" / "MODEL_CARD.md",
)
RUN = ("bash", "python")
NO_CODE = ("text", "{eval-rst}")
"""Fenced blocks that hold a drawing, or what the site's generator fills in."""

_NOT_RUN = re.compile(r"<!-- not run: (.*\S) -->")


@dataclass(frozen=True)
class Block:
    """A code block.

    Attributes
    ----------
    line
        Where it begins in its page, from 1.
    language
        What stands behind its fence; None for an indented block.
    reason
        Why it is not run, or None.
    """

    page: Path
    line: int
    language: str | None
    code: str
    reason: str | None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def is_run(self) -> bool:
        return self.language in RUN and self.reason is None


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def tokens(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))


def blocks_of(page: Path) -> Iterator[Block]:
    before: Token | None = None
    for token in tokens(page):
        if token.type in ("fence", "code_block"):
            told = _NOT_RUN.fullmatch(before.content.strip()) if before is not None else None
            yield Block(
                page,
                (token.map or [0])[0] + 1,
                token.info.strip() if token.type == "fence" else None,
                token.content,
                told[1] if told else None,
            )
        before = token if token.type == "html_block" else None


BLOCKS = tuple(block for page in PAGES for block in blocks_of(page))
