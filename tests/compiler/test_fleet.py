"""One library for several targets: the best part that a CPU can run is chosen at load."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import ferplus_tvm as fer
from ferplus_tvm import targets
from ferplus_tvm.artifact import reference_inputs
from ferplus_tvm.artifact.library_file import Artifact, read_manifest
from ferplus_tvm.compiler.pipeline import CompileResult
from ferplus_tvm.errors import ArtifactError, CpuFeatureError, TargetError
from ferplus_tvm.host import cpu
from tests.artifacts import assert_sentence, read_manifests

LEVELS = ("x86-64-v2", "x86-64-v3", "x86-64-v4")
NEEDS = {name: targets.resolve(name).features for name in LEVELS}
pytestmark = pytest.mark.skipif(
    not targets.resolve("x86-64-v3").runs_here, reason="this CPU does not run x86-64-v3"
)


@pytest.fixture(scope="module")
def fleet(narrow_model: Path, tmp_path_factory: pytest.TempPathFactory) -> CompileResult:
    output = tmp_path_factory.mktemp("fleet") / "fleet.so"
    return fer.compile(narrow_model, ",".join(LEVELS), output, [1, 2])


def mask(monkeypatch: pytest.MonkeyPatch, level: str) -> None:
    """Have the CPU offer no more than a level needs."""
    here = cpu.features()
    monkeypatch.setattr(cpu, "features", lambda: here & NEEDS[level])


def test_the_library_says_what_it_holds(fleet: CompileResult) -> None:
    manifests = read_manifests(fleet.path)
    assert tuple(each.target for each in manifests) == LEVELS
    for each in manifests:
        assert set(each.cpu_features) == NEEDS[each.target]
        able = targets.resolve(each.target).runs_here
        assert (each.check.error is not None) == able
        assert able is False or each.check.error < each.check.tolerance
    assert fleet.verified == all(targets.resolve(name).runs_here for name in LEVELS)


@pytest.mark.parametrize("level", LEVELS)
def test_the_best_part_that_the_cpu_can_run_is_used(
    fleet: CompileResult, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not targets.resolve(level).runs_here:
        pytest.skip(f"this CPU does not run {level}")
    expected = read_manifest(fleet.path).check
    faces = reference_inputs.inputs(expected.seed, expected.faces)
    mask(monkeypatch, level)
    with fer.load(fleet.path, threads=2) as engine:
        assert engine.manifest.target == level
        off = reference_inputs.relative_error(engine.scores(faces), np.asarray(expected.reference))
        assert off < expected.tolerance
        same = pickle.loads(pickle.dumps(engine))
        assert same.manifest.target == level
        np.testing.assert_array_equal(same.scores(faces), engine.scores(faces))
        same.close()


def test_the_answers_are_those_of_a_library_for_that_target_alone(
    fleet: CompileResult, narrow_model: Path, tmp_path: Path
) -> None:
    alone = fer.compile(narrow_model, "x86-64-v3", tmp_path / "alone.so", [1, 2])
    faces = reference_inputs.inputs(3, 5)
    with fer.load(alone.path) as one, fer.load(fleet.path, target="x86-64-v3") as of_three:
        assert of_three.manifest.target == "x86-64-v3"
        np.testing.assert_array_equal(one.scores(faces), of_three.scores(faces))


def test_targets_share_weights_of_the_same_layout(fleet: CompileResult) -> None:
    manifests = read_manifests(fleet.path)
    used = [{at for f in each.functions.values() for at in f.weights} for each in manifests]
    tensors = manifests[0].tensors
    assert all(each.tensors == tensors for each in manifests)
    assert set.union(*used) == set(range(len(tensors)))
    alone = sum(tensors[at].nbytes for own in used for at in own)
    assert manifests[0].weights_bytes < alone
    # Whatever the vectors of a target, the weights of an algorithm and type are the same.
    grouped = [
        (tensor.name, tensor.dtype, tensor.shape)
        for tensor in tensors
        if ".weight.dense" in tensor.name or ".weight.winograd" in tensor.name
    ]
    assert len(grouped) == len(set(grouped)) > 0
    spans = sorted((tensor.offset, tensor.offset + tensor.nbytes) for tensor in tensors)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))


def test_a_cpu_that_runs_none_of_them_is_refused_by_what_it_lacks_for_the_least(
    fleet: CompileResult, monkeypatch: pytest.MonkeyPatch, no_loader: None
) -> None:
    monkeypatch.setattr(cpu, "features", lambda: NEEDS["x86-64-v2"] - {"sse4.2"})
    with pytest.raises(CpuFeatureError) as caught:
        fer.load(fleet.path)
    assert_sentence(str(caught.value), "sse4.2")
    assert "avx" not in str(caught.value)


def test_a_part_that_is_asked_for_is_used_or_refused(
    fleet: CompileResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fer.load(fleet.path, target="x86-64-v2") as engine:
        assert engine.manifest.target == "x86-64-v2"
    with pytest.raises(ArtifactError) as caught:
        fer.load(fleet.path, target="znver5")
    assert_sentence(str(caught.value), "'znver5'", *LEVELS)
    mask(monkeypatch, "x86-64-v2")
    with pytest.raises(CpuFeatureError, match="avx2"):
        fer.load(fleet.path, target="x86-64-v3")


def test_damage_in_the_code_of_any_target_is_found(fleet: CompileResult, tmp_path: Path) -> None:
    data = bytearray(fleet.path.read_bytes())
    for each in read_manifests(fleet.path):
        broken = bytearray(data)
        broken[each.image_offset + each.image_bytes // 2] ^= 1
        path = tmp_path / "broken.so"
        path.write_bytes(broken)
        with pytest.raises(ArtifactError, match="code does not match"):
            Artifact(path, checksum="manifest")


def test_no_copy_of_the_code_is_left_behind(
    fleet: CompileResult, tmp_path: Path, run_python: Callable[..., str]
) -> None:
    code = """
