"""Libraries for GPUs, run on an emulated one: the driver and CUDA's runtime are stand-ins.

What runs is the library with TVM's host code, TVM's runtime for GPUs and the engine; in place of
the kernels' machine code is the same source compiled for the CPU.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import ferplus_tvm as fer
from ferplus_tvm.artifact import reference_inputs
from ferplus_tvm.artifact.library_file import read_manifest
from ferplus_tvm.importer import load_model
from ferplus_tvm.kernels.backend import Algorithm, Config
from ferplus_tvm.kernels.cuda.backend import CudaBackend
from ferplus_tvm.kernels.workloads import Conv
from ferplus_tvm.lowering.layers import layers_of
from ferplus_tvm.lowering.planner import plan
from ferplus_tvm.targets import GPUS
from tests.artifacts import assert_sentence, read_manifests
from tests.cuda.conftest import SIZES, Run, needs_emulation
from tests.tuning.support import write_log

pytestmark = needs_emulation

# The scores of 1, 3, 4, 5 and 11 faces, after each other.
SCORES = """
    import json, sys
    import numpy as np
    import ferplus_tvm as fer
    from ferplus_tvm.artifact import reference_inputs
    with fer.load({path!r}, device="cuda:0") as engine:
        faces = reference_inputs.inputs(7, 11)
        answers = [engine.scores(faces[:n]).tolist() for n in (1, 3, 4, 5, 11)]
        print(json.dumps({{"answers": answers, "target": engine.manifest.target}}))
