"""The tools outside of Python that a compilation runs: linkers and CUDA's compilers."""