import sys, ferplus_tvm as fer, numpy as np
with fer.load(sys.argv[1], target="x86-64-v3") as engine:
    engine.scores(np.zeros((1, 1, 64, 64), np.float32))
print("done")
"""
    assert run_python(code, fleet.path, TMPDIR=str(tmp_path)) == "done\n"
    assert list(tmp_path.iterdir()) == []


def test_without_room_for_a_copy_it_says_what_to_do(
    fleet: CompileResult, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from ferplus_tvm.runtime import loader

    monkeypatch.setattr(loader._state, "modules", {})
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "absent"))
    with pytest.raises(ArtifactError) as caught:
        fer.load(fleet.path, target="x86-64-v3")
    assert_sentence(str(caught.value), "x86-64-v3", "TMPDIR")


@pytest.mark.parametrize("order", [("x86-64-v3", "x86-64-v2", "x86-64-v3")])
def test_targets_may_come_in_any_order_and_twice(
    order: tuple[str, ...], narrow_model: Path, tmp_path: Path
) -> None:
    result = fer.compile(narrow_model, ",".join(order), tmp_path / "m.so", [1])
    names = tuple(dict.fromkeys(order))
    assert tuple(each.target for each in result.manifests) == names
    assert result.manifests == read_manifests(result.path)
    best = max(name for name in names if targets.resolve(name).runs_here)
    with fer.load(result.path) as engine:
        assert engine.manifest.target == best
        assert engine.scores(np.zeros((1, 1, 64, 64), np.float32)).shape == (1, 8)


def test_engines_over_another_part_share_its_code_and_live_on_in_a_forked_child(
    fleet: CompileResult, run_python: Callable[..., str]
) -> None:
    code = """
import os, sys, numpy as np, ferplus_tvm as fer
from ferplus_tvm.runtime import loader
x = np.zeros((1, 1, 64, 64), np.float32)
with fer.load(sys.argv[1], target="x86-64-v3") as one:
    with fer.load(sys.argv[1], target="x86-64-v3") as two:
        assert (one.scores(x) == two.scores(x)).all()
        with fer.load(sys.argv[1], target="x86-64-v2") as three:
            three.scores(x)
    print(len(loader._state.modules), len(loader._state.pins))
    sys.stdout.flush()
    child = os.fork()
    if not child:
        os._exit(not (one.scores(x) == one.scores(x)).all())
    print(os.waitpid(child, 0)[1])
"""
    assert run_python(code, fleet.path).split() == ["2", "1", "0"]


def test_a_library_overwritten_in_place_is_refused_for_every_part(
    fleet: CompileResult, narrow_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ferplus_tvm.runtime import loader

    monkeypatch.setattr(loader._state, "modules", {})
    path = tmp_path / "m.so"
    path.write_bytes(fleet.path.read_bytes())
    with fer.load(path, target="x86-64-v3"):
        pass
    with path.open("r+b") as file:
        file.truncate()
        file.write(narrow_library.read_bytes())
    with pytest.raises(ArtifactError, match="overwritten in place"):
        fer.load(path)


@pytest.mark.parametrize("names", ["neoverse-n1,cortex-a76", "aarch64,aarch64,cortex-a72"])
def test_targets_that_no_cpu_can_be_told_apart_for_are_refused(
    names: str, narrow_model: Path, tmp_path: Path
) -> None:
    features = [targets.resolve(name).features for name in dict.fromkeys(names.split(","))]
    if len(set(features)) == len(features):
        pytest.skip("this LLVM tells them apart")
    with pytest.raises(TargetError) as caught:
        fer.compile(narrow_model, names, tmp_path / "m.so")
    assert_sentence(str(caught.value), names.split(",")[-1], "leave one of them out")


def test_targets_of_two_architectures_are_refused(narrow_model: Path, tmp_path: Path) -> None:
    with pytest.raises(TargetError) as caught:
        fer.compile(narrow_model, "x86-64-v3,aarch64", tmp_path / "m.so")
    assert_sentence(str(caught.value), "x86-64-v3, aarch64", "one architecture")
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_shows_all_and_what_is_used(fleet: CompileResult) -> None:
    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "ferplus_tvm", "info", str(fleet.path), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert ", ".join(LEVELS) in run()
    told = json.loads(run("--json"))
    assert told["targets"] == list(LEVELS)
    assert told["manifest"]["target"] == read_manifest(fleet.path).target
