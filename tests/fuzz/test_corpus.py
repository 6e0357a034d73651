"""The fuzzer's corpus, and random changes of it, in the ordinary run."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from ferplus_tvm.artifact.manifest_json import from_json
from tests.fuzz.targets import CORPUS, TARGETS

FILES = [path for name in TARGETS for path in sorted((CORPUS / name).iterdir())]
CHANGES = {"manifest": 3000, "importer": 250, "picture": 400, "tensor": 3000}


def test_every_reader_has_a_corpus() -> None:
    assert {path.parent.name for path in FILES} == set(TARGETS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_corpus_is_read_or_refused(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


@pytest.mark.parametrize("name", ["one.json", "two.json"])
def test_changes_begin_from_manifests_of_this_format(name: str) -> None:
    assert from_json((CORPUS / "manifest" / name).read_bytes())


def changed(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """Return bytes with a few changes: other bytes, parts left out, doubled, or of another file."""
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        length = rng.choice((1, 1, 2, 4, 8, 32, 256))
        change = rng.randrange(5)
        if change == 0:
            data = data[:at] + rng.randbytes(length) + data[at + length :]
        elif change == 1:
            data = data[:at] + data[at + length :]
        elif change == 2:
            data = data[:at] + data[at : at + length] * rng.randint(2, 5) + data[at + length :]
        elif change == 3:
            other = rng.choice(others)
            start = rng.randrange(len(other) + 1)
            data = data[:at] + other[start : start + length] + data[at:]
        else:
            special = rng.choice(
                (b"\0", b"\xff", b"\x80", b"\x7f", b"-1", b"1e999", b"null", b"{}")
            )
            data = data[:at] + special + data[at + len(special) :]
    return data


def try_changes(name: str, count: int, seed: int) -> None:
    rng = random.Random(seed)
    corpus = [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]
    for _ in range(count):
        TARGETS[name](changed(rng.choice(corpus), rng, corpus))


@pytest.mark.parametrize("name", TARGETS)
def test_changes_of_the_corpus_are_read_or_refused(name: str) -> None:
    try_changes(name, CHANGES[name], seed=1)


@pytest.mark.long
@pytest.mark.parametrize("name", TARGETS)
def test_many_changes_of_the_corpus_are_read_or_refused(name: str) -> None:
    try_changes(name, 40 * CHANGES[name], seed=2)
