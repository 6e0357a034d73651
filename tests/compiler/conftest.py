"""A network of few layers, for what would take minutes with all of them."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from tests.chains import Chain


@pytest.fixture(scope="session")
def short_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file of two convolutions with pooling and a dense layer."""
    chain = Chain().conv("first", 16).relu("r1").pool("p1")
    chain = chain.conv("second", 32).relu("r2").pool("p2").flatten().dense("last")
    path = tmp_path_factory.mktemp("short") / "short.onnx"
    onnx.save(chain.model(), path)
    return path
