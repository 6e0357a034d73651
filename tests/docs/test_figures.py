"""The figures of the pages are those of the kept reports, and the commands those that made them."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.docs.pages import ROOT


def load_generator() -> ModuleType:
    """Import benchmarks/figures.py, a script."""
    spec = importlib.util.spec_from_file_location("figures", ROOT / "benchmarks" / "figures.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["figures"] = module
    spec.loader.exec_module(module)
    return module


figures = load_generator()


@pytest.mark.parametrize("page", figures.PAGES, ids=lambda page: page.name)
def test_a_page_holds_the_figures_of_the_reports(page: Path) -> None:
    text = page.read_text(encoding="utf-8")

    assert "<!-- figures: " in text
    assert figures.render(text) == text, "run python benchmarks/figures.py"


def test_every_table_is_on_a_page() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in figures.PAGES)

    assert sorted(re.findall(r"<!-- figures: ([\w-]+) -->", pages)) == sorted(figures.TABLES)


def test_a_ratio_is_the_reports() -> None:
    report = json.loads((ROOT / "docs" / "bench" / "bench.json").read_text(encoding="utf-8"))
    (row,) = (
        row
        for row in report["rows"]
        if (row["way"], row["batch"], row["threads"]) == ("scores", 8, 2)
    )
    engines = {engine["engine"]: engine for engine in row["engines"]}
    (ratio,) = (each for each in row["ratios"] if each["peer"] == "onnxruntime")
    (line,) = re.findall(r"^\| onnxruntime \| 8 \| 2 \| .*$", figures.cpu(), re.M)

    assert line.split("|")[4:7] == [
        f" {engines['onnxruntime']['p50'] * 1e3 / 8:.2f} ",
        f" {engines['ferplus_tvm']['p50'] * 1e3 / 8:.2f} ",
        f" {ratio['ratio']:.2f} ({ratio['low']:.2f}..{ratio['high']:.2f}) ",
    ]


def test_the_page_shows_the_commands_that_made_the_reports() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    for name in ("bench", "bench-batch-32"):
        assert json.loads((ROOT / "docs" / name / "bench.json").read_text())["command"] in page
