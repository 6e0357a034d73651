"""A log that grows: whole at every moment, for one process at a time, and of one machine."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ferplus_tvm import targets
from ferplus_tvm.errors import TuningLogError
from ferplus_tvm.kernels import backend_of
from ferplus_tvm.kernels.workloads import Dense
from ferplus_tvm.records.log import NAME, Gain, TuningLog
from ferplus_tvm.tuning.journal import Journal, open_journal
from ferplus_tvm.tuning.space import Space
from ferplus_tvm.tuning.trials import TRIALS, read_trials
from tests.artifacts import assert_sentence

TARGET = targets.resolve("x86-64-v3")
LAYER = Dense(4, 64, 64, 64, relu=True)
OTHER = Dense(8, 64, 64, 64, relu=True)
BACKEND = backend_of(TARGET)
PRESET = BACKEND.choose(LAYER).config
BESIDE = next(Space(LAYER, BACKEND).neighbours(PRESET))


@contextmanager
def journal(logs: Path, **changed: object) -> Iterator[Journal]:
    options = {"cpu": "a CPU", "threads": (1, 2), "command": "a test", **changed}
    with open_journal(logs, TARGET, **options) as opened:  # type: ignore[arg-type]
        yield opened


def fill(logs: Path) -> None:
    with journal(logs) as opened:
        entry = opened.entry(LAYER)
        opened.add(entry, [(PRESET, [0.002, 0.001]), (BESIDE, None)])
        entry.preset = entry.kept = PRESET
        opened.save([Gain(4, 1, 1.25, 0.01)])


def test_what_was_saved_is_there_again(tmp_path: Path) -> None:
    fill(tmp_path)
    with journal(tmp_path) as opened:
        entry = opened.entry(LAYER)
        assert list(entry.trials.items()) == [(PRESET, (0.002, 0.001)), (BESIDE, None)]
        assert (entry.preset, entry.leader, entry.kept) == (PRESET, None, PRESET)
        assert opened.entry(OTHER).trials == {}
        assert opened.provenance.gains == (Gain(4, 1, 1.25, 0.01),)
    log = TuningLog(tmp_path, TARGET.name)
    (layer,) = log.layers
    assert (layer.tried, layer.failed) == (2, 1)
    assert log.config(LAYER, BACKEND) == PRESET
    assert log.config(OTHER, BACKEND) is None


def test_what_was_not_saved_never_was(tmp_path: Path) -> None:
    fill(tmp_path)
    files = [tmp_path / TARGET.name / name for name in (NAME, TRIALS)]
    before = [file.read_bytes() for file in files]
    with journal(tmp_path) as opened:
        opened.add(opened.entry(OTHER), [(PRESET, [1.0, 1.0])])
    with files[1].open("ab") as file:  # as a kill leaves it in the middle of a line
        file.write(b'{"workload":{"op":"den')
    with journal(tmp_path) as opened:
        opened.save()
    assert [file.read_bytes() for file in files] == before


def test_a_log_without_its_history_is_gone_on_with(tmp_path: Path) -> None:
    """As the logs that the package carries: what is kept is known, and how much was tried."""
    fill(tmp_path)
    (tmp_path / TARGET.name / TRIALS).unlink()
    with journal(tmp_path) as opened:
        entry = opened.entry(LAYER)
        assert entry.trials == {PRESET: (0.002, 0.001)} and entry.kept == PRESET
        opened.add(entry, [(BESIDE, [0.003, 0.002])])
        opened.save()
    (layer,) = TuningLog(tmp_path, TARGET.name).layers
    assert (layer.tried, layer.failed) == (3, 1)


def test_the_provenance_says_where_the_records_come_from(tmp_path: Path) -> None:
    fill(tmp_path)
    state = TuningLog(tmp_path, TARGET.name).provenance
    assert state is not None
    assert (state.cpu, state.threads, state.command) == ("a CPU", (1, 2), "a test")
    assert state.tvm_version.startswith("0.")
    assert state.date == time.strftime("%Y-%m-%d", time.gmtime())
    for name in (NAME, TRIALS):
        assert str(tmp_path) not in (tmp_path / TARGET.name / name).read_text()


def test_a_layer_is_stored_once(tmp_path: Path) -> None:
    fill(tmp_path)
    fill(tmp_path)
    assert len(TuningLog(tmp_path, TARGET.name).layers) == 1


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"cpu": "another CPU"}, ("a CPU", "another CPU")),
        ({"threads": (1, 4)}, ("[1, 2]", "[1, 4]")),
    ],
)
def test_another_machines_log_is_left_alone(
    tmp_path: Path, changed: dict[str, object], named: tuple[str, str]
) -> None:
    fill(tmp_path)
    with pytest.raises(TuningLogError) as caught, journal(tmp_path, **changed):
        pass
    assert_sentence(str(caught.value), *named, "--log-dir")


def test_a_damaged_log_is_not_gone_on_with(tmp_path: Path) -> None:
    fill(tmp_path)
    for name in (NAME, TRIALS):
        file = tmp_path / TARGET.name / name
        whole = file.read_bytes()
        file.write_bytes(whole[:30] + whole[40:])
        with pytest.raises(TuningLogError, match=rf"{name} is damaged"), journal(tmp_path):
            pass
        file.write_bytes(whole)


def test_a_second_process_is_told_that_the_log_is_in_use(tmp_path: Path) -> None:
    code = f"""
import sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from tests.tuning.test_journal import journal
with journal(Path({str(tmp_path)!r})):
    print("open", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "open\n"
        with pytest.raises(TuningLogError) as caught, journal(tmp_path):
            pass
        assert_sentence(str(caught.value), "another process", "--log-dir")
        other.communicate("")
    fill(tmp_path)


ENDLESS = """
import itertools, sys
sys.path[:0] = {path!r}
from pathlib import Path
from tests.tuning.test_journal import LAYER, PRESET, journal
with journal(Path({logs!r})) as opened:
    for count in itertools.count(1):
        entry = opened.entry(LAYER)
        opened.add(entry, [(PRESET, [count, count])] * 3)
        entry.kept = PRESET
        opened.save()
        print(3 * count, flush=True)
"""


def kill_at_random(logs: Path, times: int) -> None:
    """Kill a process that adds to a log, several times, and see that nothing saved is lost."""
    delays = random.Random(7)
    saved = 0
    for _ in range(times):
        code = ENDLESS.format(path=sys.path, logs=str(logs))
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            lines = [other.stdout.readline()]
            time.sleep(delays.uniform(0, 0.05))
            other.kill()
            lines += other.stdout.readlines()
        saved += int([line for line in lines if line.endswith(b"\n")][-1])
        log = TuningLog(logs, TARGET.name)
        assert log.config(LAYER, BACKEND) == PRESET
        written = len(list(read_trials(log.folder)))
        assert saved <= written <= saved + 3
        saved = written


@pytest.mark.skipif(os.name == "nt", reason="kills by signal")
def test_a_kill_at_any_moment_leaves_a_log_to_go_on_with(tmp_path: Path) -> None:
    kill_at_random(tmp_path, 4)


@pytest.mark.long
@pytest.mark.skipif(os.name == "nt", reason="kills by signal")
def test_a_hundred_kills_leave_a_log_to_go_on_with(tmp_path: Path) -> None:
    kill_at_random(tmp_path, 100)


def on_a_full_disk(logs: Path, code: str) -> str:
    """Run code with a journal open whose trials' file may grow by 100 bytes; return its output.

    ``limit(size)`` sets another limit.
    """
    preamble = f"""
import resource, signal, sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from ferplus_tvm.errors import TuningLogError
from tests.tuning.test_journal import LAYER, PRESET, journal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
with journal(Path({str(logs)!r})) as opened:
    limit((Path({str(logs)!r}) / {TARGET.name!r} / {TRIALS!r}).stat().st_size + 100)
"""
    script = preamble + textwrap.indent(textwrap.dedent(code), "    ")
    command = [sys.executable, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


needs_limits = pytest.mark.skipif(os.name == "nt", reason="the limit is one of POSIX")


@needs_limits
def test_a_full_disk_is_one_sentence_and_loses_nothing(tmp_path: Path) -> None:
    fill(tmp_path)
    said = on_a_full_disk(
        tmp_path,
        """
        opened.add(opened.entry(LAYER), [(PRESET, [1.0, 1.0])] * 9)
        try:
            opened.save()
        except TuningLogError as error:
            print(error)
        """,
    )
    assert_sentence(said.strip(), "cannot be written to", "make room")
    assert TuningLog(tmp_path, TARGET.name).config(LAYER, BACKEND) == PRESET
    with journal(tmp_path) as opened:
        assert len(opened.entry(LAYER).trials) == 2


@needs_limits
def test_after_a_full_disk_the_next_save_writes_everything_once(tmp_path: Path) -> None:
    fill(tmp_path)
    on_a_full_disk(
        tmp_path,
        """
        opened.add(opened.entry(LAYER), [(PRESET, [1.0, 1.0])])
        try:
            opened.save()
        except TuningLogError:
            limit(hard)
            opened.save()
            opened.add(opened.entry(LAYER), [(PRESET, [2.0, 2.0])])
            opened.save()
        """,
    )
    seconds = [trial["seconds"] for trial in read_trials(tmp_path / TARGET.name)]
    assert seconds == [[0.002, 0.001], None, [1.0, 1.0], [2.0, 2.0]]


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TuningLogError) as caught, journal(tmp_path / "file"):
        pass
    assert_sentence(str(caught.value), "cannot be written to")


def test_ctrl_c_is_held_until_the_block_ends() -> None:
    code = f"""
import os, signal, sys
sys.path[:0] = {sys.path!r}
from ferplus_tvm.host.interrupt import interrupts_held
try:
    with interrupts_held() as interrupted:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGINT)
        print(interrupted.is_set())
        raise OSError("what was torn apart by it")
except KeyboardInterrupt:
    print("interrupted")
with interrupts_held() as interrupted:
    print(interrupted.is_set())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "interrupted", "False"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.skipif(os.name == "nt", reason="interrupts by signal")
def test_an_interrupt_while_another_is_noted_does_no_harm() -> None:
    """Python may run the second handler in the middle of the first one's work."""
    code = """
import signal, threading
from ferplus_tvm.host import interrupt

class Slow(threading.Event):
    def set(self):
        with self._cond:
            signal.raise_signal(signal.SIGINT)
        super().set()

interrupt.threading.Event = Slow
try:
    with interrupt.interrupts_held() as interrupted:
        signal.raise_signal(signal.SIGINT)
        print(interrupted.is_set())
except KeyboardInterrupt:
    print("ended")
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout.split() == ["True", "ended"], done.stderr
