"""Tuning logs: records are found by what a layer computes, and a damaged log is never trusted."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import relax

from ferplus_tvm import targets
from ferplus_tvm.compiler import build
from ferplus_tvm.errors import TuningLogError
from ferplus_tvm.kernels import backend_of
from ferplus_tvm.kernels.backend import Config
from ferplus_tvm.kernels.cpu import direct
from ferplus_tvm.kernels.workloads import Conv, Dense, Workload
from ferplus_tvm.lowering.layers import ConvLayer, DenseLayer, LayeredModel
from ferplus_tvm.lowering.planner import Lookup, plan
from ferplus_tvm.lowering.writer import lower
from ferplus_tvm.records import log as logs_module
from ferplus_tvm.records.codec import decode, encode, workload_of
from ferplus_tvm.records.find import shipped
from ferplus_tvm.records.log import NAME, LayerRecord, Measured, Provenance, TuningLog, write
from tests.artifacts import assert_sentence
from tests.tuning.support import TUNED, write_log

TARGET = targets.resolve("native")
FOLDER = TARGET.name
BACKEND = backend_of(TARGET)
UNIT = TARGET.vector_unit
RECORDED = Conv(1, 64, 64, 1, 2 * UNIT.lanes, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), True, None)
TUNED_CONFIG = replace(direct.Config.preset(RECORDED, UNIT), width=2)
LAYER = ConvLayer(
    "conv",
    np.ones((RECORDED.out_channels, 1, 3, 3), np.float32),
    np.zeros(RECORDED.out_channels, np.float32),
    (1, 1),
    (1, 1, 1, 1),
    (1, 1),
    True,
    None,
)
UNRECORDED = replace(RECORDED, batch=2)
PROVENANCE = Provenance(
    "a target", {}, "a CPU", (1, 2), "2026-01-02", "a command", "this", "0.27.0"
)


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """Logs with one record of RECORDED, two columns wide, which no preset is, and one layer."""
    assert direct.Config.preset(RECORDED, UNIT).width != 2
    write_log(tmp_path, FOLDER, [(RECORDED, TUNED_CONFIG), (replace(RECORDED, relu=False), None)])
    return tmp_path


def lookup(logs: Path) -> Lookup:
    log = TuningLog(logs, FOLDER)

    def find(workload: Workload) -> Config | None:
        assert isinstance(workload, Conv | Dense)
        return log.config(workload, BACKEND)

    return find


def alter(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the layer of RECORDED in a log, and sign the log again."""
    log = TuningLog(folder, FOLDER)
    layers = []
    for layer in log.layers:
        if layer.kept is not None:
            config = dict(layer.kept.config)
            change(config)
            layer = replace(layer, kept=Measured(config, layer.kept.seconds))
        layers.append(layer)
    assert log.provenance is not None
    write(log.folder, log.provenance, layers)


def test_a_record_is_found_and_gives_its_own_tiling(logs: Path) -> None:
    assert lookup(logs)(RECORDED) == TUNED_CONFIG
    (kept,) = [layer.kept for layer in TuningLog(logs, FOLDER).layers if layer.kept is not None]
    assert kept.seconds == (TUNED,)


@pytest.mark.parametrize(
    "workload",
    [UNRECORDED, replace(RECORDED, relu=False), replace(RECORDED, affine=(1.0, 2.0))],
    ids=["unknown", "known without a record", "differs in a constant"],
)
def test_without_a_record_there_is_none(logs: Path, workload: Conv) -> None:
    assert lookup(logs)(workload) is None


def test_looking_up_never_changes_the_file(logs: Path) -> None:
    path = logs / FOLDER / NAME
    before = path.read_bytes()
    find = lookup(logs)
    for workload in (RECORDED, UNRECORDED, replace(RECORDED, relu=False)):
        find(workload)
    assert path.read_bytes() == before


