"""The file format of a compiled library, read and written with the standard library."""
