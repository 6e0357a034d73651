"""The compiler in a process of its own: results, errors and deaths."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import ferplus_tvm as fer
from ferplus_tvm.compiler.pipeline import STAGES
from ferplus_tvm.errors import CompileError, ModelFileError
from ferplus_tvm.host import child
from tests.artifacts import assert_sentence

OLD = b"the library of yesterday"


def dies(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Have the compiler's process be one that runs some code in its place."""
    monkeypatch.setattr(child, "python", lambda *_: [sys.executable, "-c", code])


def test_the_result_is_that_of_the_compiler(narrow_model: Path, tmp_path: Path) -> None:
    stages: list[str] = []
    result = fer.compile(
        narrow_model,
        output=tmp_path / "a.so",
        batch_sizes=[1],
        isolated=True,
        progress=stages.append,
    )
    assert tuple(stages) == STAGES and result.verified
    same = fer.compile(narrow_model, output=tmp_path / "b.so", batch_sizes=[1])
    assert result.manifest.weights_sha256 == same.manifest.weights_sha256
    x = np.zeros((1, 1, 64, 64))
    with fer.load(result.path) as one, fer.load(same.path) as other:
        np.testing.assert_array_equal(one.scores(x), other.scores(x))


def test_an_error_is_the_one_that_the_compiler_raised(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(b"not a model")
    with pytest.raises(ModelFileError):
        fer.compile(model, output=tmp_path / "m.so", isolated=True)
    with pytest.raises(ValueError, match="batch sizes"):
        fer.compile("bundled", output=tmp_path / "m.so", batch_sizes=[0], isolated=True)


@pytest.mark.skipif(os.name == "nt", reason="ends by signals")
@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGKILL", "SIGFPE", "SIGILL"])
def test_a_death_is_an_error_that_names_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "m.so"
    output.write_bytes(OLD)
    dies(monkeypatch, f"import os, signal; os.kill(os.getpid(), {getattr(signal, name):d})")
    with pytest.raises(CompileError) as caught:
        fer.compile("bundled", output=output, isolated=True)
    assert_sentence(str(caught.value), name, "no half of a library")
    assert output.read_bytes() == OLD


def test_a_death_in_the_middle_tells_the_stage_and_the_last_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code = """
import os, pickle, sys
pickle.load(sys.stdin.buffer)
messages = [pickle.dumps(("progress", stage)) for stage in ("link", "verify")]
sys.stdout.buffer.write(messages[0] + messages[1][:9])
sys.stdout.flush()
print("LLVM ERROR: out of memory" + " " * 200000, file=sys.stderr, flush=True)
os._exit(7)
"""
    dies(monkeypatch, code)
    with pytest.raises(CompileError) as caught:
        fer.compile("bundled", isolated=True)
    assert_sentence(str(caught.value), "status 7", "'link'", "LLVM ERROR: out of memory")


def test_a_compiler_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    dies(monkeypatch, "import time; time.sleep(600)")
    with pytest.raises(CompileError) as caught:
        fer.compile("bundled", timeout=0.5, isolated=True)
    assert_sentence(str(caught.value), "more than 0.5 s", "'start'")


STUBBORN = """
import os, pickle, signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.stdout.buffer.write(pickle.dumps(("progress", "link")))
sys.stdout.flush()
time.sleep(600)
"""


@pytest.mark.skipif(os.name == "nt", reason="interrupts by signal")
def test_an_interrupt_ends_even_a_compiler_that_does_not_listen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dies(monkeypatch, STUBBORN)
    monkeypatch.setattr(child, "_PATIENCE", 0.2)

    def interrupt(stage: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fer.compile("bundled", progress=interrupt, isolated=True)


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL"])
@pytest.mark.parametrize("whole_group", [True, False])
def test_the_compiler_does_not_outlive_the_command(
    name: str, whole_group: bool, narrow_model: Path, tmp_path: Path
) -> None:
    output = tmp_path / "ferplus.so"
    output.write_bytes(OLD)
    command = ["-m", "ferplus_tvm", "compile", str(narrow_model), "-o", str(output)]
    with subprocess.Popen(
        [sys.executable, *command], stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stderr is not None
        while line := process.stderr.readline():
            if b"compile" in line:
                break
        compilers = children(process.pid)
        assert compilers
        (os.killpg if whole_group else os.kill)(process.pid, getattr(signal, name))
        process.communicate(timeout=60)
    for _ in range(600):
        if not any(Path(f"/proc/{pid}/cmdline").exists() for pid in compilers):
            break
        time.sleep(0.1)
    else:
        pytest.fail("the compiler's process goes on")
    assert output.read_bytes() == OLD
    assert [path.name for path in tmp_path.iterdir()] == ["ferplus.so"]
    assert process.returncode == (130 if name == "SIGINT" else -signal.SIGKILL)


def children(parent: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(status.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(status.parent.name))
    return found
