"""FER+ facial emotion recognition, compiled with Apache TVM."""
