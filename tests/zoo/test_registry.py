from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from ferplus_tvm.errors import (
    DownloadError,
    MissingExtraError,
    ModelFileError,
    UnsupportedModelError,
)
from ferplus_tvm.zoo import (
    BUNDLED,
    DETECTOR,
    MODELS,
    ZooFile,
    ZooModel,
    lookup,
    registry,
    resolve,
    verify,
)
from tests.artifacts import assert_sentence

OFFICIAL = "emotion-ferplus-8"


def place(name: str, content: bytes) -> Path:
    path = registry.local_path(lookup(name))
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


@pytest.fixture
def tiny_official(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Make the official model's entry promise these few bytes."""
    content = b"\x08\x08 tiny"
    entry = ZooModel(
        f"{OFFICIAL}.onnx",
        len(content),
        hashlib.sha256(content).hexdigest(),
        ("http://127.0.0.1:9/",),
        OFFICIAL,
        8,
        "",
        "",
    )
    monkeypatch.setitem(registry._BY_NAME, OFFICIAL, entry)
    return content


def test_packaged_file_is_the_one_that_the_registry_promises() -> None:
    content = resolve("bundled").read_bytes()
    assert len(content) == BUNDLED.size == 17525870
    assert hashlib.sha256(content).hexdigest() == BUNDLED.sha256


def test_model_card_names_size_and_hash_of_the_packaged_file() -> None:
    card = (resolve("bundled").parent / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert BUNDLED.sha256 in card
    assert f"{BUNDLED.size:,} bytes".replace(",", " ") in card


def test_names_are_the_documented_ones() -> None:
    assert [model.name for model in MODELS] == [
        "bundled",
        "emotion-ferplus-8",
        "emotion-ferplus-7",
        "emotion-ferplus-2",
        "emotion-ferplus-12-int8",
        "yunet",
    ]


FILES = [file for model in MODELS for file in (model, model.archive) if file is not None]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.file_name)
def test_hashes_are_whole_and_distinct(file: ZooFile) -> None:
    assert len(bytes.fromhex(file.sha256)) == 32
    assert sum(other.sha256 == file.sha256 for other in FILES) == 1


OFFICIAL_MODELS = [model for model in MODELS if model.addresses]


@pytest.mark.parametrize("file", FILES[1:-1], ids=lambda file: file.file_name)
def test_mirror_is_asked_before_github_and_only_over_tls(file: ZooFile) -> None:
    addresses = [urlsplit(address) for address in file.addresses]
    assert [address.hostname for address in addresses] == ["huggingface.co", "github.com"]
    assert all(address.scheme == "https" for address in addresses)
    assert all(address.path.endswith(f"/model/{file.file_name}") for address in addresses)


def test_every_official_model_has_an_archive_of_its_name() -> None:
    assert [model for model in MODELS if model.archive is None] == [BUNDLED, DETECTOR]
    assert [model.archive and model.archive.file_name for model in OFFICIAL_MODELS] == [
        f"{model.name}.tar.gz" for model in OFFICIAL_MODELS
    ]


def test_the_detector_is_the_file_of_opencv_zoo_with_both_holders_named() -> None:
    # The hash and the size that the Git LFS pointer in opencv/opencv_zoo has.
    content = registry.verify(DETECTOR).read_bytes()
    assert len(content) == 232589
    assert hashlib.sha256(content).hexdigest() == (
        "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
    )
    notice = registry.notice_of(DETECTOR)
    assert "Copyright (c) 2020 Shiqi Yu" in notice
    assert "Shenzhen Institute of Artificial Intelligence and Robotics for Society" in notice
    assert "The above copyright notice and this permission notice shall be included" in notice
    card = (registry.local_path(DETECTOR).parent / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert DETECTOR.sha256 in card and "CC BY-NC-ND 4.0" in card


def test_the_detector_is_no_model_of_emotions() -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        resolve("yunet")
    assert_sentence(str(caught.value), "'yunet' finds faces", "--detector", "detector=True")


def test_unknown_name_is_answered_with_the_names() -> None:
    with pytest.raises(ModelFileError) as caught:
        lookup("ferplus")
    assert all(model.name in str(caught.value) for model in MODELS)


def test_unfetched_model_is_answered_with_the_command() -> None:
    with pytest.raises(ModelFileError, match=f"`ferplus-tvm models fetch {OFFICIAL}`"):
        resolve(OFFICIAL)


def test_file_placed_by_hand_is_accepted(tiny_official: bytes) -> None:
    placed = place(OFFICIAL, tiny_official)
    assert resolve(OFFICIAL) == placed


@pytest.mark.parametrize("damage", ["altered", "truncated"])
def test_damaged_file_is_refused_with_the_promise_and_the_command(
    tiny_official: bytes, damage: str
) -> None:
    place(OFFICIAL, tiny_official.upper() if damage == "altered" else tiny_official[:-1])
    with pytest.raises(DownloadError) as caught:
        verify(lookup(OFFICIAL))
    assert hashlib.sha256(tiny_official).hexdigest() in str(caught.value)
    assert f"models fetch {OFFICIAL}" in str(caught.value)


def test_name_of_the_zoo_wins_over_a_file_and_a_path_object_means_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bundled").write_bytes(b"mine")
    assert resolve("bundled").name == "ferplus-bundled.onnx"
    assert resolve("./bundled").read_bytes() == b"mine"
    assert resolve(Path("bundled")).read_bytes() == b"mine"


def test_existing_file_is_returned_as_it_was_given(tmp_path: Path) -> None:
    file = tmp_path / "own.onnx"
    file.touch()
    assert resolve(str(file)) == file


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("emotion-ferplus-8.onnx", "emotion-ferplus-8"),
        ("Bundled", "bundled"),
        ("models/emotion_ferplus-7.onnx", "emotion-ferplus-7"),
        ("bundeled", "bundled"),
        ("ferplus", "emotion-ferplus-8"),
        ("fer+", "emotion-ferplus-8"),
        ("FER+ 7", "emotion-ferplus-7"),
        ("ferplus-8", "emotion-ferplus-8"),
        ("emotion-ferplus", "emotion-ferplus-8"),
        ("emotion-ferplus-10", "emotion-ferplus-8"),
        ("emotion_ferplus/model.onnx", "emotion-ferplus-8"),
        ("downloads/emotion-ferplus-2.tar.gz", "emotion-ferplus-2"),
        ("emotion-ferpls-7", "emotion-ferplus-7"),
    ],
)
def test_missing_path_that_means_a_model_of_the_zoo_gets_its_name(written: str, meant: str) -> None:
    with pytest.raises(ModelFileError, match=f"name '{meant}'"):
        resolve(written)


