"""Temporary folders: there while they are used, gone afterwards, also after a kill."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ferplus_tvm.errors import TemporaryFolderError
from ferplus_tvm.host import temporary
from ferplus_tvm.host.child import Child
from ferplus_tvm.host.temporary import remove_abandoned, temporary_folder
from tests.artifacts import assert_sentence
from tests.mounts import mounted

fcntl = pytest.importorskip("fcntl", reason="a folder cannot be locked on Windows")

HOLD = """
import sys
from ferplus_tvm.host.temporary import temporary_folder
with temporary_folder() as folder:
    (folder / "lib0.o").write_bytes(b"half")
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@contextmanager
def other_process() -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Run a process that uses a folder until its input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process, Path(process.stdout.readline().strip())


def test_it_is_the_users_alone_and_goes_with_all_that_it_holds(directory: Path) -> None:
    with pytest.raises(KeyError), temporary_folder() as folder:
        assert folder.parent == directory and folder.stat().st_mode & 0o777 == 0o700
        (folder / "below").mkdir()
        (folder / "below" / "file").write_bytes(b"content")
        raise KeyError
    assert list(directory.iterdir()) == []


def test_what_a_killed_process_left_goes_with_the_next_folder(directory: Path) -> None:
    with other_process() as (process, abandoned):
        process.kill()
        process.wait()
        assert (abandoned / "lib0.o").exists()
        with temporary_folder() as folder:
            assert list(directory.iterdir()) == [folder]
    assert list(directory.iterdir()) == []


def test_what_another_process_uses_is_left_alone(directory: Path) -> None:
    with other_process() as (process, used), temporary_folder() as folder:
        remove_abandoned()
        assert (used / "lib0.o").exists() and folder.exists()
        process.communicate("")
        assert not used.exists()


def test_what_only_looks_like_one_is_left_alone(directory: Path) -> None:
    (directory / "ferplus-tvm.file0000").write_bytes(b"somebody's")
    (directory / "ferplus-tvm.LONGER-NAME").mkdir()
    (directory / "kept").mkdir()
    (directory / "ferplus-tvm.link0000").symlink_to(directory / "kept")
    before = sorted(directory.iterdir())
    remove_abandoned()
    assert sorted(directory.iterdir()) == before


@pytest.mark.skipif(
    not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can make another user's folder"
)
def test_another_users_folder_is_left_alone(directory: Path) -> None:
    theirs = directory / "ferplus-tvm.theirs00"
    theirs.mkdir()
    os.chown(theirs, 65534, 65534)
    remove_abandoned()
    assert theirs.exists()


def test_one_that_is_taken_for_abandoned_before_it_is_locked_is_made_again(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock: Callable[[str], int] = temporary._lock
    taken: list[str] = []

    def late(path: str) -> int:
        if not taken:  # the folder goes before the lock, then between it and the answer
            taken.append(path)
            shutil.rmtree(path)
        descriptor = lock(path)
        if len(taken) == 1:
            taken.append(path)
            shutil.rmtree(path)
        return descriptor

    monkeypatch.setattr(temporary, "_lock", late)
    with temporary_folder() as folder:
        assert len(taken) == 2 and str(folder) not in taken
        assert list(directory.iterdir()) == [folder]


def test_where_nothing_can_be_locked_nothing_is_taken_for_abandoned(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError("no locks here")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    other = directory / "ferplus-tvm.abcdefgh"
    other.mkdir()
    with temporary_folder() as folder:
        assert folder.exists() and other.exists()
    assert list(directory.iterdir()) == [other]


# --- folders that cannot be used ---------------------------------------------------------------


def fails(room: int = 0, write: int = 0) -> str:
    """Return what is said where a folder cannot be used."""
    with pytest.raises(TemporaryFolderError) as caught, temporary_folder(room) as folder:
        (folder / "lib0.o").write_bytes(bytes(write))
    return str(caught.value)


def test_a_missing_folder_is_named(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(directory / "absent"))

    assert_sentence(fails(), str(directory / "absent"), "No such file", "TMPDIR")
    with pytest.raises(TemporaryFolderError, match="absent"):
        Child()


def test_where_no_folder_can_be_written_to_those_that_were_tried_are_named(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/absent"])

    assert_sentence(fails(), "no folder for temporary files", "['/absent']", "TMPDIR")


def test_a_folder_with_too_little_room_is_named_before_anything_is_written(
    directory: Path,
) -> None:
    free = shutil.disk_usage(directory).free

    assert_sentence(fails(room=free + (1 << 40)), str(directory), "are needed", "TMPDIR")
    assert list(directory.iterdir()) == []


def test_a_folder_that_fills_up_is_named_and_left_empty(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mounted(directory / "small", "size=64k") as small:
        monkeypatch.setattr(tempfile, "tempdir", str(small))

        assert_sentence(fails(write=1 << 20), str(small), "No space left", "TMPDIR")
        assert list(small.iterdir()) == []


def test_another_full_disk_than_that_of_temporary_files_is_not_taken_for_it() -> None:
    with pytest.raises(OSError, match="the output"), temporary_folder():
        raise OSError(errno.ENOSPC, "the output's disk is full")
