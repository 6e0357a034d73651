"""The pages link to what is there, and name what the code has."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

import ferplus_tvm as fer
from ferplus_tvm.artifact.manifest import Check, Function, Kernel, Manifest, Tensor
from ferplus_tvm.artifact.scaling import Scaling
from ferplus_tvm.targets import GPUS, NAMED
from tests.docs.pages import PAGES, ROOT, name_of

FOLDERS = [
    *("tests", "benchmarks", "ferplus_tvm", "examples", r"\.ci"),
    *(path.name for path in (ROOT / "ferplus_tvm").iterdir() if path.is_dir()),
]
LINK = re.compile(r'\]\((?!\w+:)([^)#]+)[^)]*\)|(?:href|src)="(?!\w+:)([^"#]+)"')


def links(page: Path) -> list[str]:
    return [one or other for one, other in LINK.findall(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("page", [page for page in PAGES if links(page)], ids=name_of)
def test_links_lead_to_files(page: Path) -> None:
    assert [link for link in links(page) if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_that_a_page_names_exist(page: Path) -> None:
    """Paths in backticks or in a comment, from the repository or from the package."""
    text = page.read_text(encoding="utf-8")
    marked = " ".join(re.findall(r"`[^`\n]+`|<!--.*?-->", text))
    named = re.findall(rf"(?<![\w/.])((?:{'|'.join(FOLDERS)})/[\w/.-]*)", marked)
    paths = [path.rstrip(".") for path in named if "NAME" not in path]

    assert [
        path
        for path in paths
        if not ((ROOT / path).exists() or (ROOT / "ferplus_tvm" / path).exists())
    ] == []


def test_every_page_of_docs_is_linked_from_another() -> None:
    found = {(page.parent / link).resolve() for page in PAGES for link in links(page)}

    assert [page.name for page in (ROOT / "docs").glob("*.md") if page.resolve() not in found] == []


def test_every_target_is_in_the_table() -> None:
    page = (ROOT / "docs" / "targets.md").read_text(encoding="utf-8")

    names = [*NAMED, *(f"cuda/{arch}" for arch in GPUS)]
    assert [name for name in names if f"`{name}`" not in page] == []


@pytest.mark.parametrize("kind", [Manifest, Kernel, Function, Tensor, Check, Scaling])
def test_the_page_of_the_file_format_has_every_field_of_the_manifest(kind: type) -> None:
    page = (ROOT / "docs" / "artifact-format.md").read_text(encoding="utf-8")

    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    assert [name for name in names if f"`{name}`" not in page] == []


def test_every_public_name_is_on_the_page_of_the_api() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")

    # Its base class stands among the errors, and the version explains itself.
    names = set(fer.__all__) - {"FerplusError", "__version__", "errors"}
    listed = set(re.findall(r"^\.\. auto(?:function|class|data):: (\w+)$", page, re.M))
    assert listed == names