def test_a_kernel_says_whether_it_was_tuned_and_gives_the_same_scores(logs: Path) -> None:
    random = np.random.default_rng(0)
    outputs = RECORDED.out_channels - 1
    layers = (
        replace(
            LAYER,
            weight=random.standard_normal((outputs, 1, 3, 3), np.float32),
            bias=random.standard_normal(outputs, np.float32),
        ),
        DenseLayer(
            "dense",
            random.standard_normal((outputs * 64 * 64, 8), np.float32),
            np.zeros(8, np.float32),
            False,
        ),
    )
    x = tvm.runtime.tensor(random.standard_normal((1, 1, 64, 64), np.float32))

    def scores(found: Lookup) -> tuple[Any, Any]:
        lowered = lower(LayeredModel((1, 64, 64), layers), [1], BACKEND, found)
        vm = relax.VirtualMachine(build.executable(lowered.module, TARGET), tvm.cpu())
        weights = [tvm.runtime.tensor(lowered.weights[name]) for name in lowered.arguments[1]]
        return lowered.kernels, vm["main_batch1"](x, *weights).numpy()

    tuned, found = scores(lookup(logs))
    plain, expected = scores(lambda workload: None)
    assert [kernel.tuned for kernel in tuned] == [True, False]
    assert "width=2" in tuned[0].tiling
    assert not any(kernel.tuned for kernel in plain)
    assert "width=2" not in plain[0].tiling
    # A tiling changes no order of sums.
    np.testing.assert_array_equal(found, expected)


def renamed(old: str, new: str) -> Callable[[dict[str, Any]], None]:
    def change(config: dict[str, Any]) -> None:
        config[new] = config.pop(old)

    return change


def set_to(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda config: config.update(values)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (renamed("width", "breadth"), "breadth"),
        (renamed("algorithm", "kernel"), "None"),
        (set_to(algorithm="FFT"), "FFT"),
        (set_to(algorithm="Winograd F(4,3)"), "width"),
        (set_to(width="2"), "whole numbers"),
        (set_to(width=2.0), "whole numbers"),
        (set_to(lanes=3), "lanes=3"),
        (set_to(vectors=7), "vectors=7"),
        (set_to(width=0), "width=0"),
        (set_to(width=10**6), "width=1000000"),
        (set_to(width=60), "width=60"),
    ],
)
def test_a_record_that_does_not_fit_its_layer_is_refused_by_the_name_of_its_kernel(
    logs: Path, change: Callable[[dict[str, Any]], None], why: str
) -> None:
    alter(logs, change)
    with pytest.raises(TuningLogError) as caught:
        plan(LayeredModel((1, 64, 64), (LAYER,)), 1, BACKEND, lookup(logs))
    message = str(caught.value)
    assert message.startswith(f"the tuning record of {RECORDED.name} does not fit it (")
    assert why in message
    assert message.endswith("tune again with this version, or leave the log out")


def test_an_algorithm_and_the_fields_of_another_do_not_pass() -> None:
    layer = replace(RECORDED, in_channels=16)
    winograd = BACKEND.presets(layer)[-1]
    record = {**encode(winograd), "algorithm": "Winograd F(2,3)"}
    with pytest.raises(TuningLogError, match=r"Winograd F\(2,3\)"):
        decode(record, layer, BACKEND)


@pytest.mark.parametrize(
    "workload",
    [
        RECORDED,
        replace(RECORDED, affine=((1.0, 2.0, 3.0), (0.5, 0.25, 1 / 3)), in_channels=3),
        replace(RECORDED, slope=0.1, pool=True),
        Dense(1, 64, 16, 16, relu=False, bounded=True),
        Dense(8, 64, 16, 7, relu=True, slope=1 / 3, fp16_weights=True),
    ],
)
def test_a_workload_is_read_as_it_was_written(workload: Conv | Dense) -> None:
    assert workload_of(json.loads(json.dumps(workload.key))) == workload


def test_a_key_says_nothing_of_activations_that_older_logs_do_not_know() -> None:
    assert not {"slope", "bounded"} & {*RECORDED.key, *Dense(1, 2, 3, 3, True).key}
    assert replace(RECORDED, slope=0.5).key.keys() - RECORDED.key.keys() == {"slope"}
    assert replace(RECORDED, bounded=True).key.keys() - RECORDED.key.keys() == {"bounded"}


@pytest.mark.parametrize("key", [{"op": "conv3d"}, {"op": "dense"}, {**RECORDED.key, "more": 1}])
def test_a_key_of_no_workload_is_refused(key: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not a workload of this version"):
        workload_of(key)


def test_a_target_without_a_folder_has_no_records(tmp_path: Path) -> None:
    assert lookup(tmp_path)(RECORDED) is None
    (tmp_path / FOLDER).mkdir()
    assert lookup(tmp_path)(RECORDED) is None
    assert list((tmp_path / FOLDER).iterdir()) == []


def test_a_missing_folder_of_logs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TuningLogError, match=r"absent is not a folder: expected the folder"):
        TuningLog(tmp_path / "absent", FOLDER)


