from __future__ import annotations

import hashlib
import json
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

import ferplus_tvm.zoo
from ferplus_tvm.cli.models import app
from ferplus_tvm.errors import DownloadError, ModelFileError
from ferplus_tvm.zoo import BUNDLED, MODELS, ZooFile, ZooModel, registry

CONTENT = bytes(range(256)) * 1000


@pytest.fixture
def models() -> CliRunner:
    return CliRunner()


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Keep the user's cache and proxies out of the tests."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("FERPLUS_TVM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ZooModel]:
    """Add a small model to the zoo, served on loopback."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    served = tmp_path / "served"
    served.mkdir()
    (served / "small.onnx").write_bytes(CONTENT)
    with tarfile.open(served / "small.tar.gz", "w:gz") as tar:
        for name in ("test_data_set_0/input_0.pb", "test_data_set_0/output_0.pb"):
            tar.addfile(tarfile.TarInfo(f"small/{name}"))
    packed = (served / "small.tar.gz").read_bytes()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(served)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    digest = hashlib.sha256(packed).hexdigest()
    entry = ZooModel(
        "small.onnx",
        len(CONTENT),
        hashlib.sha256(CONTENT).hexdigest(),
        (f"{address}/small.onnx",),
        "small",
        8,
        "a test file",
        "none",
        ZooFile("small.tar.gz", len(packed), digest, (f"{address}/small.tar.gz",)),
        "tiny size",
    )
    monkeypatch.setitem(registry._BY_NAME, "small", entry)
    monkeypatch.setattr(ferplus_tvm.zoo, "MODELS", (*MODELS, entry))
    yield entry
    server.shutdown()
    server.server_close()
    thread.join()


def test_list_gives_programs_everything(models: CliRunner, cache: Path) -> None:
    result = models.invoke(app, ["list", "--json"])
    assert result.exit_code == 0
    entries = {entry["name"]: entry for entry in json.loads(result.stdout)}
    assert list(entries) == [model.name for model in MODELS]
    assert entries["bundled"]["fetched"] is True
    assert Path(entries["bundled"]["path"]).stat().st_size == entries["bundled"]["bytes"]
    assert entries["emotion-ferplus-8"]["fetched"] is False
    assert entries["emotion-ferplus-8"]["path"] == str(cache / "emotion-ferplus-8.onnx")
    assert entries["emotion-ferplus-8"]["sha256"] == MODELS[1].sha256


def test_list_gives_people_one_line_per_model(models: CliRunner) -> None:
    lines = models.invoke(app, ["list"]).stdout.splitlines()
    assert len(lines) == 1 + len(MODELS)
    bundled, official = lines[1], lines[2]
    assert bundled.split()[:5] == ["bundled", "17.5", "MB", "8", "yes"]
    assert official.split()[:5] == ["emotion-ferplus-8", "35.0", "MB", "8", "no"]
    assert official.endswith("MIT")


def test_list_marks_what_cannot_be_compiled_yet(models: CliRunner) -> None:
    entries = json.loads(models.invoke(app, ["list", "--json"]).stdout)
    assert {entry["name"]: entry["unsupported"] for entry in entries if entry["unsupported"]} == {
        "emotion-ferplus-12-int8": "int8 activations"
    }
    lines = models.invoke(app, ["list"]).stdout.splitlines()
    assert [line.split()[0] for line in lines if "not yet: int8 activations" in line] == [
        "emotion-ferplus-12-int8"
    ]


def test_list_shows_the_detector_as_such(models: CliRunner) -> None:
    entries = json.loads(models.invoke(app, ["list", "--json"]).stdout)
    assert [entry["name"] for entry in entries if entry["detector"]] == ["yunet"]
    lines = models.invoke(app, ["list"]).stdout.splitlines()
    assert [line.split()[0] for line in lines if "with --detector" in line] == ["yunet"]


def test_fetched_model_is_listed_verified_and_found(
    models: CliRunner, small: ZooModel, cache: Path
) -> None:
    fetched = models.invoke(app, ["fetch", "small"])
    assert fetched.exit_code == 0
    assert fetched.stdout == f"small: {cache / 'small.onnx'}\n"
    warning, first, *_ = fetched.stderr.splitlines()
    assert warning == "warning: small cannot be compiled yet, because of its tiny size"
    assert first == "small: 0 % of 0.3 MB"
    assert fetched.stderr.splitlines()[-1] == "small: 100 % of 0.3 MB"
    listed = json.loads(models.invoke(app, ["list", "--json"]).stdout)[-1]
    assert listed["name"] == "small"
    assert listed["fetched"] is True
    assert models.invoke(app, ["verify"]).stdout == "bundled: ok\nyunet: ok\nsmall: ok\n"
    assert models.invoke(app, ["path", "small"]).stdout == f"{cache / 'small.onnx'}\n"


def test_test_data_are_fetched_beside_the_model(
    models: CliRunner, small: ZooModel, cache: Path
) -> None:
    fetched = models.invoke(app, ["fetch", "small", "--with-test-data"])
    assert fetched.exit_code == 0
    assert fetched.stdout.splitlines() == [
        f"small: {cache / 'small.onnx'}",
        f"small test data: {cache / 'small'}",
    ]
    assert (cache / "small" / "test_data_set_0" / "output_0.pb").is_file()
    listed = json.loads(models.invoke(app, ["list", "--json"]).stdout)[-1]["test_data"]
    assert (listed["fetched"], listed["path"]) == (True, str(cache / "small"))
    assert models.invoke(app, ["list"]).stdout.splitlines()[-1].split()[4:6] == ["yes", "yes"]


def test_a_model_without_test_data_is_a_failure(models: CliRunner) -> None:
    result = models.invoke(app, ["fetch", "bundled", "--with-test-data"])
    assert isinstance(result.exception, DownloadError)
    assert "no test data of the model 'bundled'" in str(result.exception)


def test_verify_names_the_wrong_file_and_exits_with_1(
    models: CliRunner, small: ZooModel, cache: Path
) -> None:
    cache.mkdir(parents=True)
    (cache / "small.onnx").write_bytes(CONTENT[::-1])
    result = models.invoke(app, ["verify"])
    assert result.exit_code == 1
    assert result.stdout == "bundled: ok\nyunet: ok\n"
    assert result.stderr.startswith("small: ")
    assert small.sha256 in result.stderr


def test_verify_of_a_model_that_was_not_fetched_exits_with_1(models: CliRunner) -> None:
    result = models.invoke(app, ["verify", "emotion-ferplus-8"])
    assert result.exit_code == 1
    assert "models fetch emotion-ferplus-8" in result.stderr


def test_path_prints_the_path_and_nothing_else(models: CliRunner) -> None:
    result = models.invoke(app, ["path", "bundled"])
    assert result.stderr == ""
    path, newline, rest = result.stdout.partition("\n")
    assert Path(path).stat().st_size == BUNDLED.size
    assert (newline, rest) == ("\n", "")


def test_path_of_a_model_that_was_not_fetched_is_a_failure(models: CliRunner) -> None:
    result = models.invoke(app, ["path", "emotion-ferplus-8"])
    assert isinstance(result.exception, ModelFileError)
    assert result.stdout == ""


def test_failed_fetch_is_a_failure(models: CliRunner, small: ZooModel, cache: Path) -> None:
    Path(cache.parent.parent / "served" / "small.onnx").unlink()
    result = models.invoke(app, ["fetch", "small"])
    assert isinstance(result.exception, DownloadError)
    assert "HTTP 404" in str(result.exception)


@pytest.mark.parametrize("verb", ["fetch", "verify", "path"])
def test_misspelt_name_is_a_failure_before_anything_is_done(
    models: CliRunner, small: ZooModel, cache: Path, verb: str
) -> None:
    names = ["smal"] if verb == "path" else ["small", "smal"]
    result = models.invoke(app, [verb, *names])
    assert isinstance(result.exception, ModelFileError)
    assert not cache.exists()


@pytest.mark.parametrize("arguments", [["fetch"], ["path"], ["path", "a", "b"], ["list", "a"]])
def test_wrong_call_exits_with_2(models: CliRunner, arguments: list[str]) -> None:
    assert models.invoke(app, arguments).exit_code == 2
