"""A cubin in TVM's packed modules: the format is known byte by byte, and any other is refused."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import pytest
import tvm

import ferplus_tvm as fer
from ferplus_tvm import targets
from ferplus_tvm.compiler import build, pipeline
from ferplus_tvm.errors import CudaCompilerError
from ferplus_tvm.kernels import backend_of
from ferplus_tvm.lowering.layers import layers_of
from ferplus_tvm.lowering.writer import lower
from ferplus_tvm.toolchain import cubin
from ferplus_tvm.toolchain.cubin import with_cubin
from tests.artifacts import assert_sentence
from tests.chains import Chain

SOURCE = b'extern "C" __global__ void kernel() {}'
CODE = b"\x7fELF machine code"
KERNELS = b"what TVM knows of the kernels"


def string(content: bytes) -> bytes:
    return struct.pack("<Q", len(content)) + content


def vector(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers) + 1}Q", len(numbers), *numbers)


def packed(*modules: bytes, imports: bytes = vector(0, 2, 2, 2) + vector(1, 2)) -> bytes:
    body = imports + b"".join(modules)
    return string(body)


LIBRARY = string(b"_lib")
OTHER = string(b"relax.VMExecutable") + string(b"bytes of another module")


def cuda(content: bytes) -> bytes:
    return string(b"cuda") + string(content)


WHOLE = packed(LIBRARY, OTHER, cuda(string(b"cuda") + KERNELS + string(SOURCE)))


def test_the_source_gives_way_to_the_cubin_and_all_else_stays() -> None:
    expected = packed(LIBRARY, OTHER, cuda(string(b"cubin") + KERNELS + string(CODE)))
    assert with_cubin(WHOLE, SOURCE, CODE) == expected


def refused(blob: bytes) -> str:
    with pytest.raises(CudaCompilerError) as caught:
        with_cubin(blob, SOURCE, CODE)
    assert_sentence(
        str(caught.value),
        "apache-tvm 0.27",
        f"apache-tvm {tvm.__version__}",
        "ferplus_tvm[compile]",
    )
    return str(caught.value)


def test_one_that_is_cut_short_anywhere_is_refused() -> None:
    for size in range(len(WHOLE)):
        refused(WHOLE[:size])


ALTERED = {
    "longer": WHOLE + b"\0",
    "another module behind the last": string(WHOLE[8:] + OTHER),
    "no module of CUDA": packed(LIBRARY, OTHER, OTHER),
    "two modules of CUDA": packed(LIBRARY, *[cuda(string(b"cuda") + KERNELS + string(SOURCE))] * 2),
    "another format of code": packed(
        LIBRARY, OTHER, cuda(string(b"ptx") + KERNELS + string(SOURCE))
    ),
    "another source": packed(LIBRARY, OTHER, cuda(string(b"cuda") + KERNELS + string(b"int x;"))),
    "bytes behind the source": packed(
        LIBRARY, OTHER, cuda(string(b"cuda") + KERNELS + string(SOURCE) + b"\0")
    ),
    "32-bit lengths": struct.pack("<I", len(WHOLE)) + WHOLE[8:],
    "a length beyond all": packed(LIBRARY, OTHER, string(b"cuda") + struct.pack("<Q", 2**63)),
    "no import tree": packed(imports=vector() + vector()),
    "nothing": b"",
}


@pytest.mark.parametrize("name", ALTERED)
def test_any_other_format_is_refused(name: str) -> None:
    refused(ALTERED[name])


def test_it_is_refused_without_assertions_too() -> None:
    code = """
import sys
from ferplus_tvm.errors import CudaCompilerError
from ferplus_tvm.toolchain.cubin import with_cubin
assert False, "assertions are on"
try:
    with_cubin(bytes.fromhex(sys.argv[1]), bytes.fromhex(sys.argv[2]), b"code")
except CudaCompilerError as error:
    print("refused", error)
"""
    for altered in (WHOLE[:-1], ALTERED["another source"]):
        command = [sys.executable, "-O", "-c", code, altered.hex(), SOURCE.hex()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout.startswith("refused")


def test_what_the_installed_tvm_packs_is_of_the_known_format() -> None:
    target = targets.resolve("cuda/sm_90")
    model = Chain().conv("a", 8).relu("r").pool("p").flatten().dense("d").model()
    lowered = lower(layers_of(model), (1,), backend_of(target), lambda workload: None)
    executable = build.executable(lowered.module, target)
    generated = cubin._generated(executable).encode()
    blob = cubin._packed_imports(executable.mod)
    assert generated in blob

    changed = with_cubin(blob, generated, CODE)

    assert generated not in changed and CODE in changed
    assert len(changed) - len(blob) == len(CODE) - len(generated) + len("cubin") - len("cuda")
    others = blob.index(string(b"cuda"))  # the modules that are packed before it
    assert changed[8:others] == blob[8:others]


def test_a_compilation_with_another_tvm_ends_in_one_sentence_and_leaves_nothing(
    short_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed_imports = cubin._packed_imports
    monkeypatch.setattr(cubin, "_packed_imports", lambda module: packed_imports(module) + b"\0")
    monkeypatch.setattr(cubin, "require_compiler", lambda: lambda source, arch: CODE)
    monkeypatch.setattr(pipeline, "require_tools", lambda target: None)

    with pytest.raises(CudaCompilerError) as caught:
        fer.compile(short_model, "cuda/sm_90", tmp_path / "m.so", [1])

    assert_sentence(str(caught.value), "unknown format", "ferplus_tvm[compile]")
    assert list(tmp_path.iterdir()) == []
