"""The machine that runs: its CPU and GPUs, TVM's runtime library, processes, locks, files."""
