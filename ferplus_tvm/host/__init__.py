"""The machine this runs on: CPU and GPUs, TVM's runtime library, child processes, files."""
