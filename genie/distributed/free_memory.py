"""Free memory of a device."""

import psutil
import torch

from genie.core.containers import memory_left


def free_bytes(device: torch.device) -> int:
    """Memory that a new process can have on a device; on a CPU no more than its container's limit leaves."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return int(min(psutil.virtual_memory().available, memory_left()))
