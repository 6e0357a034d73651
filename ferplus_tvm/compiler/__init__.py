"""The compiler: from an ONNX model to a library file."""
