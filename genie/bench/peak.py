"""Peak memory of a process, and of its GPU."""

import resource
import sys

import torch

from genie.bench.figures import Figure


def peak_memory(part: str, beside: str = "") -> Figure:
    """Peak memory of this process so far. It is that of a part only if the part has a process of its own."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB elsewhere
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return Figure(f"{part}.peak_memory", peak / 2**20, "MiB", beside)


def device_memory(part: str, device: torch.device) -> list[Figure]:
    """Peak so far of the memory that this process's tensors took on a CUDA device, and that torch reserved for them;
    nothing on other devices."""
    if device.type != "cuda":
        return []
    peaks = {"device": torch.cuda.max_memory_allocated(device), "reserved": torch.cuda.max_memory_reserved(device)}
    return [Figure(f"{part}.peak_{name}_memory", peak / 2**20, "MiB") for name, peak in peaks.items()]
