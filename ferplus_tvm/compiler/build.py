"""From a Relax module of kernel calls to native code."""

from __future__ import annotations

from typing import Any

from ferplus_tvm.kernels.cpu.tensorir import pass_context
from ferplus_tvm.targets import ResolvedTarget
from ferplus_tvm.toolchain.cuda_compiler import kernels_as_source


def executable(module: Any, target: ResolvedTarget) -> Any:
    """Return the ``VMExecutable`` of a module whose every call is a kernel.

    The passes are those that TVM's own pipeline ends with.  Nothing is legalised or fused here,
    since lowering has chosen every kernel.  On a GPU, all launches but the first, which reads the
    faces, and the last, which writes the scores, are one CUDA graph.
    """
    import tvm
    from tvm import relax

    passes = relax.transform
    pipeline = tvm.transform.Sequential(
        [
            # functional graph -> calls that write into buffers
            passes.ToNonDataflow(),
            passes.RemovePurityChecking(),
            passes.CallTIRRewrite(),
            # memory of dead tensors is reused
            passes.StaticPlanBlockMemory(),
            *([] if target.gpu is None else [passes.RewriteCUDAGraph()]),
            passes.LowerAllocTensor(),
            passes.KillAfterLastUse(),
            # to instructions of the virtual machine
            passes.LowerRuntimeBuiltin(),
            passes.ComputePrimValue(),
            passes.VMShapeLower(),
            passes.AttachGlobalSymbol(),
        ]
    )
    tvm_target = target.tvm_target()
    with tvm_target, pass_context(cuda_graph=target.gpu is not None), kernels_as_source():
        return relax.build(module, tvm_target, relax_pipeline=pipeline)
