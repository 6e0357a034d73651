"""What the package logs: nothing unless asked, and then what happened."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ferplus_tvm as fer
from ferplus_tvm.data import SAMPLE_FACE
from ferplus_tvm.host import cpu


def test_an_app_that_asks_for_nothing_hears_nothing(narrow_library: Path) -> None:
    code = """
import sys
import ferplus_tvm as fer
with fer.load(sys.argv[1], threads=1000) as engine:
    engine.predict_batch([b"no picture"], on_error="skip")
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(narrow_library)], capture_output=True, check=True
    )
    assert done.stdout == done.stderr == b""


def test_opening_and_closing_are_told(
    narrow_library: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "ferplus_tvm"), fer.load(narrow_library) as engine:
        target = engine.manifest.target
    told = [record.getMessage() for record in caplog.records]
    assert any(str(narrow_library) in line and target in line for line in told)
    assert told[-1].startswith("closed")
    assert {record.name.partition(".")[0] for record in caplog.records} == {"ferplus_tvm"}


def test_more_threads_than_cpus_is_a_warning_that_says_what_to_do(
    narrow_library: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with fer.load(narrow_library, threads=10_000):
        pass
    (warning,) = (record for record in caplog.records if record.levelno == logging.WARNING)
    text = warning.getMessage()
    assert f"{len(cpu.allowed())} CPUs" in text and "affinity" in text


def test_compiling_tells_its_stages(
    narrow_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "ferplus_tvm"):
        fer.compile(narrow_model, output=tmp_path / "m.so", batch_sizes=[1])
    told = " ".join(record.getMessage() for record in caplog.records)
    assert all(stage in told for stage in ("import", "link", "verify", "wrote"))


# --- pictures of a batch that cannot be used --------------------------------------------------


def test_bad_faces_of_an_array_are_skipped_and_named(
    narrow_library: Path, caplog: pytest.LogCaptureFixture
) -> None:
    faces = np.random.default_rng(0).uniform(0, 255, (5, 1, 64, 64)).astype(np.float32)
    faces[3, 0, 5, 5] = np.nan
    with fer.load(narrow_library) as engine:
        good = engine.predict(faces[4])
        answers = engine.predict_batch(faces, on_error="skip")
        assert [answer is None for answer in answers] == [False, False, False, True, False]
        assert answers[4] is not None and answers[4].label == good.label
        answers = engine.predict_batch([faces[0], faces], on_error="skip")
        assert [answer is None for answer in answers] == [False] * 4 + [True, False]
        with pytest.raises(fer.errors.InputError, match="face 4 of 5 of the array holds NaN"):
            engine.predict_batch(faces)
        with pytest.raises(TypeError, match="'colour'"):
            engine.predict_batch(faces, on_error="skip", colour="BGR")
    told = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert any("face 4 of 5 of item 2 of 2" in line for line in told)


def test_a_bad_image_of_a_batch_is_skipped_if_asked(
    narrow_library: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = SAMPLE_FACE.read_bytes()
    several = np.zeros((2, 64, 64), np.uint8)
    with fer.load(narrow_library) as engine:
        alone = engine.predict(content)
        sources = [content, b"no picture", several, content[:300]]
        answers = engine.predict_batch(sources, on_error="skip")
        assert len(answers) == 5  # the array holds two faces
        assert [answer is None for answer in answers] == [False, True, False, False, True]
        assert answers[0] is not None and answers[0].label == alone.label
        assert engine.predict_batch([b""], on_error="skip") == [None]
        returned = engine.predict_batch(sources, on_error="return")
        assert [str(each)[:11] for each in returned if isinstance(each, fer.errors.InputError)] == [
            "item 2 of 4",
            "item 4 of 4",
        ]
        assert [isinstance(each, fer.Prediction) for each in returned] == [
            answer is not None for answer in answers
        ]
        assert engine.predict_batch([], on_error="skip") == []
        with pytest.raises(fer.errors.InputError, match="item 2 of 4"):
            engine.predict_batch(sources)
        with pytest.raises(ValueError, match="expected 'raise', 'skip' or 'return'"):
            engine.predict_batch(sources, on_error="ignore")  # type: ignore[call-overload]
        with pytest.raises(ValueError, match="resample"):
            engine.predict_batch(sources, on_error="skip", resample="nearest")
    told = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert any("item 2 of 4" in line for line in told)
    assert any("item 4 of 4" in line for line in told)
