"""The numbers of the file format; `ferplus_tvm.artifact.library_file` describes it."""

from __future__ import annotations

import struct

FORMAT = 4
"""The version of the format."""

PAGE = 4096
"""The images' lengths are multiples of it, in bytes."""

ALIGNMENT = 64
"""The offsets of weights are multiples of it, in bytes."""

ITEM_BYTES = {"float32": 4, "float16": 2}
"""The types that weights are stored in, with their sizes."""

CHUNK = 1 << 22
"""The bytes of the weights that a digest is of."""

FOOTER = struct.Struct("<4Q32s32s12sI")
SIGNED = 64
"""The bytes of the footer that its own digest is of."""

MAGIC = b"FERPLUS-TVM\n"