@pytest.mark.parametrize(
    "written", ["emotion-ferplus-12", "ferplus12.onnx", "emotion-ferplus-12-int", "FERPlus_int8"]
)
def test_a_version_that_is_only_quantized_gets_the_newest_that_compiles(written: str) -> None:
    with pytest.raises(ModelFileError, match=f"give '{OFFICIAL}', since .* only as int8"):
        resolve(written)
    with pytest.raises(ModelFileError, match=f"give '{OFFICIAL}', since .* only as int8"):
        lookup(written)


def test_a_model_that_cannot_be_compiled_is_refused_before_it_is_fetched() -> None:
    with pytest.raises(UnsupportedModelError, match=f"int8 activations: give '{OFFICIAL}'"):
        resolve("emotion-ferplus-12-int8")


def test_missing_path_that_resembles_nothing_gets_all_names() -> None:
    with pytest.raises(ModelFileError, match=r"no model file 'x/quite_else\.onnx'") as caught:
        resolve("x/quite_else.onnx")
    assert all(model.name in str(caught.value) for model in MODELS)


def test_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="is a folder"):
        resolve(tmp_path)


@pytest.mark.parametrize("written", ["a\0b", "x" * 5000])
def test_impossible_path_is_our_error(written: str) -> None:
    with pytest.raises(ModelFileError):
        resolve(written)


def test_cache_folder_is_the_users_unless_the_variable_names_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FERPLUS_TVM_CACHE", "here")
    assert registry.cache_dir() == tmp_path / "here" / "models"
    monkeypatch.delenv("FERPLUS_TVM_CACHE")
    assert registry.cache_dir().parts[-1] == "models"
    assert "ferplus_tvm" in registry.cache_dir().parts


def test_missing_platformdirs_is_answered_with_the_pip_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("FERPLUS_TVM_CACHE")
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ferplus_tvm\[cli\]'"):
        resolve(OFFICIAL)
    assert resolve("bundled").is_file()


def test_registry_needs_no_extra() -> None:
    code = (
        "import sys; import ferplus_tvm.zoo as zoo; zoo.resolve('bundled');"
        "extras = ('filelock', 'httpx', 'platformdirs', 'onnx', 'rich', 'tvm');"
        "print([name for name in extras if name in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert run.stdout.strip() == "[]"
