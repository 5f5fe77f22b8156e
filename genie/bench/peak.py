"""How much memory a process took at most."""

import resource
import sys

from genie.bench.figures import Figure


def peak_memory(part: str, beside: str = "") -> Figure:
    """What this process has held at most until now, and so only in a process of its own that of a part."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return Figure(f"{part}.peak_memory", peak / 2**20, "MiB", beside)