def refuses(logs: Path) -> str:
    """Return the one sentence that the log is refused with."""
    with pytest.raises(TuningLogError) as caught:
        TuningLog(logs, FOLDER)
    message = str(caught.value)
    assert_sentence(message)
    assert str(logs / FOLDER / NAME) in message
    assert message.endswith("or leave it out")
    return message


def test_a_file_cut_anywhere_is_an_error(logs: Path) -> None:
    path = logs / FOLDER / NAME
    whole = path.read_bytes()
    for length in range(len(whole) - 1):
        path.write_bytes(whole[:length])
        refuses(logs)


def test_a_byte_that_is_altered_anywhere_is_an_error_or_changes_nothing(logs: Path) -> None:
    path = logs / FOLDER / NAME
    whole = path.read_bytes()
    log = TuningLog(logs, FOLDER)
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        try:
            altered = TuningLog(logs, FOLDER)
        except TuningLogError as error:
            assert_sentence(str(error))
        else:  # the line's end
            assert (altered.provenance, altered.layers) == (log.provenance, log.layers)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\x00\xff garbage",
        b"<!DOCTYPE html>\n",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
        b"null\n",
        b"{}\n",
        b"\n",
        b"[]\n",
        b'{"format": 2, "space": 1, "sha256": 0}\n',
        b"[" * 100_000,
    ],
)
def test_garbage_is_an_error(logs: Path, text: bytes) -> None:
    (logs / FOLDER / NAME).write_bytes(text)
    refuses(logs)


def test_lines_that_are_signed_and_no_records_are_an_error(
    logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Odd(Conv):
        key = {"op": "attention"}  # type: ignore[assignment]  # noqa: RUF012

    odd = Odd(**{name: getattr(RECORDED, name) for name in RECORDED.key if name != "op"})
    write(logs / FOLDER, PROVENANCE, [LayerRecord(odd)])
    assert "not of its format" in refuses(logs)


def test_a_log_of_another_tvm_is_as_good(logs: Path) -> None:
    log = TuningLog(logs, FOLDER)
    assert log.provenance is not None
    assert log.provenance.tvm_version == importlib.metadata.version("apache-tvm")
    write(log.folder, replace(log.provenance, tvm_version="0.99.0"), log.layers)
    assert lookup(logs)(RECORDED) == TUNED_CONFIG


def test_a_log_of_another_format_is_refused(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs_module, "_FORMAT", 3)
    assert "has format 2" in refuses(logs)


def test_a_log_of_another_space_of_configurations_is_refused(
    logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs_module, "SPACE_VERSION", 2)
    assert "version 1 of the kernels" in refuses(logs)


def test_a_log_is_json_lines_that_anyone_can_read(logs: Path) -> None:
    header, *layers = map(json.loads, (logs / FOLDER / NAME).read_text().splitlines())
    assert header["target"] == FOLDER and header["layers"] == len(layers) == 2
    first = layers[0]
    assert first["workload"] == json.loads(json.dumps(RECORDED.key))
    assert first["kept"]["config"] == {"algorithm": "direct convolution", **vars(TUNED_CONFIG)}
    assert workload_of(first["workload"]) == RECORDED


def test_looking_up_needs_no_tvm(logs: Path, run_python: Callable[..., str]) -> None:
    code = """
import sys
from pathlib import Path
from ferplus_tvm.records.log import TuningLog
log = TuningLog(Path(sys.argv[1]), sys.argv[2])
print(len(log.layers), "tvm" in sys.modules)
"""
    assert run_python(code, logs, FOLDER).split() == ["2", "False"]


def test_the_package_carries_small_logs_whose_records_all_fit() -> None:
    names = [folder.name for folder in shipped().iterdir() if folder.is_dir()]
    assert {"x86-64-v3", "x86-64-v4", "znver4"} <= set(names)
    for name in names:
        backend = backend_of(targets.resolve(name))
        log = TuningLog(shipped(), name)
        assert log.layers
        for layer in log.layers:
            assert layer.kept is not None and layer.preset is not None
            assert log.config(layer.workload, backend) is not None
    files = [path for path in shipped().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 300_000
