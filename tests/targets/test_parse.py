"""Targets: by name, by TVM's JSON, and this machine's own."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from tvm.target import codegen

from ferplus_tvm import targets
from ferplus_tvm.errors import TargetError
from ferplus_tvm.host import cpu
from ferplus_tvm.targets import NAMED, ResolvedTarget, VectorUnit

V2 = {"sse", "sse2", "sse3", "ssse3", "sse4.1", "sse4.2", "popcnt"}
V3 = V2 | {"avx", "avx2", "fma", "f16c", "bmi", "bmi2", "lzcnt", "movbe"}
V4 = V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}


@pytest.mark.parametrize("name", NAMED)
def test_every_name_resolves(name: str) -> None:
    target = targets.resolve(name)
    assert target.name == name
    assert target.arch == NAMED[name].arch
    assert target.triple == NAMED[name].triple
    assert target.features <= cpu.known_features(target.arch)
    made = target.tvm_target()
    assert str(made.attrs["mcpu"]) == NAMED[name].llvm_cpu


# The three levels of the x86-64 psABI, in what a kernel may be given of them.
@pytest.mark.parametrize(
    ("name", "features"), [("x86-64-v2", V2), ("x86-64-v3", V3), ("x86-64-v4", V4)]
)
def test_a_level_of_x86_needs_exactly_its_features(name: str, features: set[str]) -> None:
    assert targets.resolve(name).features == features


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("x86-64-v2", VectorUnit(lanes=4, registers=16)),
        ("x86-64-v3", VectorUnit(lanes=8, registers=16, fp16=True)),
        ("znver3", VectorUnit(lanes=8, registers=16, fp16=True)),
        ("x86-64-v4", VectorUnit(lanes=16, registers=32, fp16=True)),
        ("sapphirerapids", VectorUnit(lanes=16, registers=32, fp16=True)),
        ("znver4", VectorUnit(lanes=16, registers=32, per_cycle=1, fp16=True)),
        ("aarch64", VectorUnit(lanes=4, registers=32, fp16=True)),
        ("neoverse-v2", VectorUnit(lanes=4, registers=32, fp16=True)),
    ],
)
def test_vector_units(name: str, unit: VectorUnit) -> None:
    assert targets.resolve(name).vector_unit == unit


def test_an_arm_core_needs_what_it_has() -> None:
    assert targets.resolve("aarch64").features == {"neon"}
    assert targets.resolve("cortex-a76").features == {"neon", "crc", "lse", "dotprod", "fullfp16"}


def test_an_alias_of_a_cpu_is_known() -> None:
    # What LLVM calls the CPU of a Mac; its list of CPUs has apple-a14 instead.
    macs = {"kind": "llvm", "mtriple": "arm64-apple-macos"}
    target = targets.resolve(macs | {"mcpu": "apple-m1"})
    assert target.features == targets.resolve(macs | {"mcpu": "apple-a14"}).features
    assert target.features == {"neon", "crc", "lse", "dotprod", "fullfp16"}


def test_dictionary_and_text_are_the_same_target() -> None:
    config = {"kind": "llvm", "mcpu": "znver4", "mtriple": "x86_64-unknown-linux-gnu"}
    target = targets.resolve(config)
    assert target == targets.resolve(f"  {json.dumps(config)}\n")
    assert target.name == "custom"
    assert target.features == targets.resolve("znver4").features


def test_json_without_a_triple_is_for_this_machine() -> None:
    target = targets.resolve({"kind": "llvm"})
    assert target.triple == str(codegen.llvm_get_system_triple())
    assert target.arch == cpu.architecture()


def test_json_may_switch_features_on_and_off() -> None:
    on = {"kind": "llvm", "mcpu": "x86-64-v2", "mattr": ["+avx2"]}
    triple = {"mtriple": "x86_64-unknown-linux-gnu"}
    assert targets.resolve(on | triple).features == V2 | {"avx", "avx2"}
    off = {"kind": "llvm", "mcpu": "x86-64-v4", "mattr": ["-avx512f"]}
    assert targets.resolve(off | triple).features == V3
    assert targets.resolve(off | triple).vector_unit.lanes == 8


def test_native_is_this_cpu() -> None:
    target = targets.resolve()
    assert target.name == str(codegen.llvm_get_system_cpu())
    assert target.runs_here
    assert target == targets.resolve("native")


@pytest.mark.skipif(cpu.architecture() != "x86_64", reason="about x86 features")
def test_this_cpus_own_name_in_llvm_is_native_where_no_named_target_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unlisted = "haswell"
    assert unlisted not in NAMED
    monkeypatch.setattr(codegen, "llvm_get_system_cpu", lambda: "znver4")
    with pytest.raises(TargetError, match="no target named 'haswell'"):
        targets.resolve(unlisted)
    monkeypatch.setattr(codegen, "llvm_get_system_cpu", lambda: unlisted)
    monkeypatch.setattr(cpu, "features", lambda: frozenset(V3 - {"movbe"}))
    target = targets.resolve(unlisted)
    assert target == targets.resolve("native")
    assert target.name == unlisted and target.config["mcpu"] == unlisted
    assert target.features == V3 - {"movbe"} and target.runs_here
    # What a tuning log's folder is named resolves to the target again.
    assert targets.resolve(target.log) == target


@pytest.mark.skipif(cpu.architecture() != "x86_64", reason="about x86 features")
@pytest.mark.parametrize(("visible", "lanes"), [(V2, 4), (V3, 8), (V3 - {"bmi2", "movbe"}, 8)])
def test_native_leaves_out_what_the_machine_hides(
    monkeypatch: pytest.MonkeyPatch, visible: set[str], lanes: int
) -> None:
    # A hypervisor may hide instructions that the CPU's name promises.
    monkeypatch.setattr(cpu, "features", lambda: frozenset(visible))
    monkeypatch.setattr(codegen, "llvm_get_system_cpu", lambda: "znver4")
    target = targets.resolve("native")
    assert target.features == visible
    assert target.vector_unit.lanes == lanes
    assert target.runs_here
    assert "-avx512f" in target.config["mattr"]


@pytest.mark.parametrize(("arch", "other"), [("x86_64", "aarch64"), ("aarch64", "x86_64")])
def test_a_library_for_another_architecture_does_not_run_here(
    monkeypatch: pytest.MonkeyPatch, arch: str, other: str
) -> None:
    monkeypatch.setattr(cpu, "architecture", lambda: arch)
    monkeypatch.setattr(cpu, "system", lambda: "linux")
    monkeypatch.setattr(cpu, "features", lambda: cpu.X86_FEATURES | cpu.ARM_FEATURES)
    runs = {name for name in NAMED if targets.resolve(name).runs_here}
    here = {name for name, named in NAMED.items() if (named.arch, named.system) == (arch, "linux")}
    assert runs == here
    assert not any(NAMED[name].arch == other for name in runs)


@pytest.mark.parametrize(
    ("system", "features", "runs"),
    [("linux", V3, True), ("linux", V3 - {"fma"}, False), ("darwin", V3, False)],
)
def test_a_library_runs_where_system_and_features_are(
    monkeypatch: pytest.MonkeyPatch, system: str, features: set[str], runs: bool
) -> None:
    monkeypatch.setattr(cpu, "architecture", lambda: "x86_64")
    monkeypatch.setattr(cpu, "system", lambda: system)
    monkeypatch.setattr(cpu, "features", lambda: frozenset(features))
    assert targets.resolve("x86-64-v3").runs_here is runs


@pytest.mark.parametrize(
    ("triple", "arch", "system"),
    [
        ("x86_64-unknown-linux-gnu", "x86_64", "linux"),
        ("arm64-apple-darwin23.1.0", "aarch64", "darwin"),
        ("arm64-apple-macosx14.0", "aarch64", "darwin"),
        ("amd64-pc-windows-msvc", "x86_64", "windows"),
        ("aarch64-linux-gnu", "aarch64", "linux"),
    ],
)
def test_triples(triple: str, arch: str, system: str) -> None:
    target = ResolvedTarget("custom", {}, triple, frozenset())
    assert (target.arch, target.system) == (arch, system)


X86 = {"kind": "llvm", "mtriple": "x86_64-unknown-linux-gnu"}


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("znver44", "there is no target named 'znver44': did you mean 'znver4'?"),
        ("nativ", "there is no target named 'nativ': did you mean 'native'?"),
        ("", "there is no target named '': 'ferplus-tvm targets' lists the names"),
        ("llvm -mcpu=znver4", "there is no target named 'llvm -mcpu=znver4'"),
        ('{"kind": "llvm"', r"is not valid JSON \(Expecting .*: expected for example"),
        ("{}", "targets of kind None are not supported: expected kind 'llvm'"),
        ('{"kind": "metal"}', "targets of kind 'metal' are not supported: expected kind 'llvm'"),
        (
            '{"kind": "cuda", "arch": "sm_61"}',
            "the target's arch is 'sm_61': expected one of sm_80",
        ),
        (X86 | {"mcpu": "znver99"}, "LLVM does not know the CPU 'znver99' for x86_64"),
        (X86 | {"mcpu": "cortex-a72"}, "LLVM does not know the CPU 'cortex-a72' for x86_64"),
        ({"kind": "llvm", "mtriple": "z80-unknown-none"}, "LLVM here cannot generate code for 'z8"),
        (X86 | {"mattr": ["+avx3"]}, r"asks for the feature '\+avx3', which LLVM does not know"),
        (X86 | {"mattr": ["+avx2", "-avx"]}, r"asks for the feature '\+avx2', .* switches off"),
        (X86 | {"mattr": "+avx2"}, "TVM does not accept the target .*'mattr': expected type"),
        (X86 | {"num-cores": "two"}, "TVM does not accept the target .*'num-cores': expected"),
        (X86 | {"speed": 11}, "TVM does not accept the target .*Unknown config option 'speed'"),
        (X86 | {"mcpu": "generic", "tag": object()}, "TVM does not accept the target"),
    ],
)
def test_a_wrong_target_is_one_sentence(target: str | dict[str, Any], message: str) -> None:
    with pytest.raises(TargetError) as caught:
        targets.resolve(target)
    assert re.search(message, str(caught.value))
    assert "\n" not in str(caught.value)


def test_a_target_without_a_vector_unit_gets_four_lanes() -> None:
    bare = ResolvedTarget("custom", {}, "riscv64-unknown-linux-gnu", frozenset())
    assert bare.vector_unit == VectorUnit(lanes=4, registers=16)
