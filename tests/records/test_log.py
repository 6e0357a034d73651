"""Tuning logs as TVM's own database writes them: found, left as they are, and never trusted."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.s_tir.meta_schedule.database import JSONDatabase

from ferplus_tvm import targets
from ferplus_tvm.compiler import lower
from ferplus_tvm.errors import TuningLogError
from ferplus_tvm.kernels import specification
from ferplus_tvm.kernels.cpu.direct import Config
from ferplus_tvm.kernels.workloads import Conv
from ferplus_tvm.lowering.layers import ConvLayer, DenseLayer
from ferplus_tvm.lowering.place import place
from ferplus_tvm.lowering.plan import plan
from ferplus_tvm.records import provenance
from ferplus_tvm.records.log import RECORDS, WORKLOADS, TuningLog, shipped
from tests.artifacts import assert_sentence
from tests.tuning.support import TUNED, alter, write_log

TARGET = targets.resolve("native")
FOLDER = TARGET.name
FILES = (WORKLOADS, RECORDS, provenance.NAME)
UNIT = TARGET.vector_unit
RECORDED = Conv(1, 64, 64, 1, 2 * UNIT.lanes, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), True, None)
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


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """Logs with one record of RECORDED, two columns wide, which no preset is, and one layer."""
    preset = Config.preset(RECORDED, UNIT)
    assert preset.width != 2
    records = [
        (RECORDED, {"tile": 0, **vars(replace(preset, width=2))}),
        (replace(RECORDED, relu=False), None),
    ]
    write_log(tmp_path, FOLDER, records)
    return tmp_path


def lookup(logs: Path) -> Callable[[Any], dict[str, int] | None]:
    return TuningLog(logs, FOLDER).config


def test_a_record_is_found_and_gives_its_own_tiling(logs: Path) -> None:
    expected = {"tile": 0, **vars(replace(Config.preset(RECORDED, UNIT), width=2))}
    assert lookup(logs)(RECORDED) == expected


@pytest.mark.parametrize(
    "workload",
    [UNRECORDED, replace(RECORDED, relu=False), replace(RECORDED, affine=(1.0, 2.0))],
    ids=["unknown", "known without a record", "differs in a constant"],
)
def test_without_a_record_there_is_none(logs: Path, workload: Conv) -> None:
    assert lookup(logs)(workload) is None


def test_looking_up_never_changes_the_files(logs: Path) -> None:
    paths = [logs / FOLDER / name for name in FILES]
    before = [path.read_bytes() for path in paths]
    find = lookup(logs)
    for workload in (RECORDED, UNRECORDED, replace(RECORDED, relu=False)):
        find(workload)
    assert [path.read_bytes() for path in paths] == before
    assert sorted((logs / FOLDER).iterdir()) == sorted(paths)


def test_a_placed_kernel_says_whether_it_was_tuned_and_gives_the_same_scores(logs: Path) -> None:
    random = np.random.default_rng(0)
    outputs = RECORDED.out_channels - 1
    layers = [
        ConvLayer(
            "conv",
            random.standard_normal((outputs, 1, 3, 3), np.float32),
            random.standard_normal(outputs, np.float32),
            (1, 1),
            (1, 1, 1, 1),
            (1, 1),
            True,
            None,
        ),
        DenseLayer(
            "dense",
            random.standard_normal((outputs * 64 * 64, 8), np.float32),
            np.zeros(8, np.float32),
            False,
        ),
    ]
    x = tvm.runtime.tensor(random.standard_normal((1, 1, 64, 64), np.float32))

    def scores(record: Callable[[Any], dict[str, int] | None]) -> tuple[Any, Any]:
        placed = place(layers, [1], UNIT, record)
        vm = relax.VirtualMachine(lower.build(placed.module, TARGET), tvm.cpu())
        weights = [tvm.runtime.tensor(placed.weights[name]) for name in placed.arguments[1]]
        return placed.kernels, vm["main_batch1"](x, *weights).numpy()

    tuned, found = scores(lookup(logs))
    plain, expected = scores(lambda module: None)
    assert [choice.tuned for choice in tuned] == [True, False]
    assert "width=2" in tuned[0].tiling
    assert not any(choice.tuned for choice in plain)
    assert "width=2" not in plain[0].tiling
    # A tiling changes no order of sums.
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("width", "breadth", "breadth"),
        ("vectors", "tile", "vectors"),
    ],
)
def test_a_record_of_another_version_is_refused_by_the_name_of_its_kernel(
    logs: Path, old: str, new: str, why: str
) -> None:
    alter(
        logs / FOLDER,
        RECORDS,
        lambda text: text.replace(f"ferplus_tvm.{old}", f"ferplus_tvm.{new}"),
    )
    with pytest.raises(TuningLogError) as caught:
        plan([LAYER], 1, UNIT, lookup(logs))
    message = str(caught.value)
    assert message.startswith(f"the tuning record of {RECORDED.name} does not fit it (")
    assert why in message
    assert message.endswith("tune again with this version, or leave the log out")


@pytest.mark.parametrize(
    "changes",
    [
        {"lanes": 3},
        {"vectors": 7},
        {"width": 0},
        {"tile": 5},
        {"tile": 4},
        {"width": 10**6},
        {"width": 60},
    ],
)
def test_a_record_that_does_not_fit_its_layer_is_refused(changes: dict[str, int]) -> None:
    record = {"tile": 0, **vars(Config.preset(RECORDED, UNIT)), **changes}
    with pytest.raises(TuningLogError, match="does not fit it"):
        plan([LAYER], 1, UNIT, lambda specification: record)


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
    assert str(logs / FOLDER) in message
    assert message.endswith("or leave it out")
    return message


@pytest.mark.parametrize("name", FILES)
def test_each_file_is_needed(logs: Path, name: str) -> None:
    (logs / FOLDER / name).unlink()
    assert name in refuses(logs)


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_anywhere_is_an_error(logs: Path, name: str) -> None:
    path = logs / FOLDER / name
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, max(1, len(whole) // 200)):
        path.write_bytes(whole[:length])
        assert f"{name} is cut or altered" in refuses(logs)


@pytest.mark.parametrize("name", FILES)
def test_a_byte_that_is_altered_anywhere_is_an_error_or_changes_nothing(
    logs: Path, name: str
) -> None:
    path = logs / FOLDER / name
    whole = path.read_bytes()
    state = TuningLog(logs, FOLDER).provenance
    for at in range(0, len(whole), max(1, len(whole) // 500)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        try:
            log = TuningLog(logs, FOLDER)
        except TuningLogError as error:
            assert_sentence(str(error))
        else:  # a blank between two words of the provenance
            assert name == provenance.NAME and log.provenance == state


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "text",
    [
        b"\x00\xff garbage",
        b"<!DOCTYPE html>\n",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
        b"null\n",
        b"{}\n",
        b"\n",
        b"[]\n",
        b'{"format": 1, "sha256": 0}\n',
        b"[" * 100_000,
    ],
)
def test_garbage_is_an_error(logs: Path, name: str, text: bytes) -> None:
    (logs / FOLDER / name).write_bytes(text)
    refuses(logs)


def test_what_follows_the_bytes_that_count_was_never_finished_and_is_left_out(logs: Path) -> None:
    expected = lookup(logs)(RECORDED)
    for name in (WORKLOADS, RECORDS):
        with (logs / FOLDER / name).open("ab") as file:
            file.write(b'[0,[[[["GetSBl')
    assert expected is not None and lookup(logs)(RECORDED) == expected


def test_a_log_of_another_tvm_is_refused_by_its_version(logs: Path) -> None:
    replace(provenance.read(logs / FOLDER), tvm_version="0.99.0").write(logs / FOLDER)
    assert "apache-tvm 0.99.0" in refuses(logs)


def test_a_log_of_another_format_is_refused(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "_FORMAT", 2)
    assert "has format 1" in refuses(logs)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"root"', '"absent"'),
        ('"Annotate"', '"Unknown"'),
        ('"llvm"', '"nothing"'),
    ],
    ids=["a block that is not there", "an instruction", "a target"],
)
def test_a_record_that_tvm_cannot_apply_is_an_error(logs: Path, old: str, new: str) -> None:
    alter(logs / FOLDER, RECORDS, lambda text: text.replace(old, new))
    with pytest.raises(TuningLogError) as caught:
        lookup(logs)(RECORDED)
    assert_sentence(str(caught.value))


def test_tvm_itself_reads_the_log(logs: Path) -> None:
    paths = [str(logs / FOLDER / name) for name in (WORKLOADS, RECORDS)]
    database = JSONDatabase(*paths, allow_missing=False, module_equality="structural")
    module = tvm.IRModule({"main": specification.of(RECORDED)})
    found = database.query_schedule(module, TARGET.tvm_target(), "main")
    assert found.get(found.get_sblock("root")).annotations["ferplus_tvm.width"] == 2
    (record,) = database.get_all_tuning_records()
    assert [float(seconds) for seconds in record.run_secs] == [TUNED]


def test_a_lookup_does_not_wait_for_the_tensor_intrinsics(logs: Path) -> None:
    # Their import takes longer than a whole compilation.
    script = f"""
import sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from tests.tuning.test_database import RECORDED, lookup
assert lookup(Path({str(logs)!r}))(RECORDED) is not None
print([name for name in sys.modules if name.startswith("tvm.s_tir.tensor_intrin")])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_the_package_carries_a_folder_of_logs() -> None:
    names = [folder.name for folder in shipped().iterdir() if folder.is_dir()]
    assert {"x86-64-v3", "x86-64-v4", "znver4"} <= set(names)
    for name in names:
        layers = TuningLog(shipped(), name).layers
        assert layers and all(layer.kept is not None for layer in layers)
