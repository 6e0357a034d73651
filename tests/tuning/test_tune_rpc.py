"""Tuning over TVM's RPC: a tracker and two servers on loopback, as their users start them."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import ferplus_tvm as fer
from ferplus_tvm import targets
from ferplus_tvm.errors import DeviceError
from ferplus_tvm.records.log import TuningLog
from ferplus_tvm.tuning import worker
from ferplus_tvm.tuning.address import Address
from ferplus_tvm.tuning.trials import read_trials
from ferplus_tvm.tuning.tune import Progress
from tests.artifacts import assert_sentence

HERE = targets.resolve("native").name
KEY = "board"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def start(module: str, port: int, log: Path, *arguments: str) -> subprocess.Popen[bytes]:
    place = ["--host", "127.0.0.1", "--port", str(port), "--port-end", str(port + 1)]
    return subprocess.Popen(
        [sys.executable, "-m", f"tvm.exec.{module}", *place, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=log.open("wb"),
    )


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and what it has started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process.pid)
        for each in [*parent.children(recursive=True), parent]:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
    process.wait()


class Farm:
    """A tracker with two servers."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.address = f"127.0.0.1:{port}/{KEY}"
        self.tracker = start("rpc_tracker", port, folder / "tracker")
        wait_for(port)
        options = ("--tracker", f"127.0.0.1:{port}", "--key", KEY)
        self.logs = [folder / "first", folder / "second"]
        self.servers = [start("rpc_server", free_port(), log, *options) for log in self.logs]
        address, end = Address.parse(self.address), time.monotonic() + 60
        while worker.count(address) != 2:
            assert time.monotonic() < end, "the servers do not report to the tracker"
            time.sleep(0.1)

    def close(self) -> None:
        for process in [*self.servers, self.tracker]:
            kill(process)


def wait_for(port: int) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < end, f"nobody listens on port {port}"
            time.sleep(0.1)


@pytest.fixture
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    opened = Farm(tmp_path_factory.mktemp("farm"))
    yield opened
    opened.close()


def test_two_devices_tune_and_the_death_of_one_is_survived(
    farm: Farm, short_model: Path, tmp_path: Path
) -> None:
    generations = 0

    def progress(made: Progress) -> None:
        nonlocal generations
        generations += made.generation is not None
        if generations == 1 and farm.servers[0].poll() is None:
            kill(farm.servers[0])

    result = fer.tune(
        short_model,
        HERE,
        tmp_path / "logs",
        12,
        batch_sizes=[1],
        threads=1,
        rpc=farm.address,
        progress=progress,
    )
    assert farm.servers[0].poll() is not None, "it went on too short for one to die"
    # Both were used: one session each to begin with, and more for the one that lived.
    first, second = (log.read_bytes().count(b"start serving") for log in farm.logs)
    assert first >= 1 and second >= 1
    assert generations > 1
    layers = TuningLog(tmp_path / "logs", HERE).layers
    assert len(layers) == result.layers
    assert all(layer.kept is not None for layer in layers)
    state = TuningLog(tmp_path / "logs", HERE).provenance
    assert state is not None
    assert KEY in state.cpu and "127.0.0.1" not in state.command
    compiled = fer.compile(
        short_model,
        HERE,
        tmp_path / "m.so",
        [1],
        tuning_logs=tmp_path / "logs",
        require_tuned=True,
    )
    assert compiled.verified


def test_an_unknown_key_and_more_threads_than_there_are_tell_the_command(
    farm: Farm, short_model: Path, tmp_path: Path
) -> None:
    other = farm.address.replace(KEY, "other")
    with pytest.raises(DeviceError) as caught:
        fer.tune(short_model, HERE, tmp_path, rpc=other)
    assert_sentence(str(caught.value), "'other'", "tvm.exec.rpc_server", "--key other")
    with pytest.raises(DeviceError) as caught:
        fer.tune(short_model, HERE, tmp_path, rpc=farm.address, threads=999)
    assert_sentence(str(caught.value), "999", "TVM_NUM_THREADS=999")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_without_any_server_left_it_says_so_and_keeps_what_was_measured(
    farm: Farm, short_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ferplus_tvm.tuning.device._WAIT", 3)

    def progress(made: Progress) -> None:
        if made.generation is not None:
            for server in farm.servers:
                kill(server)

    with pytest.raises(DeviceError) as caught:
        fer.tune(
            short_model,
            HERE,
            tmp_path,
            60,
            batch_sizes=[1],
            threads=1,
            rpc=farm.address,
            progress=progress,
        )
    assert_sentence(str(caught.value), KEY, "run the same command again")
    assert list(read_trials(tmp_path / HERE))


def test_a_peer_that_says_nothing_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ferplus_tvm.tuning.device._ANSWER", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(DeviceError) as caught:
            fer.tune(target=HERE, log_dir=tmp_path, rpc=f"{place}/{KEY}")
    assert_sentence(str(caught.value), place, "tvm.exec.rpc_tracker")
    assert list(tmp_path.iterdir()) == []
