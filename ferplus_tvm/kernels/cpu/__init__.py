"""Kernels for CPUs, emitted as TensorIR."""
