"""Archives as the zoo has them, and hostile ones, made here and served on loopback."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import ferplus_tvm as fer
from ferplus_tvm.errors import DownloadError
from ferplus_tvm.zoo import BUNDLED, ZooFile, ZooModel, archive, registry
from ferplus_tvm.zoo.fetch import fetch, fetch_test_data
from ferplus_tvm.zoo.registry import local_path

Member = tuple[tarfile.TarInfo, bytes]
SETS = {
    f"test_data_set_{number}/{kind}_0.pb": f"{kind} {number}".encode()
    for number in (0, 1, 2)
    for kind in ("input", "output")
}


def file(name: str, content: bytes = b"?", **changes: Any) -> Member:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for field, value in changes.items():
        setattr(member, field, value)
    return member, content


def packed(members: Iterable[Member]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for member, content in members:
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def as_the_zoo_has_it(model: bytes, folder: str = "emotion_ferplus/") -> list[Member]:
    return [
        *([file(folder.rstrip("/"), b"", type=tarfile.DIRTYPE)] if folder else []),
        file(f"{folder}model.onnx", model),
        *(file(folder + name, content) for name, content in SETS.items()),
    ]


@pytest.fixture
def with_archive(
    model: Callable[..., ZooModel], server: Any, payload: bytes
) -> Callable[..., ZooModel]:
    """Make a zoo entry whose archive holds these bytes, and serve both."""

    def make(content: bytes, *answers: Any) -> ZooModel:
        address = server.on("/small.tar.gz", *answers, server.file(content))
        digest = hashlib.sha256(content).hexdigest()
        entry = model(server.on("/small.onnx", server.file(payload)))
        return replace(entry, archive=ZooFile("small.tar.gz", len(content), digest, (address,)))

    return make


def left(entry: ZooModel) -> list[str]:
    """Return what lies in the cache folder, but for locks."""
    names = os.listdir(local_path(entry).parent)
    return sorted(name for name in names if not name.endswith(".lock"))


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("folder", ["emotion_ferplus/", "", "./", "a/b/"])
def test_test_data_and_the_model_come_out_of_one_archive(
    with_archive, server, payload, folder
) -> None:
    entry = with_archive(packed(as_the_zoo_has_it(payload, folder)))
    found = fetch_test_data(entry)
    assert found == local_path(entry).with_suffix("")
    assert contents(found) == SETS
    assert fetch(entry).read_bytes() == payload
    assert [path for path, _ in server.requests] == ["/small.tar.gz"]
    assert left(entry) == ["small", "small.onnx"]


def test_the_model_is_fetched_where_the_archive_has_another_one(
    with_archive, server, payload
) -> None:
    entry = with_archive(packed(as_the_zoo_has_it(payload[::-1])))
    assert contents(fetch_test_data(entry)) == SETS
    assert left(entry) == ["small"]
    assert fetch(entry).read_bytes() == payload


def test_fetch_model_takes_the_test_data_along(
    with_archive, server, payload, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = with_archive(packed(as_the_zoo_has_it(payload)))
    monkeypatch.setitem(registry._BY_NAME, "small", entry)
    path = fer.fetch_model("small", with_test_data=True)
    assert path.read_bytes() == payload
    assert contents(path.with_suffix("")) == SETS
    fer.fetch_model("small", with_test_data=True)
    assert len(server.requests) == 1


def test_a_cut_download_of_an_archive_is_resumed(with_archive, server, payload) -> None:
    content = packed(as_the_zoo_has_it(payload))
    entry = with_archive(content, server.file(content, stop_after=150_000))
    assert contents(fetch_test_data(entry)) == SETS
    assert server.headers("Range")[1] is not None


def test_an_archive_that_was_placed_by_hand_needs_no_server(with_archive, server, payload) -> None:
    content = packed(as_the_zoo_has_it(payload))
    entry = with_archive(content)
    placed = local_path(entry).with_name("small.tar.gz")
    placed.parent.mkdir(parents=True)
    placed.write_bytes(content)
    assert contents(fetch_test_data(entry)) == SETS
    assert server.requests == []
    assert placed.exists()


def test_other_members_are_passed_over(with_archive, payload) -> None:
    others = [
        file("emotion_ferplus/._model.onnx"),
        file("emotion_ferplus/test_data_0.npz"),
        file("emotion_ferplus/test_data_set_0/notes.txt"),
        file("emotion_ferplus/test_data_set_0/._input_0.pb"),
        file("emotion_ferplus/test_data_set_x/input_0.pb"),
        file("emotion_ferplus/setup.py"),
    ]
    entry = with_archive(packed([*as_the_zoo_has_it(payload), *others]))
    assert contents(fetch_test_data(entry)) == SETS
    assert left(entry) == ["small", "small.onnx"]


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_permissions_of_the_archive_are_not_taken_over(with_archive, payload) -> None:
    hostile = file("test_data_set_0/input_0.pb", b"x", mode=0o7777, uid=0)
    found = fetch_test_data(with_archive(packed([hostile])))
    mode = (found / "test_data_set_0" / "input_0.pb").stat().st_mode
    assert not mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IXUSR | stat.S_IWOTH)


LINK = {"type": tarfile.SYMTYPE, "linkname": "../../../outside"}
INNER = "test_data_set_0/input_0.pb"


@pytest.mark.parametrize(
    ("member", "why"),
    [
        (file("../test_data_set_0/input_0.pb"), "leads out of its folder"),
        (file("a/../../test_data_set_0/input_0.pb"), "leads out of its folder"),
        (file("/tmp/test_data_set_0/input_0.pb"), "leads out of its folder"),
        (file("..\\test_data_set_0\\input_0.pb"), "leads out of its folder"),
        (file("C:/test_data_set_0/input_0.pb"), "leads out of its folder"),
        (file("test_data_set_0", b"", **LINK), "neither a file nor a folder"),
        (file(INNER, b"", **LINK), "neither a file nor a folder"),
        (file(INNER, b"", type=tarfile.LNKTYPE, linkname="model.onnx"), "neither a file"),
        (file(INNER, b"", type=tarfile.CHRTYPE, devmajor=1, devminor=5), "neither a file"),
        (file(INNER, b"", type=tarfile.FIFOTYPE), "neither a file nor a folder"),
        (file("test_data_set_1/output_0.pb"), "holds output_0.pb of test_data_set_1 twice"),
        (file("other/test_data_set_1/output_0.pb"), "twice"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_hostile_members_are_refused_and_nothing_is_left(
    with_archive, payload, tmp_path, member, why
) -> None:
    before = set(tmp_path.parent.rglob("outside"))
    entry = with_archive(packed([*as_the_zoo_has_it(payload), member]))
    refused(entry, why)
    assert set(tmp_path.parent.rglob("outside")) == before


def refused(entry: ZooModel, why: str) -> None:
    with pytest.raises(DownloadError) as caught:
        fetch_test_data(entry)
    assert why in str(caught.value)
    assert "'small.tar.gz'" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert left(entry) == []


def test_a_tensor_that_is_too_large_is_refused(with_archive, monkeypatch) -> None:
    monkeypatch.setattr(archive, "_LARGEST_TENSOR", 1000)
    refused(with_archive(packed([file(INNER, bytes(1001))])), "holds 1001 bytes in input_0.pb")


def test_too_many_members_are_refused(with_archive, monkeypatch) -> None:
    monkeypatch.setattr(archive, "_MOST_MEMBERS", 5)
    refused(with_archive(packed(file(f"{i}.txt") for i in range(6))), "more than 5 members")


@pytest.mark.parametrize("hidden", ["in a file", "in a name", "behind the end"])
def test_a_decompression_bomb_ends_at_the_bound(with_archive, monkeypatch, hidden: str) -> None:
    monkeypatch.setattr(archive, "_LARGEST_ARCHIVE", 1 << 20)
    bomb = bytes(1 << 24)
    if hidden == "in a file":
        content = packed([file("zeros.bin", bomb)])
    elif hidden == "in a name":
        content = packed([file("x", bomb, type=tarfile.GNUTYPE_LONGNAME), file("y")])
    else:  # an archive ends with blocks of zeros: what follows is not read
        content = packed([file("y")]) + gzip.compress(bomb)
    assert len(content) < 1 << 16
    said = "no test data" if hidden == "behind the end" else "more than 1048576 bytes"
    refused(with_archive(content), said)


def test_an_archive_without_test_data_is_refused(with_archive, payload) -> None:
    refused(with_archive(packed([file("model.onnx", b"another")])), "holds no test data")


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"not an archive at all",
        lambda content: content[: len(content) // 2],
        lambda content: gzip.compress(b"\xff" * 5000),
        lambda content: gzip.compress(gzip.decompress(content)[:100_000]),
    ],
    ids=["another file", "truncated", "no tar", "truncated tar"],
)
def test_a_damaged_archive_is_refused(with_archive, payload, damage) -> None:
    content = damage(packed(as_the_zoo_has_it(payload)))
    refused(with_archive(content), "is damaged")


def test_what_a_killed_process_left_does_no_harm(with_archive, payload) -> None:
    entry = with_archive(packed(as_the_zoo_has_it(payload)))
    unfinished = local_path(entry).with_name("small.unpacking")
    (unfinished / "test_data_set_0").mkdir(parents=True)
    (unfinished / "test_data_set_0" / "input_0.pb").write_bytes(b"half")
    assert contents(fetch_test_data(entry)) == SETS
    assert left(entry) == ["small", "small.onnx"]


def test_a_folder_of_the_users_is_not_replaced(with_archive, payload) -> None:
    entry = with_archive(packed(as_the_zoo_has_it(payload)))
    own = local_path(entry).with_suffix("") / "notes.txt"
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    with pytest.raises(DownloadError, match="cannot be stored"):
        fetch_test_data(entry)
    assert own.read_text() == "mine"


def test_test_data_that_were_unpacked_by_hand_need_no_server(with_archive, server) -> None:
    entry = with_archive(b"")
    own = local_path(entry).with_suffix("") / "test_data_set_0" / "input_0.pb"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"mine")
    assert fetch_test_data(entry) == own.parent.parent
    assert server.requests == []


def test_the_bundled_model_has_no_test_data() -> None:
    with pytest.raises(DownloadError, match="no test data of the model 'bundled'"):
        fetch_test_data(BUNDLED)
