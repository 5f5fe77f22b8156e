"""The processes that share a stage's work: rank, number of processes, cores and memory, and a barrier.

They are known by torchrun's environment variables. torch, which takes seconds to import, is imported only for the
barrier of several processes.
"""

import math
import os
from datetime import timedelta
from typing import TYPE_CHECKING

from genie.core.containers import cores_allowed, memory_left

if TYPE_CHECKING:
    from genie.core.params import RuntimeParams


PATIENCE = timedelta(days=30)  # no timeout of its own: the launcher ends orphans


def rank() -> int:
    """Rank of this process, from 0."""
    return int(os.environ.get("RANK", 0))


def num_processes() -> int:
    """Number of processes that share the stage."""
    return int(os.environ.get("WORLD_SIZE", 1))


def num_local_processes() -> int:
    """How many of them run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def num_threads(runtime: "RuntimeParams") -> int:
    """CPU threads to use: `runtime.threads`, or one per core that this process may use; divided by the number of
    processes on this machine."""
    return max(1, (runtime.threads or num_cores()) // num_local_processes())


def num_cores() -> int:
    """CPU cores that this process may use: its affinity, and the quota of its container, rounded up."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cores_allowed()
    return cores if math.isinf(quota) else max(1, min(cores, math.ceil(quota)))


def free_memory() -> int:
    """Bytes of memory that new processes can have: the machine's, and no more than its container's limit leaves."""
    import psutil  # here, since playing a world does without it

    return int(min(psutil.virtual_memory().available, memory_left()))


def wait_for_all() -> None:
    """Barrier: returns once all processes have called it."""
    if num_processes() == 1:
        return
    from torch import distributed

    if not distributed.is_initialized():
        distributed.init_process_group("gloo", timeout=PATIENCE)
    # A group of its own: an accelerator's times out within minutes.
    group = distributed.new_group(backend="gloo", timeout=PATIENCE)
    distributed.barrier(group)  # pyright: ignore[reportArgumentType]
