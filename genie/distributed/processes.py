"""The processes that share a stage's work: which of them this is, what is its share, and waiting for the others.

They know each other by torchrun's variables. Nothing here takes torch, which takes seconds, where one works alone.
"""

import os
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genie.core.params import RuntimeParams


PATIENCE = timedelta(days=30)  # for the slowest: whoever loses the others is ended by what started them all


def rank() -> int:
    """Which process this is, from 0."""
    return int(os.environ.get("RANK", 0))


def num_processes() -> int:
    """How many share the stage."""
    return int(os.environ.get("WORLD_SIZE", 1))


def num_threads(runtime: "RuntimeParams") -> int:
    """CPU threads to use: those asked for, or one a core this process may run on; its share of them as one of several
    processes."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (runtime.threads or cores) // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def wait_for_all() -> None:
    """Returns once all processes have come here."""
    if num_processes() == 1:
        return
    from torch import distributed

    if not distributed.is_initialized():
        distributed.init_process_group("gloo", timeout=PATIENCE)
    # A group of its own: that of an accelerator loses its patience in minutes.
    distributed.barrier(distributed.new_group(backend="gloo", timeout=PATIENCE))
