"""The report: its JSON, its page and its plots, by the one that is kept in docs/bench."""

from __future__ import annotations

import gzip
import json
import re
from dataclasses import fields, replace
from html import escape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from ferplus_tvm.bench.report import data, text
from ferplus_tvm.bench.report.data import BenchWarning, Report
from ferplus_tvm.bench.report.plots import NAMES, SCHEMES
from ferplus_tvm.bench.report.write import read_calls, render, write
from ferplus_tvm.bench.timing.cold_start import ColdStart
from ferplus_tvm.bench.timing.layers import LayerTime, LayerTimes
from ferplus_tvm.bench.timing.roofline import Level, Roofline
from ferplus_tvm.bench.timing.rows import Call, EngineTime, Row
from ferplus_tvm.bench.timing.samples import Ratio
from ferplus_tvm.bench.timing.scenarios import Outcome
from ferplus_tvm.errors import BenchError
from tests.artifacts import assert_sentence

DOCS = Path(__file__).parents[2] / "docs"
Kept = tuple[Report, list[Call]]

pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="needs a checkout")


@pytest.fixture(scope="module")
def kept() -> Kept:
    return data.read(DOCS / "bench" / "bench.json"), read_calls(DOCS / "bench")


def test_the_page_opens_with_a_sentence_and_the_ratios(kept: Kept, tmp_path: Path) -> None:
    report, calls = kept
    write(tmp_path, report, calls)
    page = (tmp_path / "index.html").read_text()
    parts = ["<h1>", 'class="lead"', "<figure>", 'class="warnings"', "<details>", "<table>"]
    places = [page.index(part) for part in parts]
    assert places == sorted(places)
    assert escape(text.headline(report)) in page
    first = page.index("<figure>")
    assert "How many times as fast" in page[first : page.index("<svg", first) + 300]
    assert page.count("<figure>") == page.count('<svg role="img" aria-label="') == 5
    folded = page[page.index('class="warnings"') :]
    assert folded[: folded.index("<details>")].count("<br>") < 3


def test_the_page_needs_no_other_file_and_is_light_and_dark(kept: Kept, tmp_path: Path) -> None:
    report, calls = kept
    write(tmp_path, report, calls)
    page = (tmp_path / "index.html").read_text()
    assert not re.findall(r"<(?:img|script|link)|@import|url\((?!#)", page)
    assert set(re.findall(r'(?:src|href)="([^"]?)', page)) <= {"#"}
    assert "prefers-color-scheme: dark" in page
    used = set(re.findall(r"var\(--(\w+)\)", page))
    light, dark = (set(re.findall(r"--(\w+): #", line)) for line in SCHEMES.splitlines())
    assert used <= light == dark and "peer3" in used
    assert not re.findall(r"#0f0f\w\w", page)  # what stands for the variables while drawing
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', page)) <= set(ids)


def test_pictures_are_files_that_show_every_engine(kept: Kept, tmp_path: Path) -> None:
    report, calls = kept
    paths = [path for path in write(tmp_path, report, calls) if path.suffix == ".svg"]
    assert {path.stem for path in paths} == set(NAMES)
    for path in paths:
        picture = ElementTree.parse(path).getroot()
        assert picture.tag.endswith("svg") and picture.get("aria-label")
        words = " ".join(picture.itertext())
        assert "prefers-color-scheme" in words
        if path.stem != "layers":
            assert all(each.engine in words for each in report.rows[0].engines)


def test_a_report_that_is_kept_is_rendered_anew(kept: Kept, tmp_path: Path) -> None:
    report, calls = kept
    before = {path.name: path.read_bytes() for path in write(tmp_path, report, calls)}
    (tmp_path / "index.html").write_text("an older page")
    packed = gzip.compress((tmp_path / "calls.csv").read_bytes())
    (tmp_path / "calls.csv.gz").write_bytes(packed)
    (tmp_path / "calls.csv").unlink()
    names = {path.name for path in render(tmp_path)}
    assert names == {name for name in before if name.endswith((".svg", ".html"))}
    assert all((tmp_path / name).read_bytes() == before[name] for name in names)
    (tmp_path / "calls.csv.gz").unlink()
    with pytest.raises(BenchError, match=r"calls\.csv"):
        render(tmp_path)


def test_pictures_of_a_report_with_more_figures_are_removed(kept: Kept, tmp_path: Path) -> None:
    report, calls = kept
    write(tmp_path, report, calls)
    write(tmp_path, replace(report, layers=()), calls)
    assert not (tmp_path / "layers.svg").exists() and (tmp_path / "ratios.svg").exists()


