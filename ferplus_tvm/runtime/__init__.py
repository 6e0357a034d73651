"""The runtime half: open a compiled library and run it, with apache-tvm-ffi alone."""
