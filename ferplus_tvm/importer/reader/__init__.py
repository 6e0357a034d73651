"""From a graph, as any tool writes it, to the list of steps that it computes.

The reader follows the one chain of operators from the faces to the scores.  Each module here
knows a family of operators; none of them looks at its neighbours, so any order will do.
"""

from __future__ import annotations

from ferplus_tvm.importer.reader.follow import read_chain, start

__all__ = ["read_chain", "start"]