def test_the_terminal_says_who_is_faster(kept: Kept) -> None:
    report, _ = kept
    pairs = [(row, ratio) for row in report.rows for ratio in row.ratios]
    for (row, ratio), verdict in zip(pairs, text.verdicts(report.rows), strict=True):
        told = f"ferplus_tvm is {ratio.ratio:.2f} times as fast as {ratio.peer}"
        assert verdict.startswith(f"{row.where}: {told}")
    row, ratio = pairs[0]
    slower = replace(row, ratios=(replace(ratio, ratio=0.5, low=0.45, high=0.55),))
    assert "onnxruntime is 2.00 times as fast as ferplus_tvm" in text.verdicts([slower])[0]
    unsure = replace(row, ratios=(replace(ratio, ratio=1.1, low=0.9, high=1.3),))
    assert "no difference is shown" in text.verdicts([unsure])[0]


def test_the_headline_is_one_sentence_on_the_smallest_batch_with_the_most_threads(
    kept: Kept,
) -> None:
    report, _ = kept
    assert text.headline(report) == (
        "On AMD EPYC with 2 threads, ferplus_tvm answers for one face in 3.17 ms: 2.73 times as "
        "fast as onnxruntime, 1.36 times as fast as openvino (bfloat16) and 2.71 times as fast as "
        "openvino-float32."
    )
    (row,) = (row for row in report.rows if row.where == "batch 1, 2 threads")
    unsure = replace(row.ratios[0], ratio=1.1, low=0.9, high=1.3)
    told = text.headline(replace(report, rows=(replace(row, ratios=(unsure,)),)))
    assert told.endswith("3.17 ms: not shown to be faster or slower than onnxruntime.")
    alone = text.headline(replace(report, rows=(replace(row, ratios=()),)))
    assert alone == "On AMD EPYC with 2 threads, ferplus_tvm answers for one face in 3.17 ms."


def test_the_evidence_in_short_is_the_worst_of_all_rows(kept: Kept) -> None:
    report, _ = kept
    _, cells = text.evidence(report.rows)
    exact = max(float(cell[2]) for cell in cells if "bfloat16" not in cell[1])
    lower = max(float(cell[2]) for cell in cells if "bfloat16" in cell[1])
    fewest = min(int(cell[5]) for cell in cells)
    told = text.evidence_in_short(report.rows)
    assert f"by at most {exact:.0e} (float32), {lower:.0e} (bfloat16) of the largest" in told
    assert f"in {fewest} rounds" in told
    assert text.evidence_in_short([replace(report.rows[0], ratios=())]) == ""


def test_what_is_no_report_is_refused(tmp_path: Path, kept: Kept) -> None:
    report, _ = kept
    path = tmp_path / "bench.json"
    for content, part in (
        ("", "no report"),
        ("[1]", "no report"),
        (report.to_json().replace('"format": 1', '"format": 9'), "format 9"),
        (report.to_json().replace('"of_roofline"', '"limit"'), "lacks fields"),
        ('{"format": 1, "rows": 3}', "lacks fields"),
    ):
        path.write_text(content)
        with pytest.raises(BenchError) as caught:
            data.read(path)
        assert_sentence(str(caught.value), part)
    with pytest.raises(BenchError, match="cannot be read"):
        data.read(tmp_path / "absent.json")


def test_fields_that_a_later_version_adds_are_left_out(kept: Kept, tmp_path: Path) -> None:
    report, _ = kept
    told = json.loads(report.to_json())
    told["later"] = 1
    told["rows"][0]["later"] = told["rows"][0]["engines"][0]["later"] = [1]
    (tmp_path / "bench.json").write_text(json.dumps(told))
    assert data.read(tmp_path / "bench.json") == report


def test_a_folder_that_cannot_be_written_is_one_sentence(kept: Kept, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BenchError) as caught:
        write(tmp_path / "file", *kept)
    assert_sentence(str(caught.value), "--out")


@pytest.mark.parametrize(
    "part",
    [
        *(Report, BenchWarning, Row, EngineTime, Call, Ratio, Outcome, ColdStart),
        *(Roofline, Level, LayerTimes, LayerTime),
    ],
)
def test_every_field_of_a_report_is_documented(part: type[Any]) -> None:
    _, attributes = (part.__doc__ or "").split("Attributes\n    ----------\n")
    listed = re.findall(r"^    (\S.*)$", attributes.split("\n\n")[0], re.M)
    assert [field.name for field in fields(part)] == ", ".join(listed).split(", ")
    document = (Path(__file__).parents[2] / "docs" / "bench.md").read_text(encoding="utf-8")
    assert {field.name for field in fields(part)} <= set(re.findall(r"`(\w+)`", document))
