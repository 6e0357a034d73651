"""Which tuning log a target gets: its own, or that of the nearest target."""

from __future__ import annotations

from pathlib import Path

import pytest

from ferplus_tvm import targets
from ferplus_tvm.kernels.cpu import dense
from ferplus_tvm.kernels.workloads import Dense
from ferplus_tvm.records.find import find, own, shipped
from tests.tuning.support import write_log


def log(folder: Path, *names: str) -> Path:
    """Put a log of each target, with one record, into a folder of logs."""
    for name in names:
        unit = targets.resolve(name).vector_unit
        layer = Dense(1, 64, 64, 64, relu=True)
        write_log(folder, name, [(layer, dense.Config.preset(layer, unit))])
    return folder


def found(target: str, *folders: Path) -> tuple[str, Path] | None:
    taken = find(folders, targets.resolve(target))
    return None if taken is None else (taken.target, taken.folder.parent)


def test_its_own_log_in_the_first_folder_that_has_a_fitting_one(tmp_path: Path) -> None:
    first = log(tmp_path / "first", "x86-64-v3")
    second = log(tmp_path / "second", "x86-64-v4", "znver4")
    third = log(tmp_path / "third", "znver4")
    assert found("znver4", tmp_path / "absent", first, second, third) == ("znver4", second)
    assert found("znver5", first, third, second) == ("znver4", third)


def test_a_log_of_its_name_is_left_where_the_machine_hides_registers(tmp_path: Path) -> None:
    hidden = targets.ResolvedTarget(
        "znver4",
        {"kind": "llvm", "mcpu": "znver4"},
        "x86_64-unknown-linux-gnu",
        targets.resolve("znver3").features,
    )
    folder = log(tmp_path, "znver4", "znver3")
    taken = find([folder], hidden)
    assert taken is not None and taken.target == "znver3"


@pytest.mark.parametrize(
    ("target", "logs", "nearest"),
    [
        ("znver5", ["x86-64-v3", "x86-64-v4", "znver4"], "znver4"),
        ("sapphirerapids", ["x86-64-v4", "skylake-avx512", "icelake-server"], "icelake-server"),
        ("skylake-avx512", ["x86-64-v4", "icelake-server"], "x86-64-v4"),
        ("znver3", ["x86-64-v2", "x86-64-v3", "x86-64-v4"], "x86-64-v3"),
        ("cortex-a76", ["aarch64", "x86-64-v3"], "aarch64"),
    ],
)
def test_the_nearest_has_the_most_features_that_the_target_has_too(
    tmp_path: Path, target: str, logs: list[str], nearest: str
) -> None:
    assert found(target, log(tmp_path, *logs)) == (nearest, tmp_path)


@pytest.mark.parametrize(
    ("target", "logs"),
    [
        ("x86-64-v4", ["x86-64-v3"]),  # narrower registers: another shape of kernels
        ("x86-64-v3", ["x86-64-v4"]),  # code that would not run
        ("aarch64", ["x86-64-v2"]),
        ("x86-64-v3", []),
    ],
)
def test_without_one_near_enough_there_is_none(
    tmp_path: Path, target: str, logs: list[str]
) -> None:
    assert found(target, log(tmp_path, *logs)) is None


def test_a_log_that_keeps_nothing_yet_is_passed_over(tmp_path: Path) -> None:
    write_log(tmp_path / "begun", "znver4", [])
    finished = log(tmp_path / "finished", "znver4")
    assert found("znver4", tmp_path / "begun", finished) == ("znver4", finished)


def test_the_users_own_folder_lies_outside_of_the_package() -> None:
    assert own().name == "tuning_logs"
    assert own() != shipped()
    assert "ferplus_tvm" in str(own())
