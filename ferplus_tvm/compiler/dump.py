"""What the compiler saw after each phase, one numbered file a phase, for whoever debugs it.

    01-tidy.onnx       the graph that the importer's rules made of the model
    01-tidy.txt        the same as text, with weights as shapes
    02-relax.py        Relax as imported
    03-lowered.py      Relax with a call of a kernel for each layer, one function a batch size
    04-tensorir.py     these kernels
    05-assembly.s      machine code for a CPU
    05-kernels.cu      or the source that the CUDA compiler gets for a GPU

Files are written as soon as the phase is over, so that those before a failure are there.  What
belongs to one of several targets lies in a folder of the target's name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ferplus_tvm.compiler.options import CompileOptions
from ferplus_tvm.errors import CompileError
from ferplus_tvm.importer.relax import to_relax
from ferplus_tvm.targets import ResolvedTarget
from ferplus_tvm.toolchain.cubin import cuda_source

_OF_MODEL = ("01-tidy.onnx", "01-tidy.txt", "02-relax.py")
_OF_TARGET = ("03-lowered.py", "04-tensorir.py", "05-assembly.s", "05-kernels.cu")
_SMALL = 8  # values of a stored tensor that the text shows


class Dump:
    """Writes the files of one compilation, or nothing where no dump was asked for.

    Parameters
    ----------
    options
        The folder is ``options.dump``; it is made, and files of an earlier dump in it are removed.

    Raises
    ------
    CompileError
        By every method, if the folder cannot be written to.
    """

    def __init__(self, options: CompileOptions) -> None:
        self._folder = options.dump
        self._several = len(options.targets) > 1
        if self._folder is None:
            return
        with self._writing():
            for folder in (self._folder, *map(self._folder_of, options.targets)):
                folder.mkdir(exist_ok=True)
                for name in (*_OF_MODEL, *_OF_TARGET):
                    (folder / name).unlink(missing_ok=True)

    def imported(self, model: onnx.ModelProto) -> None:
        """Write the tidy graph, and what it is in Relax."""
        if self._folder is None:
            return
        with self._writing():
            (self._folder / "01-tidy.onnx").write_bytes(model.SerializeToString())
            _write(self._folder / "01-tidy.txt", _as_text(model))
            _write(self._folder / "02-relax.py", to_relax(model).module.script())

    def lowered(self, target: ResolvedTarget, module: Any) -> None:
        """Write the Relax functions of a module of kernel calls, and its kernels."""
        if self._folder is None:
            return
        import tvm
        from tvm import relax

        calls: dict[Any, Any] = {}
        kernels: dict[Any, Any] = {}
        for name, function in module.functions.items():
            (calls if isinstance(function, relax.Function) else kernels)[name] = function
        folder = self._folder_of(target)
        with self._writing():
            _write(folder / "03-lowered.py", tvm.IRModule(calls).script())
            _write(folder / "04-tensorir.py", tvm.IRModule(kernels).script())

    def compiled(self, target: ResolvedTarget, executable: Any) -> None:
        """Write the assembly of a CPU's kernels, or the CUDA source of a GPU's."""
        if self._folder is None:
            return
        folder = self._folder_of(target)
        with self._writing():
            if target.gpu is not None:
                _write(folder / "05-kernels.cu", cuda_source(executable))
            else:
                _write(folder / "05-assembly.s", _assembly(executable))

    def _folder_of(self, target: ResolvedTarget) -> Path:
        assert self._folder is not None
        return self._folder / target.name.replace("/", "-") if self._several else self._folder

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CompileError(
                f"the dump {self._folder} cannot be written ({error.strerror or error}): make room "
                "or give another folder"
            ) from error


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _as_text(model: onnx.ModelProto) -> str:
    """Return a model in ONNX's textual syntax, its weights by type and shape alone."""
    short = onnx.ModelProto()
    short.CopyFrom(model)
    stored = list(short.graph.initializer)
    del short.graph.initializer[:]
    for tensor in stored:
        if np.prod(tensor.dims) <= _SMALL:
            short.graph.initializer.append(tensor)
        else:
            short.graph.value_info.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
    return str(onnx.printer.to_text(short))


def _assembly(executable: Any) -> str:
    """Return the assembly of an executable's modules that LLVM has made."""
    modules = [module for module in executable.mod.imports if module.kind == "llvm"]
    return "\n".join(str(module.inspect_source("s")) for module in modules)
