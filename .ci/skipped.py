"""Read which tests were skipped and why: print their ids, or one line for people.

The file is what FERPLUS_SKIPPED_TESTS named when they were run.
"""

import json
import sys
from collections import Counter
from pathlib import Path

from ferplus_tvm.errors import GpuError
from ferplus_tvm.host import gpu

what, file = sys.argv[1:]
skipped: dict[str, str] = json.loads(Path(file).read_text())
if what == "ids":
    print(*skipped, sep="\n", end="\n" if skipped else "")
else:
    reasons = [f"{reason} ({n} tests)" for reason, n in Counter(skipped.values()).most_common()]
    try:
        gpu.devices()
    except GpuError:
        reasons.append("no GPU, so that kernels for GPUs were only emulated")
    print("not run on this machine:", "; ".join(reasons) or "nothing")
