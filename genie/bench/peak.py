"""Peak memory of a process."""

import resource
import sys

from genie.bench.figures import Figure


def peak_memory(part: str, beside: str = "") -> Figure:
    """Peak memory of this process so far. It is that of a part only if the part has a process of its own."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB elsewhere
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return Figure(f"{part}.peak_memory", peak / 2**20, "MiB", beside)
