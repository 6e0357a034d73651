"""Compilations that are killed: what was there is whole, what is new is whole or absent."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import ferplus_tvm as fer
from ferplus_tvm.artifact.library_file import Artifact
from ferplus_tvm.errors import ArtifactError

OLD = b"the library of yesterday"

pytestmark = pytest.mark.skipif(os.name == "nt", reason="kills by signal")


def is_whole(path: Path) -> bool:
    try:
        Artifact(path).close()
        return True
    except ArtifactError:
        return False


# The compiler, whose writing takes a quarter of a second in place of a thousandth.
SLOW = """
import sys, time
from ferplus_tvm.artifact import library_file
write = library_file.write
class Slow:
    def __init__(self, file):
        self.file = file
    def write(self, content):
        for at in range(0, len(content), len(content) // 8 + 1):
            self.file.write(content[at : at + len(content) // 8 + 1])
            self.file.flush()
            time.sleep(0.004)
def say(what):
    print(what, flush=True)
def write_slowly(file, *rest):
    say("writing")
    return write(Slow(file), *rest)
library_file.write = write_slowly
import ferplus_tvm as fer
fer.compile(sys.argv[1], output=sys.argv[2], batch_sizes=[1], progress=say)
say("done")
"""


def kill_at_random(model: Path, folder: Path, times: int) -> int:
    """Kill as many compilations, from when they write; return how many had a new library."""
    output = folder / "ferplus.so"
    delays = random.Random(11)
    new = 0
    for _ in range(times):
        output.write_bytes(OLD)
        with subprocess.Popen(
            [sys.executable, "-c", SLOW, str(model), str(output)], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if b"writing" in line:
                    break
            else:
                pytest.fail("it ended before it wrote")
            if delays.random() < 0.2:  # after what comes behind, too
                for line in process.stdout:
                    if b"verify" in line:
                        break
            time.sleep(delays.uniform(0, 0.4))
            process.kill()
            process.communicate()
        assert output.read_bytes() == OLD or is_whole(output)
        new += output.read_bytes() != OLD
    # What was left under temporary names goes with the next compilation, once it is old enough;
    # what only looks like it stays.
    others = [".ferplus.settings.so", ".ferplus.12345678.so", ".ferplus.ferplus-tvm-UPPERCAS.so"]
    for name in others:
        (folder / name).write_bytes(b"somebody's")
    for path in folder.iterdir():
        os.utime(path, (0, 0))
    fer.compile(model, output=output, batch_sizes=[1])
    assert sorted(path.name for path in folder.iterdir()) == sorted(["ferplus.so", *others])
    assert is_whole(output)
    return new


def test_a_kill_at_any_moment_leaves_a_whole_library(narrow_model: Path, tmp_path: Path) -> None:
    kill_at_random(narrow_model, tmp_path, 3)


@pytest.mark.long
def test_a_hundred_kills_leave_a_whole_library(narrow_model: Path, tmp_path: Path) -> None:
    kill_at_random(narrow_model, tmp_path, 100)


def test_a_kill_while_it_links_leaves_nothing_once_another_has_compiled(
    narrow_model: Path, tmp_path: Path
) -> None:
    temporary, output = tmp_path / "temporary", tmp_path / "ferplus.so"
    temporary.mkdir()
    linking = tmp_path / "linking"
    linker = tmp_path / "linker"
    linker.write_text(f'#!/bin/sh\n: > "$TMPDIR/cc.o"\n: > {linking}\nexec sleep 60\n')
    linker.chmod(0o755)
    command = [sys.executable, "-m", "ferplus_tvm", "compile", str(narrow_model), "--batch", "1"]
    command += ["-o", str(output)]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen(
        command, env={**environment, "CC": str(linker)}, start_new_session=True
    ) as process:
        end = time.monotonic() + 120
        while not linking.exists():
            assert process.poll() is None and time.monotonic() < end, "it does not link"
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        for child in psutil.process_iter(["environ"]):
            if (child.info["environ"] or {}).get("CC") == str(linker):
                child.kill()
    assert {path.name for path in temporary.rglob("*.o")} >= {"lib0.o", "cc.o"}
    subprocess.run(command, env=environment, check=True, timeout=120, capture_output=True)
    assert list(temporary.iterdir()) == [] and is_whole(output)


def test_what_another_compilation_is_writing_is_left_alone(
    narrow_model: Path, tmp_path: Path
) -> None:
    from ferplus_tvm.compiler import export

    output = tmp_path / "ferplus.so"
    with export.temporary(output) as unfinished:
        os.utime(unfinished, (0, 0))
        fer.compile(narrow_model, output=output, batch_sizes=[1])
        assert unfinished.exists() and output.exists()
    assert not unfinished.exists()


@pytest.mark.parametrize("limit", [0, 4096, 1 << 16])
def test_a_full_disk_is_one_sentence_and_nothing_is_lost(
    narrow_model: Path, tmp_path: Path, limit: int
) -> None:
    output = tmp_path / "ferplus.so"
    output.write_bytes(OLD)
    code = (
        "import resource, signal, sys\n"
        "from ferplus_tvm.compiler import export\n"
        "write = export.write\n"
        "def limited(*arguments):\n"
        "    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"    resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "    return write(*arguments)\n"
        "export.write = limited\n"
        "import ferplus_tvm as fer\n"
        "try:\n"
        "    fer.compile(sys.argv[1], output=sys.argv[2], batch_sizes=[1])\n"
        "except fer.errors.CompileError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(narrow_model), str(output)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "cannot be written (File too large): make room" in done.stdout
    assert output.read_bytes() == OLD
    assert [path.name for path in tmp_path.iterdir()] == ["ferplus.so"]