"""


def answer(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def refuses(done: subprocess.CompletedProcess[str], kind: str, *parts: str) -> None:
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ferplus_tvm.errors.{kind}: "), done.stderr
    assert_sentence(last.partition(": ")[2], *parts)


def reference(model: Path, count: int) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    faces = reference_inputs.inputs(7, 11)[:count]
    return np.concatenate([session.run(None, {name: face[None]})[0] for face in faces])


def test_scores_are_those_of_onnxruntime_for_any_number_of_faces(
    model: Path, library: Path, run_on: Run
) -> None:
    found = answer(run_on(SCORES.format(path=str(library))))
    assert found["target"] == "cuda/sm_90"
    expected = reference(model, 11)
    assert isinstance(found["answers"], list)
    for scores, count in zip(found["answers"], (1, 3, 4, 5, 11), strict=True):
        assert reference_inputs.relative_error(np.asarray(scores), expected[:count]) < 1e-5


def test_a_log_may_choose_winograds_algorithm_for_a_batch(
    model: Path, run_on: Run, tmp_path: Path
) -> None:
    backend = CudaBackend(GPUS["sm_90"], "float32")
    layers = layers_of(load_model(model).proto)
    algorithms = {"third": Algorithm.WINOGRAD_F4, "fourth": Algorithm.WINOGRAD_F2}
    logged: list[tuple[Conv, Config | None]] = []
    for batch in SIZES:
        for planned in plan(layers, batch, backend, lambda workload: None):
            algorithm, w = algorithms.get(planned.layer.name), planned.key
            if algorithm is not None and isinstance(w, Conv):
                (config,) = [c for c in backend.presets(w) if c.algorithm is algorithm]
                logged.append((w, config if batch == 4 else None))
    assert len(logged) == 2 * len(SIZES)
    logs, output = tmp_path / "logs", tmp_path / "m.so"
    write_log(logs, "cuda/sm_90", logged)
    command = ["compile", str(model), "--target", "cuda/sm_90", "--tuning-logs", str(logs)]
    done = run_on([*command, "--batch", "1,4", "-o", str(output)])
    assert done.returncode == 0, done.stderr
    chosen = {(k.layer, k.batch): k.algorithm for k in read_manifest(output).kernels if k.tuned}
    assert chosen == {("third", 4): "Winograd F(4,3)", ("fourth", 4): "Winograd F(2,3)"}
    found = answer(run_on(SCORES.format(path=str(output))))["answers"]
    assert isinstance(found, list)
    assert reference_inputs.relative_error(np.asarray(found[-1]), reference(model, 11)) < 1e-5


@pytest.mark.parametrize("precision", ["tf32", "float16"])
def test_other_precisions_are_within_their_tolerance(
    model: Path, precision: str, run_on: Run, tmp_path: Path
) -> None:
    output = tmp_path / "m.so"
    command = ["compile", str(model), "--target", "cuda/sm_90", "--precision", precision]
    done = run_on([*command, "--batch", "1,4", "-o", str(output)])
    assert done.returncode == 0, done.stderr
    assert read_manifest(output).precision == precision
    done = run_on(["verify", str(output), "--json"])
    assert done.returncode == 0, done.stderr
    errors = json.loads(done.stdout)
    assert set(errors["errors"]) == {"1", "4"}
    assert all(1e-6 < error < errors["tolerance"] / 2 for error in errors["errors"].values())


def test_later_calls_launch_one_graph_between_the_first_and_the_last_kernel(
    library: Path, run_on: Run, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    code = """
        import ferplus_tvm as fer
        from ferplus_tvm.artifact import reference_inputs
        with fer.load({path!r}, device="cuda:0") as engine:
            for _ in range(3):
                engine.scores(reference_inputs.inputs(1, 1))
    """
    assert run_on(code.format(path=str(library)), LOG=log).returncode == 0
    lines = log.read_text().splitlines()
    # behind the first copy of faces: the weights' are before
    calls = "\n".join(lines).split("copy from GPU")
    assert len(calls) == 4
    assert any(line.startswith("record") for line in calls[0].splitlines())
    for call in calls[1:3]:
        kernels = [line for line in call.splitlines() if line.startswith(("launch", "graph"))]
        assert [line.split()[0] for line in kernels] == ["launch", "graph", "launch"]
        assert "64x64" in kernels[0] and "last" in kernels[2]
        assert "record" not in call


@pytest.mark.parametrize(("arch", "chosen"), [("sm_80", "sm_80"), ("sm_86", "sm_80")])
def test_the_nearest_architecture_is_chosen(
    library: Path, arch: str, chosen: str, run_on: Run
) -> None:
    found = answer(run_on(SCORES.format(path=str(library)), arch))
    assert found["target"] == f"cuda/{chosen}"


@pytest.mark.parametrize("arch", ["sm_75", "sm_100", "sm_120"])
def test_another_architecture_is_refused_by_name(library: Path, arch: str, run_on: Run) -> None:
    done = run_on(SCORES.format(path=str(library)), arch)
    refuses(done, "GpuError", arch, "--target cuda", "machine code for sm_")


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"STATUS": 100}, ("CUDA_ERROR_NO_DEVICE", "nvidia-smi")),
        ({"GPUS": 0}, ("no GPU", "CUDA_VISIBLE_DEVICES")),
        ({"BYTES": 20000}, ("memory of cuda:0 (Emulated GPU) is full", "smaller batches")),
    ],
)
def test_a_gpu_that_cannot_be_used_is_one_sentence(
    library: Path, settings: dict[str, int], parts: tuple[str, ...], run_on: Run
) -> None:
    refuses(run_on(SCORES.format(path=str(library)), **settings), "GpuError", *parts)


def test_memory_that_is_full_in_a_call_is_one_sentence(library: Path, run_on: Run) -> None:
    code = """
        import os
        import ferplus_tvm as fer
        from ferplus_tvm.artifact import reference_inputs
        engine = fer.load({path!r}, device="cuda:0")
        os.environ["FERPLUS_EMULATED_BYTES"] = "1"
        engine.scores(reference_inputs.inputs(1, 4))
    """
    done = run_on(code.format(path=str(library)), BYTES=1 << 30)
    refuses(done, "GpuError", "is full", "nvidia-smi")


def test_a_gpu_that_is_not_there_is_refused_with_those_that_are(library: Path, run_on: Run) -> None:
    code = f"import ferplus_tvm as fer; fer.load({str(library)!r}, device='cuda:2')"
    refuses(run_on(code, GPUS=2), "GpuError", "cuda:2", "cuda:0 (Emulated GPU)", "cuda:1")


def test_tensors_on_the_gpu_are_read_and_left_there(
    model: Path, library: Path, run_on: Run, tmp_path: Path
) -> None:
    code = """
        import ctypes, json
        import numpy as np
        import tvm_ffi
        import ferplus_tvm as fer
        from ferplus_tvm.artifact import reference_inputs

        class Tensor:  # as PyTorch's: DLPack, and which stream it is for
            def __init__(self, array):
                global streams
                allocate = tvm_ffi.get_global_func("runtime.TVMTensorAllocWithScope")
                self.tensor = allocate(
                    tvm_ffi.Shape(array.shape), tvm_ffi.dtype("float32"),
                    tvm_ffi.device("cuda:0"), None,
                )
                memory = (ctypes.c_float * array.size).from_address(self.tensor.data_ptr())
                np.ctypeslib.as_array(memory)[:] = array.ravel()
            def __dlpack__(self, stream=None, **options):
                streams.append(stream)
                return self.tensor.__dlpack__()
            def __dlpack_device__(self):
                return (2, 0)

        streams, answers, copies = [], [], []
        def copied():
            return open({log!r}).read().count("copy")
        with fer.load({path!r}, device="cuda") as engine:
            for count in (1, 4, 7, 2):
                given = Tensor(reference_inputs.inputs(7, 11)[:count])
                before = copied()
                scores = engine.scores_on_gpu(given)
                copies.append(copied() - before)
                assert scores.__dlpack_device__() == (2, 0)
                memory = (ctypes.c_float * (8 * count)).from_address(scores.data_ptr())
                answers.append(np.ctypeslib.as_array(memory).reshape(count, 8).tolist())
        print(json.dumps({{"answers": answers, "copies": copies, "streams": streams}}))
    """
    log = tmp_path / "log"
    found = answer(run_on(code.format(path=str(library), log=str(log)), LOG=log))
    expected = reference(model, 11)
    answers, copies = found["answers"], found["copies"]
    assert isinstance(answers, list) and isinstance(copies, list)
    for scores, count in zip(answers, (1, 4, 7, 2), strict=True):
        assert reference_inputs.relative_error(np.asarray(scores), expected[:count]) < 1e-5
    assert copies[:2] == [0, 0]  # sizes that are compiled
    assert found["streams"] == [1, 1, 1, 1]  # ready for CUDA's default stream


def test_tensors_that_are_elsewhere_or_otherwise_are_refused(library: Path, run_on: Run) -> None:
    code = """
        import json
        import numpy as np
        import tvm_ffi
        import ferplus_tvm as fer
        def on_gpu(shape, dtype):
            allocate = tvm_ffi.get_global_func("runtime.TVMTensorAllocWithScope")
            device = tvm_ffi.device("cuda:0")
            return allocate(tvm_ffi.Shape(shape), tvm_ffi.dtype(dtype), device, None)
        said = []
        with fer.load({path!r}, device="cuda:0") as engine:
            for tensor in (
                np.zeros((1, 1, 64, 64), np.float32),
                [0.0],
                on_gpu((1, 64, 64), "float32"),
                on_gpu((1, 1, 64, 64), "float16"),
            ):
                try:
                    engine.scores_on_gpu(tensor)
                except fer.errors.InputError as error:
                    said.append(str(error))
        print(json.dumps({{"said": said}}))
    """
    said = answer(run_on(code.format(path=str(library))))["said"]
    assert isinstance(said, list) and len(said) == 4
    assert_sentence(said[0], "cuda:0", "(1, 0)")
    assert_sentence(said[1], "DLPack", "list")
    assert_sentence(said[2], "float32 (1, 64, 64)", "(N, 1, 64, 64)")
    assert_sentence(said[3], "float16 (1, 1, 64, 64)", "float32")


def test_many_threads_get_the_answers_of_one(library: Path, run_on: Run) -> None:
    code = """
        from concurrent.futures import ThreadPoolExecutor
        import numpy as np
        import ferplus_tvm as fer
        from ferplus_tvm.artifact import reference_inputs
        faces = reference_inputs.inputs(3, 16)
        with fer.load({path!r}, device="cuda:0") as engine:
            alone = [engine.scores(face[None]) for face in faces]
            with ThreadPoolExecutor(8) as pool:
                together = list(pool.map(lambda face: engine.scores(face[None]), faces))
        np.testing.assert_array_equal(together, alone)
    """
    done = run_on(code.format(path=str(library)))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("closes", [True, False])
def test_a_forked_process_is_told_to_load_the_library_itself(
    library: Path, run_on: Run, closes: bool
) -> None:
    code = """
        import os, sys
        import ferplus_tvm as fer
        from ferplus_tvm.artifact import reference_inputs
        engine = fer.load({path!r}, device="cuda:0")
        engine.scores(reference_inputs.inputs(1, 1))
        child = os.fork()
        if child == 0:
            try:
                engine.scores(reference_inputs.inputs(1, 1))
            except fer.errors.GpuError as error:
                print(error, flush=True)
            if {closes}:
                engine.close()
            sys.exit(7)  # as a worker of a web server ends
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        engine.scores(reference_inputs.inputs(1, 1))
    """
    done = run_on(code.format(path=str(library), closes=closes))
    assert done.returncode == 0, done.stderr
    assert_sentence(done.stdout.strip(), "forked", "spawn")


def test_engines_that_start_together_do_not_disturb_each_other(library: Path, run_on: Run) -> None:
    code = """
        from concurrent.futures import ThreadPoolExecutor
        import numpy as np
        import ferplus_tvm as fer
        from ferplus_tvm.artifact import reference_inputs
        faces = reference_inputs.inputs(3, 7)
        def work(_):
            with fer.load({path!r}, device="cuda:0") as engine:
                return engine.scores(faces).tobytes()
        with ThreadPoolExecutor(4) as pool:
            assert len(set(pool.map(work, range(12)))) == 1
    """
    done = run_on(code.format(path=str(library)))
    assert done.returncode == 0, done.stderr


def test_an_app_outlives_a_gpu_that_has_failed(library: Path, run_on: Run) -> None:
    code = """
        import os
        import ferplus_tvm as fer
        from ferplus_tvm.artifact import reference_inputs
        with fer.load({path!r}, device="cuda:0") as engine:
            os.environ["FERPLUS_EMULATED_BROKEN"] = "1"
            try:
                engine.scores(reference_inputs.inputs(1, 1))
            except fer.errors.GpuError as error:
                print(error)
        print("still here")
    """
    done = run_on(code.format(path=str(library)))
    assert done.returncode == 0, done.stderr
    error, last = done.stdout.splitlines()
    assert_sentence(error, "cuda:0", "nvidia-smi")
    assert last == "still here"


def test_a_tensor_that_its_framework_does_not_hand_out_is_refused(
    library: Path, run_on: Run
) -> None:
    code = """
        import ferplus_tvm as fer
        class Tensor:
            def __dlpack__(self, stream=None):
                raise BufferError("Can't export tensors that require gradient, use tensor.detach()")
            def __dlpack_device__(self):
                return (2, 0)
        with fer.load({path!r}, device="cuda:0") as engine:
            engine.scores_on_gpu(Tensor())
    """
    done = run_on(code.format(path=str(library)))
    refuses(done, "InputError", "require gradient", "detach")


def test_engines_are_opened_and_closed_without_a_trace(
    library: Path, run_on: Run, tmp_path: Path
) -> None:
    code = """
        import tvm_ffi
        import ferplus_tvm as fer
        from ferplus_tvm.artifact import reference_inputs
        left = []
        for _ in range(5):
            with fer.load({path!r}, device="cuda:0") as engine:
                engine.scores(reference_inputs.inputs(1, 5))
            left.append(tvm_ffi.get_global_func("runtime.GetCudaFreeMemory")())
        print(left)
        assert len(set(left[1:])) == 1
    """
    done = run_on(code.format(path=str(library)))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_command_line_knows_the_gpu(library: Path, run_on: Run) -> None:
    shown = run_on(["info", str(library)])
    assert shown.returncode == 0, shown.stderr
    assert "yes" in shown.stdout.splitlines()[0]
    assert "cuda/sm_80, cuda/sm_90" in shown.stdout
    listed = json.loads(run_on(["targets", "--json"]).stdout)
    runs = {entry["name"]: entry["runs_here"] for entry in listed}
    assert runs["cuda"] and runs["cuda/sm_90"] and not runs["cuda/sm_80"]
    detected = run_on(["targets", "--detect"])
    assert "Emulated GPU" in detected.stdout and "cuda/sm_90" in detected.stdout
    assert "Emulated GPU" in run_on(["doctor"]).stdout


def test_cuda_is_this_machines_gpu_and_compiling_checks_the_library(
    model: Path, run_on: Run, tmp_path: Path
) -> None:
    output = tmp_path / "here.so"
    sizes = ",".join(map(str, SIZES))
    command = ["compile", str(model), "--target", "cuda", "-o", str(output), "--batch", sizes]
    done = run_on([*command, "--json"])
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["verified"]
    (manifest,) = result["manifests"]
    assert manifest["target"] == "cuda/sm_90" and manifest["check"]["error"] < 1e-5


def test_a_cpu_and_gpus_share_a_library(model: Path, run_on: Run, tmp_path: Path) -> None:
    output = tmp_path / "both.so"
    command = ["compile", str(model), "--target", "native,cuda/sm_90", "--batch", "1,4"]
    done = run_on([*command, "-o", str(output)])
    assert done.returncode == 0, done.stderr
    assert [bool(each.gpu_arch) for each in read_manifests(output)] == [False, True]
    faces = reference_inputs.inputs(7, 11)
    with fer.load(output) as engine:
        assert not engine.manifest.gpu_arch
        here = engine.scores(faces)
    found = answer(run_on(SCORES.format(path=str(output))))
    assert found["target"] == "cuda/sm_90" and isinstance(found["answers"], list)
    assert (
        reference_inputs.relative_error(np.asarray(found["answers"][-1]), here.astype(float)) < 1e-5
    )
