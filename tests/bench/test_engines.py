"""The engines: which can be measured, and how one fails."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from ferplus_tvm.bench.engines import catalog
from ferplus_tvm.bench.engines.opened import OURS, faces
from ferplus_tvm.bench.options import BenchOptions
from ferplus_tvm.bench.run import bench
from ferplus_tvm.bench.timing.process import EngineProcess
from ferplus_tvm.errors import BenchError, MissingExtraError, UnsupportedModelError
from tests import artifacts
from tests.artifacts import assert_sentence


def test_a_peer_that_is_not_installed_tells_the_pip_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    find = importlib.util.find_spec
    options = BenchOptions(peers=catalog.CPU_PEERS, device="cpu")
    for package, extra in (
        ("torch", "torch"),
        ("openvino", "openvino"),
        ("onnxruntime", "bench"),
        ("matplotlib", "bench"),
        ("psutil", "bench"),
    ):
        monkeypatch.setattr(
            importlib.util,
            "find_spec",
            lambda name, gone=package: None if name == gone else find("json"),
        )
        with pytest.raises(MissingExtraError, match=rf"pip install 'ferplus_tvm\[{extra}\]'"):
            bench("absent.so", options=options)


def test_an_engine_that_cannot_be_opened_is_one_sentence(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    with pytest.raises(BenchError) as caught:
        EngineProcess("onnxruntime", "onnxruntime", str(broken), 1, 1)
    assert_sentence(str(caught.value), "onnxruntime", "--peers")


def test_an_engine_that_dies_is_one_sentence(narrow_library: Path) -> None:
    with EngineProcess("ours", OURS, str(narrow_library), 1, 1) as process:
        process.begin("scores")
        assert process.ways == ("scores",) and process.scores.shape == (1, 8)
        assert process.off_float64 is not None and process.off_float64 < 1e-4
        turn = process.turn(3, 1)
        assert len(turn.seconds) == 3 and (turn.seconds > 0).all()
        assert turn.cpu > 0 and turn.pace > 0
        process._child._process.kill()
        with pytest.raises(BenchError) as caught:
            process.turn(3, 1)
        assert_sentence(str(caught.value), "ours", "ended by SIGKILL")


def test_a_library_that_is_wrong_on_this_machine_is_not_measured(
    narrow_library: Path, tmp_path: Path
) -> None:
    check = artifacts.read_manifests(narrow_library)[0].check
    wrong = tmp_path / "wrong.so"
    reference = tuple(tuple(-score for score in row) for row in check.reference)
    artifacts.rewrite(narrow_library, wrong, check=replace(check, reference=reference))
    with pytest.raises(BenchError) as caught:
        bench(wrong, options=BenchOptions(peers=(), batch_sizes=(1,), threads=(1,), seconds=0.1))
    assert_sentence(str(caught.value), "wrong.so", "off float64", "ferplus-tvm verify")


def test_other_libraries_are_peers_also_of_the_same_name(
    narrow_library: Path, tmp_path: Path
) -> None:
    copies = [tmp_path / folder / "peer.so" for folder in ("one", "two")]
    for copy in copies:
        copy.parent.mkdir()
        copy.write_bytes(narrow_library.read_bytes())
    manifest = artifacts.read_manifests(narrow_library)[0]
    again = tmp_path / "one" / ".." / "one" / "peer.so"
    report, _ = bench(
        narrow_library,
        options=BenchOptions(
            peers=(*map(str, [*copies, again]), str(narrow_library)),
            batch_sizes=(1,),
            threads=(1,),
            seconds=0.1,
        ),
    )
    names = ["ferplus_tvm", "peer.so", "peer.so (2)", narrow_library.name]  # an A/A control
    assert [each.engine for each in report.rows[0].engines] == names
    assert [each.peer for each in report.rows[0].ratios] == names[1:]
    assert list(report.peer_libraries) == names[1:]
    for about in (report.library, *report.peer_libraries.values()):
        assert about["off_float64"] < 1e-4 and about["precision"] == "float32"
        assert (about["kernels"], about["tuned"]) == (len(manifest.kernels), 0)
        assert about["tunable"] == len(manifest.tunable)


@pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is an extra of its own"
)
def test_torch_computes_the_same_scores(narrow_model: Path, tmp_path: Path) -> None:
    from ferplus_tvm.importer import load_model

    path = tmp_path / "model.onnx"
    path.write_bytes(load_model(narrow_model).proto.SerializeToString())
    given = faces(3)
    opened = {kind: catalog.open_engine(kind, str(path), 1, 3) for kind in ("onnxruntime", "torch")}
    first, other = (np.asarray(each.scores(given)) for each in opened.values() if each.scores)
    assert np.abs(first - other).max() <= 1e-5 * np.abs(first).max()


@pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is an extra of its own"
)
def test_torch_refuses_an_operator_that_it_does_not_know(tmp_path: Path) -> None:
    from ferplus_tvm.bench.engines.torch_model import of_onnx

    given, wanted = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"
    )
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Erf", ["x"], ["y"])], "g", [given], [wanted]
    )
    onnx.save(onnx.helper.make_model(graph), tmp_path / "erf.onnx")
    with pytest.raises(UnsupportedModelError, match="Erf"):
        of_onnx(str(tmp_path / "erf.onnx"))


@pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="openvino is an extra of its own"
)
def test_openvino_at_another_precision_is_measured_at_float32_too(
    narrow_library: Path, narrow_model: Path
) -> None:
    report, _ = bench(
        narrow_library,
        narrow_model,
        BenchOptions(peers=("openvino",), batch_sizes=(1,), threads=(1,), seconds=0.1),
    )
    _, *others = report.rows[0].engines
    assert any(each.precision == "float32" and each.difference < 1e-4 for each in others)
    for each in others:
        assert each.precision == "float32" or each.precision in each.engine
